//! Clocks that go wrong: Leases as a reader sees them.

use super::Facts;
use crate::app::App;
use crate::schema::catalogue::Resource;
use crate::store::Object;
use crate::time;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::Arc;

/// How a Lease's clock goes for one reader.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Clock {
    /// By how many milliseconds renewals seem later than they are.
    pub shift: i64,
    /// The revision since which nobody seems to have renewed.
    pub frozen_at: Option<u64>,
}

/// An object as the reader sees it: itself, unless it is a Lease and a rule befalls it.
pub(crate) fn seen(app: &App, resource: &Resource, reader: &Facts, object: &Arc<Object>) -> Arc<Object> {
    if !resource.is("coordination.k8s.io", "leases") {
        return object.clone();
    }
    let meta = |key: &str| object.value["metadata"][key].as_str().unwrap_or_default().to_owned();
    let facts = Facts { namespace: meta("namespace"), name: meta("name"), ..reader.clone() };
    let clock = app.faults.lease_clock(&facts);
    if clock == Clock::default() {
        return object.clone();
    }
    let mut value = object.value.clone();
    if let Some(revision) = clock.frozen_at {
        value["spec"]["renewTime"] = frozen(app, resource, object, revision);
    }
    if let Some(shifted) = shifted(&value["spec"]["renewTime"], clock.shift) {
        value["spec"]["renewTime"] = shifted;
    }
    let json = Bytes::from(serde_json::to_vec(&value).unwrap_or_default());
    Arc::new(Object {
        key: object.key.clone(),
        revision: object.revision,
        written: object.written,
        value,
        json,
    })
}

/// When the Lease was last renewed up to a revision; the time at which it was taken, if it came later or changed hands since.
fn frozen(app: &App, resource: &Resource, object: &Object, revision: u64) -> Value {
    let store = app.store();
    let table = resource.table();
    let then = store.range_at(&table, &object.key, "", revision.max(store.oldest(&table)));
    let then = then.unwrap_or_default().into_iter().find(|then| then.key == object.key);
    let spec = &object.value["spec"];
    match then {
        Some(then) if then.value["spec"]["holderIdentity"] == spec["holderIdentity"] => {
            then.value["spec"]["renewTime"].clone()
        }
        _ => spec["acquireTime"].clone(),
    }
}

fn shifted(renewed: &Value, milliseconds: i64) -> Option<Value> {
    if milliseconds == 0 {
        return None;
    }
    let at: Timestamp = renewed.as_str().and_then(time::parse)?;
    let at = at.checked_add(SignedDuration::from_millis(milliseconds)).ok()?;
    Some(format!("{at:.6}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_are_moved_in_either_direction() {
        let at = Value::from("2026-01-01T00:00:10.500000Z");
        for (milliseconds, expected) in
            [(-10_500, "2026-01-01T00:00:00.000000Z"), (1, "2026-01-01T00:00:10.501000Z")]
        {
            assert_eq!(shifted(&at, milliseconds).unwrap(), expected);
        }
        assert_eq!(shifted(&at, 0), None);
        assert_eq!(shifted(&Value::Null, 5), None);
    }
}
