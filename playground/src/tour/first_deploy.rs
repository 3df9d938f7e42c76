//! First deploy: from an empty cluster to a shop that answers.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};

use super::{Error, Stage, unexpected};
use crate::print::counted;
use crate::traffic::{Settings, Traffic};
use crate::watch::{self, Check};
use crate::{environment, http_client, shop};

/// The shop's pods start in well under a second each.
const DEADLINE: Duration = Duration::from_secs(60);
/// Customers, and requests per second altogether.
const CUSTOMERS: usize = 8;
const RATE: u32 = 80;

pub(super) async fn run(stage: &Stage<'_>) -> Result<Traffic, Error> {
    let tip = stage.repository.tip()?;
    let mut object = environment::read(&stage.repository.read(shop::ENVIRONMENT)?, shop::ENVIRONMENT)?;
    environment::redirect(&mut object, &stage.repository.url());

    let begin = Instant::now();
    environment::apply(stage.client, &object).await?;
    stage.printer.done(
        begin.elapsed(),
        format!(
            "Environment {} is applied: keep the cluster equal to {} at {}",
            shop::NAME,
            stage.repository.url(),
            tip.short()
        ),
    );

    // Gates without a canary need traffic as well: the customers come as soon as there are ready pods.
    let begin = Instant::now();
    let (pods, traffic) = tokio::try_join!(ready_pods(stage, begin), traffic(stage, begin))?;
    stage.follow(&tip.id, begin, DEADLINE).await?;
    stage.printer.done(begin.elapsed(), format!("Environment {} is Ready at {}", shop::NAME, tip.short()));
    stage.printer.note(format!("its pods are processes with addresses of their own: {}", pods.join(", ")));
    Ok(traffic)
}

/// Waits for the Deployment's pods and says where they are.
async fn ready_pods(stage: &Stage<'_>, begin: Instant) -> Result<Vec<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), shop::NAMESPACE);
    let selection = kube::runtime::watcher::Config::default().labels(shop::SELECTOR);
    let expected = format!("3 ready pods with {}", shop::SELECTOR);
    let addresses = watch::until(&pods, selection, expected, DEADLINE, |pods| {
        let ready: Vec<String> = pods.values().filter(|pod| is_ready(pod)).map(address).collect();
        if ready.len() >= 3 {
            Check::Met(ready)
        } else {
            let seen: Vec<String> = pods.values().map(state).collect();
            Check::Not(if seen.is_empty() { "no pods".to_owned() } else { seen.join(", ") })
        }
    })
    .await?;
    stage.printer.done(begin.elapsed(), format!("{} are ready", counted(addresses.len(), "pod")));
    Ok(addresses)
}

/// Waits until the shop answers through the Ingress, then sends customers.
async fn traffic(stage: &Stage<'_>, begin: Instant) -> Result<Traffic, Error> {
    let version = first_answer(stage).await?;
    stage
        .printer
        .done(begin.elapsed(), format!("the shop answers at {} (version {version})", stage.shop_url));
    let settings = Settings {
        url: stage.shop_url.to_owned(),
        paths: shop::PATHS.map(str::to_owned).to_vec(),
        host: None,
        workers: CUSTOMERS,
        rate: RATE,
    };
    let traffic = Traffic::start(&settings)
        .map_err(|source| Error::Http { what: "building an HTTP client".to_owned(), source })?;
    stage.printer.note(format!(
        "{CUSTOMERS} customers send {RATE} requests per second through the Ingress from now on"
    ));
    Ok(traffic)
}

/// The version that answers first. Nothing tells from outside when an Ingress begins to work: it is asked.
async fn first_answer(stage: &Stage<'_>) -> Result<String, Error> {
    let client = http_client::builder()
        .timeout(Duration::from_secs(2))
        .build()
        .map_err(|source| Error::Http { what: "building an HTTP client".to_owned(), source })?;
    let url = format!("{}{}", stage.shop_url, shop::PATHS[1]);
    let deadline = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let seen = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => {
                let version = answer.headers().get(crate::traffic::VERSION_HEADER);
                return Ok(version.and_then(|value| value.to_str().ok()).unwrap_or("unknown").to_owned());
            }
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(unexpected(format!("the shop to answer at {url} within 60 s"), seen));
        }
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn address(pod: &Pod) -> String {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or("no address");
    let port = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers.first()?.ports.as_ref()?.first().map(|port| port.container_port));
    port.map_or_else(|| ip.to_owned(), |port| format!("{ip}:{port}"))
}

/// A pod's name and why it is not ready, as far as it says.
fn state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let waiting = status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "no phase".to_owned());
    format!("{} {}", pod.name_any(), waiting.unwrap_or(phase))
}
