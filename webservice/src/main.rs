//! The `shop` program. Settings come from the environment; see `docs/dhakacart.md`.

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use webservice::{Config, LogFormat};

/// DhakaCart, an online shop.
#[derive(Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Serve the API and the storefront (the default)
    Api,
    /// Ask the shop of this container for its health; exit 0 if it is well
    Healthcheck,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let config = Config::from_env()?;
    match cli.command.unwrap_or(Command::Api) {
        Command::Api => {
            start_logging(config.log_format);
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("the runtime cannot start")?
                .block_on(serve(config))
        }
        Command::Healthcheck => Ok(webservice::healthcheck(config.listen_address())?),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Listening for signals first, so that none can end the process the hard way from here on.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let shop = webservice::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    shop.drain();
    shop.stopped().await;
    tracing::info!("closed");
    Ok(())
}

fn start_logging(format: LogFormat) {
    // sqlx logs statements at info and slow ones with their text; only its warnings are of use here.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.init(),
    }
}
