//! Whole numbers in JSON. JSON Schema counts `5.0` as an integer, and so does the shop; `5.5` is none.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Whole(pub i64);

/// Up to here a double holds every whole number.
const EXACT: f64 = 9_007_199_254_740_992.0;

struct Number;

impl Visitor<'_> for Number {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
        Ok(Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Whole, E> {
        // Far beyond every limit anyway, which then names the field.
        Ok(Whole(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Whole, E> {
        if value.fract() == 0.0 && value.abs() <= EXACT {
            Ok(Whole(value as i64))
        } else {
            Err(E::custom(format!("{value} is no whole number")))
        }
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number)
    }
}

/// For fields that are plain numbers in the program: `#[serde(deserialize_with = "whole::plain")]`.
///
/// # Errors
/// It is no whole number.
pub fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_and_zeros_change_nothing() {
        let read = |text: &str| serde_json::from_str::<Whole>(text).ok().map(|Whole(value)| value);
        assert_eq!(
            [read("5"), read("5.0"), read("-3"), read("1e3")],
            [Some(5), Some(5), Some(-3), Some(1000)]
        );
        for bad in ["5.5", "\"5\"", "true", "null", "1e300", "[5]"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read("18446744073709551615"), Some(i64::MAX));
    }
}
