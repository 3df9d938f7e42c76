//! Writes of one environment: checks at the door, applies, deletions. One write at a time.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::audit::PolicyEvidence;
use engine::object::{Bundle, Confidential, Digest, ObjectRef};
use engine::plan::{Approvals, DeletionBudget, Input as PlanInput, Live, Marks, Plan, ShortDigest, plan};
use engine::policy::Action;
use engine::rollout::{ApplyMode, DoorProblem, Event, HoldReason, Rollout};
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::actor::Input;
use super::candidate::{Candidate, violations};
use super::desired::Desired;
use super::others;
use super::services::Services;
use crate::api::{EnforcementSpec, Environment};
use crate::cluster;

/// How long the first lists of watched kinds may take.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// What the checks at the door found out, for the write that follows.
#[derive(Debug)]
pub struct Checked {
    /// What would be written.
    desired: Arc<Desired>,
    /// The fields that the environment would own, by object.
    owned: HashMap<ObjectRef, ShortDigest>,
}

/// A write that was asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The bundle.
    pub digest: Digest,
    /// How it is applied.
    pub mode: ApplyMode,
    /// The bundle itself, where it is in memory.
    pub candidate: Option<Candidate>,
    /// The bundle that a canary is compared with.
    pub baseline: Option<Digest>,
    /// What the cluster should hold now.
    pub desired: Option<Arc<Desired>>,
}

/// The writes of one environment.
pub struct Writer {
    services: Arc<Services>,
    sender: mpsc::UnboundedSender<Input>,
    checking: Option<JoinHandle<()>>,
    writing: Option<JoinHandle<()>>,
    /// Number of the newest write: an answer to an older one comes late.
    turn: u64,
    busy: bool,
    checked: Option<Arc<Checked>>,
    kept: Vec<Digest>,
    /// The deletion of old bundles: it must not meet the storing of a new one.
    forgetting: Option<JoinHandle<()>>,
}

impl Writer {
    /// Nothing is under way.
    pub fn new(services: Arc<Services>, sender: mpsc::UnboundedSender<Input>) -> Self {
        Self {
            services,
            sender,
            checking: None,
            writing: None,
            turn: 0,
            busy: false,
            checked: None,
            kept: Vec::new(),
            forgetting: None,
        }
    }

    /// Whether a write is under way: until it ends, what the watch tells is half of the story.
    pub fn is_writing(&self) -> bool {
        self.busy
    }

    /// Notes that a write ended. False if it is not the newest one.
    pub fn ended(&mut self, turn: u64) -> bool {
        let newest = turn == self.turn;
        self.busy &= !newest;
        newest
    }

    /// Keeps what the checks found out.
    pub fn checked(&mut self, checked: Option<Arc<Checked>>) {
        self.checked = checked;
    }

    /// Checks a candidate at the door, in the place of a check that is under way.
    pub fn check(
        &mut self,
        environment: &Arc<Environment>,
        candidate: Candidate,
        baseline: Option<Digest>,
        mode: ApplyMode,
        approved: bool,
    ) {
        let context = self.context(environment);
        let sender = self.sender.clone();
        if let Some(before) = self.checking.take() {
            before.abort();
        }
        self.checking = Some(tokio::spawn(async move {
            let digest = candidate.release.digest;
            let check = context.check(&candidate, baseline, &mode, approved);
            let (event, checked) = match AssertUnwindSafe(check).catch_unwind().await {
                Ok(Ok(checked)) => (Event::Admitted { digest }, Some(Arc::new(checked))),
                Ok(Err(mut problem)) => {
                    problem.message = hidden(Some(&candidate), None).mask(&problem.message);
                    (Event::Refused { digest, problem }, None)
                }
                Err(_) => {
                    let message =
                        "the checks failed by an error of the agent; please report this with its log"
                            .to_owned();
                    let problem = DoorProblem {
                        reason: HoldReason::ApplyRejected,
                        message,
                        transient: false,
                        again_at: None,
                    };
                    (Event::Refused { digest, problem }, None)
                }
            };
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(Input::Checked(event, checked));
        }));
    }

    /// Writes. A write of a whole bundle takes the place of one that is under way; a correction waits for
    /// nothing: what has drifted is looked for again when the write is over.
    pub fn apply(&mut self, environment: &Arc<Environment>, order: Order) {
        let correction = matches!(order.mode, ApplyMode::Correct(_));
        if correction && self.busy {
            return;
        }
        if let Some(forgetting) = self.forgetting.take_if(|_| !correction) {
            forgetting.abort();
            self.kept.clear();
        }
        let context = self.context(environment);
        let (digest, mode) = (order.digest, order.mode.clone());
        self.start(digest, mode, async move {
            let Order { digest, mode, candidate, .. } = order.clone();
            let started = Instant::now();
            let (event, desired) = match context.apply(order).await {
                Ok((desired, changed)) => {
                    let canaries = desired.canaries.clone();
                    (Event::Applied { digest, mode, canaries, changed }, Some(desired))
                }
                Err((message, desired)) => {
                    let message = hidden(candidate.as_ref(), desired.as_deref()).mask(&message);
                    (Event::ApplyFailed { digest, mode, message }, desired)
                }
            };
            let ok = matches!(event, Event::Applied { .. });
            let (metrics, key) = (&context.services.telemetry, context.environment.key());
            if correction && ok {
                metrics.drift_corrected(&key, started.elapsed());
            }
            metrics.applied(&key, correction, started.elapsed(), ok);
            (event, desired)
        });
    }

    /// Deletes what is no longer wanted; after a rollback, what the failed release brought.
    pub fn prune(
        &mut self,
        environment: &Arc<Environment>,
        digest: Digest,
        desired: Option<Arc<Desired>>,
        approved: bool,
        rollback: bool,
    ) {
        let context = self.context(environment);
        self.start(digest, ApplyMode::Full, async move {
            let event = match desired.filter(|desired| desired.digest == digest) {
                Some(desired) => match context.prune(&desired, approved, rollback).await {
                    Ok((deleted, kept)) => Event::Pruned { digest, deleted, kept },
                    // What cannot be deleted stays, and is said; it speaks against no release.
                    Err(message) => Event::Pruned { digest, deleted: 0, kept: vec![message] },
                },
                None => Event::ApplyFailed {
                    digest,
                    mode: ApplyMode::Full,
                    message: format!("bundle {} is not in memory; nothing is deleted", digest.short()),
                },
            };
            (event, None)
        });
    }

    fn start(
        &mut self,
        digest: Digest,
        mode: ApplyMode,
        work: impl Future<Output = (Event, Option<Arc<Desired>>)> + Send + 'static,
    ) {
        self.turn += 1;
        self.busy = true;
        let (turn, sender, before) = (self.turn, self.sender.clone(), self.writing.take());
        let failed = Event::ApplyFailed {
            digest,
            mode,
            message: "the write failed by an error of the agent; please report this with its log".to_owned(),
        };
        if let Some(before) = &before {
            before.abort();
        }
        self.writing = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // It ends at its next await; two writes must not interleave.
                let _ = before.await;
            }
            let (event, desired) = AssertUnwindSafe(work).catch_unwind().await.unwrap_or((failed, None));
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(Input::Written { turn, event, desired });
        }));
    }

    /// What the cluster should hold after a restart.
    ///
    /// # Errors
    /// A sentence, when the bundle cannot be read or made ready.
    pub async fn load(
        &self,
        environment: &Arc<Environment>,
        candidate: Option<&Candidate>,
        digest: Digest,
        rollout: &Rollout,
    ) -> Result<Desired, String> {
        let context = self.context(environment);
        if let Some(candidate) = candidate {
            // It was lost in the cluster, or never got there: a rollback may need it.
            let stored =
                context.services.cluster.store_bundle(environment, &digest, candidate.bundle.objects());
            stored.await.map_err(|error| error.to_string())?;
        }
        let baseline =
            rollout.settled.as_ref().filter(|_| !rollout.canaries.is_empty()).map(|settled| settled.digest);
        let pods = rollout.settings.canary_pods.max(1);
        let desired = context.desired(candidate, digest, baseline.map(|baseline| (baseline, pods))).await?;
        context.follow(&desired).await.map_err(|error| error.to_string())?;
        Ok(desired)
    }

    /// Deletes stored bundles that nothing refers to any more, in the background.
    pub fn keep_only(&mut self, environment: &Arc<Environment>, keep: Vec<Digest>) {
        if keep == self.kept {
            return;
        }
        self.kept.clone_from(&keep);
        let (services, environment) = (self.services.clone(), environment.clone());
        self.forgetting = Some(tokio::spawn(async move {
            if let Err(error) = services.cluster.forget_bundles_except(&environment, &keep).await {
                tracing::warn!(environment = %environment.key(), %error, "old bundles stay");
            }
        }));
    }

    fn context(&self, environment: &Arc<Environment>) -> Context {
        Context {
            services: self.services.clone(),
            environment: environment.clone(),
            marks: environment.marks(),
            checked: self.checked.clone(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        for task in [self.checking.take(), self.writing.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

/// What one check or write needs.
struct Context {
    services: Arc<Services>,
    environment: Arc<Environment>,
    marks: Marks,
    checked: Option<Arc<Checked>>,
}

/// What is known of the cluster's objects at one moment.
struct Seen {
    live: HashMap<ObjectRef, Live>,
    members: Vec<Live>,
}

impl Context {
    fn seen(&self, desired: &Desired) -> Seen {
        self.services.cluster.members(|index| Seen {
            live: desired
                .refs()
                .iter()
                .filter_map(|object| Some((object.clone(), index.get(object)?.live.clone())))
                .collect(),
            members: index.of(&self.marks.part_of).map(|member| member.live.clone()).collect(),
        })
    }

    fn plan(&self, desired: &Desired, approvals: Approvals) -> Plan {
        let seen = self.seen(desired);
        let live = |object: &ObjectRef| seen.live.get(object);
        let key = self.environment.key();
        let claims = &self.services.claims;
        // An object that is wanted here must not be wanted there; one that leaves may be on its way there.
        let claimed = |object: &ObjectRef| {
            if desired.wants(object) { claims.other(object, &key) } else { claims.next(object, &key) }
        };
        let budget = &self.environment.spec.deletion_budget;
        plan(&PlanInput {
            claimed: &claimed,
            approvals,
            budget: DeletionBudget { objects: budget.objects, percent: budget.percent },
            prune: self.environment.spec.prune,
            ..PlanInput::new(&desired.objects, &self.marks, &live, seen.members.iter().collect())
        })
    }

    /// The bundle of a digest: from memory, or as it is kept in the cluster.
    async fn bundle(
        &self,
        candidate: Option<&Candidate>,
        digest: Digest,
    ) -> Result<Arc<Bundle>, cluster::Error> {
        if let Some(candidate) = candidate.filter(|candidate| candidate.release.digest == digest) {
            return Ok(candidate.bundle.clone());
        }
        let objects = self.services.cluster.load_bundle(&self.environment, &digest).await?;
        Bundle::new(objects)
            .map(Arc::new)
            .map_err(|error| cluster::Error::BundleDamaged { digest, message: error.to_string() })
    }

    async fn desired(
        &self,
        candidate: Option<&Candidate>,
        digest: Digest,
        canary_of: Option<(Digest, u32)>,
    ) -> Result<Desired, String> {
        let bundle = self.bundle(candidate, digest).await.map_err(|error| error.to_string())?;
        let baseline = match canary_of {
            Some((baseline, pods)) => match self.bundle(candidate, baseline).await {
                Ok(bundle) => Some((bundle, pods)),
                // Without it nobody knows which Deployments change: all pods roll, gates judge as ever.
                Err(error @ (cluster::Error::BundleMissing(_) | cluster::Error::BundleDamaged { .. })) => {
                    tracing::warn!(environment = %self.environment.key(), %error, "no canary");
                    None
                }
                Err(error) => return Err(error.to_string()),
            },
            None => None,
        };
        let canary_of = baseline.as_ref().map(|(bundle, pods)| (&**bundle, *pods));
        Desired::prepare(&self.services.cluster, &self.environment, &bundle, canary_of)
            .await
            .map_err(|error| error.to_string())
    }

    /// Makes sure that every object of these is watched, and that those which were there are known.
    async fn follow(&self, desired: &Desired) -> Result<(), cluster::Error> {
        let mut kinds: BTreeSet<_> = desired.refs().iter().map(ObjectRef::group_kind).collect();
        kinds.extend(cluster::group_kinds(&self.environment));
        self.services.cluster.watch_group_kinds(&kinds).await?;
        self.services.cluster.synced(&kinds, LISTED_WITHIN).await
    }

    async fn check(
        &self,
        candidate: &Candidate,
        baseline: Option<Digest>,
        mode: &ApplyMode,
        approved: bool,
    ) -> Result<Checked, DoorProblem> {
        let refused = |reason, message, transient| DoorProblem { reason, message, transient, again_at: None };
        let mut violated = violations(&candidate.policies, &candidate.bundle, &|_| None);
        if !violated.is_empty() {
            let hidden = hidden(Some(candidate), None);
            for violation in &mut violated {
                violation.message = hidden.mask(&violation.message);
            }
        }
        let policies = self.environment.spec.policies.as_ref();
        let deny = policies.is_some_and(|policies| policies.enforcement == EnforcementSpec::Deny);
        let denied: Vec<String> = violated
            .iter()
            .filter(|violation| violation.action == Action::Deny)
            .map(ToString::to_string)
            .collect();
        for violation in &violated {
            tracing::warn!(environment = %self.environment.key(), "{violation}");
        }
        let enforced = u32::try_from(candidate.policies.enforced()).unwrap_or(u32::MAX);
        let evidence = PolicyEvidence { enforced, violations: violated };
        self.services.judgements.keep(&self.environment.key(), candidate.release.digest, evidence);
        if deny && !denied.is_empty() {
            return Err(refused(HoldReason::PolicyDenied, denied.join("; "), false));
        }
        others::dependencies_ready(&self.services, &self.environment).await?;
        others::settled_before(&self.services, &self.environment, candidate).await?;

        let canary_of = canary_of(mode, baseline);
        let desired = self
            .desired(Some(candidate), candidate.release.digest, canary_of)
            .await
            .map_err(|message| refused(HoldReason::ApplyRejected, message, true))?;
        let unreachable = |error: cluster::Error| refused(HoldReason::ApplyRejected, error.to_string(), true);
        self.follow(&desired).await.map_err(unreachable)?;

        self.services.claims.intend(&self.environment.key(), desired.refs());
        let approvals = Approvals { all: approved, ..Approvals::default() };
        let plan = self.plan(&desired, approvals);
        if let Some(message) = plan.refusal() {
            let key = self.environment.key();
            let contested =
                desired.refs().iter().any(|object| self.services.claims.other(object, &key).is_some());
            // The other environment may be about to let go of it: the same commit tells both.
            let reason = if contested { HoldReason::ApplyRejected } else { HoldReason::DeletionRefused };
            return Err(refused(reason, message, contested));
        }
        match self.services.cluster.check(&self.environment, &self.marks, &desired.objects, &plan).await {
            Ok(owned) => Ok(Checked { desired: Arc::new(desired), owned }),
            Err(errors) => {
                let transient = errors.iter().all(|error| error.error.is_transient());
                Err(refused(HoldReason::ApplyRejected, all(&errors), transient))
            }
        }
    }

    /// Writes what differs. On success: what is wanted from now on, and how many objects changed.
    async fn apply(&self, order: Order) -> Result<(Arc<Desired>, u32), (String, Option<Arc<Desired>>)> {
        let desired = match (&order.mode, &order.desired, &self.checked) {
            (ApplyMode::Correct(_), Some(desired), _) if desired.digest == order.digest => desired.clone(),
            (ApplyMode::Full | ApplyMode::Canary { .. }, _, Some(checked))
                if checked.desired.digest == order.digest =>
            {
                checked.desired.clone()
            }
            _ => {
                let canary_of = canary_of(&order.mode, order.baseline);
                let desired = self.desired(order.candidate.as_ref(), order.digest, canary_of).await;
                Arc::new(desired.map_err(|message| (message, None))?)
            }
        };
        let failed = |message: String| (message, Some(desired.clone()));
        let cluster = &self.services.cluster;
        let correction = matches!(order.mode, ApplyMode::Correct(_));
        if !correction {
            self.follow(&desired).await.map_err(|error| failed(error.to_string()))?;
            if let Some(candidate) = order.candidate.as_ref().filter(|_| order.mode != ApplyMode::Promote) {
                // Before the first write: from here on a rollback or a restart may need it.
                cluster
                    .store_bundle(&self.environment, &order.digest, candidate.bundle.objects())
                    .await
                    .map_err(|error| failed(error.to_string()))?;
            }
        }
        self.services.claims.claim(&self.environment.key(), desired.refs());
        let mut plan = self.plan(&desired, Approvals { all: true, ..Approvals::default() });
        if let ApplyMode::Correct(objects) = &order.mode {
            for stage in &mut plan.stages {
                stage.writes.retain(|write| objects.contains(&write.object));
            }
        }
        let none = HashMap::new();
        let owned = match &self.checked {
            Some(checked) if checked.desired.digest == desired.digest => &checked.owned,
            _ => &none,
        };
        let changed = cluster.apply(&self.environment, &self.marks, &desired.objects, &plan, owned).await;
        changed.map(|changed| (desired.clone(), changed)).map_err(|errors| failed(all(&errors)))
    }

    async fn prune(
        &self,
        desired: &Desired,
        approved: bool,
        rollback: bool,
    ) -> Result<(u32, Vec<String>), String> {
        let everything = || self.plan(desired, Approvals { all: true, ..Approvals::default() });
        let careful = self.plan(desired, Approvals::default());
        let mut kept: Vec<String> =
            careful.kept.iter().map(|(object, reason)| format!("{object} ({reason})")).collect();
        let deletions = match careful.refusal() {
            None => careful.prune,
            Some(_) if approved => everything().prune,
            // What the failed release brought goes again, but for what may hold data.
            Some(_) if rollback => {
                let (data, rest): (Vec<_>, Vec<_>) =
                    everything().prune.into_iter().partition(|d| holds_data(&d.object));
                kept.extend(data.iter().map(|deletion| format!("{} (it may hold data)", deletion.object)));
                rest
            }
            Some(message) => {
                kept.push(message);
                Vec::new()
            }
        };
        let deleted = self.services.cluster.prune(&self.environment, &deletions).await;
        deleted.map(|deleted| (deleted, kept)).map_err(|errors| all(&errors))
    }
}

fn all(errors: &[cluster::ObjectError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What no message repeats: what was decrypted for the candidate, and what the Secrets hold that are to be written. After
/// a restart, or on the way back to an older bundle, only the latter are known.
fn hidden(candidate: Option<&Candidate>, desired: Option<&Desired>) -> Confidential {
    let mut values = desired.map(|desired| Confidential::of_secrets(&desired.objects)).unwrap_or_default();
    if let Some(candidate) = candidate {
        values.extend(&candidate.confidential);
        values.extend(&Confidential::of_secrets(candidate.bundle.objects()));
    }
    values
}

/// Whether deleting the object can lose more than the object.
fn holds_data(object: &ObjectRef) -> bool {
    matches!(
        (object.group.as_str(), object.kind.as_str()),
        ("", "Namespace" | "PersistentVolumeClaim" | "PersistentVolume")
            | ("apiextensions.k8s.io", "CustomResourceDefinition")
    )
}

fn canary_of(mode: &ApplyMode, baseline: Option<Digest>) -> Option<(Digest, u32)> {
    match mode {
        ApplyMode::Canary { pods } => baseline.map(|baseline| (baseline, *pods)),
        _ => None,
    }
}
