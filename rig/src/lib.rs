//! A real Kubernetes for development, tests and the demo.
