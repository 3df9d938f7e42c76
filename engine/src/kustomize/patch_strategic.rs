//! Strategic merge patches, as kustomize applies them.
//!
//! The schemas say which lists merge and by which keys; lists of unknown kinds are replaced. Patched and
//! new items come first, as kustomize puts them (its `kyaml/yaml/merge2` with `prepend`).

use serde_json::{Map, Value};

use crate::object::GroupVersionKind;

use super::keyed_list;
use super::merge_schema::{At, Schemas};

/// Applies a patch to an object. None where the patch deletes it.
pub(super) fn apply(object: Value, patch: Value, schemas: &Schemas) -> Result<Option<Value>, String> {
    let at = embedded(Some(&object), Some(&patch), schemas);
    walk(Some(object), Some(patch), at, schemas).map_err(|mut problem| {
        problem.path.reverse();
        format!("at {}: {}", problem.path.join("."), problem.message)
    })
}

struct Problem {
    /// From the inside to the outside.
    path: Vec<String>,
    message: String,
}

fn problem(message: impl Into<String>) -> Problem {
    Problem { path: Vec::new(), message: message.into() }
}

type Merged = Result<Option<Value>, Problem>;

/// An object inside of another brings its own schema.
fn embedded<'s>(dest: Option<&Value>, patch: Option<&Value>, schemas: &'s Schemas) -> At<'s> {
    [dest, patch]
        .into_iter()
        .flatten()
        .find_map(|value| {
            let (version, kind) = (value.get("apiVersion")?.as_str()?, value.get("kind")?.as_str()?);
            let at = schemas.of(&GroupVersionKind::from_api_version(version, kind));
            (!matches!(at, At::Unknown)).then_some(at)
        })
        .unwrap_or(At::Unknown)
}

fn walk(dest: Option<Value>, patch: Option<Value>, at: At<'_>, schemas: &Schemas) -> Merged {
    let is_set = |value: &&Value| !value.is_null();
    let first = dest.as_ref().filter(is_set).or(patch.as_ref().filter(is_set));
    let Some(first) = first else {
        // A null that the patch does not mention stays; one that it adds does not.
        return Ok(if patch.is_none() { dest } else { None });
    };
    let same_kind = |value: &Value| {
        value.is_null() || value.is_object() == first.is_object() && value.is_array() == first.is_array()
    };
    if let Some(patch) = &patch
        && !same_kind(patch)
    {
        return Err(problem(format!(
            "the object has {} here and the patch {}; correct the patch",
            name_of(first),
            name_of(patch)
        )));
    }
    match (dest, patch) {
        (dest, None) => Ok(dest),
        (_, Some(Value::Null)) => Ok(None),
        (dest, Some(Value::Object(patch))) => walk_map(dest, patch, at, schemas),
        (dest, Some(Value::Array(patch))) => walk_list(dest, patch, at, schemas),
        (_, Some(scalar)) => Ok(Some(scalar)),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "a mapping",
        Value::Array(_) => "a list",
        _ => "a scalar",
    }
}

/// What a `$patch` asks for.
#[derive(PartialEq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(word: Option<Value>) -> Result<Directive, Problem> {
    match word.as_ref().map(|word| word.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => Err(problem(format!("$patch {other:?} must be merge, replace or delete"))),
    }
}

fn walk_map(dest: Option<Value>, mut patch: Map<String, Value>, at: At<'_>, schemas: &Schemas) -> Merged {
    let directive = directive(patch.shift_remove("$patch"))?;
    if directive == Directive::Delete {
        return Ok(None);
    }
    let mut dest = match dest {
        Some(Value::Object(dest)) if directive == Directive::Merge => dest,
        // What is new goes through the same rules, so that its own nulls and directives are obeyed.
        _ => patch.clone(),
    };
    let at = match at {
        At::Unknown => {
            embedded(dest.get("kind").map(|_| Value::Object(dest.clone())).as_ref(), None, schemas)
        }
        at => at,
    };
    if let Some(Value::Array(retained)) = patch.shift_remove("$retainKeys") {
        dest.retain(|key, _| retained.iter().any(|name| name == key));
    }
    for (key, value) in patch {
        if key.starts_with("$setElementOrder/") {
            dest.shift_remove(&key);
            continue;
        }
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            dest.shift_remove(&key);
            if let (Some(Value::Array(items)), Value::Array(gone)) = (dest.get_mut(list), &value) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let old = dest.get(&key).cloned();
        let merged = walk(old, Some(value), schemas.field(at, &key), schemas).map_err(|mut problem| {
            problem.path.push(key.clone());
            problem
        })?;
        match merged {
            Some(merged) => dest.insert(key, merged),
            None => dest.shift_remove(&key),
        };
    }
    Ok(Some(Value::Object(dest)))
}

fn walk_list(dest: Option<Value>, patch: Vec<Value>, at: At<'_>, schemas: &Schemas) -> Merged {
    let Some(keys) = at.merge_keys() else { return Ok(Some(Value::Array(patch))) };
    let (directive, patch) = list_directive(patch)?;
    if directive == Directive::Delete {
        return Ok(None);
    }
    let dest = match dest {
        Some(Value::Array(dest)) if directive == Directive::Merge => dest,
        _ => patch.clone(),
    };
    if keys.is_empty() {
        return Ok(Some(Value::Array(merge_scalars(dest, patch))));
    }
    let at = schemas.items(at);
    let list = keyed_list::merge(dest, patch, &keys, &mut |old, new, name| {
        walk(old, new, at, schemas).map_err(|mut problem| {
            problem.path.push(format!("[{name}]"));
            problem
        })
    })?;
    Ok(Some(Value::Array(list)))
}

/// Takes an item that holds nothing but a `$patch` out of a list.
fn list_directive(mut patch: Vec<Value>) -> Result<(Directive, Vec<Value>), Problem> {
    let is_directive =
        |item: &Value| item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key("$patch"));
    let Some(at) = patch.iter().position(is_directive) else { return Ok((Directive::Merge, patch)) };
    let word = patch.remove(at).get("$patch").cloned();
    Ok((directive(word)?, patch))
}

fn merge_scalars(dest: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(dest.len() + patch.len());
    for item in patch.into_iter().chain(dest) {
        if !merged.contains(&item) {
            merged.push(item);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": spec}}})
    }

    fn patched(dest: Value, patch: Value) -> Value {
        apply(deployment(dest), deployment(patch), &Schemas::default()).unwrap().unwrap()["spec"]["template"]
            ["spec"]
            .clone()
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let containers = json!({"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}], "args": ["1", "2"],
             "ports": [{"containerPort": 80}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"name": "b", "image": "b:1"},
        ]});
        let patch = json!({"containers": [
            {"name": "b", "image": "b:2"},
            {"name": "a", "env": [{"name": "Y", "value": "2"}], "args": ["3"], "volumeMounts": [{"name": "w", "mountPath": "/w"}]},
        ]});
        assert_eq!(
            patched(containers, patch),
            json!({"containers": [
                {"name": "b", "image": "b:2"},
                {"name": "a", "image": "a:1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}], "args": ["3"],
                 "ports": [{"containerPort": 80}], "volumeMounts": [{"name": "w", "mountPath": "/w"}, {"name": "v", "mountPath": "/v"}]},
            ]})
        );
    }

    #[test]
    fn directives_delete_and_replace() {
        let dest = json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}], "nodeSelector": {"x": "1"}});
        let patch = json!({"volumes": [{"name": "a", "$patch": "delete"}], "nodeSelector": {"$patch": "replace", "y": "2"}});
        assert_eq!(
            patched(dest.clone(), patch),
            json!({"volumes": [{"name": "b", "emptyDir": {}}], "nodeSelector": {"y": "2"}})
        );
        let patch = json!({"volumes": [{"$patch": "replace"}, {"name": "c"}], "nodeSelector": null});
        assert_eq!(patched(dest, patch), json!({"volumes": [{"name": "c"}]}));
        let gone = apply(
            deployment(json!({})),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "$patch": "delete"}),
            &Schemas::default(),
        );
        assert_eq!(gone, Ok(None));
    }

    #[test]
    fn unknown_kinds_have_their_lists_replaced() {
        let object =
            |list: Value| json!({"apiVersion": "x.io/v1", "kind": "X", "spec": {"containers": list}});
        let result =
            apply(object(json!([{"name": "a"}])), object(json!([{"name": "b"}])), &Schemas::default())
                .unwrap();
        assert_eq!(result, Some(object(json!([{"name": "b"}]))));
    }

    #[test]
    fn a_patch_of_another_shape_is_refused_with_its_path() {
        let error = apply(
            deployment(json!({"containers": [{"name": "a", "image": "x"}]})),
            deployment(json!({"containers": [{"name": "a", "image": ["x"]}]})),
            &Schemas::default(),
        );
        assert_eq!(error, Err("at spec.template.spec.containers.[a].image: the object has a scalar here and the patch a list; correct the patch".to_owned()));
    }
}
