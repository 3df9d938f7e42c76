//! Writing, and what stands in the way of it.

use agent::api::{ConflictsSpec, Environment};
use agent::cluster::{ChangeKind, Error};
use serde_json::json;

use crate::{World, config_map, correct, deploy, eventually, next, objects, planned, reference};

#[tokio::test]
async fn what_is_as_it_should_be_is_not_written_again() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let bundle = [config_map("a", "1"), config_map("b", "1")];
    assert_eq!(deploy(&world.cluster, &dev, &bundle).await.unwrap(), (2, 0));
    let before = world.read(&bundle[0]).await.unwrap();
    assert_eq!(before["metadata"]["labels"]["applyset.kubernetes.io/part-of"], dev.marks().part_of.as_str());
    assert!(planned(&world.cluster, &dev, &objects(&bundle)).is_empty());
    assert_eq!(deploy(&world.cluster, &dev, &bundle).await.unwrap(), (0, 0));
    assert_eq!(world.read(&bundle[0]).await.unwrap(), before);

    let changed = [config_map("a", "2"), config_map("b", "1")];
    assert_eq!(deploy(&world.cluster, &dev, &changed).await.unwrap(), (1, 0));
    assert_eq!(world.read(&bundle[0]).await.unwrap()["data"]["key"], "2");
}

#[tokio::test]
async fn drift_is_seen_and_set_back_with_one_write() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let bundle = [config_map("a", "1")];
    deploy(&world.cluster, &dev, &bundle).await.unwrap();
    let mut changes = world.cluster.subscribe(&dev.marks());

    // A field that the environment does not own is nobody's business.
    world.edit(&bundle[0], |object| object["data"]["other"] = json!("x")).await;
    world.edit(&bundle[0], |object| object["data"]["key"] = json!("edited")).await;
    assert_eq!(next(&mut changes).await, [(ChangeKind::Drifted, "a".into())]);
    let drifted = world.read(&bundle[0]).await.unwrap();

    assert_eq!(correct(&world.cluster, &dev, &bundle).await, 1);
    let corrected = world.read(&bundle[0]).await.unwrap();
    assert_eq!(corrected["data"], json!({"key": "1", "other": "x"}));
    let version = |object: &serde_json::Value| -> u64 {
        object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(version(&corrected), version(&drifted) + 1, "more than one write");
    assert!(planned(&world.cluster, &dev, &objects(&bundle)).is_empty());
}

#[tokio::test]
async fn a_deleted_object_is_missed_and_made_again() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let bundle = [config_map("a", "1"), config_map("b", "1")];
    deploy(&world.cluster, &dev, &bundle).await.unwrap();
    let mut changes = world.cluster.subscribe(&dev.marks());
    world.api(&bundle[0]).delete("a", &Default::default()).await.unwrap();
    assert_eq!(next(&mut changes).await, [(ChangeKind::Deleted, "a".into())]);
    assert_eq!(correct(&world.cluster, &dev, &bundle).await, 1);
    assert!(world.read(&bundle[0]).await.is_some());
}

#[tokio::test]
async fn what_left_the_bundle_is_deleted_unless_it_became_somebody_else_s() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| config_map(name, "1"));
    deploy(&world.cluster, &dev, &all).await.unwrap();
    let wanted = objects(&all[2..]);
    let plan = planned(&world.cluster, &dev, &wanted);
    assert_eq!(plan.prune.len(), 2);
    // After the plan: `a` is only edited, `b` loses the label.
    world.edit(&all[0], |object| object["data"]["other"] = json!("x")).await;
    world.edit(&all[1], |object| object["metadata"]["labels"] = json!({})).await;
    assert_eq!(world.cluster.prune(&dev, &plan.prune).await.unwrap(), 1);
    assert!(world.read(&all[0]).await.is_none() && world.read(&all[1]).await.is_some());
    assert_eq!(world.cluster.prune(&dev, &plan.prune[..1]).await.unwrap(), 1, "gone already");
}

#[tokio::test]
async fn conflicts_are_taken_left_or_reported() {
    for (i, policy) in
        [ConflictsSpec::Take, ConflictsSpec::Yield, ConflictsSpec::Fail].into_iter().enumerate()
    {
        let world = World::new().await;
        let mut dev = Environment::test("dev");
        dev.spec.conflicts = policy;
        let dev = world.environment(dev).await;
        let theirs = config_map("a", "theirs");
        world.create(theirs.clone()).await;
        let mut ours = config_map("a", "ours");
        ours["data"]["new"] = json!("ours");
        let result = deploy(&world.cluster, &dev, std::slice::from_ref(&ours)).await;
        let expected = [
            json!({"key": "ours", "new": "ours"}),
            json!({"key": "theirs", "new": "ours"}),
            json!({"key": "theirs"}),
        ];
        assert_eq!(world.read(&ours).await.unwrap()["data"], expected[i], "{policy:?}");
        match policy {
            ConflictsSpec::Fail => {
                let errors = result.unwrap_err();
                assert!(
                    matches!(&errors[0].error, Error::FieldConflict { fields, .. }
                    if fields[0].field == ".data.key" && fields[0].manager == "somebody"),
                    "{errors:?}"
                );
            }
            _ => {
                assert_eq!(result.unwrap(), (1, 0));
                assert!(
                    planned(&world.cluster, &dev, &objects(&[ours])).is_empty(),
                    "{policy:?} does not come to rest"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_door_reports_all_errors_together_and_nothing_is_written() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let good = config_map("good", "1");
    let mut unknown = config_map("unknown", "1");
    unknown["kind"] = json!("ConfigMop");
    let mut misspelt = config_map("misspelt", "1");
    misspelt["dota"] = json!({});
    let mut nowhere = config_map("nowhere", "1");
    nowhere["metadata"]["namespace"] = json!("no-such-namespace");
    let errors = deploy(&world.cluster, &dev, &[good.clone(), unknown, misspelt, nowhere]).await.unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 3, "{texts:#?}");
    for (name, word) in
        [("unknown", "no kind ConfigMop"), ("misspelt", "dota"), ("nowhere", "no-such-namespace")]
    {
        assert!(texts.iter().any(|text| text.contains(name) && text.contains(word)), "{name}: {texts:#?}");
    }
    assert!(world.read(&good).await.is_none());
    assert!(errors.iter().all(|error| !error.error.is_transient()));
}

#[tokio::test]
async fn a_bundle_brings_its_own_namespace() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "brought"}});
    let mut inside = config_map("a", "1");
    inside["metadata"]["namespace"] = json!("brought");
    let bundle = [inside, namespace];
    assert_eq!(deploy(&world.cluster, &dev, &bundle).await.unwrap(), (2, 0));
    assert!(planned(&world.cluster, &dev, &objects(&bundle)).is_empty());
    let dev = world.fresh(&dev).await;
    assert_eq!(dev.annotation("applyset.kubernetes.io/contains-group-kinds"), Some("ConfigMap,Namespace"));
    assert_eq!(dev.annotation("applyset.kubernetes.io/additional-namespaces"), Some("brought"));
}

#[tokio::test]
async fn a_bundle_brings_its_own_kinds() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}
            }}}]
        }
    });
    let gadget = json!({
        "apiVersion": "example.com/v1", "kind": "Gadget",
        "metadata": {"name": "one", "namespace": "shop"}, "spec": {"size": 1}
    });
    let bundle = [gadget.clone(), definition.clone()];
    assert_eq!(deploy(&world.cluster, &dev, &bundle).await.unwrap(), (2, 0));
    assert!(planned(&world.cluster, &dev, &objects(&bundle)).is_empty());
    // The kind that did not exist at first is watched now.
    world.edit(&gadget, |object| object["spec"]["size"] = json!(2)).await;
    eventually("the drift of a gadget is seen", || async {
        world
            .cluster
            .members(|index| index.get(&reference(&gadget)).is_some_and(|member| member.has_drifted()))
    })
    .await;

    // Without its definition the kind is gone: nobody watches for what cannot come, and the kind is asked for anew.
    world.delete(&definition).await;
    let kind = reference(&gadget).group_kind();
    eventually("the gadget and its kind are forgotten", || async {
        world.cluster.members(|index| index.get(&reference(&gadget)).is_none() && !index.is_synced(&kind))
    })
    .await;
    eventually("it comes back", || async { deploy(&world.cluster, &dev, &bundle).await.is_ok() }).await;
    eventually("it is watched again", || async { world.cluster.members(|index| index.is_synced(&kind)) })
        .await;
}

#[tokio::test]
async fn an_object_that_moves_is_handed_over() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let prod = world.environment(Environment::test("prod")).await;
    let bundle = [config_map("a", "1")];
    deploy(&world.cluster, &dev, &bundle).await.unwrap();
    let before = world.read(&bundle[0]).await.unwrap();
    assert_eq!(deploy(&world.cluster, &prod, &bundle).await.unwrap(), (1, 0));
    let after = world.read(&bundle[0]).await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["labels"]["applyset.kubernetes.io/part-of"], prod.marks().part_of.as_str());
    assert_eq!(world.cluster.members_of(&dev.marks()), []);
}

#[tokio::test]
async fn writes_are_made_as_the_service_account_and_its_want_of_rights_is_named() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev").with_service_account("deployer")).await;
    let errors = deploy(&world.cluster, &dev, &[config_map("a", "1")]).await.unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .contains("ServiceAccount holdfast-system/deployer may not patch configmaps in namespace shop"),
        "{errors:?}"
    );
    let metadata = json!({"name": "deployer", "namespace": "shop"});
    world
        .create(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}]
        }))
        .await;
    world
        .create(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "deployer"},
            "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": "holdfast-system"}]
        }))
        .await;
    eventually("the role is in force", || async {
        deploy(&world.cluster, &dev, &[config_map("a", "1")]).await.is_ok()
    })
    .await;
}
