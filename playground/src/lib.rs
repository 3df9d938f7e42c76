//! An embedded Kubernetes and the one-command demonstration.
