//! Putting a data key together from the shares of several key groups (Shamir's secret sharing over GF(2⁸),
//! as HashiCorp's Vault does it: the last byte of a share is its place).

/// Multiplies in GF(2⁸) with the polynomial of AES.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (0u8.wrapping_sub(b & 1));
        let carry = 0u8.wrapping_sub(a >> 7);
        a = (a << 1) ^ (0x1b & carry);
        b >>= 1;
    }
    product
}

/// One divided by a number that is not zero: its 254th power.
fn invert(a: u8) -> u8 {
    (0..253).fold(a, |power, _| multiply(power, a))
}

/// The secret of these shares; none where they do not fit together.
pub(super) fn combine(shares: &[Vec<u8>]) -> Option<Vec<u8>> {
    let length = shares.first()?.len().checked_sub(1)?;
    let places: Vec<u8> = shares.iter().map(|share| share.last().copied()).collect::<Option<_>>()?;
    let distinct = places.iter().enumerate().all(|(i, place)| *place != 0 && !places[..i].contains(place));
    if !distinct || shares.iter().any(|share| share.len() != length + 1) {
        return None;
    }
    // Each share's part in the value at zero (Lagrange); adding and subtracting are the same here.
    let weights: Vec<u8> = places
        .iter()
        .map(|own| {
            places
                .iter()
                .filter(|other| *other != own)
                .fold(1, |weight, other| multiply(weight, multiply(*other, invert(own ^ other))))
        })
        .collect();
    let byte = |at: usize| shares.iter().zip(&weights).fold(0, |sum, (s, w)| sum ^ multiply(s[at], *w));
    Some((0..length).map(byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of a secret by the lines through it: share(x) = secret + slope × x.
    fn share(secret: &[u8], slope: &[u8], place: u8) -> Vec<u8> {
        let points = secret.iter().zip(slope).map(|(secret, slope)| secret ^ multiply(*slope, place));
        points.chain([place]).collect()
    }

    #[test]
    fn any_two_of_three_shares_of_a_line_give_the_secret() {
        let (secret, slope) = ([0u8, 1, 0x53, 255], [7u8, 99, 0xca, 128]);
        let shares: Vec<Vec<u8>> = [3, 200, 91].map(|place| share(&secret, &slope, place)).to_vec();
        for two in [[0, 1], [1, 2], [0, 2]] {
            let two: Vec<Vec<u8>> = two.iter().map(|at| shares[*at].clone()).collect();
            assert_eq!(combine(&two).as_deref(), Some(&secret[..]));
        }
        assert_ne!(combine(&shares[..1]).as_deref(), Some(&secret[..]));
        assert_eq!(combine(&[shares[0].clone(), shares[0].clone()]), None);
        assert_eq!(combine(&[]), None);
        assert_eq!((multiply(0x57, 0x83), multiply(0x53, invert(0x53))), (0xc1, 1));
    }
}
