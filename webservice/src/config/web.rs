//! Settings of the frontend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::uri::Authority;

use super::read::Reader;
use super::{ConfigError, LogFormat};
use crate::client::TrustedProxies;
use crate::edge::EdgeSettings;

/// Where the backend is: `http://` with a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl(Authority);

impl ApiUrl {
    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.0
    }
}

impl FromStr for ApiUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "it must look like http://host:port, without a path";
        let rest = text.strip_prefix("http://").ok_or(FORM)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority = Authority::from_str(rest).map_err(|_| FORM)?;
        if rest.contains('@') || authority.host().is_empty() {
            return Err(FORM);
        }
        Ok(Self(authority))
    }
}

/// Everything the frontend can be told.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Address to listen on (`BIND_ADDRESS`, default `0.0.0.0`).
    pub bind_address: IpAddr,
    /// Port to listen on (`PORT`, default 8080; 0 picks a free one).
    pub port: u16,
    /// The backend (`API_URL`, default `http://localhost:5000`).
    pub api_url: ApiUrl,
    /// Shown to clients and in metrics (`SHOP_VERSION`, default: the crate's version).
    pub version: String,
    /// How long connections are still accepted after SIGTERM (`DRAIN_SECONDS`, default 2, at most 300).
    pub drain: Duration,
    /// How long requests in flight may take after the drain (`SHUTDOWN_SECONDS`, default 15, at most 300).
    pub shutdown: Duration,
    /// Longest time spent on one request (`REQUEST_TIMEOUT_SECONDS`, default 12, 1 to 300). Longer than the
    /// backend's, which then gives its own answer.
    pub request_timeout: Duration,
    /// Longest wait for a connection to the backend (`CONNECT_TIMEOUT_SECONDS`, default 2, 0.1 to 300).
    pub connect_timeout: Duration,
    /// Addresses whose `X-Forwarded-For` is believed (`TRUSTED_PROXIES`, CIDRs, default none).
    pub trusted_proxies: TrustedProxies,
    /// Log lines (`LOG_FORMAT`, `json` or `text`, default `json`).
    pub log_format: LogFormat,
}

impl WebConfig {
    /// The defaults for a backend at `api_url`.
    pub fn new(api_url: ApiUrl) -> Self {
        Self {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 8080,
            api_url,
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            drain: Duration::from_secs(2),
            shutdown: Duration::from_secs(15),
            request_timeout: Duration::from_secs(12),
            connect_timeout: Duration::from_secs(2),
            trusted_proxies: TrustedProxies::default(),
            log_format: LogFormat::Json,
        }
    }

    /// Reads the process's environment.
    ///
    /// # Errors
    /// A value that does not parse or is out of range, naming the variable and what is allowed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads settings from `lookup`.
    ///
    /// # Errors
    /// As [`WebConfig::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = Reader::new(lookup);
        let url = read.text("API_URL").unwrap_or_else(|| "http://localhost:5000".to_owned());
        let mut config =
            Self::new(url.parse().map_err(|problem: &str| ConfigError::new("API_URL", problem))?);
        config.bind_address = read.bind_address()?.unwrap_or(config.bind_address);
        config.port = read.port()?.unwrap_or(config.port);
        config.version = read.version()?.unwrap_or(config.version);
        config.trusted_proxies = read.trusted_proxies()?;
        read.durations([
            ("DRAIN_SECONDS", 0.0, &mut config.drain),
            ("SHUTDOWN_SECONDS", 0.0, &mut config.shutdown),
            ("REQUEST_TIMEOUT_SECONDS", 1.0, &mut config.request_timeout),
            ("CONNECT_TIMEOUT_SECONDS", 0.1, &mut config.connect_timeout),
        ])?;
        config.log_format = read.log_format()?;
        Ok(config)
    }

    /// Where the frontend listens.
    pub fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.port)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_is_a_plain_http_address() {
        let url: ApiUrl = "http://dhakacart-backend-service:5000/".parse().unwrap();
        assert_eq!(url.authority().as_str(), "dhakacart-backend-service:5000");
        for bad in
            ["", "backend:5000", "https://backend", "http://", "http://a/b", "http://u:p@a", "http://a b"]
        {
            assert!(bad.parse::<ApiUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_frontend_reads_its_own_defaults() {
        let config = WebConfig::from_lookup(|_| None).unwrap();
        assert_eq!(config.listen_address().to_string(), "0.0.0.0:8080");
        let refused = WebConfig::from_lookup(|name| (name == "API_URL").then(|| "ftp://x".to_owned()));
        assert!(refused.unwrap_err().to_string().contains("API_URL"));
    }
}
