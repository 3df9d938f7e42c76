//! The Pod Security Standards, as of their latest version.
//!
//! Rules and wording: https://kubernetes.io/docs/concepts/security/pod-security-standards/ and k8s.io/pod-security-admission.

use serde_json::Value;
use std::collections::BTreeSet;

/// A level, the strictest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Anything goes.
    Privileged,
    /// Known escalations are refused.
    Baseline,
    /// Pods have to harden themselves.
    Restricted,
}

impl Level {
    /// Reads a label's value.
    pub fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    /// As labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// One rule that a pod breaks.
#[derive(Debug, PartialEq)]
pub struct Violation {
    /// The rule.
    pub reason: &'static str,
    /// Where it is broken.
    pub detail: String,
}

fn quoted<S: AsRef<str>>(texts: &[S]) -> String {
    let quoted: Vec<String> = texts.iter().map(|t| format!("{:?}", t.as_ref())).collect();
    quoted.join(", ")
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

struct Pod<'a> {
    annotations: &'a Value,
    spec: &'a Value,
    containers: Vec<(&'a str, &'a Value)>,
}

impl<'a> Pod<'a> {
    /// Names of the containers that something is true of.
    fn those(&self, is: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|(_, c)| is(c)).map(|(name, _)| *name).collect()
    }

    /// `pod`, and the containers, that set something.
    fn setters(&self, pod: bool, names: &[&str]) -> Option<String> {
        match (pod, names.is_empty()) {
            (false, true) => None,
            (true, true) => Some("pod".into()),
            (false, false) => Some(containers(names)),
            (true, false) => Some(format!("pod and {}", containers(names))),
        }
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Pods with users of their own are root only inside.
    fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

/// What a pod does that a level does not allow, in the order of a real server.
pub fn violations(level: Level, metadata: &Value, spec: &Value) -> Vec<Violation> {
    if level == Level::Privileged {
        return Vec::new();
    }
    let mut list = Vec::new();
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec[kind].as_array().into_iter().flatten() {
            list.push((container["name"].as_str().unwrap_or_default(), container));
        }
    }
    let pod = Pod { annotations: &metadata["annotations"], spec, containers: list };
    let restricted = level == Level::Restricted;
    let mut out: Vec<(&'static str, Option<String>)> = vec![("forbidden AppArmor profile", app_armor(&pod))];
    if !restricted {
        out.push(("non-default capabilities", added_capabilities(&pod)));
    }
    out.push(("host namespaces", host_namespaces(&pod)));
    if !restricted {
        out.push(("hostPath volumes", host_paths(&pod)));
    }
    out.push(("hostPort", host_ports(&pod)));
    out.push(("probe or lifecycle host", probe_hosts(&pod)));
    out.push(("privileged", privileged(&pod)));
    out.push(("procMount", proc_mounts(&pod)));
    out.push(("seLinuxOptions", se_linux(&pod)));
    if !restricted {
        out.push(("seccompProfile", unconfined(&pod)));
    }
    out.push(("forbidden sysctls", sysctls(&pod)));
    out.push(("hostProcess", host_process(&pod)));
    if restricted {
        out.push(("allowPrivilegeEscalation != false", escalation(&pod)));
        out.push(("unrestricted capabilities", kept_capabilities(&pod)));
        out.push(("restricted volume types", volume_types(&pod)));
        out.push(("runAsNonRoot != true", non_root(&pod)));
        out.push(("runAsUser=0", root_user(&pod)));
        out.push(("seccompProfile", confined(&pod)));
    }
    out.into_iter().filter_map(|(reason, detail)| Some(Violation { reason, detail: detail? })).collect()
}

fn app_armor(pod: &Pod<'_>) -> Option<String> {
    let bad = |context: &Value| context["appArmorProfile"]["type"] == "Unconfined";
    let of_pod = bad(&pod.spec["securityContext"]);
    let names = pod.those(|c| bad(&c["securityContext"]));
    if let Some(setters) = pod.setters(of_pod, &names) {
        return Some(format!("{setters} must not set AppArmor profile type to \"Unconfined\""));
    }
    let prefix = "container.apparmor.security.beta.kubernetes.io/";
    let mut annotations: Vec<String> = Vec::new();
    for (key, value) in pod.annotations.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let fits = text.is_empty() || text == "runtime/default" || text.starts_with("localhost/");
        if key.starts_with(prefix) && !fits {
            annotations.push(format!("{key}={text:?}"));
        }
    }
    annotations.sort();
    let word = plural(annotations.len(), "annotation", "annotations");
    (!annotations.is_empty()).then(|| format!("{word} {}", annotations.join(", ")))
}

/// Capabilities that containers have by default.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Capabilities that containers add beyond `allowed`, and the containers.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut names, mut all) = (Vec::new(), BTreeSet::new());
    for (name, container) in &pod.containers {
        let list = container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten();
        let bad: Vec<&str> = list.filter_map(Value::as_str).filter(|c| !allowed.contains(c)).collect();
        if !bad.is_empty() {
            names.push(*name);
            all.extend(bad);
        }
    }
    (names, all.into_iter().collect())
}

fn added_capabilities(pod: &Pod<'_>) -> Option<String> {
    let (names, bad) = added(pod, &DEFAULT_CAPABILITIES);
    (!names.is_empty()).then(|| {
        let (who, what) = (containers(&names), quoted(&bad));
        format!("{who} must not include {what} in securityContext.capabilities.add")
    })
}

fn host_namespaces(pod: &Pod<'_>) -> Option<String> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| pod.spec[*key] == true);
    let texts: Vec<String> = set.map(|key| format!("{key}=true")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn host_paths(pod: &Pod<'_>) -> Option<String> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> =
        volumes.filter(|v| v["hostPath"].is_object()).filter_map(|v| v["name"].as_str()).collect();
    (!names.is_empty()).then(|| format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(&names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<String> {
    let (mut names, mut ports) = (Vec::new(), BTreeSet::new());
    for (name, container) in &pod.containers {
        let list = container["ports"].as_array().into_iter().flatten();
        let bad: Vec<i64> = list.filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect();
        if !bad.is_empty() {
            names.push(*name);
            ports.extend(bad.iter().map(i64::to_string));
        }
    }
    (!names.is_empty()).then(|| {
        let verb = plural(names.len(), "uses", "use");
        let what = plural(ports.len(), "hostPort", "hostPorts");
        format!("{} {verb} {what} {}", containers(&names), ports.into_iter().collect::<Vec<_>>().join(", "))
    })
}

fn probe_hosts(pod: &Pod<'_>) -> Option<String> {
    let (mut names, mut hosts) = (Vec::new(), BTreeSet::new());
    for (name, container) in &pod.containers {
        let handlers = [
            &container["livenessProbe"],
            &container["readinessProbe"],
            &container["startupProbe"],
            &container["lifecycle"]["postStart"],
            &container["lifecycle"]["preStop"],
        ];
        let ways = handlers.iter().flat_map(|h| [&h["httpGet"]["host"], &h["tcpSocket"]["host"]]);
        let bad: Vec<&str> = ways
            .filter_map(Value::as_str)
            .filter(|host| !matches!(*host, "" | "localhost" | "127.0.0.1" | "::1"))
            .collect();
        if !bad.is_empty() {
            names.push(*name);
            hosts.extend(bad);
        }
    }
    (!names.is_empty()).then(|| {
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let verb = plural(names.len(), "uses", "use");
        let what = plural(hosts.len(), "host", "hosts");
        format!("{} {verb} probe or lifecycle {what} {}", containers(&names), quoted(&hosts))
    })
}

fn privileged(pod: &Pod<'_>) -> Option<String> {
    let names = pod.those(|c| c["securityContext"]["privileged"] == true);
    (!names.is_empty())
        .then(|| format!("{} must not set securityContext.privileged=true", containers(&names)))
}

fn proc_mounts(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let mount = |c: &Value| c["securityContext"]["procMount"].as_str().unwrap_or("Default").to_owned();
    let names = pod.those(|c| mount(c) != "Default");
    let kinds: BTreeSet<String> =
        pod.containers.iter().map(|(_, c)| mount(c)).filter(|m| m != "Default").collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&kinds))
    })
}

fn se_linux(pod: &Pod<'_>) -> Option<String> {
    let allowed = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let text =
        |context: &Value, key: &str| context["seLinuxOptions"][key].as_str().unwrap_or_default().to_owned();
    let bad = |context: &Value| {
        !allowed.contains(&text(context, "type").as_str())
            || !text(context, "user").is_empty()
            || !text(context, "role").is_empty()
    };
    let of_pod = &pod.spec["securityContext"];
    let names = pod.those(|c| bad(&c["securityContext"]));
    let setters = pod.setters(bad(of_pod), &names)?;
    let contexts: Vec<&Value> =
        std::iter::once(of_pod).chain(pod.containers.iter().map(|(_, c)| &c["securityContext"])).collect();
    let types: BTreeSet<String> =
        contexts.iter().map(|c| text(c, "type")).filter(|t| !allowed.contains(&t.as_str())).collect();
    let types: Vec<String> = types.into_iter().collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(&types)));
    }
    for key in ["user", "role"] {
        if contexts.iter().any(|c| !text(c, key).is_empty()) {
            what.push(format!("{key} may not be set"));
        }
    }
    Some(format!("{setters} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

fn is_unconfined(context: &Value) -> bool {
    context["seccompProfile"]["type"] == "Unconfined"
}

fn unconfined(pod: &Pod<'_>) -> Option<String> {
    let names = pod.those(|c| is_unconfined(&c["securityContext"]));
    let setters = pod.setters(is_unconfined(&pod.spec["securityContext"]), &names)?;
    Some(format!("{setters} must not set securityContext.seccompProfile.type to \"Unconfined\""))
}

/// Sysctls that touch only the pod.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Pod<'_>) -> Option<String> {
    let list = pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let bad: Vec<&str> =
        list.filter_map(|s| s["name"].as_str()).filter(|n| !SAFE_SYSCTLS.contains(n)).collect();
    (!bad.is_empty()).then(|| bad.join(", "))
}

fn host_process(pod: &Pod<'_>) -> Option<String> {
    let bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let names = pod.those(|c| bad(&c["securityContext"]));
    let setters = pod.setters(bad(&pod.spec["securityContext"]), &names)?;
    Some(format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn escalation(pod: &Pod<'_>) -> Option<String> {
    let names = pod.those(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    (!names.is_empty() && !pod.is_windows())
        .then(|| format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names)))
}

fn kept_capabilities(pod: &Pod<'_>) -> Option<String> {
    if pod.is_windows() {
        return None;
    }
    let drops_all = |c: &Value| {
        let drop = c["securityContext"]["capabilities"]["drop"].as_array();
        drop.into_iter().flatten().any(|c| c == "ALL")
    };
    let mut out = Vec::new();
    let keep = pod.those(|c| !drops_all(c));
    if !keep.is_empty() {
        out.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keep)));
    }
    let (names, bad) = added(pod, &["NET_BIND_SERVICE"]);
    if !names.is_empty() {
        let (who, what) = (containers(&names), quoted(&bad));
        out.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    (!out.is_empty()).then(|| out.join("; "))
}

fn volume_types(pod: &Pod<'_>) -> Option<String> {
    let allowed = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten().filter_map(Value::as_object) {
        let source = volume.keys().find(|k| *k != "name");
        if let Some(source) = source.filter(|s| !allowed.contains(&s.as_str())) {
            names.push(volume.get("name").and_then(Value::as_str).unwrap_or_default());
            types.insert(source.clone());
        }
    }
    (!names.is_empty()).then(|| {
        let types: Vec<String> = types.into_iter().collect();
        format!(
            "{} {} {} restricted volume {} {}",
            plural(names.len(), "volume", "volumes"),
            quoted(&names),
            plural(names.len(), "uses", "use"),
            plural(types.len(), "type", "types"),
            quoted(&types)
        )
    })
}

fn non_root(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let of_pod = &pod.spec["securityContext"]["runAsNonRoot"];
    let names = pod.those(|c| c["securityContext"]["runAsNonRoot"] == false);
    if let Some(setters) = pod.setters(*of_pod == false, &names) {
        return Some(format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.those(|c| c["securityContext"]["runAsNonRoot"] != true);
    (*of_pod != true && !silent.is_empty())
        .then(|| format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

fn root_user(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let names = pod.those(|c| c["securityContext"]["runAsUser"] == 0);
    let setters = pod.setters(pod.spec["securityContext"]["runAsUser"] == 0, &names)?;
    Some(format!("{setters} must not set runAsUser=0"))
}

fn confined(pod: &Pod<'_>) -> Option<String> {
    if pod.is_windows() {
        return None;
    }
    if let Some(explicit) = unconfined(pod) {
        return Some(explicit);
    }
    let set = |context: &Value| context["seccompProfile"]["type"].is_string();
    let silent = pod.those(|c| !set(&c["securityContext"]));
    (!set(&pod.spec["securityContext"]) && !silent.is_empty()).then(|| {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&silent)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels() {
        let plain = json!({"containers": [{"name": "c"}]});
        assert!(violations(Level::Privileged, &json!({}), &json!({"hostNetwork": true})).is_empty());
        assert!(violations(Level::Baseline, &json!({}), &plain).is_empty());
        let reasons: Vec<&str> =
            violations(Level::Restricted, &json!({}), &plain).iter().map(|v| v.reason).collect();
        assert_eq!(
            reasons,
            [
                "allowPrivilegeEscalation != false",
                "unrestricted capabilities",
                "runAsNonRoot != true",
                "seccompProfile"
            ]
        );
    }

    #[test]
    fn several_containers_are_named_together() {
        let spec = json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}],
            "containers": [{"name": "c", "securityContext": {"privileged": true}}]});
        let found = violations(Level::Baseline, &json!({}), &spec);
        assert_eq!(found[0].detail, "containers \"i\", \"c\" must not set securityContext.privileged=true");
    }
}
