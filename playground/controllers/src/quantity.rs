//! Kubernetes quantities (`500m`, `1.5Gi`, `2e3`) as plain numbers.

/// The value of a quantity in its base unit; `None` if it is none.
///
/// Exact for whole numbers below 2^53, which covers every size a machine has.
pub fn parse(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text
        .char_indices()
        .find(|(index, character)| {
            let sign = *index == 0 && matches!(character, '+' | '-');
            !(character.is_ascii_digit() || *character == '.' || sign)
        })
        .map_or(text.len(), |(index, _)| index);
    let (digits, suffix) = text.split_at(split);
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10f64.powi(power)
        }
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities_have_their_values() {
        for (text, value) in [
            ("500m", Some(0.5)),
            ("2", Some(2.0)),
            ("1.5Gi", Some(1.5 * 1024.0 * 1024.0 * 1024.0)),
            ("128Mi", Some(134_217_728.0)),
            ("2e3", Some(2000.0)),
            ("1E", Some(1e18)),
            ("-1", Some(-1.0)),
            ("", None),
            ("Mi", None),
            ("1Zi", None),
        ] {
            assert_eq!(parse(text), value, "{text}");
        }
    }
}
