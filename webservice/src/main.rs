//! The `shop` program. Settings come from the environment; see `docs/dhakacart.md`.

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use webservice::{Config, Keys, LogFormat, Running, WebConfig};

/// DhakaCart, an online shop.
#[derive(Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API, and the pages with it (the default)
    Api,
    /// Serve the storefront and the dashboard, and hand /api on to API_URL
    Web,
    /// Ask the shop of this container for its health; exit 0 if it is well
    Healthcheck,
    /// Print a token for an administrator, signed with the first key of ADMIN_KEYS_FILE
    Token {
        /// Name of the administrator, for the audit log
        name: String,
        /// How long the token is valid
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=720))]
        hours: u16,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Api) {
        Command::Api => {
            let config = Config::from_env()?;
            start_logging(config.log_format);
            run(webservice::start(config))
        }
        Command::Web => {
            let config = WebConfig::from_env()?;
            start_logging(config.log_format);
            run(webservice::start_web(config))
        }
        Command::Healthcheck => {
            // Of whichever role: both listen where the same two variables say, or each at its own port.
            let ports = if std::env::var_os("PORT").is_some_and(|port| !port.is_empty()) {
                vec![Config::from_env()?.listen_address()]
            } else {
                vec![Config::from_env()?.listen_address(), WebConfig::from_env()?.listen_address()]
            };
            Ok(webservice::healthcheck(&ports)?)
        }
        Command::Token { name, hours } => {
            let path = Config::from_env()?.admin_keys.context("set ADMIN_KEYS_FILE to the file of keys")?;
            let keys = Keys::open(&path)?.current();
            let first = keys.first().context("the file of keys holds no key")?;
            let seconds = i64::from(hours) * 60 * 60;
            println!("{}", webservice::sign_token(first, &name, jiff::Timestamp::now(), seconds));
            Ok(())
        }
    }
}

fn run(start: impl Future<Output = Result<Running, webservice::StartError>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?
        .block_on(serve(start))
}

async fn serve(start: impl Future<Output = Result<Running, webservice::StartError>>) -> anyhow::Result<()> {
    // Listening for signals first, so that none can end the process the hard way from here on.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let shop = start.await?;
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
