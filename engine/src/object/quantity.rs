//! `resource.Quantity`: numbers with a suffix, written in their canonical form.
//!
//! Rules: k8s.io/apimachinery `pkg/api/resource`: a decimal (`k`, `M`, `m`) or binary (`Ki`, `Mi`) suffix or a
//! decimal exponent; the canonical form has no fraction, no avoidable zeros, and the largest possible suffix.

/// The three ways to write a quantity's scale.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// Suffixes for powers of a thousand, from nano upwards.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Digits that are read; more are refused rather than rounded wrongly.
const MOST_DIGITS: usize = 36;

/// An amount of a resource such as `500m` or `1.5Gi`, exact to a billionth, with the way it was written.
///
/// ```
/// use engine::object::Quantity;
/// let sum = Quantity::parse("500m").unwrap().plus(&Quantity::parse("1").unwrap());
/// assert_eq!(sum.to_string(), "1500m");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

impl Quantity {
    /// Reads a quantity such as `0.5`, `100m`, `1Gi`, `1e3`; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        if whole.len() + fraction.len() > MOST_DIGITS {
            return None;
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let scale = -(fraction.len() as i32);
        let (format, exponent, binary) = suffix_of(suffix)?;
        let mut nano = shift(digits.checked_mul(1i128.checked_shl(binary)?)?, 9 + scale + exponent)?;
        if negative {
            nano = -nano;
        }
        Some(Self { nano, format })
    }

    /// A whole number.
    pub fn whole(number: i64) -> Self {
        Self { nano: i128::from(number) * 1_000_000_000, format: Format::Decimal }
    }

    /// Value in units of 10⁻⁹.
    pub fn nano(&self) -> i128 {
        self.nano
    }

    /// The value, as near as a float comes to it.
    pub fn value(&self) -> f64 {
        self.nano as f64 / 1e9
    }

    /// The sum, written as this one is, or as the other when this is zero.
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }
}

fn suffix_of(suffix: &str) -> Option<(Format, i32, u32)> {
    if let Some(index) = BINARY.iter().skip(1).position(|s| *s == suffix) {
        return Some((Format::Binary, 0, (index as u32 + 1) * 10));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Format::Decimal, *exponent, 0));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-30..=30).contains(&exponent).then_some((Format::Exponent, exponent, 0))
}

/// Multiplies by a power of ten, rounding up as a real server does.
fn shift(value: i128, by: i32) -> Option<i128> {
    let factor = 10i128.checked_pow(by.unsigned_abs())?;
    if by >= 0 { value.checked_mul(factor) } else { Some(value / factor + i128::from(value % factor != 0)) }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const ONE: i128 = 1_000_000_000;
        let nano = self.nano;
        if nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::Binary && nano % ONE == 0 && nano.abs() >= 1024 * ONE;
        if binary {
            let (mut value, mut power) = (nano / ONE, 0);
            while value % 1024 == 0 && power + 1 < BINARY.len() {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", BINARY[power]);
        }
        let (mut value, mut power) = (nano, 0);
        while value % 1000 == 0 && power + 1 < DECIMAL.len() {
            value /= 1000;
            power += 1;
        }
        let (suffix, exponent) = DECIMAL[power];
        match (self.format, exponent) {
            (Format::Exponent, 0) => write!(f, "{value}"),
            (Format::Exponent, exponent) => write!(f, "{value}e{exponent}"),
            _ => write!(f, "{value}{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (written, canonical) in [
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1", "1"),
            ("1000m", "1"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("1.5Gi", "1536Mi"),
            ("100000k", "100M"),
            ("-2Ki", "-2Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("12E", "12E"),
            ("0.1n", "1n"),
        ] {
            assert_eq!(Quantity::parse(written).unwrap().to_string(), canonical, "{written}");
        }
        for bad in ["", "a", "1x", "1.2.3", "--1", "1e99", "99999999999999999999999999999999999"] {
            assert!(Quantity::parse(bad).is_none(), "{bad}");
        }
        let fine = Quantity::parse(".000000000000000147573952589676412927Ei").unwrap();
        assert_eq!(fine.nano(), 170_141_183_461);
    }
}
