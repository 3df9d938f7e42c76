//! `conformance run` replays the recorded scenarios; `conformance record` makes new ones from scripts.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use conformance::client::Access;
use conformance::exceptions;
use conformance::record;
use conformance::replay::{self, Outcome, Target};
use conformance::scenario::{Scenario, pretty};
use conformance::script::Script;
use futures::{StreamExt, stream};
use std::path::PathBuf;
use std::process::ExitCode;

/// Scenarios that are replayed at the same time.
const TOGETHER: usize = 8;

/// Holds Kubernetes API servers to recorded answers of a real one.
#[derive(Parser)]
#[command(name = "conformance")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replays scenarios, on the embedded server unless another is named, and fails when a step differs that is no exception.
    Run {
        #[command(flatten)]
        server: ServerOptions,
        /// Replay on the embedded server too, and show both.
        #[arg(long)]
        embedded: bool,
        /// The server runs controllers and ServiceAccount admission: replay only scenarios that were recorded so.
        #[arg(long)]
        controllers: bool,
        /// Only scenarios whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// Folder of the scenarios.
        #[arg(long, default_value_os_t = conformance::folder())]
        folder: PathBuf,
    },
    /// Records what a server answers to scripts.
    Record {
        /// The scripts.
        #[arg(required = true)]
        scripts: Vec<PathBuf>,
        #[command(flatten)]
        server: ServerOptions,
        /// Where to write the scenarios.
        #[arg(long, default_value_os_t = conformance::folder())]
        folder: PathBuf,
    },
}

#[derive(Args)]
struct ServerOptions {
    /// Kubeconfig whose current context names the server.
    #[arg(long, conflicts_with = "server")]
    kubeconfig: Option<PathBuf>,
    /// Address of the server, as https://127.0.0.1:6443.
    #[arg(long)]
    server: Option<String>,
    /// File with a bearer token.
    #[arg(long, requires = "server")]
    token_file: Option<PathBuf>,
    /// File with the certificate authority of the server.
    #[arg(long, requires = "server")]
    certificate_authority: Option<PathBuf>,
}

impl ServerOptions {
    fn access(&self) -> anyhow::Result<Option<Access>> {
        if let Some(path) = &self.kubeconfig {
            return Ok(Some(Access::from_kubeconfig(path)?));
        }
        let Some(url) = &self.server else { return Ok(None) };
        let read = |path: &Option<PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
            Ok(path.as_ref().map(|p| conformance::client::read(p)).transpose()?)
        };
        let token = read(&self.token_file)?.map(|t| String::from_utf8_lossy(&t).trim().to_owned());
        let authority = read(&self.certificate_authority)?.unwrap_or_default();
        Ok(Some(Access { url: url.trim_end_matches('/').to_owned(), token, authority, certificate: None }))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match act(Line::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// One kind of server, its exceptions and what came of it.
struct Column {
    name: &'static str,
    target: Target,
    exceptions: exceptions::Steps,
    total: usize,
    equal: usize,
    unexpected: Vec<String>,
    idle: Vec<String>,
}

impl Column {
    fn new(name: &'static str, target: Target) -> anyhow::Result<Column> {
        let exceptions = exceptions::read(&conformance::folder().join("EXCEPTIONS.txt"), name)?;
        Ok(Column { name, target, exceptions, total: 0, equal: 0, unexpected: Vec::new(), idle: Vec::new() })
    }

    /// Takes the outcome of a scenario in; the result is what the table shows.
    fn take(&mut self, scenario: &str, outcome: &Outcome) -> String {
        self.total += outcome.total;
        self.equal += outcome.equal();
        let mut excused = 0;
        for (step, differences) in &outcome.different {
            if self.exceptions.contains_key(&(scenario.to_owned(), *step)) {
                excused += 1;
                continue;
            }
            let lines = differences.join("\n      ");
            self.unexpected.push(format!("{scenario} #{step} on {}: {lines}", self.name));
        }
        for (name, step) in self.exceptions.keys().filter(|(name, _)| name == scenario) {
            if !outcome.different.iter().any(|(index, _)| index == step) {
                self.idle.push(format!("{name} {step}"));
            }
        }
        let excused = if excused == 0 { String::new() } else { format!(" ({excused} excused)") };
        format!("{:3} / {:3}{excused}", outcome.equal(), outcome.total)
    }
}

async fn act(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run { server, embedded, controllers, only, folder } => {
            let mut columns = Vec::new();
            let access = server.access()?;
            if embedded || access.is_none() {
                columns.push(Column::new("embedded", Target::Embedded)?);
            }
            let is_real = access.is_some();
            if let Some(access) = access {
                columns.push(Column::new("real", Target::Server(access))?);
            }
            let mut scenarios = Scenario::read_all(&folder)?;
            scenarios.retain(|s| s.name.contains(&only) && (!is_real || s.controllers == controllers));
            if scenarios.is_empty() {
                bail!("no scenario in {} has a name with {only:?}", folder.display());
            }
            run(&scenarios, columns).await
        }
        Command::Record { scripts, server, folder } => {
            let Some(access) = server.access()? else {
                bail!("answers are recorded from a real server: name one with --kubeconfig or --server");
            };
            for path in scripts {
                let script = Script::read(&path)?;
                let scenario = record::record(&script, &access).await?;
                let file = folder.join(format!("{}.json", script.name));
                std::fs::write(&file, pretty(&scenario))
                    .with_context(|| format!("cannot write {}", file.display()))?;
                println!("{}: {} steps", file.display(), script.steps.len());
            }
            Ok(true)
        }
    }
}

/// Replays scenarios, in their order. Most of the time of a scenario is waiting, so those that keep to themselves wait
/// together; on embedded servers all do, for each has its own.
async fn replay_all(scenarios: &[Scenario], target: &Target) -> Vec<Outcome> {
    let replay = |(index, scenario): (usize, &Scenario)| {
        let (scenario, target) = (scenario.clone(), target.clone());
        async move {
            let outcome = replay::replay(&scenario, &target).await;
            let broken = |error| Outcome {
                total: 1,
                different: vec![(usize::MAX, vec![format!("broke off: {error}")])],
            };
            (index, outcome.unwrap_or_else(broken))
        }
    };
    let (together, alone): (Vec<_>, Vec<_>) = scenarios
        .iter()
        .enumerate()
        .partition(|(_, scenario)| matches!(target, Target::Embedded) || scenario.keeps_to_itself());
    let mut outcomes: Vec<(usize, Outcome)> =
        stream::iter(together).map(replay).buffer_unordered(TOGETHER).collect().await;
    for scenario in alone {
        outcomes.push(replay(scenario).await);
    }
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn run(scenarios: &[Scenario], mut columns: Vec<Column>) -> anyhow::Result<bool> {
    let head: Vec<String> = columns.iter().map(|c| format!("{:24}", c.name)).collect();
    println!("{:32} {}", "scenario", head.concat());
    let outcomes =
        futures::future::join_all(columns.iter().map(|column| replay_all(scenarios, &column.target))).await;
    for (index, scenario) in scenarios.iter().enumerate() {
        let mut cells = Vec::new();
        for (column, outcomes) in columns.iter_mut().zip(&outcomes) {
            cells.push(format!("{:24}", column.take(&scenario.name, &outcomes[index])));
        }
        println!("{:32} {}", scenario.name, cells.concat().trim_end());
    }
    let totals: Vec<String> =
        columns.iter().map(|c| format!("{:24}", format!("{:3} / {:3}", c.equal, c.total))).collect();
    println!("{:32} {}", "all", totals.concat().trim_end());
    for column in &columns {
        for line in &column.unexpected {
            println!("{line}");
        }
        for line in &column.idle {
            println!("{line} is equal on {}: its exception can go", column.name);
        }
    }
    Ok(columns.iter().all(|c| c.unexpected.is_empty()))
}
