//! Measurements of pods from `metrics.k8s.io`, as metrics-server gives them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde::Deserialize;

use super::replicas::{Sample, thousandths};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A list of PodMetrics, with what is read of it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Debug, Deserialize)]
struct PodMetrics {
    metadata: Metadata,
    timestamp: Timestamp,
    /// As Go writes durations; ISO 8601 is read as well.
    #[serde(default)]
    window: Option<SignedDuration>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

/// Asks for the measurements of the pods that the selector finds.
///
/// # Errors
/// A sentence on what failed.
pub(crate) async fn fetch(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<PodMetricsList, String> {
    let query: String = selector.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={query}");
    let unable = |error: String| format!("unable to fetch metrics from resource metrics API: {error}");
    let request = http_request(&path).map_err(|error| unable(error.to_string()))?;
    client.request(request).await.map_err(|error: kube::Error| unable(error.to_string()))
}

fn http_request(path: &str) -> Result<http::Request<Vec<u8>>, http::Error> {
    http::Request::get(path).body(Vec::new())
}

impl PodMetricsList {
    /// What each pod uses of the resource, in one container or in all. A pod without it in some container is left
    /// out.
    ///
    /// # Errors
    /// A sentence if nothing is left.
    pub fn samples(
        &self,
        resource: &str,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, Sample>, String> {
        let mut samples = BTreeMap::new();
        for pod in &self.items {
            let mut containers =
                pod.containers.iter().filter(|one| container.is_none_or(|name| name == one.name)).peekable();
            if containers.peek().is_none() {
                continue;
            }
            let values: Option<Vec<i64>> =
                containers.map(|container| thousandths(container.usage.get(resource)?)).collect();
            let Some(values) = values else { continue };
            let value = values.into_iter().fold(0, i64::saturating_add);
            let window = pod.window.and_then(|window| Duration::try_from(window).ok()).unwrap_or_default();
            samples.insert(pod.metadata.name.clone(), Sample { at: pod.timestamp, window, value });
        }
        if samples.is_empty() {
            return Err(format!(
                "unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
            ));
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_are_added_up() {
        let list: PodMetricsList = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "a"}, "timestamp": "2026-01-01T00:00:00Z", "window": "15.061s", "containers": [
                {"name": "x", "usage": {"cpu": "250000000n", "memory": "1Ki"}},
                {"name": "y", "usage": {"cpu": "100m", "memory": "1Ki"}}]},
            {"metadata": {"name": "b"}, "timestamp": "2026-01-01T00:00:00Z", "window": "15s", "containers": [
                {"name": "x", "usage": {"memory": "1Ki"}}]},
        ]}))
        .unwrap();
        let cpu = list.samples("cpu", None).unwrap();
        assert_eq!(cpu.len(), 1, "b has no CPU");
        assert_eq!((cpu["a"].value, cpu["a"].window), (350, Duration::from_millis(15_061)));
        assert_eq!(list.samples("cpu", Some("y")).unwrap()["a"].value, 100);
        assert_eq!(list.samples("memory", None).unwrap()["a"].value, 2_048_000);
        assert!(list.samples("cpu", Some("z")).unwrap_err().contains("no metrics returned"));
    }
}
