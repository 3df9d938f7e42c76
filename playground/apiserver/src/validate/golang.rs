//! How Go prints internal objects, where refusals quote them: immutable pod templates, differences of specs.

use serde_json::{Map, Value, json};

/// What an unset field prints as.
#[derive(Clone, Copy)]
enum Unset {
    Null,
    Empty,
    False,
}
use Unset::{Empty, False, Null};

type Order = &'static [(&'static str, &'static str, Unset)];

const POD_SPEC: Order = &[
    ("Volumes", "volumes", Null),
    ("InitContainers", "initContainers", Null),
    ("Containers", "containers", Null),
    ("EphemeralContainers", "ephemeralContainers", Null),
    ("RestartPolicy", "restartPolicy", Empty),
    ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", Null),
    ("ActiveDeadlineSeconds", "activeDeadlineSeconds", Null),
    ("DNSPolicy", "dnsPolicy", Empty),
    ("NodeSelector", "nodeSelector", Null),
    ("ServiceAccountName", "serviceAccountName", Empty),
    ("AutomountServiceAccountToken", "automountServiceAccountToken", Null),
    ("NodeName", "nodeName", Empty),
    ("SecurityContext", "securityContext", Null),
    ("ImagePullSecrets", "imagePullSecrets", Null),
    ("Hostname", "hostname", Empty),
    ("Subdomain", "subdomain", Empty),
    ("SetHostnameAsFQDN", "setHostnameAsFQDN", Null),
    ("Affinity", "affinity", Null),
    ("SchedulerName", "schedulerName", Empty),
    ("Tolerations", "tolerations", Null),
    ("HostAliases", "hostAliases", Null),
    ("PriorityClassName", "priorityClassName", Empty),
    ("Priority", "priority", Null),
    ("PreemptionPolicy", "preemptionPolicy", Null),
    ("DNSConfig", "dnsConfig", Null),
    ("ReadinessGates", "readinessGates", Null),
    ("RuntimeClassName", "runtimeClassName", Null),
    ("Overhead", "overhead", Null),
    ("EnableServiceLinks", "enableServiceLinks", Null),
    ("TopologySpreadConstraints", "topologySpreadConstraints", Null),
    ("OS", "os", Null),
    ("SchedulingGates", "schedulingGates", Null),
    ("ResourceClaims", "resourceClaims", Null),
    ("Resources", "resources", Null),
    ("HostnameOverride", "hostnameOverride", Null),
    ("SchedulingGroup", "schedulingGroup", Null),
];
const CONTAINER: Order = &[
    ("Name", "name", Empty),
    ("Image", "image", Empty),
    ("Command", "command", Null),
    ("Args", "args", Null),
    ("WorkingDir", "workingDir", Empty),
    ("Ports", "ports", Null),
    ("EnvFrom", "envFrom", Null),
    ("Env", "env", Null),
    ("Resources", "resources", Null),
    ("ResizePolicy", "resizePolicy", Null),
    ("RestartPolicy", "restartPolicy", Null),
    ("RestartPolicyRules", "restartPolicyRules", Null),
    ("VolumeMounts", "volumeMounts", Null),
    ("VolumeDevices", "volumeDevices", Null),
    ("LivenessProbe", "livenessProbe", Null),
    ("ReadinessProbe", "readinessProbe", Null),
    ("StartupProbe", "startupProbe", Null),
    ("Lifecycle", "lifecycle", Null),
    ("TerminationMessagePath", "terminationMessagePath", Empty),
    ("TerminationMessagePolicy", "terminationMessagePolicy", Empty),
    ("ImagePullPolicy", "imagePullPolicy", Empty),
    ("SecurityContext", "securityContext", Null),
    ("Stdin", "stdin", False),
    ("StdinOnce", "stdinOnce", False),
    ("TTY", "tty", False),
];
const CONTAINER_SECURITY: Order = &[
    ("Capabilities", "capabilities", Null),
    ("Privileged", "privileged", Null),
    ("SELinuxOptions", "seLinuxOptions", Null),
    ("WindowsOptions", "windowsOptions", Null),
    ("RunAsUser", "runAsUser", Null),
    ("RunAsGroup", "runAsGroup", Null),
    ("RunAsNonRoot", "runAsNonRoot", Null),
    ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem", Null),
    ("AllowPrivilegeEscalation", "allowPrivilegeEscalation", Null),
    ("ProcMount", "procMount", Null),
    ("SeccompProfile", "seccompProfile", Null),
    ("AppArmorProfile", "appArmorProfile", Null),
];
const POD_SECURITY: Order = &[
    ("SELinuxOptions", "seLinuxOptions", Null),
    ("WindowsOptions", "windowsOptions", Null),
    ("RunAsUser", "runAsUser", Null),
    ("RunAsGroup", "runAsGroup", Null),
    ("RunAsNonRoot", "runAsNonRoot", Null),
    ("SupplementalGroups", "supplementalGroups", Null),
    ("SupplementalGroupsPolicy", "supplementalGroupsPolicy", Null),
    ("FSGroup", "fsGroup", Null),
    ("FSGroupChangePolicy", "fsGroupChangePolicy", Null),
    ("Sysctls", "sysctls", Null),
    ("SeccompProfile", "seccompProfile", Null),
    ("AppArmorProfile", "appArmorProfile", Null),
    ("SELinuxChangePolicy", "seLinuxChangePolicy", Null),
];
/// Fields that the internal security context takes over from the pod's spec.
const HOST: Order = &[
    ("HostNetwork", "hostNetwork", False),
    ("HostPID", "hostPID", False),
    ("HostIPC", "hostIPC", False),
    ("ShareProcessNamespace", "shareProcessNamespace", Null),
    ("HostUsers", "hostUsers", Null),
];
const RESOURCES: Order =
    &[("Limits", "limits", Null), ("Requests", "requests", Null), ("Claims", "claims", Null)];
const CLAIM: Order = &[
    ("AccessModes", "accessModes", Null),
    ("Selector", "selector", Null),
    ("Resources", "resources", Null),
    ("VolumeName", "volumeName", Empty),
    ("StorageClassName", "storageClassName", Null),
    ("VolumeMode", "volumeMode", Null),
    ("DataSource", "dataSource", Null),
    ("DataSourceRef", "dataSourceRef", Null),
    ("VolumeAttributesClassName", "volumeAttributesClassName", Null),
];

fn ordered(value: &Value, order: Order, field: impl Fn(&str, &Value) -> Value) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, key, unset) in order {
        let shown = match value.get(*key) {
            None | Some(Value::Null) => match unset {
                Null => Value::Null,
                Empty => "".into(),
                False => false.into(),
            },
            Some(value) => field(key, value),
        };
        out.insert((*name).into(), shown);
    }
    out
}

/// Values whose internal form is not spelled out here: keys capitalised, the rest as it is.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let capital = |key: &String| {
                let mut chars = key.chars();
                chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
            };
            Value::Object(fields.iter().map(|(k, v)| (capital(k), plain(v))).collect())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn resources(value: &Value, order: Order) -> Value {
    Value::Object(ordered(value, order, |_, v| v.clone()))
}

fn container(value: &Value) -> Value {
    let mut out = ordered(value, CONTAINER, |key, v| match key {
        "resources" => resources(v, RESOURCES),
        _ => plain(v),
    });
    if value["resources"].is_null() {
        out.insert("Resources".into(), resources(&Value::Null, RESOURCES));
    }
    Value::Object(out)
}

/// An ephemeral container as Go prints the internal type.
pub fn ephemeral_container(value: &Value) -> Value {
    let mut out = container(value);
    out["TargetContainerName"] = value.get("targetContainerName").cloned().unwrap_or_else(|| "".into());
    out
}

/// The security context of a container as Go prints the internal type.
pub fn security_context(value: &Value) -> Value {
    Value::Object(ordered(value, CONTAINER_SECURITY, |_, v| plain(v)))
}

/// A pod's spec as Go prints the internal type.
pub fn pod_spec(spec: &Value) -> Value {
    Value::Object(ordered(spec, POD_SPEC, |key, v| match key {
        "containers" | "initContainers" => v.as_array().into_iter().flatten().map(container).collect(),
        "ephemeralContainers" => v.as_array().into_iter().flatten().map(ephemeral_container).collect(),
        "nodeSelector" | "overhead" => v.clone(),
        "securityContext" => {
            let mut out = ordered(spec, HOST, |_, v| v.clone());
            out.extend(ordered(v, POD_SECURITY, |_, v| plain(v)));
            Value::Object(out)
        }
        _ => plain(v),
    }))
}

/// A pod template as Go prints the internal type.
pub fn pod_template(template: &Value) -> Value {
    let mut out = template["metadata"].as_object().cloned().unwrap_or_default();
    out.insert("Spec".into(), pod_spec(&template["spec"]));
    Value::Object(out)
}

/// A volume claim's spec as Go prints the internal type.
pub fn claim_spec(spec: &Value) -> Value {
    Value::Object(ordered(spec, CLAIM, |key, v| match key {
        "resources" => resources(v, &RESOURCES[..2]),
        "accessModes" => v.clone(),
        _ => plain(v),
    }))
}

fn lines(value: &Value, indent: usize, head: &str, tail: &str, out: &mut Vec<String>) {
    let pad = " ".repeat(indent);
    let (open, close, children): (char, char, Vec<(String, &Value)>) = match value {
        Value::Object(fields) if !fields.is_empty() => {
            ('{', '}', fields.iter().map(|(k, v)| (format!("{}: ", json!(k)), v)).collect())
        }
        Value::Array(items) if !items.is_empty() => {
            ('[', ']', items.iter().map(|v| (String::new(), v)).collect())
        }
        leaf => {
            out.push(format!("{pad}{head}{leaf}{tail}"));
            return;
        }
    };
    out.push(format!("{pad}{head}{open}"));
    let last = children.len() - 1;
    for (index, (key, child)) in children.into_iter().enumerate() {
        lines(child, indent + 1, &key, if index == last { "" } else { "," }, out);
    }
    out.push(format!("{pad}{close}{tail}"));
}

/// Lines around a difference.
const CONTEXT: usize = 3;

/// The difference of two values as one hunk of a unified diff over their indented JSON.
pub fn diff(old: &Value, new: &Value) -> String {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    lines(old, 0, "", "", &mut a);
    lines(new, 0, "", "", &mut b);
    let mut head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let most = a.len().min(b.len()) - head;
    let mut tail = a.iter().rev().zip(b.iter().rev()).take(most).take_while(|(x, y)| x == y).count();
    // What was only added or only removed starts as early as it can.
    let (longer, size) = if a.len() < b.len() { (&b, b.len() - a.len()) } else { (&a, a.len() - b.len()) };
    if a.len().min(b.len()) == head + tail {
        while head > 0 && longer[head - 1] == longer[head - 1 + size] {
            head -= 1;
            tail += 1;
        }
    }
    let start = head.saturating_sub(CONTEXT);
    let (a_end, b_end) = (a.len() - tail, b.len() - tail);
    let after = tail.min(CONTEXT);
    let (a_count, b_count) = (a_end + after - start, b_end + after - start);
    let mut out = format!("@@ -{},{a_count} +{},{b_count} @@\n", start + 1, start + 1);
    let mut push = |mark: char, text: &str| {
        out.push(mark);
        out.push_str(text);
        out.push('\n');
    };
    a[start..head].iter().for_each(|l| push(' ', l));
    a[head..a_end].iter().for_each(|l| push('-', l));
    b[head..b_end].iter().for_each(|l| push('+', l));
    a[a_end..a_end + after].iter().for_each(|l| push(' ', l));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_two_claims() {
        let spec = |class: &str| {
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": class,
                "volumeMode": "Filesystem"})
        };
        let out = diff(&claim_spec(&spec("a")), &claim_spec(&spec("b")));
        assert_eq!(
            out,
            "@@ -10,7 +10,7 @@\n   }\n  },\n  \"VolumeName\": \"\",\n- \"StorageClassName\": \"a\",\n+ \"StorageClassName\": \"b\",\n  \
             \"VolumeMode\": \"Filesystem\",\n  \"DataSource\": null,\n  \"DataSourceRef\": null,\n"
        );
    }
}
