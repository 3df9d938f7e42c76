//! `holdfast agent`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::reconcile::{self, Options};
use crate::secret::Secret;
use crate::telemetry::LogFormat;

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// Kubeconfig file; otherwise $KUBECONFIG, ~/.kube/config or the Pod's own service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where repositories and evidence are kept; losing it costs a clone, never a decision
    #[arg(long, value_name = "DIR", default_value = "/var/lib/holdfast")]
    data_dir: PathBuf,
    /// Address of the web page, metrics, probes and webhooks
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Follow the Environments of this namespace only, as one of several agents in a cluster; all by default
    #[arg(long, value_name = "NAMESPACE", env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the leader election's Lease
    #[arg(long, default_value = "holdfast-system", env = "POD_NAMESPACE")]
    lease_namespace: String,
    /// A directory that takes the place of every repository: the inner loop on a laptop
    #[arg(long, value_name = "DIR")]
    source_dir: Option<PathBuf>,
    /// Prometheus for PromQL gates that name no address of their own
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// Base address of Slack's API
    #[arg(long, value_name = "URL", default_value = "https://slack.com", env = "SLACK_API_URL")]
    slack_api: String,
    /// Bot token for environments that bring no Secret of their own
    #[arg(long, env = "SLACK_BOT_TOKEN", hide_env_values = true)]
    slack_token: Option<String>,
    /// Channel for environments that name none
    #[arg(long, env = "SLACK_CHANNEL")]
    slack_channel: Option<String>,
    /// Incoming webhook for environments that bring no Secret of their own
    #[arg(long, env = "SLACK_WEBHOOK_URL", hide_env_values = true)]
    slack_webhook: Option<String>,
    /// Secret that webhooks of forges are signed with; without it /hooks is closed
    #[arg(long, env = "HOLDFAST_WEBHOOK_SECRET", hide_env_values = true)]
    webhook_secret: Option<String>,
    /// How long one fetch from Git may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    fetch_timeout: Duration,
    /// How log lines look
    #[arg(long, value_enum, default_value = "json")]
    log_format: LogFormat,
    /// End when standard input closes: for a parent process that must not leave the agent behind
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::api::DurationText::from(text).parse().map_err(|error| error.to_string())
}

pub(super) fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    crate::telemetry::logs(args.log_format);
    let options = Options {
        kubeconfig: args.kubeconfig,
        data_dir: args.data_dir,
        http: args.http,
        namespace: args.namespace.filter(|namespace| !namespace.is_empty()),
        lease_namespace: args.lease_namespace,
        source_dir: args.source_dir,
        fetch_timeout: args.fetch_timeout,
        prometheus: args.prometheus,
        slack_api: args.slack_api,
        slack_token: args.slack_token.map(Secret::new),
        slack_channel: args.slack_channel,
        slack_webhook: args.slack_webhook.map(Secret::new),
        webhook_secret: args.webhook_secret.map(Secret::new),
        until_stdin_closes: args.until_stdin_closes,
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(reconcile::serve(options))?;
    Ok(ExitCode::SUCCESS)
}
