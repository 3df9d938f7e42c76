//! `metadata.managedFields`: who owns which fields, for server-side apply and for every other write.
//!
//! Rules: k8s.io/apimachinery `util/managedfields` and structured-merge-diff `merge.Updater`.

use crate::fieldset::Set;
use crate::schema::Type;
use crate::status::{Cause, Refusal};
use crate::typed::{self, Comparison};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// One manager's entry.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: String,
    apply: bool,
    version: String,
    subresource: String,
    time: Option<String>,
    set: Set,
}

impl Entry {
    fn same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.apply == other.apply
            && self.subresource == other.subresource
            && (self.apply || self.version == other.version)
    }

    fn read(value: &Value) -> Option<Entry> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        if value["fieldsType"].as_str() != Some("FieldsV1") {
            return None;
        }
        let apply = match value["operation"].as_str() {
            Some("Apply") => true,
            Some("Update") => false,
            _ => return None,
        };
        Some(Entry {
            manager: text("manager"),
            apply,
            version: text("apiVersion"),
            subresource: text("subresource"),
            time: value["time"].as_str().map(str::to_owned),
            set: Set::from_value(value.get("fieldsV1").unwrap_or(&json!({})))?,
        })
    }

    fn write(&self) -> Value {
        let mut out = Map::new();
        out.insert("manager".into(), self.manager.clone().into());
        out.insert("operation".into(), if self.apply { "Apply" } else { "Update" }.into());
        out.insert("apiVersion".into(), self.version.clone().into());
        if let Some(time) = &self.time {
            out.insert("time".into(), time.clone().into());
        }
        out.insert("fieldsType".into(), "FieldsV1".into());
        out.insert("fieldsV1".into(), self.set.to_value());
        if !self.subresource.is_empty() {
            out.insert("subresource".into(), self.subresource.clone().into());
        }
        Value::Object(out)
    }

    /// How conflicts name the manager.
    fn title(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.apply {
            out.push_str(&format!(" using {}", self.version));
        }
        out
    }
}

/// More Update entries than this are folded into one, as a real server does.
const MOST_UPDATERS: usize = 10;

/// Gives an object in another version of its group, with that version's type.
pub type Convert<'a> = dyn Fn(&Value, &str) -> Option<(Value, Arc<Type>)> + 'a;

/// The circumstances of a write.
pub struct Write<'a> {
    /// Type of the object in `version`.
    pub ty: &'a Arc<Type>,
    /// `apps/v1`.
    pub version: &'a str,
    /// Field manager.
    pub manager: &'a str,
    /// Subresource through which the write comes; empty for none.
    pub subresource: &'a str,
    /// Fields that this endpoint does not write and so cannot own.
    pub reset: &'a Reset,
    /// Current time.
    pub now: &'a str,
    /// Gives an object in another version of its group, with that version's type.
    pub convert: &'a Convert<'a>,
}

/// Which fields an endpoint resets.
#[derive(Debug, Clone)]
pub enum Reset {
    /// These and all below.
    Fields(Set),
    /// All but this top-level field.
    AllBut(&'static str),
}

impl Reset {
    fn filter(&self, set: &Set) -> Set {
        match self {
            Reset::Fields(fields) => set.recursive_difference(fields),
            Reset::AllBut(field) => set.only_field(field),
        }
    }
}

/// What makes up the identity of an object, owned by nobody. Nor are the marks of deletion, which no writer can change.
fn strip(set: &Set) -> Set {
    set.difference(&Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "deletionTimestamp"],
        &["metadata", "deletionGracePeriodSeconds"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ]))
}

/// Why an apply is refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The configuration is not of the object's type.
    #[error("failed to create typed patch object ({object}; {kind}): {errors}")]
    Untyped {
        /// `namespace/name`.
        object: String,
        /// `apps/v1, Kind=Deployment`.
        kind: String,
        /// What is wrong.
        errors: String,
    },
    /// Other managers own fields that would change.
    #[error("{message}")]
    Conflict {
        /// The sentence for people.
        message: String,
        /// One per field.
        causes: Vec<Cause>,
        /// The fields of each manager, as conflicts name it.
        contested: Vec<(String, Set)>,
    },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Untyped { .. } => Refusal::internal(error.to_string()),
            Error::Conflict { message, causes, .. } => Refusal::apply_conflict(message, causes),
        }
    }
}

/// The entries that own the replica count of an object, as its Scale shows them.
///
/// Rules: k8s.io/apimachinery `util/managedfields/scalehandler.go`.
pub fn scale_entries(parent: &Value, path: &[&str]) -> Vec<Value> {
    let replicas = Set::of_fields(&[path]);
    let list = entries(parent).unwrap_or_default();
    let own = list.into_iter().filter(|e| !e.set.intersection(&replicas).is_empty());
    let shown = own.map(|entry| Entry {
        version: "autoscaling/v1".into(),
        set: Set::of_fields(&[&["spec", "replicas"]]),
        ..entry
    });
    shown.map(|entry| entry.write()).collect()
}

/// Brings what became of the entries of a Scale back to its object: who lost the replica count there loses it here.
pub fn take_scale(parent: &mut Value, scale: &Value, path: &[&str], version: &str) {
    let replicas = Set::of_fields(&[path]);
    let mut owners = entries(scale).unwrap_or_default();
    let mut list = entries(parent).unwrap_or_default();
    for entry in &mut list {
        if entry.set.intersection(&replicas).is_empty() {
            continue;
        }
        let same = |o: &Entry| {
            (&o.manager, o.apply, &o.subresource) == (&entry.manager, entry.apply, &entry.subresource)
        };
        match owners.iter().position(same) {
            Some(index) => drop(owners.remove(index)),
            None => entry.set = entry.set.difference(&replicas),
        }
    }
    list.retain(|e| !e.set.is_empty());
    // As on a real server, these carry no time.
    list.extend(owners.into_iter().map(|owner| Entry {
        version: version.into(),
        set: replicas.clone(),
        time: None,
        ..owner
    }));
    set_entries(parent, &list);
}

fn entries(object: &Value) -> Option<Vec<Entry>> {
    match object["metadata"].get("managedFields") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(Entry::read).collect(),
        Some(_) => None,
    }
}

/// The object without what the walkers must not see.
pub fn bare(object: &Value) -> Value {
    let mut out = object.clone();
    if let Value::Object(fields) = &mut out {
        fields.shift_remove("apiVersion");
        fields.shift_remove("kind");
    }
    set_entries(&mut out, &[]);
    out
}

fn set_entries(object: &mut Value, entries: &[Entry]) {
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
    if entries.is_empty() {
        metadata.shift_remove("managedFields");
        return;
    }
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| {
        (!a.apply, &a.time, &a.manager, &a.version, &a.subresource).cmp(&(
            !b.apply,
            &b.time,
            &b.manager,
            &b.version,
            &b.subresource,
        ))
    });
    metadata.insert("managedFields".into(), sorted.into_iter().map(Entry::write).collect());
}

/// Records a write that is not an apply: `new` is what was sent (in canonical form), `live` what is stored, or the empty
/// object on creation.
pub fn track_update(live: &Value, new: &mut Value, write: &Write<'_>) {
    let sent = &new["metadata"]["managedFields"];
    let through_subresource = !write.subresource.is_empty();
    let reset = sent
        .as_array()
        .is_some_and(|l| l.len() == 1 && l[0].as_object().is_some_and(|o| o.values().all(unset)));
    let mut list = if through_subresource {
        entries(live).unwrap_or_default()
    } else if reset {
        Vec::new()
    } else {
        match entries(new) {
            Some(list) if !list.is_empty() => list,
            _ => entries(live).unwrap_or_default(),
        }
    };
    let created = live["metadata"]["uid"].as_str().is_none_or(str::is_empty);
    if list.is_empty() && !created {
        set_entries(new, &[]);
        return;
    }
    let (old_bare, new_bare) = (bare(live), bare(new));
    let compared = written(typed::compare(&old_bare, &new_bare, write.ty), write.reset);
    take_over(&mut list, None, &old_bare, &new_bare, &compared, write);
    let gained = strip(&compared.modified.union(&compared.added));
    if !gained.is_empty() {
        let mine = Entry {
            manager: write.manager.into(),
            apply: false,
            version: write.version.into(),
            subresource: write.subresource.into(),
            time: Some(write.now.into()),
            set: gained,
        };
        match list.iter_mut().find(|e| e.same_manager(&mine)) {
            Some(entry) => {
                entry.set = entry.set.union(&mine.set);
                entry.time = mine.time;
            }
            None => list.push(mine),
        }
    }
    list.retain(|e| !e.set.is_empty());
    fold_old_updaters(&mut list);
    set_entries(new, &list);
}

/// An entry as Go decodes `{}`.
fn unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// A comparison without the fields that the endpoint resets.
fn written(compared: Comparison, reset: &Reset) -> Comparison {
    Comparison {
        added: reset.filter(&compared.added),
        modified: reset.filter(&compared.modified),
        removed: reset.filter(&compared.removed),
    }
}

/// Takes what changed away from the other managers; gives back the fields that are contested.
fn take_over(
    list: &mut [Entry],
    applier: Option<usize>,
    old: &Value,
    new: &Value,
    compared: &Comparison,
    write: &Write<'_>,
) -> Vec<(usize, Set)> {
    let mut contested = Vec::new();
    for (index, entry) in list.iter_mut().enumerate() {
        if Some(index) == applier {
            continue;
        }
        let converted;
        let changes = if entry.version == write.version {
            compared
        } else {
            match ((write.convert)(old, &entry.version), (write.convert)(new, &entry.version)) {
                (Some((old, ty)), Some((new, _))) => {
                    converted = written(typed::compare(&bare(&old), &bare(&new), &ty), write.reset);
                    &converted
                }
                _ => compared,
            }
        };
        let conflict = entry.set.intersection(&changes.modified.union(&changes.added));
        entry.set = entry.set.difference(&conflict).difference(&changes.removed);
        if !conflict.is_empty() {
            contested.push((index, conflict));
        }
    }
    contested
}

fn fold_old_updaters(list: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> = (0..list.len()).filter(|i| !list[*i].apply).collect();
    if updaters.len() <= MOST_UPDATERS {
        return;
    }
    updaters.sort_by(|a, b| list[*a].time.cmp(&list[*b].time));
    let surplus = updaters.len() - MOST_UPDATERS + 1;
    let mut folded: Vec<Entry> = Vec::new();
    let mut old: Vec<usize> = updaters.into_iter().take(surplus).collect();
    old.sort_unstable();
    for index in old.into_iter().rev() {
        let mut entry = list.remove(index);
        entry.manager = "ancient-changes".into();
        entry.subresource.clear();
        match folded.iter_mut().find(|e| e.version == entry.version) {
            Some(existing) => existing.set = existing.set.union(&entry.set),
            None => folded.push(entry),
        }
    }
    list.extend(folded);
}

/// Server-side apply. `live` is what is stored, or the empty object on creation; `config` is what was sent. The result is
/// not yet in canonical form and has no defaults.
pub fn apply(live: &Value, config: &Value, force: bool, write: &Write<'_>) -> Result<Value, Error> {
    let config_bare = bare(config);
    let errors = typed::validate(&config_bare, write.ty);
    if !errors.is_empty() {
        let text = |key: &str| config["metadata"][key].as_str().unwrap_or_default().to_owned();
        let errors =
            if errors.len() == 1 { errors.concat() } else { format!("errors:\n  {}", errors.join("\n  ")) };
        let object = format!("{}/{}", text("namespace"), text("name"));
        let version =
            if write.version.contains('/') { write.version.into() } else { format!("/{}", write.version) };
        let kind = format!("{version}, Kind={}", config["kind"].as_str().unwrap_or_default());
        return Err(Error::Untyped { object, kind, errors });
    }
    let live_bare = bare(live);
    let mut list = entries(live).unwrap_or_default();
    if list.is_empty() && live["metadata"]["creationTimestamp"].is_string() {
        let empty = bare(&write.ty.zero());
        let set = strip(&typed::compare(&empty, &live_bare, write.ty).added);
        list.push(Entry {
            manager: "before-first-apply".into(),
            apply: false,
            version: write.version.into(),
            subresource: String::new(),
            time: Some(write.now.into()),
            set: write.reset.filter(&set),
        });
    }
    let set = strip(&write.reset.filter(&typed::field_set(&config_bare, write.ty)));
    let mine = Entry {
        manager: write.manager.into(),
        apply: true,
        version: write.version.into(),
        subresource: write.subresource.into(),
        time: Some(write.now.into()),
        set,
    };
    let (index, last) = match list.iter().position(|e| e.same_manager(&mine)) {
        Some(index) => {
            let last = std::mem::replace(&mut list[index], mine);
            (index, Some(last))
        }
        None => {
            list.push(mine);
            (list.len() - 1, None)
        }
    };
    let merged = typed::merge(Some(&live_bare), Some(&config_bare), write.ty).unwrap_or_else(|| json!({}));
    let new = match &last {
        Some(last) if !last.set.is_empty() => prune(&merged, last, &list, write),
        _ => merged,
    };
    let compared = written(typed::compare(&live_bare, &new, write.ty), write.reset);
    let before: Vec<String> = list.iter().map(Entry::title).collect();
    let contested = take_over(&mut list, Some(index), &live_bare, &new, &compared, write);
    if !force && !contested.is_empty() {
        let named = contested.into_iter().map(|(index, set)| (before[index].clone(), set));
        return Err(conflict(named.collect()));
    }
    // As on a real server, an apply that changes no field does not stamp its entry.
    if compared.is_same() {
        list[index].time = last.and_then(|l| l.time);
    }
    list.retain(|e| !e.set.is_empty());
    let mut out = Map::new();
    for key in ["apiVersion", "kind"] {
        out.insert(key.into(), config[key].clone());
    }
    if let Value::Object(fields) = new {
        out.extend(fields);
    }
    let mut out = Value::Object(out);
    set_entries(&mut out, &list);
    Ok(out)
}

/// The refusal for fields that other managers own, by how conflicts name these.
pub fn conflict(contested: Vec<(String, Set)>) -> Error {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (title, set) in &contested {
        pairs.extend(set.paths().into_iter().map(|path| (title.clone(), path)));
    }
    pairs.sort();
    let causes = pairs
        .iter()
        .map(|(title, path)| Cause {
            field: path.clone(),
            reason: "FieldManagerConflict",
            message: format!("conflict with {title}"),
        })
        .collect();
    let text = if let [(title, path)] = &pairs[..] {
        format!("conflict with {title}: {path}")
    } else {
        let mut lines = Vec::new();
        let mut current = "";
        for (title, path) in &pairs {
            if title != current {
                lines.push(format!("conflicts with {title}:"));
                current = title;
            }
            lines.push(format!("- {path}"));
        }
        lines.join("\n")
    };
    let plural = if pairs.len() == 1 { "" } else { "s" };
    let message = format!("Apply failed with {} conflict{plural}: {text}", pairs.len());
    Error::Conflict { message, causes, contested }
}

/// Removes what the manager applied before and no longer applies, unless others own it.
fn prune(merged: &Value, last: &Entry, list: &[Entry], write: &Write<'_>) -> Value {
    let (base, ty) = if last.version == write.version {
        (merged.clone(), write.ty.clone())
    } else {
        match (write.convert)(merged, &last.version) {
            Some((value, ty)) => (bare(&value), ty),
            None => return merged.clone(),
        }
    };
    let last_set = last.set.with_named_fields(&ty);
    let pruned = typed::remove(&base, &last_set, &ty);
    // What anybody owns, this apply included, comes back.
    let owned = list.iter().fold(Set::default(), |all, e| {
        if e.version == last.version { all.union(&e.set) } else { all.union(&e.set.intersection(&last.set)) }
    });
    let merged_set = typed::field_set(&base, &ty).with_named_fields(&ty);
    let pruned_set = typed::field_set(&pruned, &ty).with_named_fields(&ty);
    let keep = pruned_set.union(&owned.with_named_fields(&ty));
    let pruned = typed::remove(&base, &merged_set.difference(&keep), &ty);
    // What is gone only because its parent is gone, and was never applied, comes back too.
    let pruned_set = typed::field_set(&pruned, &ty).with_named_fields(&ty);
    let doomed = merged_set.difference(&pruned_set).intersection(&last_set);
    let out = typed::remove(&base, &doomed, &ty);
    if last.version == write.version {
        return out;
    }
    (write.convert)(&out, write.version).map_or_else(|| merged.clone(), |(value, _)| bare(&value))
}
