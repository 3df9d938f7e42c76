//! End-to-end scenarios, conformance, crash and fault suites, benchmarks.
