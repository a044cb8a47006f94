//! The Service of a Cluster, and a slice of its endpoints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};

use crate::api::cartridge::{Port, Protocol};
use crate::api::child;
use crate::api::cluster::{Cluster, LoadBalancer, ServiceType, SessionAffinity};
use crate::api::label::{self, Labels};
use crate::api::name::{self, CartridgeName, ClusterName, NamespaceName, Parent, Role};

/// Whose load balancer it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The namespace of the Cluster and of all that it makes.
    pub namespace: NamespaceName,
    /// The Cluster's name.
    pub name: ClusterName,
    /// The Cluster's uid.
    pub uid: String,
    /// The name of its cartridge.
    pub cartridge: CartridgeName,
    /// The Cluster's labels.
    pub labels: Labels,
    /// Makes the children go with the Cluster.
    pub owner: OwnerReference,
}

impl Identity {
    /// Who a Cluster is. None where the API server would never have stored it.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Option<Self> {
        Some(Self {
            namespace: cluster.metadata.namespace.as_deref()?.parse().ok()?,
            name: cluster.metadata.name.as_deref()?.parse().ok()?,
            uid: cluster.metadata.uid.clone()?,
            cartridge: cluster.spec.cartridge.name.parse().ok()?,
            labels: cluster.labels().clone(),
            owner: cluster.controller_owner_ref(&())?,
        })
    }

    /// The name of the Service.
    #[must_use]
    pub fn service(&self) -> String {
        service_name(&self.namespace, &self.name)
    }

    /// The name of a slice.
    #[must_use]
    pub fn slice(&self, part: &str) -> String {
        name::child(&self.namespace, Parent::Cluster(&self.name), Role::Slice, part)
    }

    fn metadata(&self, name: String, own: Labels) -> ObjectMeta {
        child::metadata(&self.namespace, name, label::inherit(&self.labels, own), &self.owner)
    }
}

/// The name of a Cluster's Service.
#[must_use]
pub fn service_name(namespace: &NamespaceName, cluster: &ClusterName) -> String {
    name::child(namespace, Parent::Cluster(cluster), Role::Service, "")
}

/// The Service. What the API server gives it, addresses and the ports of nodes, is not ours to say.
#[must_use]
pub fn service(identity: &Identity, balancer: &LoadBalancer, ports: &[Port]) -> Service {
    let type_ = match balancer.service_type.unwrap_or(ServiceType::ClusterIp) {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let affinity = match balancer.session_affinity.unwrap_or(SessionAffinity::None) {
        SessionAffinity::None => "None",
        SessionAffinity::ClientIp => "ClientIP",
    };
    let labels = label::of_cluster(&identity.name, &identity.cartridge);
    Service {
        metadata: identity.metadata(identity.service(), labels),
        spec: Some(ServiceSpec {
            type_: Some(type_.into()),
            session_affinity: Some(affinity.into()),
            ports: Some(ports.iter().map(service_port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn service_port(port: &Port) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        port: port.port.into(),
        target_port: Some(IntOrString::Int(port.port.into())),
        protocol: Some(protocol(port).into()),
        ..ServicePort::default()
    }
}

/// A slice of endpoints.
#[must_use]
pub fn slice(
    identity: &Identity,
    name: String,
    family: &str,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let labels = label::of_slice(&identity.name, &identity.cartridge, &identity.service());
    let port = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port.into()),
        protocol: Some(protocol(port).into()),
        app_protocol: None,
    };
    EndpointSlice {
        metadata: identity.metadata(name, labels),
        address_type: family.into(),
        endpoints,
        ports: Some(ports.iter().map(port).collect()),
    }
}

/// How a member is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Requests are sent to it.
    pub ready: bool,
    /// It could answer.
    pub serving: bool,
    /// Its pod is ending.
    pub terminating: bool,
}

/// The endpoint of a member's pod.
#[must_use]
pub fn endpoint(pod: &Pod, ip: &str, listing: Listing) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(listing.ready),
            serving: Some(listing.serving),
            terminating: Some(listing.terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn protocol(port: &Port) -> &'static str {
    match port.protocol.unwrap_or(Protocol::Tcp) {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// Names a list of ports.
#[must_use]
pub fn port_key(ports: &[Port]) -> String {
    let text: BTreeMap<_, _> = ports.iter().map(|port| (&port.name, (port.port, protocol(port)))).collect();
    crate::broker::message::keyed_id(b"ports", [format!("{text:?}").as_bytes()])[..8].to_owned()
}
