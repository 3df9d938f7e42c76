//! The way from `kubectl apply` to `kubectl apply --server-side`: the annotation in which the former remembers what it applied.
//!
//! Rules: `lastappliedmanager.go` and `lastappliedupdater.go` of k8s.io/apimachinery `util/managedfields/internal`.

use crate::fieldset::Set;
use crate::managed::{self, Error, Write, bare};
use crate::typed;
use serde_json::Value;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The only manager that is known to have applied on the client's side before.
const MANAGER: &str = "kubectl";

/// [`managed::apply`], which for `kubectl` contests no field that it has applied before in the other way and that is still
/// as it was applied then, and which keeps the annotation up to date for a return to that way.
pub fn apply(live: &Value, config: &Value, force: bool, write: &Write<'_>) -> Result<Value, Error> {
    let applied = managed::apply(live, config, force, write);
    if write.manager != MANAGER {
        return applied;
    }
    let mut new = match applied {
        Err(Error::Conflict { message, causes, contested }) => match own(live, write) {
            None => return Err(Error::Conflict { message, causes, contested }),
            Some(own) => {
                let rest = contested.into_iter().map(|(title, set)| (title, set.difference(&own)));
                let rest: Vec<(String, Set)> = rest.filter(|(_, set)| !set.is_empty()).collect();
                if !rest.is_empty() {
                    return Err(managed::conflict(rest));
                }
                managed::apply(live, config, true, write)?
            }
        },
        applied => applied?,
    };
    if remembered(live).is_some() {
        new["metadata"]["annotations"][ANNOTATION] = memory_of(config).into();
    }
    Ok(new)
}

fn remembered(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str()
}

/// The fields that were applied on the client's side and have not changed since.
fn own(live: &Value, write: &Write<'_>) -> Option<Set> {
    let last: Value = serde_json::from_str(remembered(live)?).ok()?;
    if last["apiVersion"] != write.version {
        return None;
    }
    let (last, live) = (bare(&last), bare(live));
    let changed = typed::compare(&last, &live, write.ty);
    let set = typed::field_set(&last, write.ty);
    Some(set.difference(&changed.modified).difference(&changed.added).difference(&changed.removed))
}

/// A configuration as the annotation remembers it.
fn memory_of(config: &Value) -> String {
    let mut out = config.clone();
    if let Some(Value::Object(annotations)) = out.pointer_mut("/metadata/annotations") {
        annotations.shift_remove(ANNOTATION);
        if annotations.is_empty() {
            out["metadata"].as_object_mut().map(|metadata| metadata.shift_remove("annotations"));
        }
    }
    out.sort_all_objects();
    format!("{out}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fieldset::Set;
    use crate::managed::Reset;
    use crate::schema::table::TABLE;
    use serde_json::json;

    /// Applies to a ConfigMap that the client's side has applied with `{a: 1, b: 2}`.
    fn applied(manager: &str, changed: Value, data: Value) -> Result<Value, Error> {
        let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}});
        let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": changed, "metadata": {
            "name": "c", "annotations": {ANNOTATION: last.to_string()}, "managedFields": [{
                "manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}}}]}});
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
        let write = Write {
            ty: TABLE.get("core.v1.ConfigMap").unwrap(),
            version: "v1",
            manager,
            subresource: "",
            reset: &Reset::Fields(Set::default()),
            now: "2026-01-01T00:00:00Z",
            convert: &|_, _| None,
        };
        apply(&live, &config, false, &write)
    }

    #[test]
    fn kubectl_takes_over_what_it_applied_itself() {
        let new = applied("kubectl", json!({"a": "1", "b": "2"}), json!({"a": "9"})).unwrap();
        assert_eq!(new["data"]["a"], "9");
        let memory = remembered(&new).unwrap();
        assert_eq!(
            memory,
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"9\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\"}}\n"
        );
    }

    #[test]
    fn what_changed_since_or_another_manager_wants_stays_contested() {
        let error = applied("kubectl", json!({"a": "7", "b": "2"}), json!({"a": "9", "b": "9"})).unwrap_err();
        assert!(
            error.to_string().contains("1 conflict") && error.to_string().ends_with(".data.a"),
            "{error}"
        );
        assert!(applied("other", json!({"a": "1", "b": "2"}), json!({"a": "9"})).is_err());
    }
}
