//! Conversion between the versions of the few kinds that have more than one.

use serde_json::{Map, Value, json};

/// The version that objects of a table are stored in, where the table has several.
pub fn hub(table: &str) -> Option<&'static str> {
    match table {
        "events" => Some("v1"),
        "horizontalpodautoscalers.autoscaling" => Some("autoscaling/v2"),
        _ => None,
    }
}

/// Gives an object of a table in another version. Custom resources change their `apiVersion` only
/// (`spec.conversion.strategy: None`).
pub fn convert(object: &Value, table: &str, to: &str) -> Value {
    let from = object["apiVersion"].as_str().unwrap_or_default();
    if from == to {
        return object.clone();
    }
    let mut out = match (table, to) {
        ("events", "v1") => rename(object, &EVENT, true),
        ("events", _) => rename(object, &EVENT, false),
        ("horizontalpodautoscalers.autoscaling", "autoscaling/v1") => scaler_to_v1(object),
        ("horizontalpodautoscalers.autoscaling", _) => scaler_to_v2(object),
        _ => object.clone(),
    };
    out["apiVersion"] = to.into();
    out
}

/// Names in the core group, and in events.k8s.io.
const EVENT: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(object: &Value, names: &[(&str, &str)], to_left: bool) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let mut out = Map::new();
    for (key, value) in fields {
        let renamed = names.iter().find_map(|(left, right)| match to_left {
            true => (key == right).then_some(*left),
            false => (key == left).then_some(*right),
        });
        out.insert(renamed.unwrap_or(key).to_owned(), value.clone());
    }
    if to_left {
        out.entry("reportingComponent").or_insert_with(|| "".into());
        out.entry("reportingInstance").or_insert_with(|| "".into());
    }
    Value::Object(out)
}

fn scaler_to_v1(object: &Value) -> Value {
    let mut out = object.clone();
    let Value::Object(spec) = &mut out["spec"] else { return out };
    let metrics = spec.shift_remove("metrics").unwrap_or_default();
    for metric in metrics.as_array().into_iter().flatten() {
        let target = &metric["resource"]["target"]["averageUtilization"];
        if metric["resource"]["name"] == "cpu" && target.is_i64() {
            spec.insert("targetCPUUtilizationPercentage".into(), target.clone());
        }
    }
    spec.shift_remove("behavior");
    if let Value::Object(status) = &mut out["status"] {
        status.shift_remove("currentMetrics");
        status.shift_remove("conditions");
        status.entry("currentReplicas").or_insert_with(|| 0.into());
        status.entry("desiredReplicas").or_insert_with(|| 0.into());
    }
    out
}

fn scaler_to_v2(object: &Value) -> Value {
    let mut out = object.clone();
    if let Value::Object(spec) = &mut out["spec"]
        && let Some(target) = spec.shift_remove("targetCPUUtilizationPercentage")
    {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
    if let Value::Object(status) = &mut out["status"] {
        status.shift_remove("currentCPUUtilizationPercentage");
        status.entry("currentMetrics").or_insert(Value::Null);
        if status.get("currentReplicas") == Some(&json!(0)) {
            status.shift_remove("currentReplicas");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_scalers_there_and_back() {
        let event = json!({"apiVersion": "events.k8s.io/v1", "note": "m", "regarding": {"name": "x"}, "reportingInstance": "",
            "reportingController": ""});
        let core = convert(&event, "events", "v1");
        assert_eq!(core["message"], "m");
        assert_eq!(convert(&core, "events", "events.k8s.io/v1"), event);
        let scaler = json!({"apiVersion": "autoscaling/v1", "spec": {"targetCPUUtilizationPercentage": 70}});
        let table = "horizontalpodautoscalers.autoscaling";
        let v2 = convert(&scaler, table, "autoscaling/v2");
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
        assert_eq!(convert(&v2, table, "autoscaling/v1")["spec"], scaler["spec"]);
    }
}
