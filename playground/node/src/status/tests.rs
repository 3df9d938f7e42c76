//! Pods in all their states.

use super::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(spec: Value) -> Pod {
    let mut value = json!({"containers": [{"name": "a", "image": "a:1"}]});
    value.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "p", "generation": 2}, "spec": value})).unwrap()
}

fn ended(code: i32) -> Ended {
    let reason = if code == 0 { "Completed" } else { "Error" };
    Ended { code, reason: reason.to_owned(), message: None, started: Some(at(1)), finished: at(2), id: None }
}

fn record(state: State, ready: bool) -> Record {
    Record { state, ready, started: ready, ..Record::new("") }
}

fn running(ready: bool) -> Record {
    record(State::Running { since: at(1) }, ready)
}

fn crash_looping() -> Record {
    Record { last: Some(ended(1)), ..Record::new("CrashLoopBackOff") }
}

#[test]
fn phases_follow_the_containers_and_the_restart_policy() {
    let done = |code| record(State::Terminated(ended(code)), false);
    for (policy, record, expected) in [
        ("Always", Record::new("ContainerCreating"), "Pending"),
        ("Always", running(false), "Running"),
        ("Always", crash_looping(), "Running"),
        ("Always", done(1), "Running"),
        ("Always", done(0), "Running"),
        ("Never", done(0), "Succeeded"),
        ("Never", done(1), "Failed"),
        ("OnFailure", done(0), "Succeeded"),
        ("OnFailure", done(1), "Running"),
    ] {
        let pod = pod(json!({"restartPolicy": policy}));
        let records = Records::from([("a".to_owned(), record.clone())]);
        assert_eq!(phase(&pod, &records), expected, "{policy} {record:?}");
    }
}

#[test]
fn init_containers_come_first() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}]}));
    let with = |init: Record| Records::from([("i".to_owned(), init), ("a".to_owned(), running(true))]);
    assert_eq!(phase(&pod, &with(running(false))), "Pending");
    assert_eq!(phase(&pod, &with(record(State::Terminated(ended(0)), false))), "Running");
    assert_eq!(phase(&pod, &with(record(State::Terminated(ended(1)), false))), "Failed");
}

fn condition(status: &PodStatus, kind: &str) -> (String, Option<String>, Option<String>) {
    let list = status.conditions.as_ref().unwrap();
    let condition = list.iter().find(|condition| condition.type_ == kind).unwrap();
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

#[test]
fn conditions_say_what_is_missing_and_keep_their_transition_times() {
    let mut pod = pod(json!({}));
    let ip = Some(Ipv4Addr::new(127, 32, 0, 1));
    let unready = Records::from([("a".to_owned(), running(false))]);
    let first = status(&pod, &unready, ip, at(0), at(10));
    assert_eq!(
        condition(&first, "Ready"),
        (
            "False".into(),
            Some("ContainersNotReady".into()),
            Some("containers with unready status: [a]".into())
        )
    );
    assert_eq!(condition(&first, "Initialized"), ("True".into(), None, None));
    pod.status = Some(first);
    let ready = Records::from([("a".to_owned(), running(true))]);
    let second = status(&pod, &ready, ip, at(0), at(20));
    assert_eq!(condition(&second, "Ready"), ("True".into(), None, None));
    let when = |status: &PodStatus, kind: &str| {
        let list = status.conditions.clone().unwrap();
        list.iter().find(|condition| condition.type_ == kind).unwrap().last_transition_time.clone().unwrap().0
    };
    assert_eq!(when(&second, "Ready"), at(20));
    assert_eq!(when(&second, "Initialized"), at(10));
    assert_eq!(second.pod_ip.as_deref(), Some("127.32.0.1"));
}

#[test]
fn conditions_of_others_are_kept_and_gates_wait_for_them() {
    let mut pod = pod(json!({"readinessGates": [{"conditionType": "example.com/ok"}]}));
    let ready = Records::from([("a".to_owned(), running(true))]);
    let ip = Some(Ipv4Addr::new(127, 32, 0, 1));
    let closed = status(&pod, &ready, ip, at(0), at(1));
    assert_eq!(condition(&closed, "Ready").1.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(condition(&closed, "ContainersReady").0, "True");
    pod.status = Some(
        serde_json::from_value(json!({"conditions": [{"type": "example.com/ok", "status": "True"}]}))
            .unwrap(),
    );
    let open = status(&pod, &ready, ip, at(0), at(2));
    assert_eq!(
        (condition(&open, "Ready").0, condition(&open, "example.com/ok").0),
        ("True".into(), "True".into())
    );
}

#[test]
fn a_crash_looping_container_shows_its_last_end() {
    let status =
        status(&pod(json!({})), &Records::from([("a".to_owned(), crash_looping())]), None, at(0), at(9));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
}

#[test]
fn qos_classes() {
    let with = |resources: Value| pod(json!({"containers": [{"name": "a", "resources": resources}]}));
    for (resources, expected) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
    ] {
        assert_eq!(qos_class(&with(resources.clone())), expected, "{resources}");
    }
}
