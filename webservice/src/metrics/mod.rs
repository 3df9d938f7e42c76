//! Counters and histograms, written in Prometheus' text format (version 0.0.4).
//!
//! Labels come from closed sets (templates, methods, status codes), so the number of series is bounded
//! whatever clients send. Known series start at zero: a rate over a series that appears only with its first
//! error would miss that error, and an error ratio would have no value while all is well.

mod batches;
mod process;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cache::Source;
use crate::endpoint::{ENDPOINTS, Kind};
use crate::store::BatchCounts;

/// Upper bounds of the latency buckets in seconds; 0.2 is there because the shop's target is p95 < 200 ms.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    method: &'static str,
    route: &'static str,
    code: u16,
}

#[derive(Debug, Clone, Default)]
struct Latencies {
    // Not cumulative; made so when written.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Latencies {
    /// As Prometheus' `histogram_quantile` estimates it: evenly spread within a bucket.
    fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.count as f64;
        let (mut below, mut least) = (0.0, 0.0);
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                return least + (bound - least) * (rank - below) / count;
            }
            (below, least) = (below + count, *bound);
        }
        if self.count == 0 { 0.0 } else { least }
    }
}

/// How an attempt to order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderOutcome {
    /// A new order.
    Placed,
    /// The answer to an earlier request with the same idempotency key.
    Replayed,
    /// Not enough in stock.
    OutOfStock,
    /// The request could not be used.
    Rejected,
}

impl OrderOutcome {
    const ALL: [Self; 4] = [Self::Placed, Self::Replayed, Self::OutOfStock, Self::Rejected];

    fn label(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Replayed => "replayed",
            Self::OutOfStock => "out_of_stock",
            Self::Rejected => "rejected",
        }
    }
}

/// What is read when metrics are asked for, because others count it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Database connections in use, open but idle, and possible; none without a database.
    pub pool: Option<(u64, u64, u64)>,
    /// How orders were written; nothing without a database.
    pub batches: Option<BatchCounts>,
    /// Requests being handled.
    pub in_flight: u64,
    /// Open connections of clients.
    pub connections: u64,
    /// Whether the shop is draining.
    pub draining: bool,
}

/// Everything the shop counts since it started.
#[derive(Debug)]
pub struct Metrics {
    version: String,
    started: jiff::Timestamp,
    traffic: Mutex<BTreeMap<Labels, Latencies>>,
    probes: Mutex<BTreeMap<Labels, u64>>,
    orders: [AtomicU64; OrderOutcome::ALL.len()],
    items_sold: AtomicU64,
    revenue_minor: AtomicU64,
    faults: AtomicU64,
    carts: AtomicU64,
    checkouts: AtomicU64,
    rate_limited: AtomicU64,
    cache: [AtomicU64; 2],
    upstream: [AtomicU64; UpstreamFailure::ALL.len()],
}

/// Why the frontend got no answer from the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer was complete.
    Broken,
}

impl UpstreamFailure {
    const ALL: [Self; 3] = [Self::Connect, Self::Timeout, Self::Broken];

    fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// What the API has answered so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Those answered with 500 and above.
    pub failed: u64,
    /// Estimated seconds below which 50, 95 and 99 of 100 answers stayed.
    pub quantiles: [f64; 3],
}

/// Methods by name as a label; anything unusual is `OTHER`, so that clients cannot make series.
pub fn method_label(method: &http::Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

impl Metrics {
    /// All zero. `version` becomes a label of `dhakacart_build_info`.
    pub fn new(version: &str) -> Self {
        let mut traffic = BTreeMap::new();
        for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.kind != Kind::Probe) {
            for (method, success) in endpoint.methods {
                for code in [*success, 500] {
                    let labels = Labels { method, route: endpoint.template, code };
                    traffic.insert(labels, Latencies::default());
                }
            }
        }
        Self {
            version: version.to_owned(),
            started: jiff::Timestamp::now(),
            traffic: Mutex::new(traffic),
            probes: Mutex::new(BTreeMap::new()),
            orders: Default::default(),
            items_sold: AtomicU64::new(0),
            revenue_minor: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            carts: AtomicU64::new(0),
            checkouts: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            cache: Default::default(),
            upstream: Default::default(),
        }
    }

    /// When the process started.
    pub fn started(&self) -> jiff::Timestamp {
        self.started
    }

    /// Counts one answered request. `route` is a template, never a raw path.
    pub fn request(
        &self,
        kind: Kind,
        method: &'static str,
        route: &'static str,
        code: u16,
        duration: Duration,
    ) {
        let labels = Labels { method, route, code };
        if kind == Kind::Probe {
            *self.probes.lock().unwrap_or_else(PoisonError::into_inner).entry(labels).or_default() += 1;
            return;
        }
        let seconds = duration.as_secs_f64();
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let latencies = traffic.entry(labels).or_default();
        latencies.count += 1;
        latencies.seconds += seconds;
        if let Some(index) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            latencies.buckets[index] += 1;
        }
    }

    /// Counts an attempt to order.
    pub fn order(&self, outcome: OrderOutcome) {
        self.orders[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what a placed order sold, `revenue_minor` in paisa.
    pub fn sold(&self, items: u64, revenue_minor: u64) {
        self.items_sold.fetch_add(items, Ordering::Relaxed);
        self.revenue_minor.fetch_add(revenue_minor, Ordering::Relaxed);
    }

    /// Counts a request that the fault switch made fail.
    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a session's cart that got its first line.
    pub fn cart_started(&self) {
        self.carts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a cart that became an order.
    pub fn checked_out(&self) {
        self.checkouts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused because its client sends too many.
    pub fn rate_limited(&self) {
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts where an answer about the catalogue came from.
    pub fn catalogue(&self, source: Source) {
        self.cache[source as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that the backend did not answer.
    pub fn upstream_failed(&self, failure: UpstreamFailure) {
        self.upstream[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What the API has answered since the start.
    pub fn traffic(&self) -> Traffic {
        let mut all = Latencies::default();
        let mut failed = 0;
        for (labels, latencies) in self.traffic.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !labels.route.starts_with("/api/") {
                continue;
            }
            all.count += latencies.count;
            for (sum, count) in all.buckets.iter_mut().zip(latencies.buckets) {
                *sum += count;
            }
            failed += if labels.code >= 500 { latencies.count } else { 0 };
        }
        Traffic { requests: all.count, failed, quantiles: [0.5, 0.95, 0.99].map(|share| all.quantile(share)) }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self, gauges: Gauges) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, gauges);
        out
    }

    fn write(&self, out: &mut String, gauges: Gauges) -> std::fmt::Result {
        self.write_traffic(out)?;
        head(out, "dhakacart_probe_requests_total", "counter", "Requests for probes and metrics.")?;
        for (labels, count) in self.probes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            writeln!(out, "dhakacart_probe_requests_total{{{}}} {count}", pairs(labels))?;
        }
        head(out, "dhakacart_orders_total", "counter", "Attempts to order by outcome.")?;
        for outcome in OrderOutcome::ALL {
            let count = self.orders[outcome as usize].load(Ordering::Relaxed);
            writeln!(out, "dhakacart_orders_total{{outcome=\"{}\"}} {count}", outcome.label())?;
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        head(out, "dhakacart_items_sold_total", "counter", "Items in placed orders.")?;
        writeln!(out, "dhakacart_items_sold_total {}", load(&self.items_sold))?;
        head(out, "dhakacart_revenue_minor_total", "counter", "Value of placed orders in paisa.")?;
        writeln!(out, "dhakacart_revenue_minor_total{{currency=\"BDT\"}} {}", load(&self.revenue_minor))?;
        head(out, "dhakacart_faults_injected_total", "counter", "Requests failed by the fault switch.")?;
        writeln!(out, "dhakacart_faults_injected_total {}", load(&self.faults))?;
        for (name, help, counter) in [
            (
                "dhakacart_carts_created_total",
                "Sessions that put a first product into their cart.",
                &self.carts,
            ),
            ("dhakacart_checkouts_total", "Carts that became orders.", &self.checkouts),
            ("dhakacart_rate_limited_total", "Requests refused by the rate limit.", &self.rate_limited),
        ] {
            head(out, name, "counter", help)?;
            writeln!(out, "{name} {}", load(counter))?;
        }
        let name = "dhakacart_catalogue_answers_total";
        head(out, name, "counter", "Answers about the catalogue by where they came from.")?;
        for (source, label) in [(Source::Cache, "cache"), (Source::Database, "database")] {
            writeln!(out, "{name}{{source=\"{label}\"}} {}", load(&self.cache[source as usize]))?;
        }
        let name = "dhakacart_upstream_failures_total";
        head(out, name, "counter", "Requests of the frontend that the backend did not answer.")?;
        for failure in UpstreamFailure::ALL {
            let count = load(&self.upstream[failure as usize]);
            writeln!(out, "{name}{{reason=\"{}\"}} {count}", failure.label())?;
        }
        if let Some((used, idle, most)) = gauges.pool {
            head(out, "dhakacart_db_pool_connections", "gauge", "Open database connections by state.")?;
            writeln!(out, "dhakacart_db_pool_connections{{state=\"used\"}} {used}")?;
            writeln!(out, "dhakacart_db_pool_connections{{state=\"idle\"}} {idle}")?;
            head(
                out,
                "dhakacart_db_pool_connections_max",
                "gauge",
                "Database connections that there can be.",
            )?;
            writeln!(out, "dhakacart_db_pool_connections_max {most}")?;
        }
        if let Some(counts) = &gauges.batches {
            batches::write(out, counts)?;
        }
        head(out, "dhakacart_http_connections", "gauge", "Open connections of clients.")?;
        writeln!(out, "dhakacart_http_connections {}", gauges.connections)?;
        head(out, "dhakacart_http_requests_in_flight", "gauge", "Requests being handled.")?;
        writeln!(out, "dhakacart_http_requests_in_flight {}", gauges.in_flight)?;
        head(out, "dhakacart_draining", "gauge", "1 while the shop is shutting down.")?;
        writeln!(out, "dhakacart_draining {}", u8::from(gauges.draining))?;
        head(out, "dhakacart_build_info", "gauge", "Always 1; the version that is running.")?;
        writeln!(out, "dhakacart_build_info{{version=\"{}\"}} 1", escape(&self.version))?;
        head(out, "process_start_time_seconds", "gauge", "Start of the process, Unix time.")?;
        writeln!(out, "process_start_time_seconds {:.3}", self.started.as_millisecond() as f64 / 1000.0)?;
        process::write(out)
    }

    fn write_traffic(&self, out: &mut String) -> std::fmt::Result {
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(out, "http_requests_total", "counter", "Answered requests of pages and API.")?;
        for (labels, latencies) in &traffic {
            writeln!(out, "http_requests_total{{{}}} {}", pairs(labels), latencies.count)?;
        }
        let name = "http_request_duration_seconds";
        head(out, name, "histogram", "Time from a request's head to its answer's head.")?;
        for (labels, latencies) in &traffic {
            let labels = pairs(labels);
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(latencies.buckets) {
                below += count;
                writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
            }
            writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", latencies.count)?;
            writeln!(out, "{name}_sum{{{labels}}} {}", latencies.seconds)?;
            writeln!(out, "{name}_count{{{labels}}} {}", latencies.count)?;
        }
        Ok(())
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn pairs(labels: &Labels) -> String {
    format!("method=\"{}\",route=\"{}\",code=\"{}\"", labels.method, labels.route, labels.code)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_series_start_at_zero() {
        let text = Metrics::new("v1").render(Gauges::default());
        for line in [
            r#"http_requests_total{method="GET",route="/api/products",code="200"} 0"#,
            r#"http_requests_total{method="GET",route="/api/products",code="500"} 0"#,
            r#"http_requests_total{method="POST",route="/api/orders",code="201"} 0"#,
            r#"dhakacart_orders_total{outcome="placed"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line}");
        }
        assert!(!text.contains("/health"));
    }

    #[test]
    fn histograms_are_cumulative_and_agree_with_the_counter() {
        let metrics = Metrics::new("v1");
        for millis in [1, 3, 300, 60_000] {
            metrics.request(Kind::Api, "GET", "/api/products", 200, Duration::from_millis(millis));
        }
        let text = metrics.render(Gauges::default());
        let labels = r#"method="GET",route="/api/products",code="200""#;
        for (le, count) in [("0.001", 1), ("0.005", 2), ("0.2", 2), ("0.5", 3), ("10", 3), ("+Inf", 4)] {
            let line = format!("http_request_duration_seconds_bucket{{{labels},le=\"{le}\"}} {count}");
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
        assert!(text.contains(&format!("http_requests_total{{{labels}}} 4")));
        assert!(text.contains(&format!("http_request_duration_seconds_count{{{labels}}} 4")));
        assert!(text.contains(&format!("http_request_duration_seconds_sum{{{labels}}} 60.304")));
    }

    #[test]
    fn probes_are_kept_out_of_the_traffic() {
        let metrics = Metrics::new("v1");
        metrics.request(Kind::Probe, "GET", "/health", 200, Duration::ZERO);
        let text = metrics.render(Gauges::default());
        assert!(
            text.contains(r#"dhakacart_probe_requests_total{method="GET",route="/health",code="200"} 1"#)
        );
        assert!(!text.contains(r#"http_requests_total{method="GET",route="/health""#));
    }

    #[test]
    fn label_values_are_escaped() {
        let text = Metrics::new("a\"b\\c").render(Gauges::default());
        assert!(text.contains(r#"dhakacart_build_info{version="a\"b\\c"} 1"#));
    }

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        let metrics = Metrics::new("v1");
        assert_eq!(metrics.traffic(), Traffic::default());
        for millis in [1, 1, 150, 150] {
            metrics.request(Kind::Api, "GET", "/api/products", 200, Duration::from_millis(millis));
        }
        metrics.request(Kind::Api, "GET", "/api/orders", 500, Duration::from_secs(60));
        metrics.request(Kind::Page, "GET", "/", 500, Duration::from_secs(60));
        let traffic = metrics.traffic();
        assert_eq!((traffic.requests, traffic.failed), (5, 1));
        assert!((traffic.quantiles[0] - 0.125).abs() < 1e-9, "{traffic:?}");
        assert!((traffic.quantiles[2] - 10.0).abs() < 1e-9, "what is past the last bound is at least that");
    }
}
