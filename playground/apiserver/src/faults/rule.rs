//! One fault and the requests that meet it.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// The request is answered later. Rules that follow apply too.
    Delay {
        /// How much later.
        milliseconds: u64,
    },
    /// No answer comes, and the connection stays open until the client gives up.
    Hang,
    /// 409, as if somebody else had written in between. Nothing is written.
    Conflict,
    /// 410, as if the resourceVersion were compacted; a watch gets it as its first event.
    Expired,
    /// 429. Nothing is written.
    TooManyRequests {
        /// `Retry-After`, in seconds.
        retry_after_seconds: u32,
    },
    /// 500. Nothing is written.
    InternalError,
    /// 503. Nothing is written.
    Unavailable {
        /// `Retry-After`, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_seconds: Option<u32>,
    },
    /// The connection is reset before anything is done.
    Reset,
    /// The request is done, then the connection is reset: the client cannot know what became of a write.
    LoseAnswer,
    /// A watch, new or open, breaks off in the middle of its stream.
    DropWatch {
        /// Events that still come.
        #[serde(default)]
        after_events: u64,
    },
    /// A watch, new or open, stays connected until its end and tells nothing, bookmarks included.
    SilenceWatch {
        /// Events that still come.
        #[serde(default)]
        after_events: u64,
    },
    /// Lists show the state of when the rule was added. A list that asks for a newer one is answered properly.
    StaleList,
    /// Leases are read as if their holders' clocks went wrong: the times of their renewals are moved by this much, back when
    /// it is negative. What is stored, and what holders read of their own writes, stays right. A rule's name and namespace
    /// mean the Lease here, in lists and watches, too.
    ShiftLeases {
        /// How far.
        milliseconds: i64,
    },
    /// Leases are read as if nobody had renewed them since the rule was added; everything else about them is current.
    FreezeLeases,
}

impl Fault {
    /// Whether it befalls watches only, during their life.
    pub(crate) fn is_of_watches(&self) -> bool {
        matches!(self, Fault::DropWatch { .. } | Fault::SilenceWatch { .. })
    }

    /// Whether it befalls Leases when they are read.
    pub(crate) fn is_of_leases(&self) -> bool {
        matches!(self, Fault::ShiftLeases { .. } | Fault::FreezeLeases)
    }
}

/// A fault with the requests that meet it. Without conditions every request does, except those of `/playground`.
///
/// ```
/// use apiserver::{Fault, Rule};
/// let rule = Rule::new(Fault::Conflict).verbs(["patch"]).resources(["deployments.apps"]).times(2);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    fault: Fault,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    verbs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field_manager: Option<String>,
    #[serde(default)]
    skip: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
}

/// Why a rule is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// It is no rule.
    #[error(
        "not a rule: {0}; send for example {{\"fault\": {{\"type\": \"conflict\"}}, \"verbs\": [\"patch\"], \"times\": 2}}"
    )]
    Malformed(String),
    /// The probability is none.
    #[error("a probability of {0} is not possible; give one from 0 to 1")]
    Probability(f64),
}

impl Rule {
    /// The fault for every request.
    pub fn new(fault: Fault) -> Rule {
        Rule {
            fault,
            verbs: Vec::new(),
            resources: Vec::new(),
            namespace: None,
            name: None,
            user_agent: None,
            field_manager: None,
            skip: 0,
            times: None,
            probability: None,
        }
    }

    /// Requests are answered later by this time.
    pub fn delay(time: Duration) -> Rule {
        Rule::new(Fault::Delay { milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) })
    }

    /// Only these verbs, as authorisation knows them: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`.
    #[must_use]
    pub fn verbs<S: Into<String>>(mut self, verbs: impl IntoIterator<Item = S>) -> Rule {
        self.verbs = verbs.into_iter().map(Into::into).collect();
        self
    }

    /// Only these resources: `pods`, `deployments.apps`, or one subresource as `deployments.apps/status`. What begins with
    /// `/` is the beginning of a path, as `/openapi`.
    #[must_use]
    pub fn resources<S: Into<String>>(mut self, resources: impl IntoIterator<Item = S>) -> Rule {
        self.resources = resources.into_iter().map(Into::into).collect();
        self
    }

    /// Only requests for this namespace. Lists and watches of all namespaces are none.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Rule {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only requests for the object of this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Rule {
        self.name = Some(name.into());
        self
    }

    /// Only clients whose `User-Agent` begins so.
    #[must_use]
    pub fn user_agent(mut self, start: impl Into<String>) -> Rule {
        self.user_agent = Some(start.into());
        self
    }

    /// Only writes by this `fieldManager`.
    #[must_use]
    pub fn field_manager(mut self, manager: impl Into<String>) -> Rule {
        self.field_manager = Some(manager.into());
        self
    }

    /// Lets this many requests pass first.
    #[must_use]
    pub fn skip(mut self, requests: u64) -> Rule {
        self.skip = requests;
        self
    }

    /// Ends after this many faults.
    #[must_use]
    pub fn times(mut self, faults: u64) -> Rule {
        self.times = Some(faults);
        self
    }

    /// Befalls a request with this probability, 0 to 1 (what lies outside is cut off). The seed decides which.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Rule {
        self.probability = Some(if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) });
        self
    }

    /// Reads one rule or a list of them from JSON.
    ///
    /// # Errors
    /// When it is not of that form, has an unknown field, or an impossible probability.
    pub fn parse(json: &[u8]) -> Result<Vec<Rule>, Error> {
        let list = json.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
        let rules: Result<Vec<Rule>, serde_json::Error> = if list {
            serde_json::from_slice(json)
        } else {
            serde_json::from_slice(json).map(|rule| vec![rule])
        };
        let rules = rules.map_err(|e| Error::Malformed(e.to_string()))?;
        for rule in &rules {
            if let Some(p) = rule.probability.filter(|p| !(0.0..=1.0).contains(p)) {
                return Err(Error::Probability(p));
            }
        }
        Ok(rules)
    }

    /// What goes wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Whether a request is of those that are meant.
    pub(crate) fn is_for(&self, facts: &Facts) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        (self.verbs.is_empty() || self.verbs.contains(&facts.verb))
            && (self.resources.is_empty() || self.resources.iter().any(|r| facts.is_of(r)))
            && fits(&self.namespace, &facts.namespace)
            && fits(&self.name, &facts.name)
            && fits(&self.field_manager, &facts.manager)
            && self.user_agent.as_deref().is_none_or(|start| facts.agent.starts_with(start))
    }

    /// Whether the fault befalls the request that is the `matched`th of those meant, after `hits` faults.
    pub(crate) fn befalls(&self, matched: u64, hits: u64, roll: f64) -> bool {
        matched > self.skip
            && self.times.is_none_or(|times| hits < times)
            && self.probability.is_none_or(|p| roll < p)
    }
}

/// What rules look at in a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Verb as authorisation knows it; outside the resources the method in lower case.
    pub verb: String,
    /// `plural` or `plural.group`; empty outside the resources.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace; empty for none or all.
    pub namespace: String,
    /// Object name; empty for a collection.
    pub name: String,
    /// Path, beginning with `/`.
    pub path: String,
    /// `User-Agent`.
    pub agent: String,
    /// `fieldManager`.
    pub manager: String,
}

impl Facts {
    fn is_of(&self, wanted: &str) -> bool {
        if wanted.starts_with('/') {
            return self.path.starts_with(wanted);
        }
        match wanted.split_once('/') {
            Some((resource, sub)) => resource == self.resource && sub == self.subresource,
            None => wanted == self.resource,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_choose_requests() {
        let facts = Facts {
            verb: "patch".into(),
            resource: "deployments.apps".into(),
            subresource: "status".into(),
            namespace: "n".into(),
            name: "d".into(),
            path: "/apis/apps/v1".into(),
            agent: "holdfast/1".into(),
            manager: "m".into(),
        };
        let rule = || Rule::new(Fault::Hang);
        for (rule, expected) in [
            (rule(), true),
            (rule().verbs(["get", "patch"]), true),
            (rule().verbs(["get"]), false),
            (rule().resources(["deployments.apps"]), true),
            (rule().resources(["deployments.apps/status"]), true),
            (rule().resources(["deployments.apps/scale", "deployments"]), false),
            (rule().resources(["/apis/apps"]), true),
            (rule().namespace("n").name("d").user_agent("holdfast").field_manager("m"), true),
            (rule().namespace("o"), false),
            (rule().user_agent("kubectl"), false),
        ] {
            assert_eq!(rule.is_for(&facts), expected, "{rule:?}");
        }
    }

    #[test]
    fn rules_are_read_and_odd_ones_refused() {
        let json = br#" [{"fault": {"type": "tooManyRequests", "retryAfterSeconds": 2}, "times": 1}, {"fault": {"type": "hang"}}]"#;
        let rules = Rule::parse(json).unwrap();
        assert_eq!(rules[0], Rule::new(Fault::TooManyRequests { retry_after_seconds: 2 }).times(1));
        assert_eq!(Rule::parse(&serde_json::to_vec(&rules).unwrap()).unwrap(), rules);
        assert!(Rule::parse(br#"{"fault": {"type": "reset"}, "verb": "get"}"#).is_err());
        assert!(Rule::parse(br#"{"fault": {"type": "dropWatch", "events": 1}}"#).is_err());
        assert!(Rule::parse(br#"{"fault": {"type": "reset"}, "probability": 1.5}"#).is_err());
        assert!(Rule::parse(b"").is_err());
    }
}
