//! Reads metrics: of pods, and of Prometheus.

use std::time::Duration;

use engine::gate::exposition::{MAX_TEXT, Scrape, parse};
use engine::gate::{Measurement, Reduce, Snapshot, prometheus_answer};
use futures::StreamExt;
use futures::stream;

/// At most this many pods are read at once.
const CONCURRENT: usize = 32;

/// Where a pod serves its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTarget {
    /// Name of the pod: what snapshots are keyed by.
    pub name: String,
    /// Address, without a port.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// Path, with the slash at its begin.
    pub path: String,
}

impl PodTarget {
    fn url(&self) -> String {
        let host = if self.ip.contains(':') { format!("[{}]", self.ip) } else { self.ip.clone() };
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("http://{host}:{}{slash}{}", self.port, self.path)
    }
}

/// Reads metrics over HTTP.
#[derive(Debug, Clone)]
pub struct Prober {
    client: reqwest::Client,
}

impl Prober {
    /// With its own connections. Redirects are not followed: a pod must not send the agent elsewhere.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> Result<Self, reqwest::Error> {
        crate::tls::install();
        let client = reqwest::Client::builder()
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self { client })
    }

    /// Reads all pods at once. A pod that does not answer in time, or not with metrics, is left out: it
    /// says nothing for or against a release, its readiness does.
    pub async fn scrape(&self, pods: &[PodTarget], deadline: Duration) -> Snapshot {
        // Collected, so that no borrowing closure lives across an await: the future must be Send.
        let reads: Vec<_> = pods.iter().map(|pod| self.scrape_one(pod, deadline)).collect();
        stream::iter(reads).buffer_unordered(CONCURRENT).filter_map(std::future::ready).collect().await
    }

    async fn scrape_one(&self, pod: &PodTarget, deadline: Duration) -> Option<(String, Scrape)> {
        let text = match tokio::time::timeout(deadline, self.read(&pod.url(), &[])).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                tracing::debug!(pod = pod.name, %error, "its metrics cannot be read");
                return None;
            }
            Err(_) => {
                tracing::debug!(pod = pod.name, ?deadline, "its metrics did not come in time");
                return None;
            }
        };
        match parse(&text) {
            Ok(scrape) => Some((pod.name.clone(), scrape)),
            Err(error) => {
                tracing::debug!(pod = pod.name, %error, "its metrics make no sense");
                None
            }
        }
    }

    /// Asks Prometheus (<https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>).
    pub async fn promql(
        &self,
        address: &str,
        query: &str,
        reduce: Option<Reduce>,
        deadline: Duration,
    ) -> Measurement {
        let url = format!("{}/api/v1/query", address.trim_end_matches('/'));
        let answer = tokio::time::timeout(deadline, self.read(&url, &[("query", query)])).await;
        match answer {
            Err(_) => Measurement::ProviderError(format!("{address} did not answer within {deadline:?}")),
            Ok(Err(error)) => Measurement::ProviderError(format!("{address}: {error}")),
            Ok(Ok(text)) => match serde_json::from_str(&text) {
                Ok(answer) => prometheus_answer(&answer, reduce),
                Err(error) => {
                    Measurement::ProviderError(format!("{address} did not answer with JSON: {error}"))
                }
            },
        }
    }

    /// The body of an answer, however long it takes; not beyond the size that is read of anybody.
    async fn read(&self, url: &str, query: &[(&str, &str)]) -> Result<String, String> {
        let mut url = reqwest::Url::parse(url).map_err(|error| format!("{url} is no address: {error}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = self.client.get(url).send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        // Prometheus explains a bad query in the body of a 400 or 422.
        if !status.is_success() && !matches!(status.as_u16(), 400 | 422) {
            return Err(format!("it answered {status}"));
        }
        let mut text = Vec::new();
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| error.without_url().to_string())?;
            if text.len() + chunk.len() > MAX_TEXT {
                return Err(format!("its answer is longer than {MAX_TEXT} bytes"));
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| "its answer is not UTF-8 text".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::Filter;

    async fn serve(status: u16, body: &'static str) -> std::net::SocketAddr {
        let answer = warp::any()
            .map(move || warp::reply::with_status(body, http::StatusCode::from_u16(status).unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(answer).incoming(listener).run());
        address
    }

    fn target(name: &str, address: std::net::SocketAddr) -> PodTarget {
        PodTarget {
            name: name.into(),
            ip: address.ip().to_string(),
            port: address.port(),
            path: "/metrics".into(),
        }
    }

    #[tokio::test]
    async fn pods_that_answer_are_read_and_others_left_out() {
        let good = serve(200, "requests_total{code=\"200\"} 5\n").await;
        let garbage = serve(200, "{{{ not metrics").await;
        let broken = serve(500, "requests_total 5\n").await;
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pods = [
            target("good", good),
            target("garbage", garbage),
            target("broken", broken),
            target("silent", silent.local_addr().unwrap()),
        ];
        let snapshot = Prober::new().unwrap().scrape(&pods, Duration::from_millis(500)).await;
        assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["good"]);
    }

    #[tokio::test]
    async fn prometheus_answers_are_measurements() {
        let prober = Prober::new().unwrap();
        let ask = async |status, body| {
            let address = format!("http://{}/", serve(status, body).await);
            prober.promql(&address, "up", None, Duration::from_secs(5)).await
        };
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.5"]}]}}"#;
        assert_eq!(ask(200, vector).await, Measurement::Value(0.5));
        let nan = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"NaN"]}]}}"#;
        assert_eq!(ask(200, nan).await, Measurement::NoData);
        let bad = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert!(matches!(ask(400, bad).await, Measurement::BadQuery(_)));
        assert!(matches!(ask(503, "").await, Measurement::ProviderError(_)));
        assert!(matches!(ask(200, "<html>").await, Measurement::ProviderError(_)));
    }

    #[test]
    fn addresses_of_both_families_are_written_right() {
        let mut target =
            PodTarget { name: "a".into(), ip: "10.0.0.1".into(), port: 80, path: "metrics".into() };
        assert_eq!(target.url(), "http://10.0.0.1:80/metrics");
        target.ip = "fd00::1".into();
        assert_eq!(target.url(), "http://[fd00::1]:80/metrics");
    }
}
