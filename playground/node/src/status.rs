//! The status of a pod, computed from what its containers do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What a container does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It does not run yet, or not now.
    Waiting { reason: String, message: Option<String> },
    /// It runs.
    Running { since: Timestamp },
    /// It has ended.
    Terminated(Ended),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub code: i32,
    pub reason: String,
    pub message: Option<String>,
    pub started: Option<Timestamp>,
    pub finished: Timestamp,
    pub id: Option<String>,
}

/// Everything that the status says about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub state: State,
    pub last: Option<Ended>,
    pub restarts: i32,
    pub ready: bool,
    pub started: bool,
    pub id: Option<String>,
    pub image_id: String,
}

impl Record {
    /// A container that nothing has been done for.
    pub fn new(reason: &str) -> Record {
        Record {
            state: State::Waiting { reason: reason.to_owned(), message: None },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            id: None,
            image_id: String::new(),
        }
    }
}

/// The containers' records by name.
pub(crate) type Records = BTreeMap<String, Record>;

/// The status of the pod.
pub(crate) fn status(
    pod: &Pod,
    records: &Records,
    ip: Option<Ipv4Addr>,
    start: Timestamp,
    now: Timestamp,
) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let inits = spec.init_containers.unwrap_or_default();
    let phase = phase(pod, records);
    let done = matches!(phase, "Succeeded" | "Failed");
    let uninitialized: Vec<&str> = inits
        .iter()
        .filter(|container| !is_initialized(container, records.get(&container.name)))
        .map(|container| container.name.as_str())
        .collect();
    let unready: Vec<&str> = spec
        .containers
        .iter()
        .chain(inits.iter().filter(|container| is_sidecar(container)))
        .filter(|container| !records.get(&container.name).is_some_and(|record| record.ready))
        .map(|container| container.name.as_str())
        .collect();
    let mut conditions = Conditions::new(&before, now, pod.metadata.generation);
    conditions.set("PodReadyToStartContainers", ip.is_some() && !done, None);
    let initialized = if done && uninitialized.is_empty() { Some("PodCompleted") } else { None };
    conditions.set(
        "Initialized",
        uninitialized.is_empty(),
        match initialized {
            Some(reason) => Some((reason, String::new())),
            None => {
                Some(("ContainersNotInitialized", names("containers with incomplete status", &uninitialized)))
                    .filter(|_| !uninitialized.is_empty())
            }
        },
    );
    let problem = if phase == "Succeeded" {
        Some(("PodCompleted", String::new()))
    } else if phase == "Failed" {
        Some(("PodFailed", String::new()))
    } else if !unready.is_empty() {
        Some(("ContainersNotReady", names("containers with unready status", &unready)))
    } else {
        None
    };
    let ready = problem.is_none() && uninitialized.is_empty();
    conditions.set("ContainersReady", ready, problem.clone());
    let gate = spec.readiness_gates.iter().flatten().find(|gate| !conditions.holds(&gate.condition_type));
    let gate = gate.map(|gate| {
        let kind = &gate.condition_type;
        ("ReadinessGatesNotReady", format!("the status of pod readiness gate \"{kind}\" is not \"True\""))
    });
    conditions.set("Ready", ready && gate.is_none(), problem.or(gate));
    conditions.set("PodScheduled", true, None);
    let statuses = |containers: &[Container]| {
        let list: Vec<ContainerStatus> = containers
            .iter()
            .map(|container| container_status(container, records.get(&container.name)))
            .collect();
        Some(list).filter(|list| !list.is_empty())
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions.list),
        container_statuses: statuses(&spec.containers),
        init_container_statuses: statuses(&inits),
        host_ip: Some(Ipv4Addr::LOCALHOST.to_string()),
        host_ips: Some(vec![HostIP { ip: Ipv4Addr::LOCALHOST.to_string() }]),
        pod_ip: ip.map(|ip| ip.to_string()),
        pod_ips: ip.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        qos_class: before.qos_class.or_else(|| Some(qos_class(pod).to_owned())),
        start_time: before.start_time.or_else(|| Some(time(start))),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn names(text: &str, names: &[&str]) -> String {
    format!("{text}: [{}]", names.join(" "))
}

/// Whether the container is an init container that keeps running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn is_initialized(container: &Container, record: Option<&Record>) -> bool {
    let Some(record) = record else { return false };
    if is_sidecar(container) {
        return record.started;
    }
    matches!(&record.state, State::Terminated(ended) if ended.code == 0)
}

/// The pod's phase (kubelet's getPhase).
pub(crate) fn phase(pod: &Pod, records: &Records) -> &'static str {
    let Some(spec) = &pod.spec else { return "Pending" };
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    for init in spec.init_containers.iter().flatten() {
        let record = records.get(&init.name);
        if let Some(Record { state: State::Terminated(ended), .. }) = record
            && ended.code != 0
            && policy == "Never"
            && !is_sidecar(init)
        {
            return "Failed";
        }
        if !is_initialized(init, record) {
            return "Pending";
        }
    }
    let (mut waiting, mut running, mut succeeded, mut failed) = (0, 0, 0, 0);
    for container in &spec.containers {
        match records.get(&container.name).map(|record| (&record.state, &record.last)) {
            Some((State::Running { .. }, _)) => running += 1,
            Some((State::Terminated(ended), _)) if ended.code == 0 => succeeded += 1,
            Some((State::Terminated(_), _)) => failed += 1,
            // Between two runs: it will come back.
            Some((State::Waiting { .. }, Some(_))) => running += 1,
            Some((State::Waiting { .. }, None)) | None => waiting += 1,
        }
    }
    match policy {
        _ if waiting > 0 => "Pending",
        _ if running > 0 => "Running",
        "Always" => "Running",
        _ if failed == 0 && succeeded > 0 => "Succeeded",
        "Never" if failed > 0 => "Failed",
        _ => "Running",
    }
}

fn container_status(container: &Container, record: Option<&Record>) -> ContainerStatus {
    let fallback = Record::new("PodInitializing");
    let record = record.unwrap_or(&fallback);
    let terminated = |ended: &Ended| ContainerStateTerminated {
        container_id: ended.id.clone(),
        exit_code: ended.code,
        finished_at: Some(time(ended.finished)),
        started_at: ended.started.map(time),
        reason: Some(ended.reason.clone()),
        message: ended.message.clone(),
        signal: None,
    };
    let mut state = ContainerState::default();
    match &record.state {
        State::Waiting { reason, message } => {
            state.waiting =
                Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() });
        }
        State::Running { since } => {
            state.running = Some(ContainerStateRunning { started_at: Some(time(*since)) });
        }
        State::Terminated(ended) => state.terminated = Some(terminated(ended)),
    }
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: record.image_id.clone(),
        container_id: record.id.clone(),
        ready: record.ready,
        started: Some(record.started),
        restart_count: record.restarts,
        state: Some(state),
        last_state: record
            .last
            .as_ref()
            .map(|ended| ContainerState { terminated: Some(terminated(ended)), ..ContainerState::default() }),
        ..ContainerStatus::default()
    }
}

/// How the pod's requests and limits class it when memory is short.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in pod.spec.iter().flat_map(|spec| spec.containers.iter()) {
        let resources = container.resources.as_ref();
        let of = |name: &str| {
            let limit = resources.and_then(|resources| resources.limits.as_ref()?.get(name).cloned());
            // A limit alone is also the request.
            let request = resources
                .and_then(|resources| resources.requests.as_ref()?.get(name).cloned())
                .or_else(|| limit.clone());
            (request, limit)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = of(name);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The conditions: this node's own are set, those of others are kept.
struct Conditions {
    before: Vec<PodCondition>,
    list: Vec<PodCondition>,
    now: Timestamp,
    generation: Option<i64>,
}

/// The conditions that the node itself sets.
pub(crate) const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

impl Conditions {
    fn new(before: &PodStatus, now: Timestamp, generation: Option<i64>) -> Conditions {
        let before = before.conditions.clone().unwrap_or_default();
        let list = before.iter().filter(|old| !OWN.contains(&old.type_.as_str())).cloned().collect();
        Conditions { before, list, now, generation }
    }

    fn holds(&self, kind: &str) -> bool {
        self.list.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    }

    fn set(&mut self, kind: &str, value: bool, reason: Option<(&str, String)>) {
        let status = if value { "True" } else { "False" };
        let transition = self
            .before
            .iter()
            .find(|old| old.type_ == kind && old.status == status)
            .and_then(|old| old.last_transition_time.clone())
            .unwrap_or_else(|| time(self.now));
        let (reason, message) = reason.map_or((None, None), |(reason, message)| {
            (Some(reason.to_owned()), Some(message).filter(|message| !message.is_empty()))
        });
        self.list.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(transition),
            observed_generation: self.generation,
            last_probe_time: None,
        });
    }
}

#[cfg(test)]
mod tests;
