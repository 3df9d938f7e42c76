//! The objects of a render, in order, with the rules for adding to them.

use std::collections::HashMap;

use super::error::RenderError;
use super::identity::ResId;
use super::resource::{Behavior, Resource, Source};

/// How many objects a render may hold.
pub const MAX_OBJECTS: usize = 50_000;
/// How many bytes transformers may add to the objects of a render.
pub const MAX_GROWTH: usize = 256 * 1024 * 1024;
/// How deep an object may nest after patches.
const MAX_OBJECT_DEPTH: usize = 128;

/// Objects in the order in which they were loaded; no two have one identity when added.
#[derive(Debug, Clone, Default)]
pub(super) struct ResourceMap {
    list: Vec<Resource>,
    /// Where each identity is; built when first needed, dropped when objects may have changed.
    index: Option<HashMap<ResId, usize>>,
    /// Where objects are that have or had an identity; kept like the index.
    history: Option<HashMap<ResId, Vec<usize>>>,
    /// What transformers added so far, in bytes.
    grown: usize,
}

impl ResourceMap {
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Resource> {
        self.forget_index();
        self.list.iter_mut()
    }

    pub fn as_mut_slice(&mut self) -> &mut [Resource] {
        self.forget_index();
        &mut self.list
    }

    /// Removes objects that nothing is left of.
    pub fn drop_deleted(&mut self) {
        if self.list.iter().any(|resource| resource.value().is_null()) {
            self.forget_index();
            self.list.retain(|resource| !resource.value().is_null());
        }
    }

    /// Changes one object, at a cost that does not depend on how many there are.
    pub fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut Resource) -> T) -> Option<T> {
        let resource = self.list.get_mut(at)?;
        let before = (self.index.is_some() || self.history.is_some()).then(|| identities(resource));
        let result = change(resource);
        if before.is_some_and(|before| before != identities(resource)) {
            self.forget_index();
        }
        Some(result)
    }

    /// Frees what is easily made again.
    pub fn forget_index(&mut self) {
        self.index = None;
        self.history = None;
    }

    pub fn into_list(self) -> Vec<Resource> {
        self.list
    }

    /// Counts what a transformer adds, so that a small repository cannot make huge objects.
    pub fn grow(&mut self, bytes: usize, copies: usize, at: &Source) -> Result<(), RenderError> {
        self.grown = self.grown.saturating_add(bytes.saturating_mul(copies));
        if self.grown > MAX_GROWTH {
            return Err(RenderError::TooLarge { path: at.file.clone() });
        }
        Ok(())
    }

    /// How many bytes transformers may still add.
    pub fn growth_left(&self) -> usize {
        MAX_GROWTH - self.grown.min(MAX_GROWTH)
    }

    fn index(&mut self) -> &mut HashMap<ResId, usize> {
        let list = &self.list;
        self.index
            .get_or_insert_with(|| list.iter().enumerate().map(|(at, r)| (r.id().clone(), at)).collect())
    }

    fn history(&mut self) -> &HashMap<ResId, Vec<usize>> {
        let list = &self.list;
        self.history.get_or_insert_with(|| {
            let mut history: HashMap<ResId, Vec<usize>> = HashMap::with_capacity(list.len());
            for (at, resource) in list.iter().enumerate() {
                note(&mut history, resource, at);
            }
            history
        })
    }

    /// The objects that have or had an identity.
    fn known_as(&mut self, id: &ResId) -> Vec<usize> {
        self.history().get(id).cloned().unwrap_or_default()
    }

    /// Adds an object that must not be there yet.
    pub fn append(&mut self, resource: Resource) -> Result<(), RenderError> {
        let at = self.list.len();
        if at >= MAX_OBJECTS {
            return Err(RenderError::TooMany {
                source_at: resource.source,
                what: "objects",
                limit: MAX_OBJECTS,
            });
        }
        let id = resource.id().clone();
        if let Some(first) = self.index().insert(id.clone(), at) {
            return Err(RenderError::Duplicate {
                object: id.to_string(),
                first: self.list.get(first).map(|r| r.source.clone()).unwrap_or_default(),
                second: resource.source,
            });
        }
        if let Some(history) = &mut self.history {
            note(history, &resource, at);
        }
        self.list.push(resource);
        Ok(())
    }

    /// Adds all objects of another map.
    pub fn append_all(&mut self, other: Self) -> Result<(), RenderError> {
        let grown = self.grown.saturating_add(other.grown);
        self.grown = grown;
        if self.list.is_empty() {
            *self = Self { grown, ..other };
            return Ok(());
        }
        other.list.into_iter().try_for_each(|resource| self.append(resource))
    }

    /// Adds a generated object, or lets it replace or change the one that is there.
    pub fn absorb(&mut self, mut generated: Resource) -> Result<(), RenderError> {
        let id = generated.id().clone();
        let matches = self.known_as(&id);
        let fail = |source_at: &Source, problem: String| {
            Err(RenderError::Invalid { source_at: source_at.clone(), problem })
        };
        match (matches.as_slice(), generated.behavior) {
            ([], Behavior::Create) => self.append(generated),
            ([], _) => fail(
                &generated.source,
                format!(
                    "there is no {id} to merge with or to replace; remove the behavior or correct the name"
                ),
            ),
            ([at], Behavior::Replace | Behavior::Merge) => {
                let merges = generated.behavior == Behavior::Merge;
                let old = self.list[*at].clone();
                if merges {
                    merge_texts(&mut generated, &old, "data");
                    merge_texts(&mut generated, &old, "binaryData");
                    if old.origin.is_some() {
                        generated.origin = old.origin.clone();
                    }
                }
                generated.take_over(old);
                self.change(*at, |resource| *resource = generated);
                Ok(())
            }
            ([at], Behavior::Create) => fail(
                &generated.source,
                format!("{id} exists already ({}); set behavior: merge or replace", self.list[*at].source),
            ),
            _ => fail(
                &generated.source,
                format!("several objects are or were {id}; give them different names"),
            ),
        }
    }

    /// Finds the only object that is or was one; says what is wrong if there is not exactly one.
    pub fn only(&mut self, id: &ResId) -> Result<usize, String> {
        match self.known_as(id).as_slice() {
            [at] => Ok(*at),
            [] => Err(format!("there is no {id} among the resources; correct kind, name or namespace")),
            _ => Err(format!("several objects are or were {id}; say which with a target")),
        }
    }

    /// Fails if two objects have come to have one identity.
    pub fn check_identities(&self) -> Result<(), RenderError> {
        self.check_distinct(self.list.iter().map(Resource::id))
    }

    /// Fails if two objects had one identity, given what each had.
    pub fn check_distinct<'a>(&self, ids: impl Iterator<Item = &'a ResId>) -> Result<(), RenderError> {
        let mut seen: HashMap<&ResId, &Resource> = HashMap::with_capacity(self.list.len());
        for (id, resource) in ids.zip(&self.list) {
            if let Some(first) = seen.insert(id, resource) {
                return Err(RenderError::Duplicate {
                    object: id.to_string(),
                    first: first.source.clone(),
                    second: resource.source.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The identities that an object has and had, each once.
fn identities(resource: &Resource) -> Vec<ResId> {
    let mut ids = vec![resource.id().clone()];
    for id in resource.previous_ids() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn note(history: &mut HashMap<ResId, Vec<usize>>, resource: &Resource, at: usize) {
    for id in identities(resource) {
        history.entry(id).or_default().push(at);
    }
}

/// About how many bytes a value takes; fails where it nests too deep to be walked safely.
pub(super) fn measure(value: &serde_json::Value) -> Result<usize, String> {
    let (mut bytes, mut open) = (0usize, vec![(value, 0usize)]);
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_OBJECT_DEPTH {
            return Err(format!(
                "this nests values deeper than {MAX_OBJECT_DEPTH} levels; make the object flatter"
            ));
        }
        bytes += 16;
        match value {
            serde_json::Value::String(text) => bytes += text.len(),
            serde_json::Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            serde_json::Value::Object(map) => {
                bytes += map.keys().map(String::len).sum::<usize>();
                open.extend(map.values().map(|item| (item, depth + 1)));
            }
            _ => {}
        }
    }
    Ok(bytes)
}

/// Adds an older map of texts beneath a newer one.
fn merge_texts(generated: &mut Resource, old: &Resource, field: &str) {
    let texts = |resource: &Resource| {
        resource.value()[field]
            .as_object()
            .map(|map| {
                map.iter()
                    .map(|(k, v)| (k.clone(), serde_json::Value::String(super::resource::scalar_text(v))))
                    .collect::<serde_json::Map<_, _>>()
            })
            .unwrap_or_default()
    };
    let mut merged = texts(old);
    merged.extend(texts(generated));
    let mut object = generated.edit();
    let Some(map) = object.as_object_mut() else { return };
    if merged.is_empty() {
        map.shift_remove(field);
    } else {
        map.insert(field.to_owned(), serde_json::Value::Object(merged));
    }
}
