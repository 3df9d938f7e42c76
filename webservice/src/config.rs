//! Settings, read once from the environment and checked before anything starts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// Where products and orders are kept.
#[derive(Clone)]
pub enum Database {
    /// SQLite in this process's memory: gone when the process ends, shared with nobody.
    Memory,
    /// A SQLite file. Several shops on one host may share it.
    SqliteFile(PathBuf),
    /// PostgreSQL.
    Postgres(Box<PgConnectOptions>),
}

impl fmt::Debug for Database {
    // Connection options hold the password, so they are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("Memory"),
            Self::SqliteFile(path) => f.debug_tuple("SqliteFile").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres(..)"),
        }
    }
}

/// Failures on purpose, for demonstrations and game days. They touch `/api` only: probes and metrics
/// stay truthful.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share of API requests answered with 500, in percent, 0 to 100.
    pub error_percent: f64,
    /// Added before each API request is handled.
    pub latency: Duration,
}

/// How log lines are written to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Everything the shop can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on (`BIND_ADDRESS`, default `0.0.0.0`).
    pub bind_address: IpAddr,
    /// Port to listen on (`PORT`, default 5000; 0 picks a free one).
    pub port: u16,
    /// Where data is kept (`DATABASE_URL`, else `DATA_DIR/dhakacart.db`, else memory).
    pub database: Database,
    /// Shown to clients and in metrics (`SHOP_VERSION`, default: the crate's version).
    pub version: String,
    /// Failures on purpose (`FAULT_ERROR_PERCENT`, `FAULT_LATENCY_MS`), off by default.
    pub faults: Faults,
    /// How long connections are still accepted after SIGTERM (`DRAIN_SECONDS`, default 2, at most 300):
    /// the time a load balancer may need to notice that this instance is going away.
    pub drain: Duration,
    /// How long requests in flight may take to finish after the drain (`SHUTDOWN_SECONDS`, default 15,
    /// at most 300).
    pub shutdown: Duration,
    /// Longest time spent on one request (`REQUEST_TIMEOUT_SECONDS`, default 10, 1 to 300).
    pub request_timeout: Duration,
    /// Whether an empty products table is filled with the demo catalogue (`SEED_CATALOGUE`, default true).
    pub seed_catalogue: bool,
    /// Log lines (`LOG_FORMAT`, `json` or `text`, default `json`).
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 5000,
            database: Database::Memory,
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            faults: Faults::default(),
            drain: Duration::from_secs(2),
            shutdown: Duration::from_secs(15),
            request_timeout: Duration::from_secs(10),
            seed_catalogue: true,
            log_format: LogFormat::Json,
        }
    }
}

/// A setting that cannot be used. Values are left out because a database URL holds a password.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} cannot be used: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl ConfigError {
    fn new(name: &'static str, problem: impl Into<String>) -> Self {
        Self { name, problem: problem.into() }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// A value that does not parse or is out of range, naming the variable and what is allowed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads settings from `lookup`. An empty value counts as unset, because a manifest cannot unset one.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let mut config = Self::default();
        if let Some(value) = read("BIND_ADDRESS") {
            config.bind_address = value
                .trim()
                .parse()
                .map_err(|_| ConfigError::new("BIND_ADDRESS", "it must be an IPv4 or IPv6 address"))?;
        }
        if let Some(value) = read("PORT") {
            config.port =
                value.trim().parse().map_err(|_| ConfigError::new("PORT", "it must be 0 to 65535"))?;
        }
        config.database = database(read("DATABASE_URL"), read("DATA_DIR"))?;
        if let Some(value) = read("SHOP_VERSION") {
            config.version = version(value.trim())?;
        }
        if let Some(value) = number(&read, "FAULT_ERROR_PERCENT", 0.0, 100.0)? {
            config.faults.error_percent = value;
        }
        if let Some(value) = number(&read, "FAULT_LATENCY_MS", 0.0, 60_000.0)? {
            config.faults.latency = Duration::from_secs_f64(value / 1000.0);
        }
        for (name, least, target) in [
            ("DRAIN_SECONDS", 0.0, &mut config.drain),
            ("SHUTDOWN_SECONDS", 0.0, &mut config.shutdown),
            ("REQUEST_TIMEOUT_SECONDS", 1.0, &mut config.request_timeout),
        ] {
            if let Some(value) = number(&read, name, least, 300.0)? {
                *target = Duration::from_secs_f64(value);
            }
        }
        if let Some(value) = read("SEED_CATALOGUE") {
            config.seed_catalogue = match value.trim() {
                "true" => true,
                "false" => false,
                _ => return Err(ConfigError::new("SEED_CATALOGUE", "it must be true or false")),
            };
        }
        if let Some(value) = read("LOG_FORMAT") {
            config.log_format = match value.trim() {
                "json" => LogFormat::Json,
                "text" => LogFormat::Text,
                _ => return Err(ConfigError::new("LOG_FORMAT", "it must be json or text")),
            };
        }
        Ok(config)
    }

    /// Where the shop listens.
    pub fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.port)
    }
}

fn number(
    read: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    least: f64,
    most: f64,
) -> Result<Option<f64>, ConfigError> {
    let Some(text) = read(name) else { return Ok(None) };
    match text.trim().parse::<f64>() {
        Ok(value) if value >= least && value <= most => Ok(Some(value)),
        _ => Err(ConfigError::new(name, format!("it must be a number from {least} to {most}"))),
    }
}

// The version goes into a response header and a metric label.
fn version(value: &str) -> Result<String, ConfigError> {
    if value.len() <= 128 && value.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        Err(ConfigError::new(
            "SHOP_VERSION",
            "it must be up to 128 printable ASCII characters without spaces",
        ))
    }
}

fn database(url: Option<String>, data_dir: Option<String>) -> Result<Database, ConfigError> {
    let Some(url) = url else {
        return Ok(match data_dir {
            Some(dir) => Database::SqliteFile(PathBuf::from(dir).join("dhakacart.db")),
            None => Database::Memory,
        });
    };
    let url = url.trim();
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        // The parser's own message can quote the URL, so it is not passed on.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            ConfigError::new("DATABASE_URL", "it must look like postgres://user:password@host:5432/database")
        })?;
        return Ok(Database::Postgres(Box::new(options)));
    }
    match url.strip_prefix("sqlite:") {
        Some(":memory:") => Ok(Database::Memory),
        Some(rest) => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.contains('?') {
                return Err(ConfigError::new("DATABASE_URL", "it must look like sqlite:/path/to/file.db"));
            }
            Ok(Database::SqliteFile(PathBuf::from(path)))
        }
        None => {
            Err(ConfigError::new("DATABASE_URL", "it must begin with postgres://, postgresql:// or sqlite:"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen_address().to_string(), "0.0.0.0:5000");
        assert!(matches!(config.database, Database::Memory));
        assert_eq!(config.faults, Faults::default());
        assert_eq!(config.drain, Duration::from_secs(2));
    }

    #[test]
    fn values_are_taken_from_the_environment() {
        let config = config(&[
            ("BIND_ADDRESS", "127.1.2.3"),
            ("PORT", "8080"),
            ("DATA_DIR", "/data"),
            ("SHOP_VERSION", "v1.4.0"),
            ("FAULT_ERROR_PERCENT", "12.5"),
            ("FAULT_LATENCY_MS", "40"),
            ("DRAIN_SECONDS", "0.5"),
            ("SEED_CATALOGUE", "false"),
            ("LOG_FORMAT", "text"),
        ])
        .unwrap();
        assert_eq!(config.listen_address().to_string(), "127.1.2.3:8080");
        assert!(matches!(config.database, Database::SqliteFile(p) if *p == *"/data/dhakacart.db"));
        assert_eq!(config.version, "v1.4.0");
        assert_eq!(config.faults, Faults { error_percent: 12.5, latency: Duration::from_millis(40) });
        assert_eq!(config.drain, Duration::from_millis(500));
        assert!(!config.seed_catalogue);
        assert_eq!(config.log_format, LogFormat::Text);
    }

    #[test]
    fn the_database_is_chosen_by_its_url() {
        let kind = |url| config(&[("DATABASE_URL", url), ("DATA_DIR", "/data")]).unwrap().database;
        assert!(matches!(kind("sqlite::memory:"), Database::Memory));
        assert!(matches!(kind("sqlite:/a/b.db"), Database::SqliteFile(p) if *p == *"/a/b.db"));
        assert!(matches!(kind("sqlite:///a/b.db"), Database::SqliteFile(p) if *p == *"/a/b.db"));
        assert!(matches!(kind("postgres://u:p@db/shop"), Database::Postgres(_)));
    }

    #[test]
    fn unusable_values_name_the_variable() {
        for (name, value) in [
            ("BIND_ADDRESS", "localhost"),
            ("PORT", "70000"),
            ("DATABASE_URL", "mysql://u:hunter2@db/shop"),
            ("DATABASE_URL", "postgres://u:hunter2@db:notaport/shop"),
            ("SHOP_VERSION", "v1\nx"),
            ("FAULT_ERROR_PERCENT", "101"),
            ("FAULT_ERROR_PERCENT", "NaN"),
            ("FAULT_LATENCY_MS", "-1"),
            ("DRAIN_SECONDS", "inf"),
            ("REQUEST_TIMEOUT_SECONDS", "0"),
            ("SEED_CATALOGUE", "yes"),
        ] {
            let message = config(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let config = config(&[("DATABASE_URL", "postgres://u:hunter2@db/shop")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
