//! Measures gates: new pods against old ones, from their own metrics or from Prometheus.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::gate::{Gate, Measurement, Query, Sample, ScrapeQuery, Snapshot, measure};
use engine::object::ObjectRef;
use engine::rollout::Event;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::actor::Input;
use super::services::Services;
use crate::cluster::Pod;
use crate::measure::PodTarget;

/// The last snapshots of a gate's pods.
#[derive(Debug, Default)]
struct Before {
    /// The phase that the snapshots belong to.
    since: Timestamp,
    new: Snapshot,
    old: Snapshot,
}

/// Measures the gates of one environment.
pub struct Probes {
    services: Arc<Services>,
    sender: mpsc::UnboundedSender<Input>,
    before: HashMap<String, Arc<Mutex<Before>>>,
}

impl Probes {
    /// Nothing was measured yet.
    pub fn new(services: Arc<Services>, sender: mpsc::UnboundedSender<Input>) -> Self {
        Self { services, sender, before: HashMap::new() }
    }

    /// Measures a gate in the background; the sample comes as an event.
    ///
    /// `workloads` are the Deployments whose pods are read, `since` the begin of the phase: what was
    /// counted before it says nothing about this release.
    pub fn sample(&mut self, gate: &Gate, workloads: Vec<ObjectRef>, since: Timestamp) {
        let (services, sender, gate) = (self.services.clone(), self.sender.clone(), gate.clone());
        let before = self.before.entry(gate.name.clone()).or_default().clone();
        tokio::spawn(async move {
            let deadline = Duration::from_secs(u64::from(gate.interval_seconds.clamp(1, 30)));
            let (new, old) = match &gate.query {
                Query::Promql { promql, address, reduce } => {
                    let address = address.as_ref().or(services.options.prometheus.as_ref());
                    let value = match address {
                        Some(address) => services.prober.promql(address, promql, *reduce, deadline).await,
                        None => Measurement::BadQuery(
                            "no Prometheus is known: set the query's address, or the agent's --prometheus"
                                .to_owned(),
                        ),
                    };
                    (value, None)
                }
                Query::Scrape(query) => {
                    let query = (query, gate.min_requests);
                    match scrape(&services, query, &workloads, since, &before, deadline).await {
                        Ok((new, old)) => (new, old),
                        Err(message) => (Measurement::ProviderError(message), None),
                    }
                }
            };
            let sample = Sample { at: Timestamp::now(), new, old, query: gate.query.resolved() };
            tracing::debug!(gate = gate.name, ?sample, "sample");
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(Input::Event(Event::Sampled { gate: gate.name, sample }));
        });
    }
}

async fn scrape(
    services: &Services,
    (query, min_requests): (&ScrapeQuery, u64),
    workloads: &[ObjectRef],
    since: Timestamp,
    before: &Mutex<Before>,
    deadline: Duration,
) -> Result<(Measurement, Option<Measurement>), String> {
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for workload in workloads {
        let pods = services.cluster.pods_of(workload).await.map_err(|error| error.to_string())?;
        new.extend(targets(pods.new, query));
        old.extend(targets(pods.old, query));
    }
    if new.is_empty() {
        return Ok((Measurement::NoData, None));
    }
    let (new, old) =
        tokio::join!(services.prober.scrape(&new, deadline), services.prober.scrape(&old, deadline));
    let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
    if before.since != since {
        *before = Before { since, ..Before::default() };
    }
    let has_old = !old.is_empty();
    let value = measure(&before.new, &new, query, min_requests);
    let old_value = has_old.then(|| measure(&before.old, &old, query, min_requests));
    before.new = new;
    before.old = old;
    Ok((value, old_value))
}

fn targets(pods: Vec<Pod>, query: &ScrapeQuery) -> Vec<PodTarget> {
    pods.into_iter()
        .filter(|pod| pod.ready)
        .filter_map(|pod| {
            Some(PodTarget { name: pod.name, ip: pod.ip?, port: query.port, path: query.path.clone() })
        })
        .collect()
}
