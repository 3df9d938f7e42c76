use serde_json::{Value, json};

use super::*;

fn check(cases: &[(&str, Value, &str)]) {
    for (name, object, expected) in cases {
        assert_eq!(of(object).to_string(), *expected, "{name}");
    }
}

fn object(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": "x", "generation": 2},
        "spec": spec, "status": status,
    })
}

#[test]
fn deployments() {
    let deployment = |status: Value| object("apps/v1", "Deployment", json!({"replicas": 3}), status);
    let counts = |seen: i64, all: i64, updated: i64, ready: i64, available: i64| {
        json!({
            "observedGeneration": seen, "replicas": all, "updatedReplicas": updated,
            "readyReplicas": ready, "availableReplicas": available,
            "conditions": [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True"}],
        })
    };
    let mut late = counts(2, 4, 1, 3, 3);
    late["conditions"][1] = json!({
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet \"x-1\" has timed out progressing.",
    });
    let mut quota = counts(2, 3, 0, 3, 3);
    quota["conditions"][1] = json!({
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota",
    });
    check(&[
        ("no status", deployment(json!({})), "progressing (NotObserved): its controller has not seen it yet"),
        (
            "old generation",
            deployment(counts(1, 3, 3, 3, 3)),
            "progressing (NotObserved): its controller has seen generation 1, the newest is 2",
        ),
        (
            "updating",
            deployment(counts(2, 4, 1, 3, 3)),
            "progressing (Updating): 1 of 3 pods are of the newest version",
        ),
        ("quota", deployment(quota), "progressing (FailedCreate): exceeded quota"),
        (
            "old pods",
            deployment(counts(2, 4, 3, 4, 4)),
            "progressing (Terminating): 1 pods of an older version are still there",
        ),
        (
            "available",
            deployment(counts(2, 3, 3, 3, 2)),
            "progressing (NotAvailable): 2 of 3 pods are available",
        ),
        ("ready", deployment(counts(2, 3, 3, 3, 3)), "ready"),
        (
            "too late",
            deployment(late),
            "failed (ProgressDeadlineExceeded): ReplicaSet \"x-1\" has timed out progressing.",
        ),
        (
            "scaled to nothing",
            object("apps/v1", "Deployment", json!({"replicas": 0}), json!({"observedGeneration": 2})),
            "ready",
        ),
    ]);
}

#[test]
fn canaries() {
    let deployment = |replicas: i64, all: i64, updated: i64, ready: i64| {
        let status = json!({
            "observedGeneration": 2, "replicas": all, "updatedReplicas": updated, "readyReplicas": ready,
        });
        object("apps/v1", "Deployment", json!({"replicas": replicas}), status)
    };
    for (replicas, all, updated, ready, pods, expected) in [
        (3, 3, 0, 3, 1, "progressing (CanaryStarting): 0 of 1 canary pods exist"),
        (3, 4, 1, 3, 1, "progressing (CanaryNotReady): 3 of 4 pods are ready, 1 of them new"),
        (3, 4, 1, 4, 1, "ready"),
        (3, 5, 2, 4, 2, "progressing (CanaryNotReady): 4 of 5 pods are ready, 2 of them new"),
        // More canaries than pods: Kubernetes makes no more than the Deployment's size.
        (2, 4, 2, 4, 5, "ready"),
        // Applied again when everything is new already.
        (3, 3, 3, 3, 1, "ready"),
        (0, 0, 0, 0, 1, "ready"),
    ] {
        let health = canary_ready(&deployment(replicas, all, updated, ready), pods);
        assert_eq!(health.to_string(), expected, "{replicas} {all} {updated} {ready} {pods}");
    }
    // The old version is broken: only the new pod is ready.
    for (ready, available, expected) in
        [(1, 0, true), (2, 1, true), (1, 1, false), (2, 0, false), (0, 0, false)]
    {
        let mut mended = deployment(3, 4, 1, ready);
        mended["status"]["availableReplicas"] = json!(available);
        assert_eq!(canary_ready(&mended, 1).is_ready(), expected, "{ready} ready, {available} available");
    }
    let mut stale = deployment(3, 4, 1, 4);
    stale["metadata"]["generation"] = json!(3);
    assert!(!canary_ready(&stale, 1).is_ready());
}

#[test]
fn other_workloads() {
    let set = |status: Value| object("apps/v1", "StatefulSet", json!({"replicas": 2}), status);
    let daemon = |n: [i64; 5]| {
        let status = json!({
            "observedGeneration": 2, "desiredNumberScheduled": n[0], "currentNumberScheduled": n[1],
            "updatedNumberScheduled": n[2], "numberAvailable": n[3], "numberReady": n[4],
        });
        object("apps/v1", "DaemonSet", json!({}), status)
    };
    let job = |spec: Value, status: Value| object("batch/v1", "Job", spec, status);
    let done =
        |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}]});
    check(&[
        (
            "stateful creating",
            set(json!({"observedGeneration": 2, "replicas": 1})),
            "progressing (Creating): 1 of 2 pods exist",
        ),
        (
            "stateful not ready",
            set(json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 1})),
            "progressing (NotReady): 1 of 2 pods are ready",
        ),
        (
            "stateful updating",
            set(json!({
                "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 1,
                "currentRevision": "a", "updateRevision": "b",
            })),
            "progressing (Updating): 1 of 2 pods are of the newest version",
        ),
        (
            "stateful ready",
            set(json!({
                "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "currentRevision": "b", "updateRevision": "b",
            })),
            "ready",
        ),
        (
            "stateful partition",
            object(
                "apps/v1",
                "StatefulSet",
                json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}}),
                json!({
                    "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 1,
                    "currentRevision": "a", "updateRevision": "b",
                }),
            ),
            "ready",
        ),
        ("daemon creating", daemon([2, 1, 1, 1, 1]), "progressing (Creating): 1 of 2 pods exist"),
        (
            "daemon updating",
            daemon([2, 2, 1, 2, 2]),
            "progressing (Updating): 1 of 2 pods are of the newest version",
        ),
        (
            "daemon available",
            daemon([2, 2, 2, 1, 1]),
            "progressing (NotAvailable): 1 of 2 pods are available",
        ),
        ("daemon ready", daemon([2, 2, 2, 2, 2]), "ready"),
        ("job new", job(json!({}), json!({})), "progressing (NotStarted): it has not started"),
        (
            "job started is not done",
            job(json!({"completions": 3}), json!({"startTime": "t", "active": 1, "succeeded": 1})),
            "progressing (Running): 1 of 3 runs succeeded, 1 are running, 0 failed",
        ),
        ("job done", job(json!({}), done("Complete")), "ready"),
        ("job failed", job(json!({}), done("Failed")), "failed (R): m"),
        ("job suspended", job(json!({"suspend": true}), json!({})), "ready"),
        (
            "replica set",
            object("apps/v1", "ReplicaSet", json!({}), json!({"observedGeneration": 2})),
            "progressing (NotAvailable): 0 of 1 pods are available",
        ),
    ]);
}

#[test]
fn everything_else() {
    let custom = |status: Value| object("example.com/v1", "Thing", json!({}), status);
    let ready = |status: &str| json!({"conditions": [{"type": "Ready", "status": status, "reason": "R", "message": "m"}]});
    let mut leaving = object("v1", "ConfigMap", json!({}), json!({}));
    leaving["metadata"]["deletionTimestamp"] = json!("t");
    check(&[
        ("config", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}), "ready"),
        ("leaving", leaving, "progressing (Terminating): it is being deleted"),
        (
            "claim",
            object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Pending"})),
            "progressing (NotBound): its phase is Pending, not Bound",
        ),
        ("bound claim", object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Bound"})), "ready"),
        (
            "lost claim",
            object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Lost"})),
            "failed (ClaimLost): the volume that it was bound to is gone",
        ),
        ("service", object("v1", "Service", json!({"type": "ClusterIP"}), json!({})), "ready"),
        (
            "balancer",
            object("v1", "Service", json!({"type": "LoadBalancer"}), json!({"loadBalancer": {}})),
            "progressing (NoAddress): the load balancer has no address yet",
        ),
        (
            "addressed balancer",
            object(
                "v1",
                "Service",
                json!({"type": "LoadBalancer"}),
                json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
            ),
            "ready",
        ),
        (
            "definition",
            object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), json!({})),
            "progressing (NotEstablished): it has no condition Established yet",
        ),
        (
            "refused definition",
            object(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                json!({}),
                json!({"conditions": [{"type": "NamesAccepted", "status": "False", "reason": "PluralConflict", "message": "taken"}]}),
            ),
            "failed (PluralConflict): taken",
        ),
        (
            "autoscaler that cannot scale yet",
            object(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({}),
                json!({"conditions": [{"type": "ScalingActive", "status": "False"}]}),
            ),
            "ready",
        ),
        ("custom without status", custom(json!({})), "ready"),
        ("custom ready", custom(ready("True")), "ready"),
        ("custom not ready", custom(ready("False")), "progressing (R): m"),
        (
            "custom stalled",
            custom(
                json!({"conditions": [{"type": "Stalled", "status": "True", "reason": "BadSpec", "message": "no"}]}),
            ),
            "failed (BadSpec): no",
        ),
        (
            "custom reconciling",
            custom(json!({"conditions": [
                {"type": "Reconciling", "status": "True"}, {"type": "Ready", "status": "True"}
            ]})),
            "progressing (Reconciling): its condition Reconciling is True",
        ),
        (
            "custom with an old condition",
            custom(json!({"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]})),
            "progressing (NotObserved): its condition Ready is of an older generation",
        ),
        // Of some controllers it is known that they will say something.
        (
            "external secret that nobody has looked at",
            object("external-secrets.io/v1", "ExternalSecret", json!({}), json!({})),
            "progressing (NotReady): it has no condition Ready yet",
        ),
        (
            "external secret",
            object("external-secrets.io/v1", "ExternalSecret", json!({}), ready("True")),
            "ready",
        ),
        (
            "generator, which has no status",
            object("generators.external-secrets.io/v1alpha1", "Password", json!({}), json!({})),
            "ready",
        ),
        (
            "issuer without account",
            object("cert-manager.io/v1", "Issuer", json!({}), ready("False")),
            "progressing (R): m",
        ),
        (
            "database that nobody has looked at",
            object("rds.services.k8s.aws/v1alpha1", "DBInstance", json!({}), json!({})),
            "progressing (NotReady): it has no condition Ready yet",
        ),
        (
            "database in the making",
            object("rds.services.k8s.aws/v1alpha1", "DBInstance", json!({}), ready("False")),
            "progressing (R): m",
        ),
        (
            "database",
            object("rds.services.k8s.aws/v1alpha1", "DBInstance", json!({}), ready("True")),
            "ready",
        ),
        (
            "database that AWS refuses",
            object(
                "rds.services.k8s.aws/v1alpha1",
                "DBInstance",
                json!({}),
                json!({"conditions": [
                    {"type": "Ready", "status": "False", "reason": "ACK.Terminal"},
                    {"type": "ACK.Terminal", "status": "True", "message": "InvalidParameterValue: no such class"}
                ]}),
            ),
            "failed (Terminal): InvalidParameterValue: no such class",
        ),
        (
            "export of a field, which speaks only of mistakes",
            object("services.k8s.aws/v1alpha1", "FieldExport", json!({}), json!({})),
            "ready",
        ),
        ("nonsense", json!("x"), "ready"),
        (
            "nonsense status",
            object("apps/v1", "Deployment", json!([]), json!("x")),
            "progressing (NotObserved): its controller has not seen it yet",
        ),
    ]);
}

#[test]
fn pods_say_what_keeps_them() {
    let pod = |container: Value| {
        object("v1", "Pod", json!({}), json!({"phase": "Pending", "containerStatuses": [container]}))
    };
    let waiting = |reason: &str, message: &str, restarts: i64| {
        json!({
            "name": "app", "image": "shop:v9", "restartCount": restarts,
            "state": {"waiting": {"reason": reason, "message": message}},
        })
    };
    let mut crashed = waiting("CrashLoopBackOff", "back-off 10s restarting failed container", 2);
    crashed["lastState"] = json!({"terminated": {"exitCode": 3, "message": "no database\n"}});
    let mut hungry = waiting("CrashLoopBackOff", "", 4);
    hungry["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    check(&[
        (
            "first pull",
            pod(waiting("ErrImagePull", "not found", 0)),
            "progressing (ErrImagePull): container app cannot have its image shop:v9: not found",
        ),
        (
            "pull again",
            pod(waiting("ImagePullBackOff", "Back-off pulling image", 0)),
            "failed (ImagePullBackOff): container app cannot have its image shop:v9: Back-off pulling image",
        ),
        (
            "name",
            pod(waiting("InvalidImageName", "", 0)),
            "failed (InvalidImageName): container app cannot have its image shop:v9",
        ),
        (
            "config",
            pod(waiting("CreateContainerConfigError", "secret \"db\" not found", 0)),
            "progressing (CreateContainerConfigError): container app cannot start: secret \"db\" not found",
        ),
        (
            "first crash",
            pod(waiting("CrashLoopBackOff", "back-off 10s", 1)),
            "progressing (CrashLoopBackOff): container app was restarted 1 times: back-off 10s",
        ),
        (
            "crash",
            pod(crashed),
            "failed (CrashLoopBackOff): container app was restarted 2 times, exit code 3: no database",
        ),
        (
            "memory",
            pod(hungry),
            "failed (CrashLoopBackOff): container app was restarted 4 times, killed for using too much memory",
        ),
        ("starting", pod(waiting("ContainerCreating", "", 0)), "progressing (NotReady): it is not ready"),
        (
            "unschedulable",
            object(
                "v1",
                "Pod",
                json!({}),
                json!({"phase": "Pending", "conditions": [{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
                }]}),
            ),
            "progressing (Unschedulable): 0/1 nodes are available",
        ),
        ("done", object("v1", "Pod", json!({}), json!({"phase": "Succeeded"})), "ready"),
        (
            "failed",
            object(
                "v1",
                "Pod",
                json!({}),
                json!({"phase": "Failed", "containerStatuses": [
                    {"name": "app", "state": {"terminated": {"exitCode": 1, "message": "x".repeat(5000)}}}
                ]}),
            ),
            &format!(
                "failed (PodFailed): {}…",
                clipped(format!("container app: exit code 1: {}", "x".repeat(5000))).trim_end_matches('…')
            ),
        ),
        (
            "ready",
            object(
                "v1",
                "Pod",
                json!({}),
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            ),
            "ready",
        ),
    ]);
}

#[test]
fn the_worst_problem_of_a_pod_wins() {
    let container = |name: &str, reason: &str| json!({"name": name, "image": "i", "state": {"waiting": {"reason": reason}}});
    let status =
        json!({"containerStatuses": [container("a", "ErrImagePull"), container("b", "ImagePullBackOff")]});
    let problem = pod_problem(&json!({"status": status})).unwrap();
    assert!(problem.final_ && problem.message.contains("container b"), "{problem:?}");
    assert_eq!(pod_problem(&json!({"status": {"phase": "Running"}})), None);
    let leaving = json!({"metadata": {"deletionTimestamp": "t"}, "status": status});
    assert_eq!(pod_problem(&leaving), None);
}
