//! Conditions: what is known of an object, in the form that kubectl, Helm and GitOps tools read.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
