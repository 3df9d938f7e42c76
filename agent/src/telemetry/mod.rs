//! What the agent says about itself: structured logs and Prometheus metrics.

mod metrics;

pub use metrics::Telemetry;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The filter where `RUST_LOG` says nothing: what an operator wants to read.
const FILTER: &str = "info";

/// Sends log lines to standard error, filtered by `RUST_LOG` (such as `agent=debug,kube=warn`); `info`
/// and above where that is not set. A filter that does not parse is reported and replaced by the default:
/// a typing error must not keep the agent from running.
pub fn logs(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, problem) = filter(&wanted);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let set = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if set.is_err() {
        tracing::debug!("logs are set up already; the first set-up stays");
    }
    if let Some(problem) = problem {
        tracing::warn!(
            filter = wanted,
            problem,
            "RUST_LOG is no filter; write for example agent=debug,kube=warn"
        );
    }
}

fn filter(wanted: &str) -> (EnvFilter, Option<String>) {
    match EnvFilter::try_new(if wanted.is_empty() { FILTER } else { wanted }) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(FILTER), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_makes_no_sense_is_replaced_and_reported() {
        assert_eq!(filter("").0.to_string(), "info");
        assert_eq!(filter("agent=debug").0.to_string(), "agent=debug");
        let (replaced, problem) = filter("agent=loud=er");
        assert_eq!(replaced.to_string(), "info");
        assert!(problem.is_some());
    }
}
