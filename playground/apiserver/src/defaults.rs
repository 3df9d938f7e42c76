//! Defaults of the built-in kinds, one rule per type name, applied wherever the type occurs.
//!
//! Rules: Kubernetes `pkg/apis/*/v1/defaults.go`.

use crate::schema::{Struct, Type};
use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

/// Sets the defaults of a value in canonical form. Custom resources take theirs from their schema.
pub fn apply(value: &mut Value, ty: &Type) {
    match (ty, value) {
        (Type::Struct(s), Value::Object(fields)) => {
            declared(fields, s);
            rule(&s.name, fields);
            for (name, field) in &s.fields {
                if let Some(inner) = fields.get_mut(name) {
                    apply(inner, &field.ty);
                }
            }
            late_rule(&s.name, fields);
        }
        (Type::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| apply(item, &list.element));
        }
        (Type::Map(map), Value::Object(entries)) => {
            entries.values_mut().for_each(|item| apply(item, &map.element));
        }
        _ => {}
    }
}

fn declared(fields: &mut Fields, ty: &Struct) {
    for (name, field) in &ty.fields {
        if let Some(default) = &field.default {
            let unset = fields.get(name).is_none_or(Value::is_null);
            if unset {
                fields.insert(name.clone(), default.clone());
            }
        }
    }
}

fn set(fields: &mut Fields, key: &str, value: impl Into<Value>) {
    let unset = match fields.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(_) => false,
    };
    if unset {
        fields.insert(key.into(), value.into());
    }
}

/// Sets a number where the zero value means unset.
fn set_number(fields: &mut Fields, key: &str, value: i64) {
    if fields.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
        fields.insert(key.into(), value.into());
    }
}

fn text<'a>(fields: &'a Fields, key: &str) -> &'a str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn object<'a>(fields: &'a mut Fields, key: &str) -> Option<&'a mut Fields> {
    fields.get_mut(key).and_then(Value::as_object_mut)
}

fn rule(name: &str, f: &mut Fields) {
    match name {
        "core.v1.PodSpec" => pod_spec(f),
        "core.v1.Container" | "core.v1.EphemeralContainer" => container(f),
        "core.v1.Probe" => {
            set_number(f, "timeoutSeconds", 1);
            set_number(f, "periodSeconds", 10);
            set_number(f, "successThreshold", 1);
            set_number(f, "failureThreshold", 3);
        }
        "core.v1.HTTPGetAction" => {
            set(f, "path", "/");
            set(f, "scheme", "HTTP");
        }
        "core.v1.GRPCAction" => set(f, "service", ""),
        "core.v1.SecretVolumeSource"
        | "core.v1.ConfigMapVolumeSource"
        | "core.v1.DownwardAPIVolumeSource"
        | "core.v1.ProjectedVolumeSource" => set(f, "defaultMode", 0o644),
        "core.v1.HostPathVolumeSource" => {
            f.entry("type").or_insert_with(|| "".into());
        }
        "core.v1.ServiceAccountTokenProjection" => set(f, "expirationSeconds", 3600),
        "core.v1.ObjectFieldSelector" => set(f, "apiVersion", "v1"),
        "core.v1.ServiceSpec" => service(f),
        "core.v1.Secret" => set(f, "type", "Opaque"),
        "core.v1.Namespace" => {
            let name = f["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if let Some(metadata) = object(f, "metadata").filter(|_| !name.is_empty()) {
                let labels = metadata.entry("labels").or_insert_with(|| json!({}));
                if let Value::Object(labels) = labels {
                    labels.insert("kubernetes.io/metadata.name".into(), name.into());
                }
            }
        }
        "core.v1.NamespaceStatus" => set(f, "phase", "Active"),
        "core.v1.PersistentVolumeClaimSpec" => set(f, "volumeMode", "Filesystem"),
        "core.v1.PersistentVolumeClaimStatus" => set(f, "phase", "Pending"),
        "core.v1.PersistentVolumeSpec" => {
            set(f, "persistentVolumeReclaimPolicy", "Retain");
            set(f, "volumeMode", "Filesystem");
        }
        "core.v1.PersistentVolumeStatus" => set(f, "phase", "Pending"),
        "core.v1.ReplicationControllerSpec" => set(f, "replicas", 1),
        "core.v1.LoadBalancerIngress" if !text(f, "ip").is_empty() => set(f, "ipMode", "VIP"),
        // One address is a list of one, as Go's conversion has it.
        "core.v1.PodStatus" => {
            let ip = text(f, "podIP").to_owned();
            let first = f.get("podIPs").and_then(|l| l[0]["ip"].as_str()).unwrap_or_default();
            if !ip.is_empty() && first != ip {
                f.insert("podIPs".into(), json!([{"ip": ip}]));
            }
        }
        "core.v1.LimitRangeItem" if text(f, "type") == "Container" => limit(f),
        "core.v1.EndpointPort" => set(f, "protocol", "TCP"),
        "discovery.v1.EndpointPort" => {
            set(f, "protocol", "TCP");
            f.entry("name").or_insert_with(|| "".into());
        }
        "apps.v1.DeploymentSpec" => deployment(f),
        "apps.v1.ReplicaSetSpec" => set(f, "replicas", 1),
        "apps.v1.StatefulSetSpec" => stateful_set(f),
        "apps.v1.DaemonSet" => {
            if let Some(metadata) = object(f, "metadata") {
                let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
                let key = crate::strategy::TEMPLATE_GENERATION;
                if annotations.is_object() && annotations.get(key).is_none() {
                    annotations[key] = "0".into();
                }
            }
        }
        "apps.v1.DaemonSetSpec" => {
            set(f, "revisionHistoryLimit", 10);
            if let Some(strategy) = object(f, "updateStrategy") {
                set(strategy, "type", "RollingUpdate");
                if text(strategy, "type") == "RollingUpdate" {
                    set(strategy, "rollingUpdate", json!({}));
                    if let Some(rolling) = object(strategy, "rollingUpdate") {
                        set(rolling, "maxUnavailable", 1);
                        set(rolling, "maxSurge", 0);
                    }
                }
            }
        }
        "batch.v1.Job" => {
            if let Some(spec) = object(f, "spec") {
                job(spec);
            }
        }
        "batch.v1.CronJobSpec" => {
            set(f, "concurrencyPolicy", "Allow");
            set(f, "suspend", false);
            set(f, "successfulJobsHistoryLimit", 3);
            set(f, "failedJobsHistoryLimit", 1);
        }
        "autoscaling.v1.HorizontalPodAutoscalerSpec" => set(f, "minReplicas", 1),
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => {
            set(f, "minReplicas", 1);
            if f.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                let target = json!({"type": "Utilization", "averageUtilization": 80});
                let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
                f.insert("metrics".into(), json!([metric]));
            }
            if let Some(behavior) = object(f, "behavior") {
                scaling(behavior);
            }
        }
        "networking.v1.NetworkPolicySpec" if f.get("policyTypes").is_none() => {
            let egress = f.get("egress").and_then(Value::as_array).is_some_and(|e| !e.is_empty());
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            f.insert("policyTypes".into(), types);
        }
        "networking.v1.NetworkPolicyPort" => set(f, "protocol", "TCP"),
        "rbac.v1.RoleRef" => set(f, "apiGroup", "rbac.authorization.k8s.io"),
        "rbac.v1.Subject" => {
            if matches!(text(f, "kind"), "User" | "Group") {
                set(f, "apiGroup", "rbac.authorization.k8s.io");
            }
        }
        "storage.v1.StorageClass" => {
            set(f, "reclaimPolicy", "Delete");
            set(f, "volumeBindingMode", "Immediate");
        }
        "scheduling.v1.PriorityClass" => set(f, "preemptionPolicy", "PreemptLowerPriority"),
        "admissionregistration.v1.MatchResources" => {
            set(f, "matchPolicy", "Equivalent");
            set(f, "namespaceSelector", json!({}));
            set(f, "objectSelector", json!({}));
        }
        "admissionregistration.v1.NamedRuleWithOperations"
        | "admissionregistration.v1.RuleWithOperations" => {
            set(f, "scope", "*");
        }
        "admissionregistration.v1.ValidatingAdmissionPolicySpec" => set(f, "failurePolicy", "Fail"),
        "admissionregistration.v1.ValidatingWebhook" | "admissionregistration.v1.MutatingWebhook" => {
            set(f, "failurePolicy", "Fail");
            set(f, "matchPolicy", "Equivalent");
            set(f, "namespaceSelector", json!({}));
            set(f, "objectSelector", json!({}));
            set(f, "timeoutSeconds", 10);
            if name.ends_with("MutatingWebhook") {
                set(f, "reinvocationPolicy", "Never");
            }
        }
        "admissionregistration.v1.ServiceReference" => set(f, "port", 443),
        "apiextensions.v1.CustomResourceDefinitionSpec" => {
            set(f, "conversion", json!({"strategy": "None"}));
            if let Some(names) = object(f, "names") {
                let kind = text(names, "kind").to_owned();
                if !kind.is_empty() {
                    set(names, "singular", kind.to_lowercase());
                    set(names, "listKind", format!("{kind}List"));
                }
            }
        }
        _ => {}
    }
}

/// Rules that look at children with their defaults.
fn late_rule(name: &str, f: &mut Fields) {
    if name != "core.v1.Pod" {
        return;
    }
    let Some(spec) = object(f, "spec") else { return };
    set(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
                continue;
            };
            let Some(Value::Object(limits)) = resources.get("limits").cloned() else { continue };
            let requests = resources.entry("requests").or_insert_with(|| json!({}));
            for (key, value) in limits {
                if requests.get(&key).is_none() {
                    requests[&key] = value;
                }
            }
        }
    }
}

fn pod_spec(f: &mut Fields) {
    set(f, "dnsPolicy", "ClusterFirst");
    set(f, "restartPolicy", "Always");
    set(f, "schedulerName", "default-scheduler");
    set(f, "securityContext", json!({}));
    set(f, "terminationGracePeriodSeconds", 30);
    for volume in f.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(volume) = volume
            && volume.len() == 1
        {
            volume.insert("emptyDir".into(), json!({}));
        }
    }
    let account = text(f, "serviceAccountName").to_owned();
    if account.is_empty() {
        let old = text(f, "serviceAccount").to_owned();
        if !old.is_empty() {
            f.insert("serviceAccountName".into(), old.into());
        }
    } else {
        f.insert("serviceAccount".into(), account.into());
    }
    if f.get("hostNetwork") == Some(&Value::Bool(true)) {
        for container in f.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(port) = port {
                    let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or(0);
                    set_number(port, "hostPort", number);
                }
            }
        }
    }
}

fn container(f: &mut Fields) {
    let image = text(f, "image");
    let tag = image.rsplit_once('/').map_or(image, |(_, last)| last);
    let latest = !image.contains('@') && tag.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    let policy = if latest { "Always" } else { "IfNotPresent" };
    set(f, "imagePullPolicy", policy);
    set(f, "terminationMessagePath", "/dev/termination-log");
    set(f, "terminationMessagePolicy", "File");
}

fn service(f: &mut Fields) {
    set(f, "sessionAffinity", "None");
    set(f, "type", "ClusterIP");
    let kind = text(f, "type").to_owned();
    if text(f, "sessionAffinity") == "None" {
        f.shift_remove("sessionAffinityConfig");
    }
    if text(f, "sessionAffinity") == "ClientIP" && f.get("sessionAffinityConfig").is_none() {
        f.insert("sessionAffinityConfig".into(), json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    for port in f.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(port) = port {
            set(port, "protocol", "TCP");
            let unset = matches!(port.get("targetPort"), None | Some(Value::Null))
                || port["targetPort"] == 0
                || port["targetPort"] == "";
            if unset {
                port.insert("targetPort".into(), port.get("port").cloned().unwrap_or(Value::from(0)));
            }
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set(f, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(f, "allocateLoadBalancerNodePorts", true);
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set(f, "internalTrafficPolicy", "Cluster");
    }
}

/// How fast an autoscaler scales, where it says something of it.
fn scaling(f: &mut Fields) {
    let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    for (direction, window, policies) in [
        ("scaleUp", Some(0), json!([policy("Pods", 4), policy("Percent", 100)])),
        ("scaleDown", None, json!([policy("Percent", 100)])),
    ] {
        set(f, direction, json!({}));
        if let Some(rules) = object(f, direction) {
            if let Some(seconds) = window {
                set(rules, "stabilizationWindowSeconds", seconds);
            }
            set(rules, "selectPolicy", "Max");
            if rules.get("policies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                rules.insert("policies".into(), policies);
            }
        }
    }
}

/// The limits of containers: what is unset follows from the others.
fn limit(f: &mut Fields) {
    for (target, sources) in [("default", &["max"][..]), ("defaultRequest", &["default", "min"])] {
        for source in sources {
            let Some(Value::Object(amounts)) = f.get(*source).cloned() else { continue };
            let slot = f.entry(target).or_insert_with(|| json!({}));
            for (name, amount) in amounts {
                if slot.get(&name).is_none() {
                    slot[&name] = amount;
                }
            }
        }
    }
}

fn deployment(f: &mut Fields) {
    set(f, "replicas", 1);
    set(f, "revisionHistoryLimit", 10);
    set(f, "progressDeadlineSeconds", 600);
    let Some(strategy) = object(f, "strategy") else { return };
    set(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        if let Some(rolling) = object(strategy, "rollingUpdate") {
            set(rolling, "maxUnavailable", "25%");
            set(rolling, "maxSurge", "25%");
        }
    }
}

fn stateful_set(f: &mut Fields) {
    for claim in f.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(claim) = claim {
            set(claim, "apiVersion", "v1");
            set(claim, "kind", "PersistentVolumeClaim");
        }
    }
    set(f, "podManagementPolicy", "OrderedReady");
    set(f, "replicas", 1);
    set(f, "revisionHistoryLimit", 10);
    if let Some(strategy) = object(f, "updateStrategy") {
        set(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            set(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = object(strategy, "rollingUpdate") {
                set(rolling, "partition", 0);
            }
        }
    }
    set(f, "persistentVolumeClaimRetentionPolicy", json!({}));
    if let Some(policy) = object(f, "persistentVolumeClaimRetentionPolicy") {
        set(policy, "whenDeleted", "Retain");
        set(policy, "whenScaled", "Retain");
    }
}

fn job(f: &mut Fields) {
    if f.get("completions").is_none() && f.get("parallelism").is_none() {
        f.insert("completions".into(), 1.into());
    }
    set(f, "parallelism", 1);
    set(f, "backoffLimit", 6);
    set(f, "completionMode", "NonIndexed");
    set(f, "suspend", false);
    set(f, "manualSelector", false);
    let policy = if f.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    set(f, "podReplacementPolicy", policy);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::canonical;
    use crate::schema::table::TABLE;

    #[test]
    fn images_and_probes() {
        let ty = TABLE.get("core.v1.Pod").unwrap();
        let pod = json!({"metadata": {}, "spec": {"containers": [
            {"name": "a", "image": "nginx"}, {"name": "b", "image": "r:5000/x:1", "livenessProbe": {"tcpSocket": {"port": 1}}},
            {"name": "c", "image": "x@sha256:00", "ports": [{"containerPort": 1}]}]}});
        let mut pod = canonical(pod, ty).unwrap();
        apply(&mut pod, ty);
        let containers = &pod["spec"]["containers"];
        assert_eq!(containers[0]["imagePullPolicy"], "Always");
        assert_eq!(containers[1]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(containers[1]["livenessProbe"]["periodSeconds"], 10);
        assert_eq!(containers[2]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(containers[2]["ports"][0]["protocol"], "TCP");
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
    }
}
