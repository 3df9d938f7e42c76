//! The text form of keys: BIP 173, without its limit of 90 characters.

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
/// How many characters the checksum has.
const CHECKSUM: usize = 6;

fn checksum(prefix: &str, digits: impl Iterator<Item = u8>) -> u32 {
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    high.chain([0]).chain(low).chain(digits).fold(1, |sum, digit| {
        let top = sum >> 25;
        let sum = ((sum & 0x1ff_ffff) << 5) ^ u32::from(digit);
        GENERATOR.iter().enumerate().fold(
            sum,
            |sum, (bit, generator)| {
                if (top >> bit) & 1 == 1 { sum ^ generator } else { sum }
            },
        )
    })
}

/// Regroups bits; what is left over must be zeros where `pads` is false.
fn regroup(digits: impl Iterator<Item = u8>, from: u32, to: u32, pads: bool) -> Option<Vec<u8>> {
    let (mut held, mut bits, mut out) = (0u32, 0, Vec::new());
    for digit in digits {
        held = (held << from) | u32::from(digit);
        bits += from;
        while bits >= to {
            bits -= to;
            out.push(u8::try_from((held >> bits) & ((1 << to) - 1)).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    if pads && bits > 0 {
        out.push(u8::try_from((held << (to - bits)) & ((1 << to) - 1)).ok()?);
    }
    (pads || (bits < from && held == 0)).then_some(out)
}

/// The text of some bytes, in small letters.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> String {
    let digits = regroup(bytes.iter().copied(), 8, 5, true).unwrap_or_default();
    let sum = checksum(prefix, digits.iter().copied().chain([0; CHECKSUM])) ^ 1;
    let check = (0..CHECKSUM).rev().map(|at| ((sum >> (5 * at)) & 31) as u8);
    let letters = digits.iter().copied().chain(check).map(|digit| ALPHABET[usize::from(digit)] as char);
    format!("{prefix}1{}", letters.collect::<String>())
}

/// The bytes of a text with this prefix, which is given in small letters; none where the text is damaged.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let letters = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let digit =
        |byte| ALPHABET.iter().position(|letter| *letter == byte).and_then(|at| u8::try_from(at).ok());
    let digits: Vec<u8> = letters.bytes().map(digit).collect::<Option<_>>()?;
    if digits.len() < CHECKSUM || checksum(prefix, digits.iter().copied()) != 1 {
        return None;
    }
    regroup(digits[..digits.len() - CHECKSUM].iter().copied(), 5, 8, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_and_damage_is_seen() {
        let bytes: Vec<u8> = (0..32).map(|byte| byte * 7).collect();
        let text = encode("age", &bytes);
        assert_eq!(decode("age", &text).as_deref(), Some(&bytes[..]));
        assert_eq!(decode("age", &text.to_uppercase()).as_deref(), Some(&bytes[..]));
        for at in 4..text.len() {
            let mut damaged = text.clone();
            let other = if &text[at..=at] == "q" { "p" } else { "q" };
            damaged.replace_range(at..=at, other);
            assert_eq!(decode("age", &damaged), None, "{at}");
        }
        let mixed = format!("{}{}", &text[..20].to_uppercase(), &text[20..]);
        for wrong in ["", "age1", "age1qqqqq", "xyz1", &mixed, &text.replace('1', "")] {
            assert_eq!(decode("age", wrong), None, "{wrong}");
        }
        // From BIP 173.
        assert_eq!(decode("a", "A12UEL5L"), Some(Vec::new()));
        assert_eq!(encode("a", &[]), "a12uel5l");
    }
}
