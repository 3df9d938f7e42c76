//! What Prometheus answers to an instant query.

use serde_json::Value;

use super::exposition::number;
use super::{Measurement, Reduce};

/// Reads the answer of `/api/v1/query`
/// (<https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>).
///
/// A vector of several series needs `reduce`: without it nobody can say which of them is meant.
pub fn prometheus_answer(answer: &Value, reduce: Option<Reduce>) -> Measurement {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("status") {
        "success" => {}
        "error" => {
            let message = format!("{}: {}", text("errorType"), text("error"));
            // A query that cannot be parsed or executed stays wrong however often it is asked.
            return match text("errorType") {
                "bad_data" | "execution" => Measurement::BadQuery(message),
                _ => Measurement::ProviderError(message),
            };
        }
        _ => return Measurement::ProviderError("the answer is not one of Prometheus".to_owned()),
    }
    let data = answer.get("data");
    let result = data.and_then(|data| data.get("result"));
    match data.and_then(|data| data.get("resultType")).and_then(Value::as_str) {
        Some("scalar") => value(result).map_or_else(malformed, Measurement::of),
        Some("vector") => match result.and_then(Value::as_array) {
            Some(series) => vector(series, reduce),
            None => malformed(),
        },
        Some("matrix") => {
            Measurement::BadQuery("the query gives a range of values, it must give one per series".to_owned())
        }
        Some(other) => Measurement::BadQuery(format!("the query gives a {other}, it must give numbers")),
        None => malformed(),
    }
}

fn malformed() -> Measurement {
    Measurement::ProviderError("the answer of Prometheus has no readable result".to_owned())
}

fn vector(series: &[Value], reduce: Option<Reduce>) -> Measurement {
    if series.iter().any(|one| one.get("histogram").is_some()) {
        return Measurement::BadQuery("the query gives histograms, use histogram_quantile".to_owned());
    }
    let mut values = Vec::with_capacity(series.len());
    for one in series {
        match value(one.get("value")) {
            Some(value) => values.push(value),
            None => return malformed(),
        }
    }
    if values.len() > 1 && reduce.is_none() {
        let message = format!("the query gives {} series: aggregate it, or set reduce", values.len());
        return Measurement::BadQuery(message);
    }
    values.retain(|value| value.is_finite());
    if values.is_empty() {
        return Measurement::NoData;
    }
    let sum: f64 = values.iter().sum();
    Measurement::of(match reduce {
        None | Some(Reduce::Sum) => sum,
        Some(Reduce::Avg) => sum / values.len() as f64,
        Some(Reduce::Min) => values.iter().copied().fold(f64::INFINITY, f64::min),
        Some(Reduce::Max) => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

/// `[<unix time>, "<number>"]`
fn value(pair: Option<&Value>) -> Option<f64> {
    number(pair?.get(1)?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_of_answer_is_told_apart() {
        let vector = |values: &[&str]| {
            let result: Vec<_> = values.iter().map(|v| json!({"metric": {}, "value": [1.5, v]})).collect();
            json!({"status": "success", "data": {"resultType": "vector", "result": result}})
        };
        let of_type = |kind: &str, result: Value| json!({"status": "success", "data": {"resultType": kind, "result": result}});
        let error = |kind: &str| json!({"status": "error", "errorType": kind, "error": "why"});
        let cases = [
            (vector(&["0.5"]), None, "0.5"),
            (vector(&[]), None, "no data"),
            (vector(&["NaN"]), None, "no data"),
            (vector(&["+Inf"]), None, "no data"),
            (
                vector(&["1", "2"]),
                None,
                "the query is wrong: the query gives 2 series: aggregate it, or set reduce",
            ),
            (vector(&["1", "2", "NaN"]), Some(Reduce::Sum), "3"),
            (vector(&["1", "2"]), Some(Reduce::Avg), "1.5"),
            (vector(&["1", "2"]), Some(Reduce::Min), "1"),
            (vector(&["1", "2"]), Some(Reduce::Max), "2"),
            (vector(&["NaN", "NaN"]), Some(Reduce::Max), "no data"),
            (of_type("scalar", json!([1.5, "7"])), None, "7"),
            (
                of_type("string", json!([1.5, "x"])),
                None,
                "the query is wrong: the query gives a string, it must give numbers",
            ),
            (
                of_type("matrix", json!([])),
                None,
                "the query is wrong: the query gives a range of values, it must give one per series",
            ),
            (
                of_type("vector", json!([{"histogram": [1, {}]}])),
                None,
                "the query is wrong: the query gives histograms, use histogram_quantile",
            ),
            (
                of_type("vector", json!([{"value": [1, 2]}])),
                None,
                "metrics cannot be read: the answer of Prometheus has no readable result",
            ),
            (
                of_type("vector", json!(7)),
                None,
                "metrics cannot be read: the answer of Prometheus has no readable result",
            ),
            (error("bad_data"), None, "the query is wrong: bad_data: why"),
            (error("execution"), None, "the query is wrong: execution: why"),
            (error("timeout"), None, "metrics cannot be read: timeout: why"),
            (json!("<html>"), None, "metrics cannot be read: the answer is not one of Prometheus"),
        ];
        for (answer, reduce, expected) in cases {
            assert_eq!(prometheus_answer(&answer, reduce).to_string(), expected, "{answer}");
        }
    }
}
