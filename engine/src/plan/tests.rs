use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::object::{Digest, Object, ObjectRef};

fn object(api_version: &str, kind: &str, name: &str) -> Object {
    let namespaced = !matches!(kind, "Namespace" | "CustomResourceDefinition" | "ClusterRole");
    let mut metadata = json!({"name": name});
    if namespaced {
        metadata["namespace"] = json!("shop");
    }
    Object::new(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})).unwrap()
}

fn marks() -> Marks {
    Marks::of_environment("holdfast-system", "prod")
}

/// What the API server would have after the object was applied by the environment.
fn applied(object: &Object) -> Value {
    let fields = json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {}});
    let desired = ShortDigest::from(object);
    let mut value = stamp(object, &marks(), desired, Some(ShortDigest::of(&fields))).into_value();
    value["metadata"]["uid"] = json!(format!("uid-{}", object.name()));
    value["metadata"]["resourceVersion"] = json!("7");
    value["metadata"]["managedFields"] = json!([{"manager": marks().field_manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    value
}

struct Cluster(BTreeMap<ObjectRef, Live>);

impl Cluster {
    fn of(values: impl IntoIterator<Item = Value>) -> Self {
        let live = values.into_iter().map(|value| Live::from_value(&value, &marks().field_manager).unwrap());
        Self(live.map(|live| (live.object.clone(), live)).collect())
    }

    fn plan_with(&self, desired: &[Object], change: impl FnOnce(&mut Input)) -> Plan {
        let marks = marks();
        let live = |key: &ObjectRef| self.0.get(key);
        let members =
            self.0.values().filter(|live| live.part_of.as_deref() == Some(&marks.part_of)).collect();
        let mut input = Input::new(desired, &marks, &live, members);
        change(&mut input);
        let plan = plan(&input);
        assert_eq!(lint(&plan), Vec::<String>::new(), "{plan}");
        plan
    }

    fn plan(&self, desired: &[Object]) -> Plan {
        self.plan_with(desired, |_| {})
    }
}

fn shop() -> Vec<Object> {
    vec![
        object("networking.k8s.io/v1", "Ingress", "shop"),
        object("apps/v1", "Deployment", "backend"),
        object("v1", "Service", "backend"),
        object("v1", "Namespace", "shop"),
        object("rbac.authorization.k8s.io/v1", "ClusterRole", "reader"),
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "things.example.com"),
        object("example.com/v1", "Thing", "one"),
        object("v1", "ConfigMap", "settings"),
    ]
}

#[test]
fn an_empty_cluster_is_filled_in_stages() {
    assert_snapshot!(Cluster::of([]).plan(&shop()), @r"
    8 to write, 0 to delete, 0 unchanged
    definitions and namespaces:
      + Namespace shop
      + CustomResourceDefinition.apiextensions.k8s.io things.example.com
    classes, roles and quotas:
      + ClusterRole.rbac.authorization.k8s.io reader
    configuration:
      + ConfigMap shop/settings
      + Service shop/backend
    workloads:
      + Deployment.apps shop/backend
    the rest:
      + Thing.example.com shop/one
      + Ingress.networking.k8s.io shop/shop
    ");
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    let cluster = Cluster::of(shop().iter().map(applied));
    let plan = cluster.plan(&shop());
    assert!(plan.is_empty());
    assert_eq!(plan.unchanged, 8);
}

#[test]
fn every_write_says_why() {
    let ours = |name: &str| applied(&object("v1", "ConfigMap", name));
    let mut changed = ours("changed");
    changed["metadata"]["annotations"][APPLIED] = json!("0000000000000000.0000000000000000");
    // Somebody set a field that was ours: the API server moved its ownership.
    let mut drifted = ours("drifted");
    drifted["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:spec": {}});
    let mut taken = ours("taken");
    taken["metadata"]["managedFields"] = json!([]);
    let mut unstamped = ours("unstamped");
    unstamped["metadata"]["annotations"] = json!({APPLIED: "?"});
    let mut unlabelled = ours("unlabelled");
    unlabelled["metadata"]["labels"] = json!({});
    let mut moved = ours("moved");
    moved["metadata"]["labels"][PART_OF] = json!("applyset-other-v1");
    let foreign = object("v1", "ConfigMap", "foreign").into_value();
    let cluster =
        Cluster::of([changed, drifted, taken, unstamped, unlabelled, moved, foreign, ours("intact")]);
    let names =
        ["changed", "drifted", "taken", "unstamped", "unlabelled", "moved", "foreign", "intact", "missing"];
    let desired: Vec<_> = names.iter().map(|name| object("v1", "ConfigMap", name)).collect();
    assert_snapshot!(cluster.plan(&desired), @r"
    8 to write, 0 to delete, 1 unchanged
    configuration:
      ~ ConfigMap shop/changed
      ~ ConfigMap shop/drifted (drifted)
      ~ ConfigMap shop/foreign (adopted, it exists already)
      + ConfigMap shop/missing
      ~ ConfigMap shop/moved (adopted from applyset-other-v1)
      ~ ConfigMap shop/taken (drifted)
      ~ ConfigMap shop/unlabelled (drifted)
      ~ ConfigMap shop/unstamped (its state is not known)
    ");
}

#[test]
fn what_git_no_longer_has_is_deleted_in_reverse() {
    let cluster = Cluster::of(shop().iter().map(applied));
    let desired: Vec<_> =
        shop().into_iter().filter(|o| matches!(o.name(), "shop" | "things.example.com")).collect();
    let plan =
        cluster.plan_with(&desired, |input| input.budget = DeletionBudget { objects: 10, percent: 100 });
    assert_snapshot!(plan, @r"
    0 to write, 5 to delete, 3 unchanged
    deletions:
      - Thing.example.com shop/one
      - Deployment.apps shop/backend
      - ConfigMap shop/settings
      - Service shop/backend
      - ClusterRole.rbac.authorization.k8s.io reader
    ");
    assert_eq!((plan.prune[1].uid.as_str(), plan.prune[1].resource_version.as_str()), ("uid-backend", "7"));
}

/// What the API server has after a plan was executed in full.
fn execute(cluster: &Cluster, plan: &Plan, desired: &[Object]) -> Cluster {
    let mut live = cluster.0.clone();
    for write in plan.stages.iter().flat_map(|stage| &stage.writes) {
        let value = applied(&desired[write.index]);
        live.insert(write.object.clone(), Live::from_value(&value, &marks().field_manager).unwrap());
    }
    for deletion in &plan.prune {
        let gone = live.remove(&deletion.object).unwrap();
        assert_eq!((&gone.uid, &gone.resource_version), (&deletion.uid, &deletion.resource_version));
    }
    Cluster(live)
}

/// Every state that an object can be found in, by name.
fn states(object: &Object) -> Vec<(&'static str, Option<Value>)> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = applied(object);
        change(&mut value["metadata"]);
        Some(value)
    };
    vec![
        ("missing", None),
        ("intact", with(&|_| {})),
        ("older", with(&|m| m["annotations"][APPLIED] = json!("0000000000000000.0000000000000000"))),
        ("drifted", with(&|m| m["managedFields"][0]["fieldsV1"] = json!({}))),
        ("taken", with(&|m| m["managedFields"] = json!([]))),
        ("unstamped", with(&|m| m["annotations"] = json!(null))),
        ("unlabelled", with(&|m| m["labels"] = json!(null))),
        (
            "foreign",
            with(
                &|m| *m = json!({"name": object.name(), "namespace": m["namespace"], "uid": "u", "resourceVersion": "1"}),
            ),
        ),
        ("another's", with(&|m| m["labels"][PART_OF] = json!("applyset-other-v1"))),
        ("kept", with(&|m| m["annotations"][PRUNE] = json!("disabled"))),
        ("leaving", with(&|m| m["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"))),
    ]
}

#[test]
fn executing_a_plan_leaves_nothing_to_do_from_any_state() {
    // Two objects of different stages in every pair of states, each wanted or not.
    let (a, b) = (object("v1", "ConfigMap", "a"), object("apps/v1", "Deployment", "b"));
    let mut plans = 0;
    for (name_a, state_a) in states(&a) {
        for (name_b, state_b) in states(&b) {
            for wanted in [vec![], vec![a.clone()], vec![b.clone()], vec![a.clone(), b.clone()]] {
                let cluster = Cluster::of([&state_a, &state_b].into_iter().flatten().cloned());
                let plan = cluster.plan_with(&wanted, |input| input.approvals.all = true);
                assert_eq!(plan.refusals, [], "{name_a} {name_b}");
                assert_eq!(plan.writes() + plan.unchanged, wanted.len(), "{name_a} {name_b}");
                let after = execute(&cluster, &plan, &wanted);
                let again = after.plan_with(&wanted, |input| input.approvals.all = true);
                assert!(again.is_empty(), "{name_a} {name_b}: {plan}\nthen\n{again}");
                // Nothing is ever deleted that is not a member, or that its team keeps.
                let may_go = ["intact", "older", "drifted", "taken", "unstamped"];
                for (object, state) in [(&a, name_a), (&b, name_b)] {
                    let deleted = plan.prune.iter().any(|deletion| deletion.object == object.object_ref());
                    let expected = !wanted.contains(object) && may_go.contains(&state);
                    assert_eq!(deleted, expected, "{} is {state}: {plan}", object.name());
                }
                plans += 1;
            }
        }
    }
    assert_eq!(plans, 11 * 11 * 4);
}

#[test]
fn the_checker_finds_broken_plans() {
    let cluster = Cluster::of([applied(&shop()[1])]);
    let good = cluster.plan_with(&shop()[2..4], |input| input.approvals.all = true);
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        lint(&plan).join("; ")
    };
    let cases = [
        broken(&|plan| plan.stages.reverse()),
        broken(&|plan| plan.stages[0].writes.clear()),
        broken(&|plan| plan.stages[0].name = StageName::Rest),
        broken(&|plan| {
            let write = plan.stages[0].writes[0].clone();
            plan.stages[0].writes.push(write);
        }),
        broken(&|plan| plan.prune[0].uid.clear()),
        broken(&|plan| plan.prune.push(plan.prune[0].clone())),
        broken(&|plan| plan.prune[0].object = plan.stages[0].writes[0].object.clone()),
        broken(&|plan| plan.kept.push((plan.prune[0].object.clone(), String::new()))),
    ];
    assert_snapshot!(cases.join("\n"), @r"
    stages are out of order
    stage definitions and namespaces is empty
    stages are out of order; Namespace shop does not belong to stage the rest
    Namespace shop is written twice; wanted object 1 is written twice
    Deployment.apps shop/backend would be deleted without preconditions
    Deployment.apps shop/backend is deleted twice
    Namespace shop is written and deleted
    Deployment.apps shop/backend is kept, and written or deleted
    ");
}

#[test]
fn dangerous_deletions_are_refused_unless_approved() {
    let claim = object("v1", "PersistentVolumeClaim", "data");
    let cluster = Cluster::of(shop().iter().chain([&claim]).map(applied));
    assert_snapshot!(cluster.plan(&[]).refusal().unwrap(), @"the bundle is empty: 9 objects would be deleted. Approve it if that is meant");
    let desired = &shop()[..3];
    assert_snapshot!(cluster.plan(desired), @r#"
    0 to write, 6 to delete, 3 unchanged
    deletions:
      - Thing.example.com shop/one
      - ConfigMap shop/settings
      - PersistentVolumeClaim shop/data
      - ClusterRole.rbac.authorization.k8s.io reader
      - Namespace shop
      - CustomResourceDefinition.apiextensions.k8s.io things.example.com
    refused:
      ! Namespace shop: everything in it would be deleted with it. Approve it, or annotate it with holdfast.dev/allow-deletion: "true" first
      ! PersistentVolumeClaim shop/data: its data would be lost. Approve it, or annotate it with holdfast.dev/allow-deletion: "true" first
      ! CustomResourceDefinition.apiextensions.k8s.io things.example.com: every object of its kind would be deleted with it. Approve it, or annotate it with holdfast.dev/allow-deletion: "true" first
      ! 6 of 9 objects would be deleted, the deletion budget allows 3. Approve it if that is meant
    "#);
    for desired in [&[], desired] {
        let plan = cluster.plan_with(desired, |input| input.approvals.all = true);
        assert_eq!(plan.refusals, []);
    }
    // One object approved by name, and one approved in advance on itself.
    let mut allowed = applied(&claim);
    allowed["metadata"]["annotations"][ALLOW_DELETION] = json!("true");
    let cluster = Cluster::of([applied(&shop()[3]), allowed, applied(&shop()[0])]);
    let plan = cluster.plan_with(&shop()[..1], |input| {
        input.approvals.objects.insert(shop()[3].object_ref());
    });
    assert_eq!((plan.refusals.len(), plan.prune.len()), (0, 2));
}

#[test]
fn what_must_stay_is_kept_with_the_reason() {
    let mut pinned = applied(&object("v1", "ConfigMap", "pinned"));
    pinned["metadata"]["annotations"][PRUNE] = json!("disabled");
    let mut leaving = applied(&object("v1", "ConfigMap", "leaving"));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    // Services' labels are copied to EndpointSlices: they are not members.
    let mut slice = applied(&object("discovery.k8s.io/v1", "EndpointSlice", "backend-x"));
    slice["metadata"]["ownerReferences"] =
        json!([{"kind": "Service", "name": "backend", "controller": true}]);
    let moving = applied(&object("v1", "ConfigMap", "moving"));
    let stays = applied(&shop()[0]);
    let cluster = Cluster::of([pinned, leaving, slice, moving, stays]);
    let plan = cluster.plan_with(&shop()[..1], |input| {
        input.claimed = &|key| (key.name == "moving").then(|| "holdfast-system/next".to_owned());
    });
    assert_snapshot!(plan, @r"
    0 to write, 0 to delete, 1 unchanged
    kept:
      = ConfigMap shop/moving (it moves to environment holdfast-system/next)
      = ConfigMap shop/pinned (holdfast.dev/prune is disabled)
    ");
    let cluster = Cluster::of([applied(&shop()[0]), applied(&shop()[1])]);
    let plan = cluster.plan_with(&shop()[..1], |input| input.prune = false);
    assert_snapshot!(plan.kept[0].1, @"the environment does not prune");
}

#[test]
fn nobody_takes_what_another_still_wants() {
    let mut theirs = applied(&object("v1", "ConfigMap", "shared"));
    theirs["metadata"]["labels"][PART_OF] = json!("applyset-other-v1");
    let mut controlled = applied(&object("v1", "Pod", "backend-1"));
    controlled["metadata"]["ownerReferences"] = json!([{"controller": true}]);
    let cluster = Cluster::of([theirs, controlled]);
    let desired = [
        object("v1", "ConfigMap", "shared"),
        object("v1", "Pod", "backend-1"),
        object("v1", "Secret", "twice"),
        object("v1", "Secret", "twice"),
    ];
    let plan = cluster
        .plan_with(&desired, |input| input.claimed = &|key| (key.name == "shared").then(|| "a/b".to_owned()));
    assert_snapshot!(plan, @r"
    1 to write, 0 to delete, 0 unchanged
    configuration:
      + Secret shop/twice
    refused:
      ! ConfigMap shop/shared: environment a/b has it in its bundle too: only one of them can own it
      ! Pod shop/backend-1: another object controls it: take it out of Git, or choose another name
      ! Secret shop/twice: it is in the bundle twice
    ");
}

#[test]
fn the_budget_is_a_number_and_a_share_and_spares_rotated_configuration() {
    let budget = DeletionBudget::default();
    let allowed = [0, 1, 3, 4, 5, 40, 1000].map(|members| budget.allows(members));
    assert_eq!(allowed, [0, 1, 1, 1, 2, 10, 10]);

    let names = ["a-2bk4gh5b2m", "b-2bk4gh5b2m", "c-2bk4gh5b2m", "c-something1"];
    let old: Vec<_> = names.iter().map(|name| object("v1", "ConfigMap", name)).collect();
    let cluster = Cluster::of(old.iter().map(applied));
    let new: Vec<_> = ["a-99t45k5b2m", "b-99t45k5b2m", "c-99t45k5b2m"]
        .iter()
        .map(|name| object("v1", "ConfigMap", name))
        .collect();
    assert_eq!(cluster.plan(&new).refusals, []);
    let plan = cluster.plan(&new[..2]);
    assert_snapshot!(plan.refusal().unwrap(), @"2 of 4 objects would be deleted, the deletion budget allows 1. Approve it if that is meant");
}

#[test]
fn marks_follow_their_rules() {
    // Checked with: printf 'prod.holdfast-system.Environment.holdfast.dev' | openssl dgst -sha256 -binary | basenc --base64url
    assert_snapshot!(marks().part_of, @"applyset-5VdX2n9m70fJJ3Ww5R34oMFbTmcvcMW8VEv8RMSQt1k-v1");
    assert!(marks().part_of.len() <= 63, "a label's value");
    assert_eq!(marks().field_manager, "holdfast/holdfast-system/prod");
    let long = |end: &str| {
        Marks::of_environment(&"n".repeat(63), &format!("{}{end}", "e".repeat(200))).field_manager
    };
    assert!(long("a").len() <= 128 && long("a") != long("b"), "{}", long("a"));

    let desired = ShortDigest::from(Digest::of(&json!({})));
    let parsed: Stamp = Stamp { desired, owned: desired }.to_string().parse().unwrap();
    assert_eq!(parsed.desired, desired);
    for bad in ["", ".", "0000000000000000", "0000000000000000.unknown", "000000000000000G.0000000000000000"]
    {
        assert!(bad.parse::<Stamp>().is_err(), "{bad}");
    }
}

#[test]
fn only_our_own_apply_counts_as_ownership() {
    let entry = |manager: &str, operation: &str, subresource: Value| json!({"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": {"f:a": {}}});
    let owned = |entry: Value| owned_fields(&json!({"metadata": {"managedFields": [entry]}}), "me").is_some();
    assert!(owned(entry("me", "Apply", Value::Null)));
    assert!(owned(entry("me", "Apply", json!(""))));
    assert!(!owned(entry("you", "Apply", Value::Null)));
    assert!(!owned(entry("me", "Update", Value::Null)));
    assert!(!owned(entry("me", "Apply", json!("status"))));
    assert_eq!(owned_fields(&json!([]), "me"), None);
    for nonsense in
        [json!(null), json!({"apiVersion": "v1"}), json!({"apiVersion": "v1", "kind": "A", "metadata": 1})]
    {
        assert_eq!(Live::from_value(&nonsense, "me"), None);
    }
}

fn deployment(name: &str, spec: Value) -> Object {
    let mut value = object("apps/v1", "Deployment", name).into_value();
    value["spec"] = spec;
    Object::new(value).unwrap()
}

#[test]
fn canaries_are_the_deployments_that_roll_out_anew() {
    let old = json!({"replicas": 3, "template": {"image": "v1"}});
    let new = |extra: Value| {
        let mut spec = json!({"replicas": 3, "template": {"image": "v2"}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let cases = [
        ("changed", new(json!({})), true),
        ("same", old.clone(), false),
        ("scaled", new(json!({"replicas": 5, "template": {"image": "v1"}})), false),
        ("recreate", new(json!({"strategy": {"type": "Recreate"}})), false),
        ("paused", new(json!({"paused": true})), false),
        ("asleep", new(json!({"replicas": 0})), false),
    ];
    let baseline: Vec<_> = cases.iter().map(|(name, ..)| deployment(name, old.clone())).collect();
    let mut target: Vec<_> = cases.iter().map(|(name, spec, _)| deployment(name, spec.clone())).collect();
    target.push(deployment("added", new(json!({}))));
    target.push(object("v1", "Service", "changed"));
    let expected: Vec<_> = cases.iter().filter(|case| case.2).map(|case| case.0).collect();
    let affected: Vec<_> = canary::affected(&baseline, &target).into_iter().map(|key| key.name).collect();
    assert_eq!(affected, expected);
}

#[test]
fn the_overlay_holds_a_deployment() {
    let spec = json!({"minReadySeconds": 5, "progressDeadlineSeconds": 60, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}, "template": {}});
    let held = canary::overlay(&deployment("a", spec), 2);
    assert_snapshot!(held.value()["spec"], @r#"{"minReadySeconds":604800,"progressDeadlineSeconds":604860,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":2,"maxUnavailable":0}},"template":{}}"#);
    let odd = canary::overlay(&deployment("a", json!("x")), 0);
    assert_eq!(odd.value()["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 1);
}

#[test]
fn the_autoscaler_decides_how_many_pods_there_are() {
    let mut scaler = object("autoscaling/v2", "HorizontalPodAutoscaler", "backend").into_value();
    scaler["spec"] =
        json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"}});
    let mut objects = vec![
        Object::new(scaler).unwrap(),
        deployment("backend", json!({"replicas": 3, "paused": false})),
        deployment("frontend", json!({"replicas": 3})),
    ];
    let changed = leave_to_autoscaler(&mut objects);
    assert_eq!(changed, [objects[1].object_ref()]);
    assert_eq!(objects[1].value()["spec"], json!({"paused": false}));
    assert_eq!(objects[2].value()["spec"], json!({"replicas": 3}));
    assert_eq!(leave_to_autoscaler(&mut objects), []);
}

#[test]
fn pods_stay_while_their_number_passes_to_an_autoscaler() {
    let ours = |fields: Value| {
        let mut value = applied(&deployment("backend", json!({"replicas": 7})));
        value["metadata"]["managedFields"][0]["fieldsV1"] = fields;
        Live::from_value(&value, &marks().field_manager).unwrap()
    };
    let owned = ours(json!({"f:spec": {"f:replicas": {}}}));
    let taken = ours(json!({"f:spec": {"f:template": {}}}));
    let replicas = |spec: Value, live: Option<&Live>| {
        keep_scale(deployment("backend", spec), live).value()["spec"]["replicas"].as_i64()
    };
    assert_eq!(replicas(json!({}), Some(&owned)), Some(7));
    assert_eq!(replicas(json!({}), Some(&taken)), None);
    assert_eq!(replicas(json!({}), None), None);
    assert_eq!(replicas(json!({"replicas": 2}), Some(&owned)), Some(2));
    let other = keep_scale(object("v1", "ConfigMap", "backend"), Some(&owned));
    assert!(other.value().get("spec").is_none());
}

#[test]
fn differences_read_well() {
    let old = json!({
        "metadata": {"annotations": {"a.b/c": "1"}},
        "spec": {"replicas": 2, "containers": [{"name": "a", "image": "x:1"}, {"name": "b"}], "args": ["x", "y"]},
    });
    let new = json!({
        "metadata": {"annotations": {"a.b/c": "2"}},
        "spec": {"containers": [{"name": "c"}, {"name": "a", "image": "x:2"}], "args": ["x", "z z"], "paused": true},
    });
    let text: Vec<String> = diff(&old, &new).iter().map(Change::to_string).collect();
    assert_snapshot!(text.join("\n"), @r#"
    metadata.annotations[a.b/c]: 1 → 2
    spec.containers[c]: + {"name":"c"}
    spec.containers[a].image: x:1 → x:2
    spec.containers[b]: - {"name":"b"}
    spec.args[1]: y → "z z"
    spec.paused: + true
    spec.replicas: - 2
    "#);
    assert_eq!(diff(&old, &old), []);
}

#[test]
fn differences_never_show_a_secret() {
    let secret = |data: Value| {
        json!({
            "kind": "Secret", "data": data,
            "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": data.to_string()}},
        })
    };
    let cases = [
        (
            secret(json!({"password": "aHVudGVyMg=="})),
            secret(json!({"password": "bmV3", "more": "aHVudGVyMg=="})),
        ),
        (secret(json!({"password": "aHVudGVyMg=="})), secret(json!(null))),
        (
            secret(json!({"password": {"deep": "aHVudGVyMg=="}})),
            secret(json!({"password": ["aHVudGVyMg=="]})),
        ),
    ];
    for (old, new) in cases {
        let changes = diff(&old, &new);
        assert!(!changes.is_empty());
        assert!(!format!("{changes:?}").contains("aHVudGVyMg"), "{changes:?}");
    }
    let whole = diff(&Value::Null, &secret(json!({"password": "aHVudGVyMg=="})));
    assert!(!format!("{whole:?}").contains("aHVudGVyMg"), "{whole:?}");
}
