//! What the agent remembers of the members of all environments, as the watches tell it.
//!
//! A plain structure: [`Members::apply`] folds an event and says what changed. Objects are not kept, only
//! what planning and health need of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use engine::health::{self, Health};
use engine::object::{GroupKind, ObjectRef};
use engine::plan::{Live, Marks, PART_OF};
use serde_json::{Value, json};

use super::watch::Seen;

/// What is remembered of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// What planning needs.
    pub live: Live,
    /// How ready it is.
    pub health: Health,
    /// Of a Deployment, the few numbers that tell whether it stands at canary size.
    deployment: Option<Box<Value>>,
}

impl Member {
    /// How ready it is as a Deployment that is held at `pods` new pods.
    pub fn canary_health(&self, pods: u32) -> Health {
        match &self.deployment {
            Some(deployment) => health::canary_ready(deployment, pods),
            None => self.health.clone(),
        }
    }

    /// Whether somebody changed a field that the environment owns, or its stamp.
    pub fn has_drifted(&self) -> bool {
        self.live.stamp.is_none_or(|stamp| Some(stamp.owned) != self.live.owned)
    }
}

/// Why somebody should look at a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It is new, or was written anew, and is as it was written.
    Written,
    /// Its readiness changed, or what keeps its pods from running.
    HealthChanged,
    /// A field that the environment owns was changed by somebody else.
    Drifted,
    /// It is gone, or has lost its label.
    Deleted,
}

/// A change of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// Id of the ApplySet that it is, or was, part of.
    pub part_of: String,
    /// The object.
    pub object: ObjectRef,
    /// What changed.
    pub kind: ChangeKind,
}

/// The members of all environments.
#[derive(Debug, Default)]
pub struct Members {
    objects: HashMap<ObjectRef, Member>,
    sets: HashMap<String, BTreeSet<ObjectRef>>,
    /// Field managers by ApplySet: a long name cannot be found out from its id.
    managers: HashMap<String, String>,
    kinds: HashMap<GroupKind, KindState>,
    gone: Gone,
}

/// The objects that went lately. The answer to a write can come after the watch has told that the object
/// is gone; it must not bring it back.
#[derive(Debug, Default)]
struct Gone {
    /// The version at which each went, by UID.
    at: HashMap<String, u128>,
    order: VecDeque<String>,
}

impl Gone {
    /// An answer takes seconds at most; so many objects do not go in that time.
    const KEPT: usize = 4096;

    fn note(&mut self, value: &Value) {
        let (uid, Some(at)) = (text(&value["metadata"]["uid"]), seen_at(value)) else { return };
        if self.at.insert(uid.to_owned(), at).is_none() {
            self.order.push_back(uid.to_owned());
        }
        if self.order.len() > Self::KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.at.remove(&oldest);
        }
    }

    /// Whether this is a state from before the object went. One that lost its label may come back.
    fn knows(&self, value: &Value) -> bool {
        let at = self.at.get(text(&value["metadata"]["uid"]));
        at.zip(seen_at(value)).is_some_and(|(gone, seen)| seen <= *gone)
    }
}

fn seen_at(value: &Value) -> Option<u128> {
    version(text(&value["metadata"]["resourceVersion"]))
}

/// How far the watch of a kind is.
#[derive(Debug, Default)]
struct KindState {
    synced: bool,
    /// During a list: what was known before and has not been listed yet.
    missing: BTreeSet<ObjectRef>,
}

impl Members {
    /// Makes an environment's field manager known.
    pub fn know(&mut self, marks: &Marks) {
        self.managers.insert(marks.part_of.clone(), marks.field_manager.clone());
    }

    /// What is remembered of an object.
    pub fn get(&self, object: &ObjectRef) -> Option<&Member> {
        self.objects.get(object)
    }

    /// The members of an ApplySet, in order.
    pub fn of(&self, part_of: &str) -> impl Iterator<Item = &Member> {
        let set = self.sets.get(part_of);
        set.into_iter().flatten().filter_map(|object| self.objects.get(object))
    }

    /// How many members there are in all.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether all members of a kind have been listed.
    pub fn is_synced(&self, kind: &GroupKind) -> bool {
        self.kinds.get(kind).is_some_and(|state| state.synced)
    }

    /// Folds what the watch of a kind tells.
    pub(crate) fn apply(&mut self, kind: &GroupKind, seen: Seen) -> Vec<MemberChange> {
        match seen {
            Seen::Restarted => {
                let known =
                    self.objects.keys().filter(|object| object.group_kind() == *kind).cloned().collect();
                self.kinds.entry(kind.clone()).or_default().missing = known;
                Vec::new()
            }
            Seen::Listed(value) | Seen::Applied(value) => self.put(&value),
            Seen::Synced => {
                let state = self.kinds.entry(kind.clone()).or_default();
                state.synced = true;
                let missing = std::mem::take(&mut state.missing);
                missing.into_iter().filter_map(|object| self.remove(&object)).collect()
            }
            Seen::Unserved => {
                self.kinds.remove(kind);
                let gone: Vec<ObjectRef> =
                    self.objects.keys().filter(|object| object.group_kind() == *kind).cloned().collect();
                gone.into_iter().filter_map(|object| self.remove(&object)).collect()
            }
            Seen::Deleted(value) => {
                self.gone.note(&value);
                match identity(&value) {
                    // The last state of one that was replaced already says nothing about its successor.
                    Some(object) if self.is_current(&object, &value) => {
                        self.remove(&object).into_iter().collect()
                    }
                    _ => Vec::new(),
                }
            }
        }
    }

    /// Takes in an object as the API server has it: from a watch, or as the answer to a write.
    pub fn put(&mut self, value: &Value) -> Vec<MemberChange> {
        let Some(object) = identity(value) else { return Vec::new() };
        if let Some(state) = self.kinds.get_mut(&object.group_kind()) {
            state.missing.remove(&object);
        }
        if self.is_older(&object, value) || self.gone.knows(value) {
            return Vec::new();
        }
        let Some(part_of) = value["metadata"]["labels"][PART_OF].as_str() else {
            return self.remove(&object).into_iter().collect();
        };
        let Some(live) = Live::from_value(value, &self.manager(value, part_of)) else { return Vec::new() };
        let deployment = live.object.group_kind().is("apps", "Deployment").then(|| Box::new(slim(value)));
        let member = Member { health: health::of(value), live, deployment };
        self.insert(object, part_of, member)
    }

    fn insert(&mut self, object: ObjectRef, part_of: &str, member: Member) -> Vec<MemberChange> {
        let mut changes = Vec::new();
        let change = |kind| MemberChange { part_of: part_of.to_owned(), object: object.clone(), kind };
        let drifted = member.has_drifted();
        let before = self.objects.get(&object);
        let moved = before.is_some_and(|before| before.live.part_of.as_deref() != Some(part_of));
        match before {
            Some(before) if !moved => {
                if drifted && before.live != member.live && !same_but_version(&before.live, &member.live) {
                    changes.push(change(ChangeKind::Drifted));
                } else if before.live.stamp != member.live.stamp && !drifted {
                    changes.push(change(ChangeKind::Written));
                } else if before.health != member.health || before.deployment != member.deployment {
                    changes.push(change(ChangeKind::HealthChanged));
                }
            }
            _ => changes.push(change(if drifted { ChangeKind::Drifted } else { ChangeKind::Written })),
        }
        if moved {
            changes.extend(self.remove(&object));
        }
        self.sets.entry(part_of.to_owned()).or_default().insert(object.clone());
        self.objects.insert(object, member);
        changes
    }

    fn remove(&mut self, object: &ObjectRef) -> Option<MemberChange> {
        let member = self.objects.remove(object)?;
        let part_of = member.live.part_of.unwrap_or_default();
        if let Some(set) = self.sets.get_mut(&part_of) {
            set.remove(object);
            if set.is_empty() {
                self.sets.remove(&part_of);
            }
        }
        Some(MemberChange { part_of, object: object.clone(), kind: ChangeKind::Deleted })
    }

    /// Whether the index already has a newer state of the same object.
    fn is_older(&self, object: &ObjectRef, value: &Value) -> bool {
        let Some(known) = self.objects.get(object) else { return false };
        known.live.uid == text(&value["metadata"]["uid"])
            && version(text(&value["metadata"]["resourceVersion"]))
                .zip(version(&known.live.resource_version))
                .is_some_and(|(seen, known)| seen < known)
    }

    fn is_current(&self, object: &ObjectRef, value: &Value) -> bool {
        let known = self.objects.get(object);
        known.is_some_and(|known| known.live.uid == text(&value["metadata"]["uid"]))
            && !self.is_older(object, value)
    }

    /// The field manager of the environment that an object is part of: the one that is known, or the one
    /// among the object's own managers whose ApplySet it is.
    fn manager(&self, value: &Value, part_of: &str) -> String {
        if let Some(manager) = self.managers.get(part_of) {
            return manager.clone();
        }
        let entries = value["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ours = entries.iter().filter_map(|entry| entry["manager"].as_str()).find(|manager| {
            let name = manager.strip_prefix("holdfast/").and_then(|rest| rest.split_once('/'));
            name.is_some_and(|(namespace, name)| Marks::of_environment(namespace, name).part_of == part_of)
        });
        ours.unwrap_or_default().to_owned()
    }
}

/// Whether two states differ in nothing that drift is made of.
fn same_but_version(a: &Live, b: &Live) -> bool {
    (&a.uid, &a.stamp, &a.owned) == (&b.uid, &b.stamp, &b.owned)
}

/// Resource versions are numbers that can be compared within a kind:
/// <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/5504-comparable-resource-version>
fn version(text: &str) -> Option<u128> {
    text.parse().ok()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn identity(value: &Value) -> Option<ObjectRef> {
    Some(Live::from_value(value, "")?.object)
}

/// What `engine::health::canary_ready` reads of a Deployment.
fn slim(deployment: &Value) -> Value {
    let status = &deployment["status"];
    let conditions: Vec<Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| {
            json!({
                "type": condition["type"], "status": condition["status"],
                "reason": condition["reason"], "message": condition["message"],
            })
        })
        .collect();
    let numbers: BTreeMap<&str, &Value> = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ]
    .into_iter()
    .filter_map(|field| Some((field, status.get(field)?)))
    .collect();
    let mut status = json!(numbers);
    status["conditions"] = Value::Array(conditions);
    json!({
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "metadata": {"generation": deployment["metadata"]["generation"]},
        "spec": {"replicas": deployment["spec"]["replicas"], "paused": deployment["spec"]["paused"]},
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::plan::{ShortDigest, owned_fields};

    fn marks() -> Marks {
        Marks::of_environment("ops", "dev")
    }

    /// A member as the API server has it, at a version, owning these fields, stamped for those.
    fn config(version: u32, owned: &str, stamped: &str) -> Value {
        let fields = |field: &str| json!({"f:data": {format!("f:{field}"): {}}});
        let digest = |field: &str| {
            let live = json!({"metadata": {"managedFields": [
                {"manager": "m", "operation": "Apply", "fieldsV1": fields(field)}
            ]}});
            ShortDigest::from(owned_fields(&live, "m").unwrap())
        };
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "u1", "resourceVersion": version.to_string(),
                "labels": {PART_OF: marks().part_of},
                "annotations": {"holdfast.dev/applied": format!("{:016x}.{}", 1, digest(stamped))},
                "managedFields": [
                    {"manager": marks().field_manager, "operation": "Apply", "fieldsV1": fields(owned)}
                ]
            }
        })
    }

    fn with(mut value: Value, pointer: &str, to: Value) -> Value {
        *value.pointer_mut(pointer).unwrap() = to;
        value
    }

    fn kinds(changes: Vec<MemberChange>) -> Vec<ChangeKind> {
        changes.into_iter().map(|change| change.kind).collect()
    }

    #[test]
    fn each_event_tells_what_it_means() {
        use ChangeKind::{Deleted, Drifted, Written};
        let kind = GroupKind::new("", "ConfigMap");
        let reborn = with(config(9, "x", "x"), "/metadata/uid", json!("u2"));
        let table: [(&str, Seen, &[ChangeKind]); 14] = [
            ("a list begins", Seen::Restarted, &[]),
            ("a member", Seen::Listed(config(1, "x", "x")), &[Written]),
            ("the list ends", Seen::Synced, &[]),
            ("only the version moved", Seen::Applied(config(2, "x", "x")), &[]),
            ("a field was taken", Seen::Applied(config(3, "y", "x")), &[Drifted]),
            ("and nothing more", Seen::Applied(config(4, "y", "x")), &[]),
            ("an older state comes late", Seen::Applied(config(3, "x", "x")), &[]),
            ("it was set back", Seen::Applied(config(5, "x", "x")), &[]),
            ("it was deleted", Seen::Deleted(config(6, "x", "x")), &[Deleted]),
            (
                "and made again, by somebody else",
                Seen::Applied(with(reborn.clone(), "/metadata/annotations", json!({}))),
                &[Drifted],
            ),
            ("the old one's end comes late", Seen::Deleted(config(6, "x", "x")), &[]),
            ("the watch broke", Seen::Restarted, &[]),
            (
                "another is there now",
                Seen::Listed(with(config(10, "x", "x"), "/metadata/name", json!("b"))),
                &[Written],
            ),
            ("the first is not", Seen::Synced, &[Deleted]),
        ];
        let mut members = Members::default();
        for (what, seen, expected) in table {
            assert_eq!(kinds(members.apply(&kind, seen)), expected, "{what}");
        }
        assert!(members.is_synced(&kind));
        assert_eq!(
            members.of(&marks().part_of).map(|member| member.live.object.name.as_str()).collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_is_gone() {
        let kind = GroupKind::new("", "ConfigMap");
        let mut members = Members::default();
        members.put(&config(1, "x", "x"));
        assert_eq!(members.apply(&kind, Seen::Deleted(config(3, "x", "x"))).len(), 1);
        assert_eq!(members.put(&config(2, "x", "x")), [], "written before it was deleted");
        assert!(members.is_empty());
        // Gone before its own answer came.
        let mut members = Members::default();
        assert_eq!(members.apply(&kind, Seen::Deleted(config(3, "x", "x"))), []);
        assert_eq!(members.put(&config(2, "x", "x")), []);
        // It had only lost its label, and has it again.
        assert_eq!(members.put(&config(4, "x", "x")).len(), 1);
    }

    #[test]
    fn what_was_written_during_a_list_is_not_taken_for_gone() {
        let kind = GroupKind::new("", "ConfigMap");
        let mut members = Members::default();
        members.apply(&kind, Seen::Restarted);
        members.put(&config(5, "x", "x"));
        assert_eq!(members.apply(&kind, Seen::Synced), []);
        assert_eq!(members.len(), 1);
    }

    #[test]
    fn a_member_that_lost_its_label_or_moved_is_gone_from_its_set() {
        let mut members = Members::default();
        members.put(&config(1, "x", "x"));
        let other = Marks::of_environment("ops", "prod").part_of;
        let moved = with(
            config(2, "x", "x"),
            &format!("/metadata/labels/{}", PART_OF.replace('/', "~1")),
            json!(other),
        );
        let changes = members.put(&moved);
        assert!(changes.contains(&MemberChange {
            part_of: marks().part_of,
            object: identity(&moved).unwrap(),
            kind: ChangeKind::Deleted
        }));
        assert_eq!((members.of(&marks().part_of).count(), members.of(&other).count()), (0, 1));
        let plain = with(config(3, "x", "x"), "/metadata/labels", json!({}));
        assert_eq!(kinds(members.put(&plain)), [ChangeKind::Deleted]);
        assert!(members.is_empty() && members.sets.is_empty());
    }

    #[test]
    fn the_manager_is_found_without_being_told() {
        let mut members = Members::default();
        members.put(&config(1, "x", "x"));
        let member = members.of(&marks().part_of).next().unwrap();
        assert!(member.live.owned.is_some() && !member.has_drifted());
        assert!(!members.get(&member.live.object.clone()).unwrap().live.terminating);
    }

    #[test]
    fn a_deployment_is_remembered_well_enough_to_judge_its_canary() {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 2,
                         "labels": {PART_OF: marks().part_of}},
            "spec": {"replicas": 3, "selector": {}, "template": {"spec": {"containers": []}}},
            "status": {"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 4}
        });
        let mut members = Members::default();
        members.put(&deployment);
        let member = members.of(&marks().part_of).next().unwrap();
        assert_eq!(member.canary_health(1), engine::health::canary_ready(&deployment, 1));
        assert!(member.canary_health(1).is_ready() && !member.canary_health(2).is_ready());
        let text = member.deployment.as_ref().unwrap().to_string();
        assert!(!text.contains("template"));
    }
}
