//! Kubernetes controllers as ordinary API clients.
