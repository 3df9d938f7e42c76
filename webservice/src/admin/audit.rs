//! What administrators did: one record for each change, written in the same transaction as the change.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// A record to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: the subject of the token.
    pub actor: String,
    /// Address of the client.
    pub client: String,
    /// Identifier of the request, which is also in the log.
    pub request_id: String,
    /// What was done, such as `product.update`.
    pub action: &'static str,
    /// What it was done to.
    pub target: String,
    /// What changed.
    pub detail: Value,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Position, counting up.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// From where.
    pub client: String,
    /// In which request.
    pub request_id: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// What changed.
    pub detail: Value,
}

impl AuditEntry {
    /// Writes the record to the log as well, where it outlives the database.
    pub fn log(&self) {
        tracing::info!(
            target: "audit", actor = self.actor, client = self.client, request_id = self.request_id,
            action = self.action, object = self.target, detail = %self.detail, "administrative action"
        );
    }
}
