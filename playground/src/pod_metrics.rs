//! What pods use, for `kubectl top`: the API server asks, the node measures.

use apiserver::{Amounts, NodeUsage, PodMetrics, PodUsage};
use node::Usage;

/// The measurements of a node.
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    usage: Usage,
}

impl NodeMetrics {
    /// What the node that has these measurements knows.
    pub fn new(usage: Usage) -> Self {
        Self { usage }
    }
}

fn amounts(container: &node::ContainerUsage) -> Amounts {
    Amounts { cpu_nanocores: container.cpu_nanocores, memory_bytes: container.memory_bytes }
}

impl PodMetrics for NodeMetrics {
    fn pods(&self) -> Vec<PodUsage> {
        let pod = |pod: node::PodUsage| PodUsage {
            namespace: pod.namespace,
            name: pod.name,
            at: pod.at,
            window: pod.window,
            containers: pod.containers.iter().map(|one| (one.name.clone(), amounts(one))).collect(),
        };
        self.usage.pods().into_iter().map(pod).collect()
    }

    fn nodes(&self) -> Vec<NodeUsage> {
        let node = |(name, usage): (String, node::PodUsage)| NodeUsage {
            name,
            at: usage.at,
            window: usage.window,
            amounts: usage.containers.first().map(amounts).unwrap_or_default(),
        };
        self.usage.node().into_iter().map(node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_not_started_is_not_shown() {
        let metrics = NodeMetrics::new(Usage::default());
        assert!(metrics.nodes().is_empty());
        assert!(metrics.pods().is_empty());
    }
}
