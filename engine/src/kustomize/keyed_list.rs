//! Merging lists whose items have keys, with kustomize's exact results.
//!
//! Kustomize (`kyaml/yaml/walk/associative_sequence.go`) merges item by item and then puts the old items
//! back over the result by their keys. Where an item lacks one of several keys (a port without its
//! protocol), that has consequences which nobody would design, and which repositories rely on: they are
//! reproduced step by step and compared with kustomize by the corpus.

use serde_json::Value;

use crate::object::yaml::{Dialect, read_documents_as};

use super::resource::scalar_text;

/// Merges an old item with a new one; gets a name of the item for messages.
type MergeItem<'a, E> = &'a mut dyn FnMut(Option<Value>, Option<Value>, &str) -> Result<Option<Value>, E>;

/// Items by number, so that an item that is merged in place is the same wherever it stands.
struct Items(Vec<Value>);

impl Items {
    fn add(&mut self, item: Value) -> usize {
        self.0.push(item);
        self.0.len() - 1
    }

    /// The text of a key; none where the item does not say it.
    fn key(&self, item: usize, key: &str) -> Option<String> {
        self.0[item].get(key).filter(|value| !value.is_null()).map(scalar_text)
    }

    fn matches(&self, item: usize, keys: &[&str], values: &[String]) -> bool {
        keys.iter().zip(values).all(|(key, value)| self.key(item, key).is_some_and(|text| text == *value))
    }
}

/// Merges two lists by keys: what the patch names comes first.
pub(super) fn merge<E>(
    dest: Vec<Value>,
    patch: Vec<Value>,
    keys: &[&str],
    merge_item: MergeItem<'_, E>,
) -> Result<Vec<Value>, E> {
    let mut items = Items(Vec::new());
    let mut old: Vec<usize> = dest.into_iter().map(|item| items.add(item)).collect();
    let new: Vec<usize> = patch.into_iter().map(|item| items.add(item)).collect();
    let mut all_values: Vec<Vec<String>> = Vec::new();
    for item in new.iter().chain(&old) {
        let values: Vec<String> = keys.iter().map(|key| items.key(*item, key).unwrap_or_default()).collect();
        if !all_values.contains(&values) {
            all_values.push(values);
        }
    }
    if keys.len() > 1 {
        complete_values(&mut all_values);
    }
    let used: Vec<&str> = {
        let used: Vec<&str> = (0..keys.len())
            .filter(|at| all_values.iter().any(|v| !v[*at].is_empty()))
            .map(|at| keys[at])
            .collect();
        if used.is_empty() { keys.to_vec() } else { used }
    };
    let mut merged: Vec<usize> = Vec::new();
    for values in &all_values {
        let values: Vec<String> = keys
            .iter()
            .zip(values)
            .filter(|(key, _)| used.contains(key))
            .map(|(_, value)| value.clone())
            .collect();
        // Items are looked up only by the keys that are said.
        let (said, said_values): (Vec<&str>, Vec<String>) = used
            .iter()
            .zip(&values)
            .filter(|(_, value)| !value.is_empty())
            .map(|(k, v)| (*k, v.clone()))
            .unzip();
        let find = |list: &[usize]| {
            (!said.is_empty())
                .then(|| list.iter().copied().find(|item| items.matches(*item, &said, &said_values)))
                .flatten()
        };
        let (before, after) = (find(&old), find(&new));
        let result = match (before, after) {
            (None, None) => continue,
            (Some(item), None) => Some(item),
            (before, Some(patch)) => {
                let replaces = items.0[patch].get("$patch").is_some_and(|word| word == "replace");
                let value = before.map(|item| items.0[item].clone());
                let name = said_values.first().cloned().unwrap_or_default();
                let patch = items.0[patch].clone();
                match (merge_item(value, Some(patch), &name)?, before) {
                    (Some(value), Some(item)) if !replaces => {
                        items.0[item] = value;
                        Some(item)
                    }
                    (Some(value), _) => Some(items.add(value)),
                    (None, _) => None,
                }
            }
        };
        let Some(item) = result.filter(|item| items.0[*item].as_object().is_none_or(|map| !map.is_empty()))
        else {
            set_item(&items, &mut old, &used, &values, None);
            continue;
        };
        for (key, value) in used.iter().zip(&values).filter(|(_, value)| !value.is_empty()) {
            if let Some(map) = items.0[item].as_object_mut()
                && !map.contains_key(*key)
            {
                map.insert((*key).to_owned(), plain(value));
            }
        }
        set_item(&items, &mut merged, &used, &values, Some(item));
    }
    for item in old {
        put_back(&items, &mut merged, item, &used);
    }
    Ok(merged.into_iter().map(|item| items.0[item].clone()).collect())
}

/// Puts an old item over the merged list.
fn put_back(items: &Items, merged: &mut Vec<usize>, item: usize, keys: &[&str]) {
    let mut values = Vec::new();
    for key in keys {
        match items.key(item, key) {
            Some(value) => values.push(value),
            None => merged.push(item),
        }
    }
    if values.is_empty() {
        return;
    }
    if keys.len() > 1 {
        set_item(items, merged, keys, &values, None);
    }
    set_item(items, merged, keys, &values, Some(item));
}

/// Replaces or removes every item with these values, or adds the item where there is none.
///
/// With fewer values than keys, the last field that was found stands for the rest.
fn set_item(items: &Items, list: &mut Vec<usize>, keys: &[&str], values: &[String], element: Option<usize>) {
    let mut found_any = false;
    let mut kept = Vec::with_capacity(list.len() + 1);
    for item in list.iter().copied() {
        let value = &items.0[item];
        if value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) {
            continue;
        }
        let found = keys.iter().zip(values).all(|(key, value)| {
            // No value means any.
            items.key(item, key).is_some_and(|text| value.is_empty() || text == *value)
        });
        if !found {
            kept.push(item);
            continue;
        }
        found_any = true;
        kept.extend(element);
    }
    if !found_any {
        kept.extend(element);
    }
    *list = kept;
}

/// Fills keys that one item lacks from another that agrees in the rest.
fn complete_values(all: &mut [Vec<String>]) {
    for i in 0..all.len() {
        let first = all[i].clone();
        for j in 0..all.len() {
            if let Some(common) = common(&first, &all[j]) {
                all[i].clone_from(&common);
                all[j] = common;
            }
        }
    }
}

fn common(a: &[String], b: &[String]) -> Option<Vec<String>> {
    let mut agrees = false;
    let mut result = Vec::with_capacity(a.len());
    for (x, y) in a.iter().zip(b) {
        if x == y {
            agrees = true;
        } else if !x.is_empty() && !y.is_empty() {
            return None;
        }
        result.push(if x.is_empty() { y.clone() } else { x.clone() });
    }
    agrees.then_some(result)
}

/// What an unquoted scalar of this text means.
fn plain(text: &str) -> Value {
    let read = read_documents_as(text, "", Dialect::Manifest).ok().and_then(|mut documents| documents.pop());
    read.map(|document| document.value)
        .filter(|value| value.is_number() || value.is_boolean())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
