//! What the agent says: the status of an Environment.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the agent says about an Environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentStatus {
    /// The generation of the specification that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`, after the conventions of kstatus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Where the rollout is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What serves now, as `branch@commit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Digest of the bundle that serves now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The newest word, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The state of the rollout, as the engine stores it: of no interest to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub rollout: Option<Value>,
    /// The newest evidence record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditTip>,
    /// The Slack messages that are updated in place, by their key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub messages: BTreeMap<String, MessageState>,
    /// The newest `holdfast.dev/reconcile-requested-at` that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The newest `holdfast.dev/retry-requested-at` that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_retry_at: Option<String>,
    /// The newest `holdfast.dev/rollback-requested-at` that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_rollback_at: Option<String>,
    /// The newest `holdfast.dev/approve` that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_approval: Option<String>,
}

/// The newest evidence record: with it, a shortened branch is noticed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditTip {
    /// Number of the record.
    pub sequence: u64,
    /// Digest of the record.
    pub digest: String,
    /// The commit that holds it.
    pub commit: String,
}

/// A Slack message that is updated in place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageState {
    /// Id of the channel.
    pub channel: String,
    /// Slack's timestamp, the id of the message in its channel.
    pub ts: String,
}

impl EnvironmentStatus {
    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }

    /// Sets a condition by its type. The transition time stays as it was unless the status changed, and
    /// is `condition`'s own otherwise.
    pub fn set_condition(&mut self, mut condition: Condition) {
        match self.conditions.iter_mut().find(|have| have.type_ == condition.type_) {
            Some(have) => {
                if have.status == condition.status {
                    condition.last_transition_time = have.last_transition_time.clone();
                }
                *have = condition;
            }
            None => self.conditions.push(condition),
        }
    }

    /// The stored rollout.
    ///
    /// # Errors
    /// When what is stored is not a rollout of this version of the agent.
    pub fn rollout(&self) -> Result<Option<engine::rollout::Rollout>, serde_json::Error> {
        self.rollout.clone().map(serde_json::from_value).transpose()
    }
}

fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "minLength": 1, "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {"type": "string", "maxLength": 32768}
            }
        }
    })
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(status: &str, at: i64) -> Condition {
        Condition {
            type_: "Ready".into(),
            status: status.into(),
            reason: "Settled".into(),
            message: String::new(),
            last_transition_time: Time(jiff::Timestamp::from_second(at).unwrap()),
            observed_generation: Some(at),
        }
    }

    #[test]
    fn a_transition_time_changes_with_the_status_only() {
        let mut status = EnvironmentStatus::default();
        for (word, at, since) in [("False", 1, 1), ("False", 2, 1), ("True", 3, 3), ("True", 4, 3)] {
            status.set_condition(condition(word, at));
            let ready = status.condition("Ready").unwrap();
            assert_eq!((ready.status.as_str(), ready.observed_generation), (word, Some(at)));
            assert_eq!(ready.last_transition_time.0.as_second(), since);
        }
        assert_eq!(status.conditions.len(), 1);
    }
}
