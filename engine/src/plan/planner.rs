//! From what is wanted and what is there to what has to be done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::marks::ShortDigest;
use super::{Deletion, Live, Marks, Plan, Refusal, Stage, StageName, Why, Write};
use crate::object::{Object, ObjectRef};

/// How much may be deleted without approval. Both bounds hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeletionBudget {
    /// Objects.
    pub objects: u32,
    /// Percent of the members, rounded up: of three members, one may go at 25 %.
    pub percent: u32,
}

impl Default for DeletionBudget {
    fn default() -> Self {
        Self { objects: 10, percent: 25 }
    }
}

impl DeletionBudget {
    /// How many of so many members may go.
    pub fn allows(&self, members: usize) -> usize {
        let share = members.saturating_mul(self.percent as usize).div_ceil(100);
        share.min(self.objects as usize)
    }
}

/// What a person approved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// Every deletion of this bundle.
    pub all: bool,
    /// The deletion of these objects.
    pub objects: BTreeSet<ObjectRef>,
}

impl Approvals {
    fn allow(&self, live: &Live) -> bool {
        self.all || live.deletion_allowed || self.objects.contains(&live.object)
    }
}

/// What is wanted and what is there.
pub struct Input<'a> {
    /// The wanted objects; every namespaced one names its namespace.
    pub desired: &'a [Object],
    /// The environment's marks.
    pub marks: &'a Marks,
    /// What is known of an object in the cluster.
    pub live: &'a dyn Fn(&ObjectRef) -> Option<&'a Live>,
    /// What carries the environment's label.
    pub members: Vec<&'a Live>,
    /// The environment, if another one, that wants an object: it moves there, or is claimed twice.
    pub claimed: &'a dyn Fn(&ObjectRef) -> Option<String>,
    /// What a person approved.
    pub approvals: Approvals,
    /// How much may be deleted without approval.
    pub budget: DeletionBudget,
    /// Whether anything is deleted at all.
    pub prune: bool,
}

impl<'a> Input<'a> {
    /// With the default budget, nothing approved and nothing claimed by another environment.
    pub fn new(
        desired: &'a [Object],
        marks: &'a Marks,
        live: &'a dyn Fn(&ObjectRef) -> Option<&'a Live>,
        members: Vec<&'a Live>,
    ) -> Self {
        Self {
            desired,
            marks,
            live,
            members,
            claimed: &|_| None,
            approvals: Approvals::default(),
            budget: DeletionBudget::default(),
            prune: true,
        }
    }
}

/// What has to be done so that the cluster holds what is wanted.
pub fn plan(input: &Input) -> Plan {
    let mut plan = Plan::default();
    let mut stages: BTreeMap<StageName, Vec<Write>> = BTreeMap::new();
    let mut wanted: BTreeSet<ObjectRef> = BTreeSet::new();
    for (index, object) in input.desired.iter().enumerate() {
        let key = object.object_ref();
        if wanted.contains(&key) {
            let message = "it is in the bundle twice".to_owned();
            plan.refusals.push(Refusal { object: Some(key), message });
            continue;
        }
        match why(input, object, &key) {
            Ok(Some(why)) => {
                let writes = stages.entry(StageName::of(&key.group_kind())).or_default();
                writes.push(Write { object: key.clone(), index, why });
            }
            Ok(None) => plan.unchanged += 1,
            Err(message) => plan.refusals.push(Refusal { object: Some(key.clone()), message }),
        }
        wanted.insert(key);
    }
    plan.stages = stages
        .into_iter()
        .map(|(name, mut writes)| {
            writes.sort_by(|a, b| a.object.cmp(&b.object));
            Stage { name, writes }
        })
        .collect();
    deletions(input, &wanted, &mut plan);
    plan
}

/// Why an object is written; none if it is as it should be; an error if it must not be.
fn why(input: &Input, object: &Object, key: &ObjectRef) -> Result<Option<Why>, String> {
    let Some(live) = (input.live)(key) else { return Ok(Some(Why::Create)) };
    if live.controlled {
        return Err("another object controls it: take it out of Git, or choose another name".to_owned());
    }
    let desired = ShortDigest::from(object);
    let member = live.part_of.as_deref() == Some(input.marks.part_of.as_str());
    if member {
        return Ok(match live.stamp {
            _ if live.is_intact(desired) => None,
            Some(stamp) if stamp.desired == desired => Some(Why::Drift),
            Some(_) => Some(Why::Change),
            None => Some(Why::Restamp),
        });
    }
    if let Some(other) = (input.claimed)(key) {
        return Err(format!("environment {other} has it in its bundle too: only one of them can own it"));
    }
    // Somebody took the label off an object that is otherwise ours.
    if live.part_of.is_none() && live.owned.is_some() && live.stamp.is_some() {
        return Ok(Some(Why::Drift));
    }
    Ok(Some(Why::Adopt { from: live.part_of.clone() }))
}

fn deletions(input: &Input, wanted: &BTreeSet<ObjectRef>, plan: &mut Plan) {
    let members: BTreeMap<&ObjectRef, &Live> = input
        .members
        .iter()
        .filter(|live| !live.controlled && live.part_of.as_deref() == Some(input.marks.part_of.as_str()))
        .map(|live| (&live.object, *live))
        .collect();
    let mut gone: Vec<&Live> = Vec::new();
    for live in members.values().filter(|live| !wanted.contains(&live.object) && !live.terminating) {
        let kept = if let Some(other) = (input.claimed)(&live.object) {
            Some(format!("it moves to environment {other}"))
        } else if live.prune_disabled {
            Some("holdfast.dev/prune is disabled".to_owned())
        } else if !input.prune {
            Some("the environment does not prune".to_owned())
        } else {
            None
        };
        match kept {
            Some(reason) => plan.kept.push((live.object.clone(), reason)),
            None => gone.push(live),
        }
    }
    refuse(input, wanted, &gone, members.len(), plan);
    // What was written last goes first: nothing loses what it needs.
    gone.sort_by(|a, b| {
        let stage = |live: &Live| StageName::of(&live.object.group_kind());
        stage(b).cmp(&stage(a)).then_with(|| a.object.cmp(&b.object))
    });
    plan.prune = gone
        .into_iter()
        .map(|live| Deletion {
            object: live.object.clone(),
            uid: live.uid.clone(),
            resource_version: live.resource_version.clone(),
        })
        .collect();
}

fn refuse(input: &Input, wanted: &BTreeSet<ObjectRef>, gone: &[&Live], members: usize, plan: &mut Plan) {
    let unapproved: Vec<&&Live> = gone.iter().filter(|live| !input.approvals.allow(live)).collect();
    if unapproved.is_empty() {
        return;
    }
    if wanted.is_empty() {
        let message =
            format!("the bundle is empty: {members} objects would be deleted. Approve it if that is meant");
        plan.refusals.push(Refusal { object: None, message });
        return;
    }
    for live in &unapproved {
        let kind = live.object.group_kind();
        let loss = if kind.is("", "Namespace") {
            "everything in it would be deleted with it"
        } else if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            "every object of its kind would be deleted with it"
        } else if kind.is("", "PersistentVolumeClaim") {
            "its data would be lost"
        } else {
            continue;
        };
        let message =
            format!("{loss}. Approve it, or annotate it with holdfast.dev/allow-deletion: \"true\" first");
        plan.refusals.push(Refusal { object: Some(live.object.clone()), message });
    }
    let counted = unapproved.iter().filter(|live| !is_rotated(&live.object, wanted)).count();
    let allowed = input.budget.allows(members);
    if counted > allowed {
        let message = format!(
            "{counted} of {members} objects would be deleted, the deletion budget allows {allowed}. Approve it if that is meant"
        );
        plan.refusals.push(Refusal { object: None, message });
    }
}

/// Whether an object gives way to one that differs only in the hash that kustomize put behind its name:
/// a new generation of the same configuration is no loss.
fn is_rotated(object: &ObjectRef, wanted: &BTreeSet<ObjectRef>) -> bool {
    let Some(stem) = stem(&object.name) else { return false };
    object.group.is_empty()
        && matches!(object.kind.as_str(), "ConfigMap" | "Secret")
        && wanted.iter().any(|other| {
            (&other.group, &other.kind, &other.namespace) == (&object.group, &object.kind, &object.namespace)
                && self::stem(&other.name) == Some(stem)
        })
}

/// A name without kustomize's hash: ten characters that spell no words.
fn stem(name: &str) -> Option<&str> {
    let (stem, hash) = name.rsplit_once('-')?;
    let is_hash = hash.len() == 10 && hash.bytes().all(|b| b"bcdfghkmt2456789".contains(&b));
    is_hash.then_some(stem)
}
