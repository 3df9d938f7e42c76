//! Reading single values from the environment.

use std::net::IpAddr;
use std::time::Duration;

use super::{ConfigError, LogFormat};
use crate::client::TrustedProxies;

type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Where settings come from. An empty value counts as unset, because a manifest cannot unset one.
pub(super) struct Reader<'a> {
    lookup: Box<Lookup<'a>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: impl Fn(&str) -> Option<String> + 'a) -> Self {
        Self { lookup: Box::new(lookup) }
    }

    /// The trimmed value, if there is one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn number(
        &self,
        name: &'static str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if value >= least && value <= most => Ok(Some(value)),
            _ => Err(ConfigError::new(name, format!("it must be a number from {least} to {most}"))),
        }
    }

    pub(super) fn whole(
        &self,
        name: &'static str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(value) if (least..=most).contains(&value) => Ok(Some(value)),
            _ => Err(ConfigError::new(name, format!("it must be a whole number from {least} to {most}"))),
        }
    }

    pub(super) fn truth(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(ConfigError::new(name, "it must be true or false")),
        }
    }

    /// Seconds up to 300, each with its least value and where it goes.
    pub(super) fn durations<const N: usize>(
        &self,
        durations: [(&'static str, f64, &mut Duration); N],
    ) -> Result<(), ConfigError> {
        for (name, least, target) in durations {
            if let Some(value) = self.number(name, least, 300.0)? {
                *target = Duration::from_secs_f64(value);
            }
        }
        Ok(())
    }

    pub(super) fn bind_address(&self) -> Result<Option<IpAddr>, ConfigError> {
        let parse = |text: String| text.parse();
        let parsed = self.text("BIND_ADDRESS").map(parse).transpose();
        parsed.map_err(|_| ConfigError::new("BIND_ADDRESS", "it must be an IPv4 or IPv6 address"))
    }

    pub(super) fn port(&self) -> Result<Option<u16>, ConfigError> {
        let parsed = self.text("PORT").map(|text| text.parse()).transpose();
        parsed.map_err(|_| ConfigError::new("PORT", "it must be 0 to 65535"))
    }

    // The version goes into a response header and a metric label.
    pub(super) fn version(&self) -> Result<Option<String>, ConfigError> {
        match self.text("SHOP_VERSION") {
            Some(value) if value.len() > 128 || !value.bytes().all(|b| b.is_ascii_graphic()) => {
                let problem = "it must be up to 128 printable ASCII characters without spaces";
                Err(ConfigError::new("SHOP_VERSION", problem))
            }
            value => Ok(value),
        }
    }

    pub(super) fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.text("LOG_FORMAT").as_deref() {
            None | Some("json") => Ok(LogFormat::Json),
            Some("text") => Ok(LogFormat::Text),
            Some(_) => Err(ConfigError::new("LOG_FORMAT", "it must be json or text")),
        }
    }

    pub(super) fn trusted_proxies(&self) -> Result<TrustedProxies, ConfigError> {
        let text = self.text("TRUSTED_PROXIES").unwrap_or_default();
        TrustedProxies::parse(&text).map_err(|problem| ConfigError::new("TRUSTED_PROXIES", problem))
    }
}
