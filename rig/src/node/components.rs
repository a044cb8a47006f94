//! The command lines of the components that only a node has.

use std::path::Path;

use super::network::Slot;
use super::{HOME, NAME};
use crate::control_plane::ControlPlane;
use crate::supervisor::Component;

/// The storage class by which claims become folders of the node.
pub(crate) const PROVISIONER: &str = "millrace.dev/folder";

/// How the API server reaches kubelets; by address, because nobody resolves a node's name.
pub(crate) const APISERVER_OPTIONS: [&str; 7] = [
    "--bind-address=0.0.0.0",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--kubelet-preferred-address-types=InternalIP",
    "--kubelet-client-certificate=/run/rig/node/pki/admin.crt",
    "--kubelet-client-key=/run/rig/node/pki/admin.key",
    "--kubelet-certificate-authority=/run/rig/node/pki/ca.crt",
];

/// The control plane of a node, as seen inside it.
pub(crate) fn plane(slot: Slot) -> ControlPlane {
    ControlPlane {
        address: slot.node(),
        api_port: 6443,
        etcd_port: 2379,
        etcd_peer_port: 2380,
        services: slot.services(),
        first_service: slot.first_service(),
        home: Path::new(HOME).join("node"),
        programs: Path::new(HOME).join("node/programs"),
        logs: Path::new(HOME).join("log"),
    }
}

/// The container runtime, the one component that the distribution provides.
pub(crate) fn containerd(plane: &ControlPlane) -> Component {
    let mut component = plane.component("containerd", &["--config", &plane.path("containerd.toml")]);
    component.argv[0] = "/usr/bin/env".into();
    component.argv.insert(1, "containerd".into());
    component
}

/// What needs an API server that answers: earlier they would end for good.
pub(crate) fn of_the_node(plane: &ControlPlane, slot: Slot) -> [Component; 5] {
    let as_ = |who: &str| format!("--kubeconfig={}", plane.path(&format!("{who}.kubeconfig")));
    let scheduler = as_("scheduler");
    [
        plane.component(
            "kube-scheduler",
            &[
                &scheduler,
                &scheduler.replace("--", "--authentication-"),
                &scheduler.replace("--", "--authorization-"),
                "--leader-elect=false",
            ],
        ),
        plane.component(
            "kubelet",
            &[
                &as_("kubelet"),
                &format!("--config={}", plane.path("kubelet.yaml")),
                &format!("--root-dir={}", plane.path("kubelet")),
                &format!("--hostname-override={NAME}"),
                &format!("--node-ip={}", slot.node()),
            ],
        ),
        plane.component(
            "kube-proxy",
            &[
                &as_("admin"),
                &format!("--cluster-cidr={}", slot.pods()),
                &format!("--hostname-override={NAME}"),
                "--proxy-mode=iptables",
                "--healthz-bind-address=0.0.0.0:10256",
                // The kernel's limit of connections is the host's to set, and its time limits are not there before the
                // first packet filter rule: kube-proxy would end for want of them.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0s",
                "--conntrack-tcp-timeout-close-wait=0s",
            ],
        ),
        plane.component("coredns", &["-conf", &plane.path("Corefile")]),
        plane.component(
            "storage-provisioner",
            &[
                &as_("admin"),
                &format!("--name={PROVISIONER}"),
                &format!("--node={NAME}"),
                &format!("--root={}", plane.path("storage")),
            ],
        ),
    ]
}
