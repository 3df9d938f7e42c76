//! Settings, read once from the environment and checked before anything starts.

mod read;
mod web;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::client::TrustedProxies;
use crate::cors::Origins;
use crate::edge::EdgeSettings;
use read::Reader;
pub use web::{ApiUrl, WebConfig};

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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Share of API requests answered with 500, in percent, 0 to 100.
    pub error_percent: f64,
    /// Added before each API request is handled.
    pub latency: Duration,
    /// Memory taken and never given back, in bytes per second.
    pub leak_per_second: u64,
    /// Where the leak stops, in bytes.
    pub leak_most: u64,
    /// The process aborts after this many API requests; 0 is never.
    pub crash_after: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_percent: 0.0,
            latency: Duration::ZERO,
            leak_per_second: 0,
            leak_most: 512 * 1024 * 1024,
            crash_after: 0,
        }
    }
}

/// How much one client may ask of the API.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Requests per second in the long run; 0 is no limit.
    pub per_second: f64,
    /// Requests at once.
    pub burst: u32,
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
    /// Connections kept to PostgreSQL (`DATABASE_POOL_SIZE`, default 8, 1 to 200). Ten shops at the default
    /// stay below the 100 connections that PostgreSQL allows by default.
    pub pool_size: u32,
    /// Failures on purpose (`FAULT_ERROR_PERCENT`, `FAULT_LATENCY_MS`, `FAULT_LEAK_BYTES_PER_SECOND`,
    /// `FAULT_LEAK_MAX_BYTES`, `FAULT_CRASH_AFTER_REQUESTS`), off by default.
    pub faults: Faults,
    /// Per client (`RATE_LIMIT_PER_SECOND`, default 0: off; `RATE_LIMIT_BURST`, default five seconds' worth).
    pub rate_limit: RateLimit,
    /// Addresses whose `X-Forwarded-For` is believed (`TRUSTED_PROXIES`, CIDRs, default none).
    pub trusted_proxies: TrustedProxies,
    /// Sites whose scripts may call the API (`CORS_ORIGINS`, default none).
    pub cors_origins: Origins,
    /// Keys of administrators' tokens (`ADMIN_KEYS_FILE`); without it nobody is an administrator.
    pub admin_keys: Option<PathBuf>,
    /// How long an answer about the catalogue may be repeated (`CATALOGUE_CACHE_MS`, default 1000, at most
    /// 60,000; 0 is never). Changes made through the same process are seen at once.
    pub catalogue_cache: Duration,
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
            pool_size: 8,
            faults: Faults::default(),
            rate_limit: RateLimit { per_second: 0.0, burst: 0 },
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Origins::default(),
            admin_keys: None,
            catalogue_cache: Duration::from_secs(1),
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
        let read = Reader::new(lookup);
        let mut config = Self::default();
        config.bind_address = read.bind_address()?.unwrap_or(config.bind_address);
        config.port = read.port()?.unwrap_or(config.port);
        config.database = database(read.text("DATABASE_URL"), read.text("DATA_DIR"))?;
        config.pool_size = read.whole("DATABASE_POOL_SIZE", 1, 200)?.unwrap_or(8) as u32;
        config.version = read.version()?.unwrap_or(config.version);
        config.faults = faults(&read)?;
        config.rate_limit = rate_limit(&read)?;
        config.trusted_proxies = read.trusted_proxies()?;
        if let Some(text) = read.text("CORS_ORIGINS") {
            config.cors_origins =
                Origins::parse(&text).map_err(|problem| ConfigError::new("CORS_ORIGINS", problem))?;
        }
        config.admin_keys = read.text("ADMIN_KEYS_FILE").map(PathBuf::from);
        if let Some(millis) = read.number("CATALOGUE_CACHE_MS", 0.0, 60_000.0)? {
            config.catalogue_cache = Duration::from_secs_f64(millis / 1000.0);
        }
        read.durations([
            ("DRAIN_SECONDS", 0.0, &mut config.drain),
            ("SHUTDOWN_SECONDS", 0.0, &mut config.shutdown),
            ("REQUEST_TIMEOUT_SECONDS", 1.0, &mut config.request_timeout),
        ])?;
        config.seed_catalogue = read.truth("SEED_CATALOGUE")?.unwrap_or(true);
        config.log_format = read.log_format()?;
        Ok(config)
    }

    pub(crate) fn edge(&self) -> EdgeSettings {
        EdgeSettings {
            version: self.version.clone(),
            drain: self.drain,
            shutdown: self.shutdown,
            request_timeout: self.request_timeout,
            trusted_proxies: self.trusted_proxies.clone(),
        }
    }

    /// Where the shop listens.
    pub fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.port)
    }
}

fn faults(read: &Reader) -> Result<Faults, ConfigError> {
    const MOST_BYTES: u64 = 64 * 1024 * 1024 * 1024;
    let mut faults = Faults::default();
    if let Some(value) = read.number("FAULT_ERROR_PERCENT", 0.0, 100.0)? {
        faults.error_percent = value;
    }
    if let Some(value) = read.number("FAULT_LATENCY_MS", 0.0, 60_000.0)? {
        faults.latency = Duration::from_secs_f64(value / 1000.0);
    }
    for (name, most, target) in [
        ("FAULT_LEAK_BYTES_PER_SECOND", MOST_BYTES, &mut faults.leak_per_second),
        ("FAULT_LEAK_MAX_BYTES", MOST_BYTES, &mut faults.leak_most),
        ("FAULT_CRASH_AFTER_REQUESTS", u64::from(u32::MAX), &mut faults.crash_after),
    ] {
        if let Some(value) = read.whole(name, 0, most)? {
            *target = value;
        }
    }
    Ok(faults)
}

fn rate_limit(read: &Reader) -> Result<RateLimit, ConfigError> {
    let per_second = read.number("RATE_LIMIT_PER_SECOND", 0.0, 1_000_000.0)?.unwrap_or(0.0);
    let usual = (per_second * 5.0).ceil().max(1.0) as u32;
    let burst = read.whole("RATE_LIMIT_BURST", 1, 1_000_000)?.map_or(usual, |burst| burst as u32);
    Ok(RateLimit { per_second, burst })
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
        assert_eq!(
            config.faults,
            Faults { error_percent: 12.5, latency: Duration::from_millis(40), ..Faults::default() }
        );
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
            ("DATABASE_POOL_SIZE", "0"),
            ("FAULT_CRASH_AFTER_REQUESTS", "2.5"),
            ("RATE_LIMIT_PER_SECOND", "-1"),
            ("TRUSTED_PROXIES", "10.0.0.0/33"),
            ("CORS_ORIGINS", "*"),
            ("CATALOGUE_CACHE_MS", "60001"),
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
