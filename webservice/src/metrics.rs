//! Counters and histograms, written in Prometheus' text format (version 0.0.4).
//!
//! Labels come from closed sets (templates, methods, status codes), so the number of series is bounded
//! whatever clients send. Known series start at zero: a rate over a series that appears only with its first
//! error would miss that error, and an error ratio would have no value while all is well.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::endpoint::{ENDPOINTS, Kind};

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
    /// Database connections in use.
    pub pool_used: u64,
    /// Open database connections that are idle.
    pub pool_idle: u64,
    /// Requests being handled.
    pub in_flight: u64,
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
        }
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
        head(out, "dhakacart_db_pool_connections", "gauge", "Open database connections by state.")?;
        writeln!(out, "dhakacart_db_pool_connections{{state=\"used\"}} {}", gauges.pool_used)?;
        writeln!(out, "dhakacart_db_pool_connections{{state=\"idle\"}} {}", gauges.pool_idle)?;
        head(out, "dhakacart_http_requests_in_flight", "gauge", "Requests being handled.")?;
        writeln!(out, "dhakacart_http_requests_in_flight {}", gauges.in_flight)?;
        head(out, "dhakacart_draining", "gauge", "1 while the shop is shutting down.")?;
        writeln!(out, "dhakacart_draining {}", u8::from(gauges.draining))?;
        head(out, "dhakacart_build_info", "gauge", "Always 1; the version that is running.")?;
        writeln!(out, "dhakacart_build_info{{version=\"{}\"}} 1", escape(&self.version))?;
        head(out, "process_start_time_seconds", "gauge", "Start of the process, Unix time.")?;
        writeln!(out, "process_start_time_seconds {:.3}", self.started.as_millisecond() as f64 / 1000.0)
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
}
