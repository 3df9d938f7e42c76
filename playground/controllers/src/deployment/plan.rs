//! What a Deployment needs next, decided from what is there. Pure: the same input gives the same plan.
//!
//! The rules are those of Kubernetes' deployment controller (pkg/controller/deployment: rolling.go, recreate.go,
//! sync.go), so that a rollout here takes the same steps.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

use super::math::{Strategy, replicas};
use super::revision;
use super::status;
use crate::meta;

/// One write, in the order of the plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// A ReplicaSet for a template that has none.
    Create(Box<ReplicaSet>),
    /// Changed size or annotations of a ReplicaSet.
    Update(Box<ReplicaSet>),
    /// A ReplicaSet beyond the history limit.
    Delete(Box<ReplicaSet>),
    /// The revision that the Deployment is at.
    Revision(String),
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// What to write, in this order, before the status.
    pub writes: Vec<Write>,
    /// The status after those writes; equal to the present one if there is nothing to report.
    pub status: DeploymentStatus,
    /// When time alone changes the decision.
    pub again: Option<Duration>,
    /// What happened, for people: messages of `ScalingReplicaSet` events.
    pub events: Vec<String>,
}

/// Decides for a Deployment with the ReplicaSets that it owns and the pods of its namespace.
pub(crate) fn plan(
    deployment: &Deployment,
    replica_sets: Vec<ReplicaSet>,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let Some(spec) = &deployment.spec else {
        let status = deployment.status.clone().unwrap_or_default();
        return Plan { writes: vec![], status, again: None, events: vec![] };
    };
    let mut rollout = Rollout::new(deployment, spec, replica_sets);
    let mut conditions = status::Conditions::of(deployment, now);
    if meta::is_deleting(deployment) {
        return rollout.finish(conditions, vec![]);
    }
    conditions.note_pause(spec);
    let mut deletions = Vec::new();
    if spec.paused == Some(true) {
        rollout.sync_new(&mut conditions, false);
        rollout.scale();
        deletions = rollout.surplus_history();
    } else if rollout.is_scaling() {
        rollout.sync_new(&mut conditions, false);
        rollout.scale();
    } else {
        let moved = match rollout.strategy {
            Strategy::Recreate => rollout.recreate(&mut conditions, pods),
            Strategy::Rolling { .. } => rollout.roll(&mut conditions),
        };
        if !moved && status::is_complete(deployment, deployment.status.as_ref()) {
            deletions = rollout.surplus_history();
        }
    }
    rollout.finish(conditions, deletions)
}

/// The working copy of a decision.
pub(crate) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub strategy: Strategy,
    pub wanted: i32,
    pub new: Option<Member>,
    /// Oldest first.
    pub old: Vec<Member>,
    revision: Option<String>,
    events: Vec<String>,
}

/// A ReplicaSet and what the plan does with it.
pub(crate) struct Member {
    pub set: ReplicaSet,
    create: bool,
    dirty: bool,
}

impl Member {
    pub fn size(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    pub fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    pub fn pods(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, spec: &'a DeploymentSpec, mut sets: Vec<ReplicaSet>) -> Self {
        sets.sort_by(|a, b| {
            (&a.metadata.creation_timestamp, &a.metadata.name)
                .cmp(&(&b.metadata.creation_timestamp, &b.metadata.name))
        });
        // The oldest one with the template, so that two controllers choose the same.
        let new = sets.iter().position(|set| {
            !meta::is_deleting(set)
                && set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.template.as_ref())
                    .is_some_and(|template| same_template(template, &spec.template))
        });
        let member = |set| Member { set, create: false, dirty: false };
        let new = new.map(|index| member(sets.remove(index)));
        Rollout {
            deployment,
            spec,
            strategy: Strategy::of(deployment),
            wanted: replicas(spec),
            new,
            old: sets.into_iter().map(member).collect(),
            revision: None,
            events: Vec::new(),
        }
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.old.iter().chain(self.new.iter())
    }

    /// Brings the new ReplicaSet's annotations up to date, or creates it when `create` is set.
    fn sync_new(&mut self, conditions: &mut status::Conditions, create: bool) {
        let number = self.old.iter().map(|member| revision::of(&member.set)).max().unwrap_or(0) + 1;
        if let Some(new) = &mut self.new {
            new.dirty |= revision::annotate(self.deployment, &mut new.set, number);
            if let Some(spec) = &mut new.set.spec
                && spec.min_ready_seconds.unwrap_or(0) != self.spec.min_ready_seconds.unwrap_or(0)
            {
                spec.min_ready_seconds = self.spec.min_ready_seconds;
                new.dirty = true;
            }
            conditions.note_found(self.spec, meta::name(&new.set));
        } else if create {
            let mut set = new_replica_set(self.deployment, self.spec);
            revision::annotate(self.deployment, &mut set, number);
            let size = self.new_size(0);
            revision::set_size(&mut set, size, self.wanted, self.strategy.surge());
            conditions.note_created(self.spec, meta::name(&set));
            if size > 0 {
                self.events.push(format!("Scaled up replica set {} from 0 to {size}", meta::name(&set)));
            }
            self.new = Some(Member { set, create: true, dirty: false });
        }
        self.revision = self.new.as_ref().map(|new| revision::of(&new.set).to_string());
    }

    /// The size that the new ReplicaSet may have now (NewRSNewReplicas).
    fn new_size(&self, present: i32) -> i32 {
        match self.strategy {
            Strategy::Recreate => self.wanted,
            Strategy::Rolling { surge, .. } => {
                let limit = self.wanted.saturating_add(surge);
                let total = sum(self.members().map(Member::size));
                if total >= limit {
                    return present;
                }
                present + (limit - total).min(self.wanted - present)
            }
        }
    }

    /// One step of a rolling update; true if a size changed.
    fn roll(&mut self, conditions: &mut status::Conditions) -> bool {
        self.sync_new(conditions, true);
        if self.new.as_ref().is_some_and(|new| new.create) || self.grow_new() {
            return true;
        }
        self.shrink_old()
    }

    fn grow_new(&mut self) -> bool {
        let Some(present) = self.new.as_ref().map(Member::size) else { return false };
        let size = if present > self.wanted { self.wanted } else { self.new_size(present) };
        self.resize_new(size)
    }

    fn shrink_old(&mut self) -> bool {
        let old = sum(self.old.iter().map(Member::size));
        if old == 0 {
            return false;
        }
        let total = sum(self.members().map(Member::size));
        let least = self.wanted - self.strategy.unavailable();
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.size() - new.available());
        let most = total - least - new_unavailable;
        if most <= 0 {
            return false;
        }
        // Pods that serve nobody go first: they never cost availability.
        let mut gone = 0;
        for index in 0..self.old.len() {
            let unhealthy = self.old[index].size() - self.old[index].available();
            let step = (most - gone).min(unhealthy);
            if step > 0 {
                let size = self.old[index].size() - step;
                self.resize_old(index, size);
                gone += step;
            }
        }
        let available = sum(self.members().map(Member::available));
        let mut excess = available - least;
        let mut moved = gone > 0;
        for index in 0..self.old.len() {
            let step = excess.min(self.old[index].size());
            if step > 0 {
                let size = self.old[index].size() - step;
                self.resize_old(index, size);
                excess -= step;
                moved = true;
            }
        }
        moved
    }

    fn recreate(&mut self, conditions: &mut status::Conditions, pods: &[Arc<Pod>]) -> bool {
        self.sync_new(conditions, false);
        let mut moved = false;
        for index in 0..self.old.len() {
            moved |= self.old[index].size() > 0;
            self.resize_old(index, 0);
        }
        // Pods that terminate still run: the new ones wait for them.
        let old_runs = pods.iter().any(|pod| {
            !meta::is_terminal(pod)
                && self.old.iter().any(|member| meta::is_controlled_by(&pod.metadata, &member.set))
        });
        if moved || old_runs {
            return true;
        }
        if self.new.is_none() {
            self.sync_new(conditions, true);
            return true;
        }
        self.resize_new(self.wanted)
    }

    pub fn resize_new(&mut self, size: i32) -> bool {
        let (wanted, surge) = (self.wanted, self.strategy.surge());
        match &mut self.new {
            Some(member) => resize(member, size, wanted, surge, &mut self.events),
            None => false,
        }
    }

    pub fn resize_old(&mut self, index: usize, size: i32) -> bool {
        let (wanted, surge) = (self.wanted, self.strategy.surge());
        match self.old.get_mut(index) {
            Some(member) => resize(member, size, wanted, surge, &mut self.events),
            None => false,
        }
    }

    /// Empty old ReplicaSets beyond `revisionHistoryLimit`, lowest revision first.
    fn surplus_history(&self) -> Vec<ReplicaSet> {
        let Some(limit) = self.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else {
            return Vec::new();
        };
        let mut old: Vec<&ReplicaSet> =
            self.old.iter().map(|member| &member.set).filter(|set| !meta::is_deleting(*set)).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|set| revision::of(set));
        old.into_iter().take(surplus).filter(|set| is_empty(set)).cloned().collect()
    }

    fn finish(self, conditions: status::Conditions, deletions: Vec<ReplicaSet>) -> Plan {
        let (status, again) = status::of(&self, conditions);
        let mut writes = Vec::new();
        // Pods come before pods go.
        if let Some(new) = self.new {
            if new.create {
                writes.push(Write::Create(Box::new(new.set)));
            } else if new.dirty {
                writes.push(Write::Update(Box::new(new.set)));
            }
        }
        writes
            .extend(self.old.into_iter().filter(|old| old.dirty).map(|old| Write::Update(Box::new(old.set))));
        writes.extend(deletions.into_iter().map(|set| Write::Delete(Box::new(set))));
        let present =
            self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(revision::REVISION));
        if let Some(number) = self.revision.filter(|number| Some(number) != present) {
            writes.push(Write::Revision(number));
        }
        Plan { writes, status, again, events: self.events }
    }
}

/// The sum of counts, whatever their authors wrote.
pub(crate) fn sum(counts: impl Iterator<Item = i32>) -> i32 {
    counts.fold(0, i32::saturating_add)
}

fn resize(member: &mut Member, size: i32, wanted: i32, surge: i32, events: &mut Vec<String>) -> bool {
    let before = member.size();
    let annotated = revision::set_size(&mut member.set, size, wanted, surge);
    member.dirty |= annotated || before != size;
    if before != size {
        let direction = if size > before { "up" } else { "down" };
        let name = meta::name(&member.set);
        events.push(format!("Scaled {direction} replica set {name} from {before} to {size}"));
    }
    before != size
}

fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    status.map_or(0, |status| status.replicas) == 0
        && set.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
        && set.metadata.generation <= status.and_then(|status| status.observed_generation)
}

/// Equal but for the hash label that the controller itself adds.
pub(crate) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut meta = template.metadata.take().unwrap_or_default();
    meta.creation_timestamp = None;
    if let Some(labels) = &mut meta.labels {
        labels.remove(revision::HASH);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    template.metadata = Some(meta);
    template
}

fn new_replica_set(deployment: &Deployment, spec: &DeploymentSpec) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = meta::template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(revision::HASH.to_owned(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(revision::HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: kube::api::ObjectMeta {
            name: Some(format!("{}-{hash}", meta::name(deployment))),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![meta::controlled_by(deployment)]),
            ..Default::default()
        },
        spec: Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
