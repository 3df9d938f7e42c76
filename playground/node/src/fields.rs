//! The downward API: fields and resources of a pod as text.

use std::net::Ipv4Addr;

use engine::object::Quantity;
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;

/// The value of a field of the pod.
///
/// # Errors
/// The field path is not one that Kubernetes offers.
pub(crate) fn field(pod: &Pod, ip: Ipv4Addr, selector: &ObjectFieldSelector) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let path = selector.field_path.as_str();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => {
            let account = spec.and_then(|spec| spec.service_account_name.as_ref());
            account.cloned().unwrap_or_else(|| "default".to_owned())
        }
        "status.podIP" | "status.podIPs" => ip.to_string(),
        "status.hostIP" | "status.hostIPs" => Ipv4Addr::LOCALHOST.to_string(),
        _ => {
            let entry = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            if let Some(key) = entry("metadata.labels['") {
                text(meta.labels.as_ref().and_then(|labels| labels.get(key)))
            } else if let Some(key) = entry("metadata.annotations['") {
                text(meta.annotations.as_ref().and_then(|annotations| annotations.get(key)))
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    })
}

/// `key="value"` lines, as in a downward API file.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The amount of a container's resource in units of the divisor, rounded up; a missing limit is the node's own.
///
/// # Errors
/// The container, resource or divisor does not exist.
pub(crate) fn resource(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    allocatable: &BTreeMap<String, f64>,
) -> Result<String, String> {
    let named = selector.container_name.as_ref().filter(|name| !name.is_empty());
    let containers =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let container = match named {
        Some(name) => containers.into_iter().find(|container| &container.name == name),
        None => container,
    };
    let container = container.ok_or_else(|| "container of resourceFieldRef not found".to_owned())?;
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let amounts = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let amount = amounts
        .and_then(|amounts| amounts.get(resource))
        .and_then(|quantity| Quantity::parse(&quantity.0))
        .map(|amount| amount.value())
        .or_else(|| if kind == "limits" { allocatable.get(resource).copied() } else { None })
        .unwrap_or(0.0);
    let divisor = match selector.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => 1.0,
        Some(text) => Quantity::parse(text)
            .map(|divisor| divisor.value())
            .filter(|divisor| *divisor > 0.0)
            .ok_or_else(|| format!("invalid divisor {text}"))?,
    };
    Ok(format!("{:.0}", (amount / divisor).ceil()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "dev", "labels": {"app": "shop", "q": "a\"b"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "resources":
                {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_have_their_values() {
        let value = |path: &str| {
            let selector = ObjectFieldSelector { field_path: path.to_owned(), api_version: None };
            field(&pod(), Ipv4Addr::new(127, 32, 0, 7), &selector)
        };
        assert_eq!(value("metadata.name").unwrap(), "p");
        assert_eq!(value("metadata.labels['app']").unwrap(), "shop");
        assert_eq!(value("metadata.labels['none']").unwrap(), "");
        assert_eq!(value("metadata.labels").unwrap(), "app=\"shop\"\nq=\"a\\\"b\"");
        assert_eq!(value("status.podIP").unwrap(), "127.32.0.7");
        assert_eq!(value("spec.serviceAccountName").unwrap(), "default");
        assert!(value("spec.containers").is_err());
    }

    #[test]
    fn resources_are_rounded_up_in_units_of_the_divisor() {
        let value = |name: &str, divisor: Option<&str>| {
            let selector = serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
            let pod = pod();
            let container = &pod.spec.as_ref().unwrap().containers[0];
            resource(&pod, Some(container), &selector, &BTreeMap::from([("memory".to_owned(), 4096.0)]))
        };
        assert_eq!(value("limits.cpu", None).unwrap(), "2");
        assert_eq!(value("limits.cpu", Some("1m")).unwrap(), "1500");
        assert_eq!(value("requests.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(value("limits.memory", None).unwrap(), "4096");
        assert!(value("cpu", None).is_err());
    }
}
