//! `playground`: the whole loop in one command.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use playground::join::{CLASS, Joined, LABEL, VALUE};
use playground::print::{Printer, grouped, seconds};
use playground::session::{Ground, Session};
use playground::signals::Signals;
use playground::{agent_process, programs, state, tour};

/// Holdfast on this machine: an embedded Kubernetes, a Git repository, the agent, and a tour of what it does.
#[derive(Debug, Parser)]
#[command(name = "playground", version, about)]
struct Cli {
    /// End after the tour instead of staying up
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster alone, print its kubeconfig, stay up until Ctrl-C
    Serve,
    /// Join a cluster that is there already with a node that runs pods as local processes, until Ctrl-C
    Join {
        /// Kubeconfig file whose current context is the cluster
        #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
        kubeconfig: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let printer = Arc::new(Printer::stdout());
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads can be started")
        .and_then(|runtime| runtime.block_on(run(cli, Arc::clone(&printer))));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            printer.failed(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns the exit code.
async fn run(cli: Cli, printer: Arc<Printer>) -> anyhow::Result<u8> {
    let mut signals = Signals::take().context("signals cannot be received")?;
    let here = std::env::current_dir().context("there is no current folder")?;
    let checkout = state::checkout(&here)?;
    match cli.command {
        Some(Command::Serve) => serve(&mut signals, &printer, &checkout).await,
        Some(Command::Join { kubeconfig }) => join(&mut signals, &printer, &checkout, &kubeconfig).await,
        None => show(cli.once, &mut signals, &printer, &checkout).await,
    }
}

async fn serve(signals: &mut Signals, printer: &Printer, checkout: &Path) -> anyhow::Result<u8> {
    printer.title("Holdfast playground: the cluster alone");
    let ground = tokio::select! {
        ground = Ground::start(printer, checkout) => ground?,
        code = signals.received() => return Ok(code),
    };
    printer.note(format!("Ingress: {}", ground.cluster.ingress_url()));
    printer.note("it stays up until Ctrl-C");
    signals.received().await;
    ground.cluster.stop().await;
    Ok(0)
}

async fn join(
    signals: &mut Signals,
    printer: &Printer,
    checkout: &Path,
    kubeconfig: &Path,
) -> anyhow::Result<u8> {
    printer.title("Holdfast playground: a node for your cluster");
    let state = state::State::claim(&checkout.join(".playground"))?;
    let programs =
        tokio::task::spawn_blocking(|| programs::ensure(programs::Selection::Playground)).await??;
    let joined = tokio::select! {
        joined = Joined::start(kubeconfig, state.root(), &programs) => joined?,
        code = signals.received() => return Ok(code),
    };
    printer.note(format!("node {CLASS}; pods come here that select and tolerate {LABEL}={VALUE}"));
    printer
        .note(format!("volumes: StorageClass {CLASS}; Ingresses of class {CLASS}: {}", joined.ingress_url()));
    printer.note("it stays up until Ctrl-C");
    signals.received().await;
    joined.leave().await?;
    Ok(0)
}

async fn show(
    once: bool,
    signals: &mut Signals,
    printer: &Arc<Printer>,
    checkout: &Path,
) -> anyhow::Result<u8> {
    printer.title("Holdfast playground");
    let session = tokio::select! {
        session = Session::start(printer, checkout) => session?,
        code = signals.received() => return Ok(code),
    };
    let stage = tour::Stage {
        printer,
        client: session.ground.cluster.client(),
        repository: &session.repository,
        shop_url: session.ground.cluster.ingress_url(),
        holdfast: &session.ground.programs.holdfast,
        slack: session.slack.as_ref(),
    };
    let toured = tokio::select! {
        toured = tour::run(&stage) => toured,
        code = signals.received() => {
            printer.note("stopping");
            session.stop().await;
            return Ok(code);
        }
    };
    let code = match toured {
        Ok((summary, traffic)) => {
            summarise(printer, &summary);
            if !once {
                session.suggestions(printer);
                signals.received().await;
                printer.note("stopping");
            }
            drop(traffic);
            0
        }
        Err(failure) => {
            report(printer, &session, &failure);
            if !once && std::io::stdout().is_terminal() {
                printer.note("everything is still up for you to look at, until Ctrl-C");
                signals.received().await;
            }
            1
        }
    };
    session.stop().await;
    Ok(code)
}

fn summarise(printer: &Printer, summary: &tour::Summary) {
    printer.heading("Each step did what it should");
    printer.pair("tour", seconds(summary.took).trim());
    printer.pair("applied", format!("{} after the push", seconds(summary.applied).trim()));
    printer.pair("drift", format!("corrected within {}", seconds(summary.drift).trim()));
    printer
        .pair("bad version", format!("seen by {:.1} % of the requests of its time", summary.exposed * 100.0));
    let whose = match summary.failed_otherwise {
        0 => "all of them the bad version's".to_owned(),
        number => format!("{} of them not the bad version's", grouped(number)),
    };
    let (requests, failed) = (grouped(summary.requests), grouped(summary.failed));
    printer.pair("requests", format!("{requests}, of which {failed} failed, {whose}"));
}

/// What failed, what was expected, what was seen, and where to look.
fn report(printer: &Printer, session: &Session, failure: &tour::Failure) {
    printer.heading("The tour ended early");
    printer.failed(failure);
    let log = session.agent.log();
    printer.note(format!("logs: {}", session.ground.state.logs().display()));
    printer.note("the last lines of the agent's:");
    printer.block(agent_process::tail(log, 15));
}
