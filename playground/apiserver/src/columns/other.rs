//! Cells of everything that is neither a workload nor close to pods.

use super::{NONE, View, labels, list, or_none, selector, size, text};
use serde_json::{Value, json};

const UNSET: &str = "<unset>";

impl View<'_> {
    pub(super) fn network(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("ingresses", "Class") => or_none(text(self.at("/spec/ingressClassName"))),
            ("ingresses", "Hosts") => {
                let hosts = list(self.at("/spec/rules")).map(|r| text(&r["host"])).filter(|h| !h.is_empty());
                let hosts = hosts.collect::<Vec<_>>().join(",");
                if hosts.is_empty() { "*".into() } else { hosts.into() }
            }
            ("ingresses", "Address") => {
                let addresses = list(self.at("/status/loadBalancer/ingress"))
                    .map(|i| if i["ip"].is_null() { text(&i["hostname"]) } else { text(&i["ip"]) });
                addresses.collect::<Vec<_>>().join(",").into()
            }
            ("ingresses", _) => {
                if list(self.at("/spec/tls")).next().is_some() { "80, 443" } else { "80" }.into()
            }
            ("networkpolicies", _) => selector(self.at("/spec/podSelector")).into(),
            ("servicecidrs", _) => {
                list(self.at("/spec/cidrs")).map(text).collect::<Vec<_>>().join(",").into()
            }
            ("ipaddresses", _) => {
                let parent = self.at("/spec/parentRef");
                let parts = ["resource", "group", "namespace", "name"].map(|key| text(&parent[key]));
                let [resource, group, namespace, name] = parts;
                let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
                [resource, namespace, name]
                    .into_iter()
                    .filter(|p| !p.is_empty())
                    .collect::<Vec<_>>()
                    .join("/")
                    .into()
            }
            ("ingressclasses", "Controller") => text(self.at("/spec/controller")).into(),
            ("endpointslices", "AddressType") => self.at("/addressType").clone(),
            ("endpointslices", "Ports") => {
                let ports = list(self.at("/ports")).map(|p| text(&p["port"])).collect::<Vec<_>>().join(",");
                if ports.is_empty() { "<unset>".into() } else { ports.into() }
            }
            ("endpointslices", _) => {
                let all = list(self.at("/endpoints")).flat_map(|e| list(&e["addresses"])).map(text);
                let all: Vec<String> = all.collect();
                if all.is_empty() { "<unset>".into() } else { all.join(",").into() }
            }
            _ => NONE.into(),
        }
    }

    pub(super) fn simple(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("configmaps", _) => (size(self.at("/data")) + size(self.at("/binaryData"))).into(),
            ("secrets", "Type") => text(self.at("/type")).into(),
            ("secrets", _) => size(self.at("/data")).into(),
            ("namespaces", _) => text(self.at("/status/phase")).into(),
            ("endpoints", _) => {
                let all = list(self.at("/subsets")).flat_map(|s| {
                    list(&s["addresses"]).flat_map(move |a| {
                        list(&s["ports"]).map(move |p| format!("{}:{}", text(&a["ip"]), p["port"]))
                    })
                });
                or_none(all.collect::<Vec<_>>().join(","))
            }
            ("persistentvolumeclaims" | "persistentvolumes", "Status") => {
                text(self.at("/status/phase")).into()
            }
            (_, "VolumeAttributesClass") => {
                let class = if plural == "persistentvolumes" {
                    self.at("/spec/volumeAttributesClassName")
                } else {
                    self.at("/status/currentVolumeAttributesClassName")
                };
                if class.is_null() { UNSET.into() } else { text(class).into() }
            }
            (_, "VolumeMode") => match self.at("/spec/volumeMode") {
                Value::Null => UNSET.into(),
                mode => text(mode).into(),
            },
            ("persistentvolumes", "Reason") => text(self.at("/status/reason")).into(),
            ("persistentvolumeclaims", "Volume") => text(self.at("/spec/volumeName")).into(),
            ("persistentvolumeclaims", "Capacity") => text(self.at("/status/capacity/storage")).into(),
            ("persistentvolumes", "Capacity") => text(self.at("/spec/capacity/storage")).into(),
            ("persistentvolumeclaims", "Access Modes") if self.at("/spec/volumeName").is_null() => "".into(),
            (_, "Access Modes") => {
                let modes = list(self.at("/spec/accessModes")).map(|m| match m.as_str() {
                    Some("ReadWriteOnce") => "RWO",
                    Some("ReadOnlyMany") => "ROX",
                    Some("ReadWriteMany") => "RWX",
                    _ => "RWOP",
                });
                modes.collect::<Vec<_>>().join(",").into()
            }
            (_, "StorageClass") => text(self.at("/spec/storageClassName")).into(),
            (_, "Reclaim Policy") => text(self.at("/spec/persistentVolumeReclaimPolicy")).into(),
            (_, "Claim") => match self.at("/spec/claimRef") {
                Value::Null => "".into(),
                claim => format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])).into(),
            },
            ("leases", _) => text(self.at("/spec/holderIdentity")).into(),
            ("poddisruptionbudgets", "Min Available") => self.or_not_available("/spec/minAvailable"),
            ("poddisruptionbudgets", "Max Unavailable") => self.or_not_available("/spec/maxUnavailable"),
            ("poddisruptionbudgets", _) => self.number("/status/disruptionsAllowed"),
            (_, "Role") => {
                format!("{}/{}", text(self.at("/roleRef/kind")), text(self.at("/roleRef/name"))).into()
            }
            ("storageclasses", "Provisioner") => text(self.at("/provisioner")).into(),
            ("storageclasses", "ReclaimPolicy") => text(self.at("/reclaimPolicy")).into(),
            ("storageclasses", "AllowVolumeExpansion") => {
                (self.at("/allowVolumeExpansion") == true).to_string().into()
            }
            ("storageclasses", _) => text(self.at("/volumeBindingMode")).into(),
            ("priorityclasses", "Value") => self.number("/value"),
            ("priorityclasses", "PreemptionPolicy") => text(self.at("/preemptionPolicy")).into(),
            ("priorityclasses", _) => json!(self.at("/globalDefault") == true),
            ("validatingadmissionpolicies", "Validations") => {
                list(self.at("/spec/validations")).count().into()
            }
            ("validatingadmissionpolicybindings", "PolicyName") => text(self.at("/spec/policyName")).into(),
            (_, "Mutations") => list(self.at("/spec/mutations")).count().into(),
            (_, "Webhooks") => list(self.at("/webhooks")).count().into(),
            (_, "ParamKind") => match self.at("/spec/paramKind") {
                Value::Null => UNSET.into(),
                kind => format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"])).into(),
            },
            (_, "ParamRef") => match self.at("/spec/paramRef") {
                Value::Null => UNSET.into(),
                param if !text(&param["namespace"]).is_empty() => {
                    format!("{}/{}", text(&param["namespace"]), text(&param["name"])).into()
                }
                param if !text(&param["name"]).is_empty() => format!("*/{}", text(&param["name"])).into(),
                param => selector(&param["selector"]).into(),
            },
            (_, "Users") => self.subjects("User"),
            (_, "Groups") => self.subjects("Group"),
            (_, "ServiceAccounts") => self.subjects("ServiceAccount"),
            ("resourcequotas", column) => self.quota(column == "Limit"),
            ("podtemplates", _) => or_none(labels(self.at("/template/metadata/labels"))),
            ("runtimeclasses", _) => text(self.at("/handler")).into(),
            ("apiservices", "Service") => match self.at("/spec/service") {
                Value::Null => "Local".into(),
                service => format!("{}/{}", text(&service["namespace"]), text(&service["name"])).into(),
            },
            ("apiservices", _) => {
                let found = list(self.at("/status/conditions")).find(|c| c["type"] == "Available");
                match found {
                    None => "Unknown".into(),
                    Some(c) if c["status"] == "True" => "True".into(),
                    Some(c) => format!("{} ({})", text(&c["status"]), text(&c["reason"])).into(),
                }
            }
            _ => NONE.into(),
        }
    }

    fn or_not_available(&self, pointer: &str) -> Value {
        match self.at(pointer) {
            Value::Null => "N/A".into(),
            value => text(value).into(),
        }
    }

    /// The subjects of a binding that are of a kind.
    fn subjects(&self, kind: &str) -> Value {
        let of_kind = list(self.at("/subjects")).filter(|s| s["kind"] == kind);
        let name = |subject: &Value| match kind {
            "ServiceAccount" => format!("{}/{}", text(&subject["namespace"]), text(&subject["name"])),
            _ => text(&subject["name"]),
        };
        of_kind.map(name).collect::<Vec<_>>().join(", ").into()
    }

    /// What of a quota is used, of requests and counts or of limits.
    fn quota(&self, limits: bool) -> Value {
        let hard = self.at("/status/hard").as_object().into_iter().flatten();
        let mut names: Vec<(&String, &Value)> =
            hard.filter(|(name, _)| name.starts_with("limits.") == limits).collect();
        names.sort_by_key(|(name, _)| *name);
        let used = self.at("/status/used");
        let part = |(name, hard): (&String, &Value)| {
            let used = if used[name].is_null() { "0".to_owned() } else { text(&used[name]) };
            format!("{name}: {used}/{}", text(hard))
        };
        names.into_iter().map(part).collect::<Vec<_>>().join(", ").into()
    }
}
