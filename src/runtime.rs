//! Drives controllers. The only writer to the Kubernetes API.
