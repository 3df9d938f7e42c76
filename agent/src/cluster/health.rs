//! How ready an environment's objects are: from the index, and from the pods of what is being rolled out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::health::{Health, Problem, pod_problem};
use engine::object::{Digest, ObjectRef};
use engine::plan::Marks;
use engine::rollout::{HealthSummary, Unready};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::error::Error;
use super::pods::{controller_uid, pod_kind, selector};
use super::request::{Call, Target};
use super::watch::{Seen, Watched};
use super::{Cluster, Kind};

/// What keeps the pods of workloads from running, by the workload. Only the newest watch of a workload may
/// speak: the last word of one that has ended must not be held against a later release.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    watched: Mutex<HashMap<ObjectRef, (u64, Option<Problem>)>>,
    watches: AtomicU64,
}

impl Problems {
    fn locked(&self) -> MutexGuard<'_, HashMap<ObjectRef, (u64, Option<Problem>)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, workload: &ObjectRef) -> Option<Problem> {
        self.locked().get(workload)?.1.clone()
    }

    fn open(&self, workload: &ObjectRef) -> u64 {
        let watch = self.watches.fetch_add(1, Ordering::Relaxed);
        self.locked().insert(workload.clone(), (watch, None));
        watch
    }

    /// Tells whether that is news.
    fn set(&self, workload: &ObjectRef, watch: u64, problem: Option<Problem>) -> bool {
        match self.locked().get_mut(workload) {
            Some((newest, known)) if *newest == watch && *known != problem => {
                *known = problem;
                true
            }
            _ => false,
        }
    }

    fn close(&self, workload: &ObjectRef, watch: u64) {
        let mut watched = self.locked();
        if watched.get(workload).is_some_and(|(newest, _)| *newest == watch) {
            watched.remove(workload);
        }
    }
}

/// Watches the pods of workloads while it lives.
#[derive(Debug)]
pub struct PodWatch {
    watches: Vec<(ObjectRef, u64, AbortHandle)>,
    problems: Arc<Problems>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        for (workload, watch, task) in &self.watches {
            task.abort();
            self.problems.close(workload, *watch);
        }
    }
}

impl Cluster {
    /// How ready the objects of a bundle are. `canaries` are the Deployments that are held at `pods` new
    /// pods.
    pub fn health<'a>(
        &self,
        digest: &Digest,
        wanted: impl IntoIterator<Item = &'a ObjectRef>,
        canaries: &[ObjectRef],
        pods: u32,
    ) -> HealthSummary {
        let wanted: Vec<&ObjectRef> = wanted.into_iter().collect();
        let mut summary = HealthSummary { digest: Some(*digest), ..HealthSummary::default() };
        let states: Vec<Health> = self.members(|index| {
            let state = |object: &ObjectRef| match index.get(object) {
                None => Health::progressing("Missing", "it is not there (yet)"),
                Some(member) if canaries.contains(object) => member.canary_health(pods),
                Some(member) => member.health.clone(),
            };
            wanted.iter().copied().map(state).collect()
        });
        for (object, state) in wanted.into_iter().zip(states) {
            summary.total += 1;
            match with_problem(state, self.inner.problems.get(object)) {
                Health::Ready => summary.ready += 1,
                Health::Progressing { reason, message } => {
                    summary.progressing.push(Unready { object: object.clone(), reason, message });
                }
                Health::Failed { reason, message } => {
                    summary.failed.push(Unready { object: object.clone(), reason, message });
                }
            }
        }
        summary
    }

    /// Watches the newest pods of these workloads, so that what keeps them from running is in
    /// [`Cluster::health`] and its news reach the subscribers. For the time of a rollout only: hold the
    /// answer as long as that takes. Objects that make no pods are passed over.
    pub fn watch_pods<'a>(
        &self,
        marks: &Marks,
        workloads: impl IntoIterator<Item = &'a ObjectRef>,
    ) -> PodWatch {
        let problems = self.inner.problems.clone();
        let watches = workloads
            .into_iter()
            .filter(|object| makes_pods(object))
            .map(|object| {
                let watch = problems.open(object);
                let task = watch_workload(self.clone(), marks.part_of.clone(), object.clone(), watch);
                (object.clone(), watch, tokio::spawn(task).abort_handle())
            })
            .collect();
        PodWatch { watches, problems }
    }
}

fn makes_pods(object: &ObjectRef) -> bool {
    matches!(
        (object.group.as_str(), object.kind.as_str()),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet") | ("batch", "Job")
    )
}

/// A problem that waiting does not cure fails what is on its way; another one explains it.
fn with_problem(state: Health, problem: Option<Problem>) -> Health {
    match (state, problem) {
        (Health::Progressing { .. }, Some(Problem { reason, message, final_: true })) => {
            Health::failed(reason, message)
        }
        (Health::Progressing { .. }, Some(Problem { reason, message, .. })) => {
            Health::progressing(reason, message)
        }
        (state, _) => state,
    }
}

async fn watch_workload(cluster: Cluster, part_of: String, workload: ObjectRef, watch: u64) {
    let labels = loop {
        match workload_selector(&cluster, &workload).await {
            Ok(Some(labels)) => break labels,
            Ok(None) => return,
            Err(error) => tracing::debug!(%workload, %error, "its pods cannot be watched yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let watched = Watched {
        kind: Arc::new(pod_kind()),
        namespace: workload.namespace.clone(),
        labels: Some(labels),
        ends_with_kind: false,
        fields: None,
    };
    let (sender, mut seen) = mpsc::unbounded_channel();
    let events =
        super::watch::watch(cluster.client().clone(), watched, move |event| sender.send(event).is_ok());
    let fold = async {
        let mut pods = Pods::default();
        let mut newest = Newest::default();
        while let Some(event) = seen.recv().await {
            pods.fold(event);
            while let Ok(event) = seen.try_recv() {
                pods.fold(event);
            }
            newest.refresh(&cluster, &workload, &mut pods).await;
            let problem = pods.problem(&newest);
            if cluster.inner.problems.set(&workload, watch, problem) {
                cluster.tell_health(&part_of, &workload);
            }
        }
    };
    tokio::join!(events, fold);
}

async fn workload_selector(cluster: &Cluster, workload: &ObjectRef) -> Result<Option<String>, Error> {
    let kind = match workload.kind.as_str() {
        "Deployment" => Kind::known("apps/v1", "Deployment", "deployments"),
        "StatefulSet" => Kind::known("apps/v1", "StatefulSet", "statefulsets"),
        "DaemonSet" => Kind::known("apps/v1", "DaemonSet", "daemonsets"),
        _ => Kind::known("batch/v1", "Job", "jobs"),
    };
    let target = Target::object(&kind, workload.namespace.as_deref(), &workload.name);
    let object = cluster.call(Call::get(target)).await?;
    Ok(selector(&object["spec"]["selector"]))
}

/// What is remembered of a workload's pods.
#[derive(Debug, Default)]
struct Pods {
    pods: BTreeMap<String, PodState>,
    /// Whether a pod came since the ReplicaSets were looked at.
    arrived: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct PodState {
    owner: Option<String>,
    problem: Option<Problem>,
}

impl Pods {
    fn fold(&mut self, seen: Seen) {
        match seen {
            Seen::Restarted => self.pods.clear(),
            Seen::Synced => {}
            Seen::Listed(pod) | Seen::Applied(pod) => {
                let state =
                    PodState { owner: controller_uid(&pod).map(str::to_owned), problem: pod_problem(&pod) };
                self.arrived |= self.pods.insert(name(&pod), state).is_none();
            }
            Seen::Unserved => self.pods.clear(),
            Seen::Deleted(pod) => drop(self.pods.remove(&name(&pod))),
        }
    }

    /// The worst problem of the newest pods.
    fn problem(&self, newest: &Newest) -> Option<Problem> {
        let problems = self.pods.values().filter(|pod| newest.owns(pod.owner.as_deref()));
        let mut problems: Vec<&Problem> = problems.filter_map(|pod| pod.problem.as_ref()).collect();
        problems.sort_by_key(|problem| !problem.final_);
        problems.first().copied().cloned()
    }
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Which ReplicaSet of a Deployment is the newest. Other workloads own their pods themselves.
#[derive(Debug, Default)]
struct Newest {
    known: BTreeSet<String>,
    newest: Option<String>,
}

impl Newest {
    fn owns(&self, owner: Option<&str>) -> bool {
        // An old ReplicaSet's pods say nothing about the release.
        self.known.is_empty() || (owner.is_some() && owner == self.newest.as_deref())
    }

    /// Looks at the ReplicaSets again when a pod has come: its owner may be new, or an old one that is used
    /// again.
    async fn refresh(&mut self, cluster: &Cluster, workload: &ObjectRef, pods: &mut Pods) {
        if workload.kind != "Deployment" || !std::mem::take(&mut pods.arrived) {
            return;
        }
        match cluster.versions_of(workload).await {
            Ok(versions) => {
                self.known = versions.sets.into_iter().collect();
                // Pods of others with the same labels must not be asked about again and again.
                self.known.extend(pods.pods.values().filter_map(|pod| pod.owner.clone()));
                self.newest = versions.newest;
            }
            Err(error) => {
                pods.arrived = true;
                tracing::debug!(%workload, %error, "its ReplicaSets cannot be read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, owner: &str, reason: &str) -> Value {
        json!({
            "metadata": {"name": name, "ownerReferences": [{"uid": owner, "controller": true}]},
            "status": {"containerStatuses": [{"name": "app", "image": "i", "state": {"waiting": {"reason": reason}}}]}
        })
    }

    #[test]
    fn only_the_newest_pods_speak_for_a_release() {
        let mut pods = Pods::default();
        pods.fold(Seen::Listed(pod("old-1", "old", "ImagePullBackOff")));
        pods.fold(Seen::Listed(pod("new-1", "new", "ContainerCreating")));
        let newest = Newest { known: ["old".into(), "new".into()].into(), newest: Some("new".into()) };
        assert_eq!(pods.problem(&newest), None);
        pods.fold(Seen::Applied(pod("new-2", "new", "CreateContainerConfigError")));
        pods.fold(Seen::Applied(pod("new-3", "new", "ImagePullBackOff")));
        assert_eq!(pods.problem(&newest).unwrap().reason, "ImagePullBackOff");
        pods.fold(Seen::Deleted(pod("new-3", "new", "")));
        assert_eq!(pods.problem(&newest).unwrap().reason, "CreateContainerConfigError");
        pods.fold(Seen::Restarted);
        assert_eq!(pods.problem(&newest), None);
    }

    #[test]
    fn a_watch_that_has_ended_does_not_speak() {
        let workload =
            ObjectRef { group: "apps".into(), kind: "Deployment".into(), namespace: None, name: "a".into() };
        let problem = Some(Problem { reason: "X".into(), message: "x".into(), final_: true });
        let problems = Problems::default();
        let first = problems.open(&workload);
        assert!(
            problems.set(&workload, first, problem.clone())
                && !problems.set(&workload, first, problem.clone())
        );
        let second = problems.open(&workload);
        assert_eq!(problems.get(&workload), None);
        problems.close(&workload, first);
        assert!(
            !problems.set(&workload, first, problem.clone())
                && problems.set(&workload, second, problem.clone())
        );
        problems.close(&workload, second);
        assert!(!problems.set(&workload, second, problem) && problems.get(&workload).is_none());
    }

    #[test]
    fn a_problem_fails_only_what_is_not_ready() {
        let problem =
            |final_| Some(Problem { reason: "ImagePullBackOff".into(), message: "no".into(), final_ });
        let progressing = || Health::progressing("Waiting", "1 of 2");
        assert_eq!(with_problem(Health::Ready, problem(true)), Health::Ready);
        assert_eq!(with_problem(progressing(), problem(true)), Health::failed("ImagePullBackOff", "no"));
        assert_eq!(
            with_problem(progressing(), problem(false)),
            Health::progressing("ImagePullBackOff", "no")
        );
        assert_eq!(with_problem(progressing(), None), progressing());
    }
}
