//! What one object says of another: names that lead nowhere are the mistakes that no server finds.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Rendered, environments, fleet, named};

/// Secrets that come from elsewhere: made by a controller of the cluster, or by hand where they may be missing.
const ELSEWHERE: [&str; 2] = [
    // cert-manager's account key and certificate are its own affair.
    "letsencrypt-account",
    "dhakacart-tls",
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether a selector of labels chooses a pod.
fn selects(selector: &Value, pod: &Value) -> bool {
    let labels = selector.as_object().unwrap();
    !labels.is_empty() && labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)
}

/// The pods' templates that a selector chooses in a namespace.
fn chosen<'a>(environment: &'a Rendered, namespace: &Value, selector: &Value) -> Vec<&'a Value> {
    environment
        .workloads()
        .filter(|workload| workload["metadata"]["namespace"] == *namespace)
        .map(|workload| &workload["spec"]["template"])
        .filter(|pod| selects(selector, pod))
        .collect()
}

/// Names of the Secrets that an environment brings, itself or through External Secrets.
fn secrets(environment: &Rendered) -> BTreeSet<&str> {
    let own = environment.of_kind("Secret").filter(|object| object["apiVersion"] == "v1");
    let own = own.map(|object| text(&object["metadata"]["name"]));
    let external =
        environment.of_kind("ExternalSecret").map(|object| text(&object["spec"]["target"]["name"]));
    own.chain(external).chain(ELSEWHERE).collect()
}

#[test]
fn services_and_budgets_and_autoscalers_have_pods() {
    for environment in environments() {
        for service in environment.of_kind("Service") {
            let pods = chosen(&environment, &service["metadata"]["namespace"], &service["spec"]["selector"]);
            assert_eq!(pods.len(), 1, "{} has {} Deployments", named(service), pods.len());
            for port in list(&service["spec"]["ports"]) {
                let target = &port["targetPort"];
                let found = list(&pods[0]["spec"]["containers"])
                    .flat_map(|container| list(&container["ports"]))
                    .any(|port| port["name"] == *target || port["containerPort"] == *target);
                assert!(found, "{}: no container has the port {target}", named(service));
            }
        }
        for budget in environment.of_kind("PodDisruptionBudget") {
            let selector = &budget["spec"]["selector"]["matchLabels"];
            assert_eq!(
                chosen(&environment, &budget["metadata"]["namespace"], selector).len(),
                1,
                "{}",
                named(budget)
            );
        }
        for autoscaler in environment.of_kind("HorizontalPodAutoscaler") {
            let target = &autoscaler["spec"]["scaleTargetRef"];
            environment.get(text(&target["kind"]), text(&target["name"]));
        }
        for workload in environment.workloads() {
            let spec = &workload["spec"];
            assert!(selects(&spec["selector"]["matchLabels"], &spec["template"]), "{}", named(workload));
        }
    }
}

#[test]
fn pods_find_what_they_mount_and_who_they_are() {
    for environment in environments() {
        let secrets = secrets(&environment);
        for workload in environment.workloads() {
            let who = format!("{}: {}", environment.path, named(workload));
            let pod = &workload["spec"]["template"]["spec"];
            environment.get("ServiceAccount", text(&pod["serviceAccountName"]));
            let secret = |name: &Value, optional: &Value| {
                assert!(
                    secrets.contains(text(name)) || optional == true,
                    "{who}: nobody makes the Secret {name}"
                );
            };
            let mut volumes = BTreeSet::new();
            for volume in list(&pod["volumes"]) {
                volumes.insert(text(&volume["name"]));
                if volume["configMap"].is_object() {
                    environment.get("ConfigMap", text(&volume["configMap"]["name"]));
                }
                if volume["persistentVolumeClaim"].is_object() {
                    environment
                        .get("PersistentVolumeClaim", text(&volume["persistentVolumeClaim"]["claimName"]));
                }
                if volume["secret"].is_object() {
                    secret(&volume["secret"]["secretName"], &volume["secret"]["optional"]);
                }
            }
            for container in list(&pod["containers"]) {
                for mount in list(&container["volumeMounts"]) {
                    assert!(volumes.contains(text(&mount["name"])), "{who}: no volume {}", mount["name"]);
                }
                for from in list(&container["envFrom"]) {
                    environment.get("ConfigMap", text(&from["configMapRef"]["name"]));
                }
                for variable in list(&container["env"]) {
                    let from = &variable["valueFrom"];
                    if from["configMapKeyRef"].is_object() {
                        let map = environment.get("ConfigMap", text(&from["configMapKeyRef"]["name"]));
                        assert!(
                            map["data"][text(&from["configMapKeyRef"]["key"])].is_string(),
                            "{who}: {from}"
                        );
                    }
                    if from["secretKeyRef"].is_object() {
                        secret(&from["secretKeyRef"]["name"], &from["secretKeyRef"]["optional"]);
                    }
                }
                for probe in ["livenessProbe", "readinessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    assert!(
                        list(&container["ports"]).any(|known| known["name"] == *port),
                        "{who}: {probe} asks the port {port}"
                    );
                }
            }
            // Prometheus comes to the port that the annotation names.
            let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
            if annotations["prometheus.io/scrape"] == "true" {
                let port: u64 = text(&annotations["prometheus.io/port"]).parse().unwrap();
                let mut ports = list(&pod["containers"]).flat_map(|container| list(&container["ports"]));
                assert!(
                    ports.any(|known| known["containerPort"] == port),
                    "{who}: nothing serves metrics at {port}"
                );
            }
        }
    }
}

#[test]
fn ingresses_lead_to_services_and_open_doors() {
    for environment in environments() {
        for ingress in
            environment.of_kind("Ingress").filter(|ingress| ingress["spec"]["ingressClassName"] == "nginx")
        {
            for path in list(&ingress["spec"]["rules"]).flat_map(|rule| list(&rule["http"]["paths"])) {
                let backend = &path["backend"]["service"];
                let service = environment.get("Service", text(&backend["name"]));
                let port =
                    list(&service["spec"]["ports"]).find(|port| port["port"] == backend["port"]["number"]);
                let port = port.unwrap_or_else(|| panic!("{}: {backend}", named(ingress)));
                // And a NetworkPolicy lets the ingress controller through to the container's port.
                let pods =
                    chosen(&environment, &service["metadata"]["namespace"], &service["spec"]["selector"]);
                let number = list(&pods[0]["spec"]["containers"])
                    .flat_map(|container| list(&container["ports"]))
                    .find(|known| known["name"] == port["targetPort"])
                    .map(|known| known["containerPort"].clone())
                    .unwrap();
                assert!(
                    lets_in(&environment, pods[0], "ingress-nginx", &number),
                    "{}: {}",
                    named(ingress),
                    path["path"]
                );
            }
        }
    }
}

/// Whether a NetworkPolicy lets a namespace's pods in at a port of a pod.
fn lets_in(environment: &Rendered, pod: &Value, namespace: &str, port: &Value) -> bool {
    environment
        .of_kind("NetworkPolicy")
        .filter(|policy| {
            let labels = &policy["spec"]["podSelector"]["matchLabels"];
            labels.is_object() && selects(labels, pod)
        })
        .flat_map(|policy| list(&policy["spec"]["ingress"]))
        .filter(|rule| list(&rule["ports"]).any(|known| known["port"] == *port))
        .flat_map(|rule| list(&rule["from"]))
        .any(|from| from["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace)
}

#[test]
fn every_network_is_closed_until_a_policy_opens_it() {
    for environment in environments().iter().filter(|environment| environment.workloads().count() > 0) {
        let closes = |policy: &&Value| {
            policy["spec"]["podSelector"].as_object().is_some_and(serde_json::Map::is_empty)
                && policy["spec"]["policyTypes"] == serde_json::json!(["Ingress", "Egress"])
                && policy["spec"]["ingress"].is_null()
        };
        assert_eq!(environment.of_kind("NetworkPolicy").filter(closes).count(), 1, "{}", environment.path);
        for policy in environment.of_kind("NetworkPolicy") {
            let labels = &policy["spec"]["podSelector"]["matchLabels"];
            if labels.is_object() && policy["metadata"]["name"] != "acme-challenge" {
                let pods = chosen(environment, &policy["metadata"]["namespace"], labels);
                assert_eq!(pods.len(), 1, "{} concerns nobody", named(policy));
            }
        }
        for workload in environment.workloads() {
            let pod = &workload["spec"]["template"];
            let annotations = &pod["metadata"]["annotations"];
            if environment.path.starts_with("monitoring") || annotations["prometheus.io/scrape"] != "true" {
                continue;
            }
            let port: u64 = text(&annotations["prometheus.io/port"]).parse().unwrap();
            for namespace in ["monitoring", "holdfast-system"] {
                assert!(
                    lets_in(environment, pod, namespace, &port.into()),
                    "{} from {namespace}",
                    named(workload)
                );
            }
        }
    }
}

/// Every `…Ref: {from: {name}}` and `…Refs: [{from: {name}}]` below a value, with the field's name.
fn controller_references<'a>(value: &'a Value, field: &'a str, found: &mut Vec<(&'a str, &'a str)>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("from").and_then(|from| from["name"].as_str())
                && (field.ends_with("Ref") || field.ends_with("Refs"))
            {
                found.push((field.trim_end_matches('s'), name));
            }
            for (field, value) in map {
                controller_references(value, field, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| controller_references(item, field, found)),
        _ => {}
    }
}

#[test]
fn objects_of_aws_refer_to_objects_of_the_right_kind() {
    let infrastructure =
        environments().into_iter().find(|environment| environment.path == "infrastructure/prod").unwrap();
    let mut seen = 0;
    for object in &infrastructure.objects {
        let mut found = Vec::new();
        controller_references(&object["spec"], "spec", &mut found);
        for (field, name) in found {
            let kind = match field {
                "vpcRef" => "VPC",
                "subnetRef" => "Subnet",
                "routeTableRef" => "RouteTable",
                "gatewayRef" => "InternetGateway",
                "natGatewayRef" => "NATGateway",
                "allocationRef" => "ElasticIPAddress",
                "groupRef" | "securityGroupRef" | "vpcSecurityGroupRef" => "SecurityGroup",
                "kmsKeyRef" | "targetKeyRef" => "Key",
                "dbSubnetGroupRef" => "DBSubnetGroup",
                "dbParameterGroupRef" => "DBParameterGroup",
                "monitoringRoleRef" => "Role",
                "policyRef" => "Policy",
                other => panic!("{}: of which kind is a {other}?", named(object)),
            };
            infrastructure.get(kind, name);
            seen += 1;
        }
        // References to Secrets name their keys.
        for secret in [&object["spec"]["masterUserPassword"], &object["spec"]["secretString"]] {
            if secret.is_object() {
                assert!(secrets(&infrastructure).contains(text(&secret["name"])), "{}", named(object));
                assert_eq!(secret["namespace"], object["metadata"]["namespace"], "{}", named(object));
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn external_secrets_ask_for_what_the_infrastructure_keeps() {
    let all = environments();
    let infrastructure = all.iter().find(|environment| environment.path == "infrastructure/prod").unwrap();
    let kept: BTreeSet<&str> = infrastructure
        .of_kind("Secret")
        .filter(|object| object["apiVersion"] != "v1")
        .map(|object| text(&object["spec"]["name"]))
        .chain(BY_HAND)
        .collect();
    for environment in &all {
        for external in environment.of_kind("ExternalSecret") {
            let store = &external["spec"]["secretStoreRef"];
            if store.is_object() {
                environment.get(text(&store["kind"]), text(&store["name"]));
            }
            for data in list(&external["spec"]["data"]) {
                let key = text(&data["remoteRef"]["key"]);
                assert!(kept.contains(key), "{}: nobody puts {key} into Secrets Manager", named(external));
            }
        }
        for store in environment.of_kind("SecretStore") {
            let account = &store["spec"]["provider"]["aws"]["auth"]["jwt"]["serviceAccountRef"]["name"];
            let account = environment.get("ServiceAccount", text(account));
            let role = text(&account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]);
            let role = infrastructure.get("Role", role.rsplit('/').next().unwrap());
            // Whom the role trusts is this very account.
            let subject = format!(
                "system:serviceaccount:{}:{}",
                text(&account["metadata"]["namespace"]),
                text(&account["metadata"]["name"])
            );
            assert!(text(&role["spec"]["assumeRolePolicyDocument"]).contains(&subject), "{}", named(store));
        }
    }
    for role in infrastructure.of_kind("Role").chain(infrastructure.of_kind("Policy")) {
        for document in [&role["spec"]["assumeRolePolicyDocument"], &role["spec"]["policyDocument"]] {
            if let Some(document) = document.as_str() {
                let document: Value =
                    serde_json::from_str(document).unwrap_or_else(|error| panic!("{}: {error}", named(role)));
                assert_eq!(document["Version"], "2012-10-17", "{}", named(role));
            }
        }
    }
}

/// What a person puts into Secrets Manager, as docs/infrastructure.md says.
const BY_HAND: [&str; 2] = ["dhakacart/monitoring/slack", "dhakacart/prod/rds-ca"];

#[test]
fn environments_wait_for_each_other_in_order() {
    let fleet = fleet();
    let waits_for = |name: &str| -> Vec<&str> {
        list(&fleet[name]["spec"]["dependsOn"]).map(|other| text(&other["name"])).collect()
    };
    assert_eq!(waits_for("prod"), ["monitoring"]);
    assert_eq!(waits_for("staging"), ["monitoring"]);
    assert_eq!(waits_for("monitoring"), ["infrastructure"]);
    assert!(waits_for("infrastructure").is_empty() && waits_for("dev").is_empty());
    let after = &fleet["prod"]["spec"]["rollout"]["after"][0];
    assert_eq!((text(&after["name"]), text(&after["soak"])), ("staging", "30m"));
    for (name, environment) in &fleet {
        for other in
            list(&environment["spec"]["dependsOn"]).chain(list(&environment["spec"]["rollout"]["after"]))
        {
            assert!(fleet.contains_key(text(&other["name"])), "{name} waits for {other}");
        }
    }
}

#[test]
fn the_frontend_finds_the_backend() {
    for environment in environments().iter().filter(|environment| environment.of_kind("Ingress").count() == 1)
    {
        let config = environment
            .of_kind("ConfigMap")
            .find(|map| text(&map["metadata"]["name"]).starts_with("dhakacart-frontend-"))
            .unwrap();
        let backend = environment.get("Service", "dhakacart-backend-service");
        let url =
            format!("http://{}:{}", text(&backend["metadata"]["name"]), backend["spec"]["ports"][0]["port"]);
        assert_eq!(config["data"]["API_URL"], url, "{}", environment.path);
        // Through its own NetworkPolicy and the backend's.
        let policy = environment.get("NetworkPolicy", "dhakacart-frontend");
        let out = &policy["spec"]["egress"][0];
        assert_eq!(out["to"][0]["podSelector"]["matchLabels"], backend["spec"]["selector"]);
        let policy = environment.get("NetworkPolicy", "dhakacart-backend");
        let comes_in = list(&policy["spec"]["ingress"]).flat_map(|rule| list(&rule["from"])).any(|from| {
            from["podSelector"]["matchLabels"]["app"] == "frontend" && from["namespaceSelector"].is_null()
        });
        assert!(comes_in, "{}", environment.path);
    }
}
