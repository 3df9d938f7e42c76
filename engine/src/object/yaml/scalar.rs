//! What a plain scalar means.
//!
//! The rules are go-yaml's (`resolve.go`), verified against `kubectl kustomize`.

use base64::Engine as _;
use serde_json::{Number, Value};

use super::YamlProblem;

/// Which of kustomize's two YAML readers is meant.
///
/// Kustomize reads resources and strategic merge patches with go-yaml 3, but kustomization files and
/// JSON patches with go-yaml 2, where `yes` and `on` are still booleans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Resources and strategic merge patches: `yes` is a text, a bare date is a timestamp.
    #[default]
    Manifest,
    /// Kustomization files and JSON patches: `yes` is true, a bare date is a text.
    Settings,
}

/// The value of a scalar that was written without quotes and without a tag.
pub(super) fn plain(text: &str, dialect: Dialect) -> Result<Value, YamlProblem> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" if dialect == Dialect::Settings => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" if dialect == Dialect::Settings => {
            return Ok(Value::Bool(false));
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
        | ".NaN" | ".NAN" => return Err(YamlProblem::NotFinite(text.to_owned())),
        _ => {}
    }
    if let Some(number) = number(text) {
        return Ok(Value::Number(number));
    }
    if dialect == Dialect::Manifest
        && let Some(date) = date(text)
    {
        return Ok(Value::String(date));
    }
    Ok(Value::String(text.to_owned()))
}

/// The value of a scalar with one of YAML's own tags (`!!int`), given without its `!!`.
pub(super) fn tagged(
    text: &str,
    tag: &str,
    plain_style: bool,
    dialect: Dialect,
) -> Result<Value, YamlProblem> {
    let mismatch = || YamlProblem::TagMismatch { tag: format!("!!{tag}"), value: text.to_owned() };
    match tag {
        "str" => Ok(Value::String(text.to_owned())),
        "binary" => {
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|_| mismatch())?;
            Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        }
        "int" | "float" | "bool" | "null" => {
            let value = plain(text, dialect)?;
            let fits = match tag {
                "int" => value.is_i64() || value.is_u64(),
                "float" => value.is_number(),
                "bool" => value.is_boolean(),
                _ => value.is_null(),
            };
            if fits { Ok(value) } else { Err(mismatch()) }
        }
        _ if plain_style => plain(text, dialect),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// The number a text says, if it says one.
fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if first == b'.' {
        // Go reads these without removing underscores first, but accepts one between digits.
        return float_number(&text.replace('_', "")).filter(|_| !text.starts_with("._"));
    }
    if !(first.is_ascii_digit() || first == b'+' || first == b'-') {
        return None;
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| float_number(&digits))
}

/// Go's `ParseInt` with base 0: `0x`, `0b`, `0o` and a plain leading zero choose the base.
fn integer(text: &str) -> Option<Number> {
    let (negative, rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &rest[2..]),
        [b'0', b'b' | b'B', ..] => (2, &rest[2..]),
        [b'0', b'o' | b'O', ..] => (8, &rest[2..]),
        [b'0', _, ..] => (8, &rest[1..]),
        _ => (10, rest),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u128::from_str_radix(digits, base).ok()?;
    if negative {
        let value = i128::try_from(magnitude).ok()?.checked_neg()?;
        i64::try_from(value).ok().map(Number::from)
    } else {
        u64::try_from(magnitude).ok().map(|n| i64::try_from(n).map_or_else(|_| Number::from(n), Number::from))
    }
}

/// A decimal float; integral ones become integers where 64 bits hold them.
fn float_number(text: &str) -> Option<Number> {
    if !looks_like_float(text) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() {
        return None; // `1e400` is a text for go-yaml.
    }
    if value == 0.0 {
        return Some(Number::from(0));
    }
    if value.fract() == 0.0 {
        // The shortest digits, padded with zeros, are what Go writes into JSON.
        let text = value.to_string();
        if let Ok(n) = text.parse::<i64>() {
            return Some(Number::from(n));
        }
        if let Ok(n) = text.parse::<u64>() {
            return Some(Number::from(n));
        }
    }
    Number::from_f64(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn looks_like_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && (fraction.is_empty() || all_digits(fraction)),
        None => all_digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| all_digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    mantissa_ok && exponent_ok
}

/// A bare date, which kustomize writes out as a timestamp: `2001-12-14` is `2001-12-14T00:00:00Z`.
fn date(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits =
        |s: &str, most: usize| (1..=most).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || year.len() != 4 || !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return None;
    }
    let date = jiff::civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
    Some(format!("{date}T00:00:00Z"))
}

/// Whether any reader, of YAML 1.1 or 1.2, takes this plain text for something else than a text.
pub(super) fn is_ambiguous(text: &str) -> bool {
    if text.is_empty() || text == "=" || text == "<<" {
        return true;
    }
    // YAML 1.1 knows sexagesimal numbers and timestamps; anything made of their characters is quoted.
    let first_is_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let timelike = text.bytes().all(|b| {
        b.is_ascii_digit() || matches!(b, b':' | b'.' | b'-' | b'+' | b'_' | b' ' | b'T' | b't' | b'Z' | b'z')
    });
    if first_is_numeric && timelike {
        return true;
    }
    !matches!(plain(text, Dialect::Manifest), Ok(Value::String(_)))
        || !matches!(plain(text, Dialect::Settings), Ok(Value::String(_)))
        || (first_is_numeric && number(text.trim_end_matches(['_'])).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Checked value by value against `kubectl kustomize` 5.5; the differential test repeats that.
    #[test]
    fn plain_scalars_mean_what_kustomize_makes_of_them() {
        let table = [
            ("yes", json!("yes")),
            ("NO", json!("NO")),
            ("on", json!("on")),
            ("y", json!("y")),
            ("true", json!(true)),
            ("True", json!(true)),
            ("TRUE", json!(true)),
            ("tRue", json!("tRue")),
            ("~", json!(null)),
            ("Null", json!(null)),
            ("NULL", json!(null)),
            ("nUll", json!("nUll")),
            ("", json!(null)),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0O17", json!(15)),
            ("-0644", json!(-420)),
            ("0x1F", json!(31)),
            ("0X1f", json!(31)),
            ("-0x1F", json!(-31)),
            ("0b11", json!(3)),
            ("-0b11", json!(-3)),
            ("0b2", json!("0b2")),
            ("0o8", json!("0o8")),
            ("0x", json!("0x")),
            ("1_000", json!(1000)),
            ("1__0", json!(10)),
            ("1_", json!(1)),
            ("_1", json!("_1")),
            ("0_7", json!(7)),
            ("0x_1F", json!(31)),
            ("+5", json!(5)),
            ("08", json!(8)),
            ("09", json!(9)),
            ("00", json!(0)),
            ("1.0", json!(1)),
            ("1e3", json!(1000)),
            ("1.5", json!(1.5)),
            ("+1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("-.5", json!(-0.5)),
            ("+.5", json!(0.5)),
            (".5e1", json!(5)),
            (".5_0", json!(0.5)),
            ("._5", json!("._5")),
            (".e3", json!(".e3")),
            ("5.", json!(5)),
            ("1.e3", json!(1000)),
            ("12e03", json!(12000)),
            ("1_000.5", json!(1000.5)),
            ("-0", json!(0)),
            ("-0.0", json!(0)),
            ("1e-7", json!(1e-7)),
            ("1e21", json!(1e21)),
            ("1e20", json!(1e20)),
            ("1e400", json!("1e400")),
            ("9223372036854775808", json!(9_223_372_036_854_775_808_u64)),
            ("-9223372036854775809", json!(-9.223372036854776e18)),
            ("18446744073709551616", json!(1.8446744073709552e19)),
            ("0777777777777777777777777", json!(7.777777777777778e23)),
            ("0x1.8p1", json!("0x1.8p1")),
            ("1.2.3", json!("1.2.3")),
            ("1e", json!("1e")),
            ("e3", json!("e3")),
            ("1,000", json!("1,000")),
            (".", json!(".")),
            ("+", json!("+")),
            ("=", json!("=")),
            ("12:30:45", json!("12:30:45")),
            ("2001-12-14", json!("2001-12-14T00:00:00Z")),
            ("2001-1-1", json!("2001-01-01T00:00:00Z")),
            ("2001-13-14", json!("2001-13-14")),
            ("2001-12-14 21:59:43", json!("2001-12-14 21:59:43")),
            ("2001-12-14t21:59:43.10-05:00", json!("2001-12-14t21:59:43.10-05:00")),
        ];
        for (text, meaning) in table {
            assert_eq!(plain(text, Dialect::Manifest), Ok(meaning), "{text}");
        }
        for text in [".inf", "-.INF", "+.Inf", ".nan", ".NaN"] {
            assert_eq!(plain(text, Dialect::Manifest), Err(YamlProblem::NotFinite(text.to_owned())));
        }
    }

    #[test]
    fn settings_still_know_the_booleans_of_yaml_1_1() {
        for (text, meaning) in [
            ("yes", json!(true)),
            ("On", json!(true)),
            ("n", json!(false)),
            ("2001-12-14", json!("2001-12-14")),
        ] {
            assert_eq!(plain(text, Dialect::Settings), Ok(meaning), "{text}");
        }
    }

    #[test]
    fn tags_decide_and_do_not_lie() {
        for (tag, text, meaning) in [
            ("str", "1", json!("1")),
            ("str", "null", json!("null")),
            ("int", "3", json!(3)),
            ("float", "3", json!(3)),
            ("float", "1.5", json!(1.5)),
            ("bool", "true", json!(true)),
            ("null", "", json!(null)),
            ("binary", "aGVs\nbG8=", json!("hello")),
            ("timestamp", "2001-12-14", json!("2001-12-14T00:00:00Z")),
        ] {
            assert_eq!(tagged(text, tag, true, Dialect::Manifest), Ok(meaning), "!!{tag} {text}");
        }
        for (tag, text) in [
            ("int", "foo"),
            ("int", "1.5"),
            ("float", "foo"),
            ("bool", "yes"),
            ("null", "foo"),
            ("binary", "%"),
        ] {
            assert!(tagged(text, tag, true, Dialect::Manifest).is_err(), "!!{tag} {text}");
        }
    }
}
