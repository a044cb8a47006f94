//! The configuration files of the components that only a node has.

use std::fs;
use std::path::Path;

use super::network::Slot;
use super::{DOMAIN, HOME};
use crate::error::{Doing as _, Error, Result};
use crate::tools;

/// Writes them below `node`, as the host sees it; they name paths as the node sees them.
pub(crate) fn write(node: &Path, slot: Slot) -> Result<()> {
    let plugins = tools::plugins().ok_or_else(|| {
        Error::Needs("the CNI plugins have gone: run `rig up` again to install them".into())
    })?;
    let files = [
        ("containerd.toml", containerd(&plugins, snapshotter(node)?)),
        ("cni/10-rig.conflist", cni(slot)),
        ("kubelet.yaml", kubelet(slot)),
        ("resolv.conf", format!("nameserver {}\n", slot.node())),
        ("Corefile", corefile(slot)),
    ];
    for (name, text) in files {
        let path = node.join(name);
        fs::write(&path, text).doing(format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The kernel lays no overlay on an overlay, which is what a container's own file system is.
fn snapshotter(state: &Path) -> Result<&'static str> {
    let stat =
        nix::sys::statfs::statfs(state).doing(format!("look at the file system of {}", state.display()))?;
    Ok(if stat.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC { "native" } else { "overlayfs" })
}

fn containerd(plugins: &Path, snapshotter: &str) -> String {
    let plugins = plugins.display();
    // Without CAP_SYS_RESOURCE nobody may lower an out-of-memory score, and runc dies of trying.
    format!(
        r#"version = 2
root = "{HOME}/node/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "/run/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "rig.local/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{HOME}/node/cni"
"#
    )
}

fn cni(slot: Slot) -> String {
    let config = serde_json::json!({"cniVersion": "1.0.0", "name": "rig", "plugins": [
        {
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": "/run/cni-addresses",
                "ranges": [[{"subnet": slot.pods()}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    format!("{config:#}\n")
}

fn kubelet(slot: Slot) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{HOME}/node/pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{HOME}/node/pki/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{HOME}/node/pki/kubelet.key"),
        "clusterDomain": DOMAIN,
        "clusterDNS": [slot.dns_service()],
        "resolvConf": format!("{HOME}/node/resolv.conf"),
        "containerRuntimeEndpoint": "unix:///run/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", slot.cgroup()),
        // Version 1 of the control groups is deprecated, and still what some machines have.
        "failCgroupV1": false,
        "failSwapOn": false,
        // The disk is the developer's own: how full it is must not decide whether a pod runs.
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    });
    format!("{config:#}\n")
}

fn corefile(slot: Slot) -> String {
    format!(
        "\
.:53 {{
  bind {}
  errors
  ready {}:8181
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {HOME}/node/admin.kubeconfig
    pods insecure
    ttl 1
  }}
  cache 1
}}
",
        slot.node(),
        slot.node()
    )
}
