//! The logs of pods for `kubectl logs`: the API server asks, the node has them.

use std::path::PathBuf;

use apiserver::{LogRequest, LogStream, PodLogs};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use node::{LogOptions, Logs};

/// The log files of a node.
#[derive(Debug, Clone)]
pub struct NodeLogs {
    logs: Logs,
}

impl NodeLogs {
    /// The logs of the node with this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { logs: Logs::new(root) }
    }
}

impl PodLogs for NodeLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, String>> {
        let options = LogOptions {
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            tail_lines: request.tail_lines,
            since: request.since,
            limit_bytes: request.limit_bytes,
        };
        let opened = self.logs.open(&request.namespace, &request.pod, &request.container, options);
        future::ready(opened).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_node_cannot_answer_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let logs = NodeLogs::new(folder.path());
        let request = LogRequest {
            namespace: "n".into(),
            pod: "p".into(),
            container: "c".into(),
            follow: false,
            previous: false,
            timestamps: false,
            tail_lines: None,
            since: None,
            limit_bytes: None,
        };
        let refused = logs.open(request).await.map(|_| ()).unwrap_err();
        assert!(refused.contains("waiting to start"), "{refused}");
    }
}
