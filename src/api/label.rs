//! Labels: by which children are found, and what is never handed down from parent to child.

use std::collections::BTreeMap;

use super::name::{CartridgeName, ClusterName, FlowName, InstanceName, NodeId};

/// Labels or annotations by key, in the order in which they are printed.
pub type Labels = BTreeMap<String, String>;

/// What the object is a copy of; here always `millrace`.
pub const NAME: &str = "app.kubernetes.io/name";
/// The kind and name of the parent, such as `flow.orders`. Never the bare name: Argo CD can be set to find what it has
/// deployed by this label, and takes a child that carries the name of its application for a leftover to delete.
pub const INSTANCE_OF: &str = "app.kubernetes.io/instance";
/// The part that the object plays: `node`, `member`, …
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// The larger whole; here always `millrace`.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Who keeps the object; here always `millrace`.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The Flow that a child belongs to.
pub const FLOW: &str = "millrace.dev/flow";
/// The node of a Flow that a child runs.
pub const NODE: &str = "millrace.dev/node";
/// The Cluster that a child belongs to.
pub const CLUSTER: &str = "millrace.dev/cluster";
/// The Cartridge that a child is made from; it may live in another namespace.
pub const CARTRIDGE: &str = "millrace.dev/cartridge";
/// The Instance that a child belongs to.
pub const INSTANCE: &str = "millrace.dev/instance";

/// The Service that an `EndpointSlice` belongs to, as kube-proxy reads it.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who keeps an `EndpointSlice`: Kubernetes' own controller leaves alone what carries another name than its own.
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

const MILLRACE: &str = "millrace";

// The values are names, which are DNS labels of at most 63 characters, so any of them may be a label's value. The
// longest that is put together is `cartridge.` and a name.
const _: () = assert!("instance.".len() + InstanceName::MAX <= 63);
const _: () = assert!("flow.".len() + FlowName::MAX <= 63);
const _: () = assert!("cluster.".len() + ClusterName::MAX <= 63);

/// The labels that every child carries.
fn common(parent: String, component: &str) -> Labels {
    [(NAME, MILLRACE), (COMPONENT, component), (PART_OF, MILLRACE), (MANAGED_BY, MILLRACE)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .chain([(INSTANCE_OF.to_owned(), parent)])
        .collect()
}

/// Adds labels that say which of our own objects something belongs to.
fn with<const N: usize>(mut labels: Labels, own: [(&str, &str); N]) -> Labels {
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

/// The labels of what a Flow makes once, such as the Secret with its broker credentials.
#[must_use]
pub fn of_flow(flow: &FlowName) -> Labels {
    with(common(format!("flow.{flow}"), "flow"), [(FLOW, flow.as_str())])
}

/// The labels of what a Flow makes for one node: Deployment, pods.
#[must_use]
pub fn of_node(flow: &FlowName, node: &NodeId) -> Labels {
    with(common(format!("flow.{flow}"), "node"), [(FLOW, flow.as_str()), (NODE, node.as_str())])
}

/// The labels of what runs the built-in nodes of a namespace's Flows: Deployment, pods, account, Secret.
#[must_use]
pub fn of_runner() -> Labels {
    common("runner".to_owned(), "runner")
}

/// Selects the pods of a namespace's runner.
#[must_use]
pub fn select_runner() -> Labels {
    with(Labels::new(), [("app.kubernetes.io/name", "millrace"), ("app.kubernetes.io/component", "runner")])
}

/// The labels of what a Cluster makes once: Service, subscription key.
#[must_use]
pub fn of_cluster(cluster: &ClusterName, cartridge: &CartridgeName) -> Labels {
    let own = [(CLUSTER, cluster.as_str()), (CARTRIDGE, cartridge.as_str())];
    with(common(format!("cluster.{cluster}"), "cluster"), own)
}

/// The labels of a Cluster's `EndpointSlice`, by which kube-proxy finds it.
#[must_use]
pub fn of_slice(cluster: &ClusterName, cartridge: &CartridgeName, service: &str) -> Labels {
    let own = [(SERVICE_NAME, service), (SLICE_MANAGED_BY, super::GROUP)];
    with(of_cluster(cluster, cartridge), own)
}

/// The labels of the Instance that a Cluster makes as a member.
#[must_use]
pub fn of_member(cluster: &ClusterName, cartridge: &CartridgeName) -> Labels {
    let own = [(CLUSTER, cluster.as_str()), (CARTRIDGE, cartridge.as_str())];
    with(common(format!("cluster.{cluster}"), "member"), own)
}

/// The labels of what an Instance makes: its pod, its Secret. Those of a member name the Cluster too, since the Cluster's
/// `scale` counts pods by it.
#[must_use]
pub fn of_instance(
    instance: &InstanceName,
    cluster: Option<&ClusterName>,
    cartridge: &CartridgeName,
) -> Labels {
    let own = [(INSTANCE, instance.as_str()), (CARTRIDGE, cartridge.as_str())];
    let mut labels = with(common(format!("instance.{instance}"), "instance"), own);
    labels.extend(cluster.map(|cluster| (CLUSTER.to_owned(), cluster.to_string())));
    labels
}

/// Selects the pods of one node. Part of a Deployment, where it can never be changed: it holds no more than it needs.
#[must_use]
pub fn select_node(flow: &FlowName, node: &NodeId) -> Labels {
    with(Labels::new(), [(FLOW, flow.as_str()), (NODE, node.as_str())])
}

/// Selects what belongs to a Cluster; in text it is the `status.selector` that an autoscaler reads.
#[must_use]
pub fn select_cluster(cluster: &ClusterName) -> Labels {
    with(Labels::new(), [(CLUSTER, cluster.as_str())])
}

/// A selector as the API takes it in a query: `millrace.dev/flow=orders,millrace.dev/node=fetch`.
#[must_use]
pub fn text(selector: &Labels) -> String {
    let terms: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    terms.join(",")
}

/// Domains whose keys tell a tool, or Kubernetes, that it has made or tracks the very object that carries them. Copied to
/// a child they make Argo CD, Flux, Helm and others take the child for theirs, and delete it as a leftover. With each
/// domain goes all below it: `argocd.argoproj.io`, `kustomize.toolkit.fluxcd.io`, `app.kubernetes.io`.
const NEVER_HANDED_DOWN: [&str; 9] = [
    "argoproj.io",
    "cattle.io",
    "fluxcd.io",
    "helm.sh",
    "k14s.io",
    "k8s.io",
    "kubernetes.io",
    "millrace.dev",
    "weave.works",
];

/// Whether a parent's label or annotation may be copied to its children: `team`, `example.com/cost-centre`.
#[must_use]
pub fn is_handed_down(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let domain = domain.to_ascii_lowercase();
    !NEVER_HANDED_DOWN
        .iter()
        .any(|never| domain.strip_suffix(never).is_some_and(|below| below.is_empty() || below.ends_with('.')))
}

/// A child's labels: those of its parent that may be copied, and the child's own, which win.
#[must_use]
pub fn inherit(parent: &Labels, own: Labels) -> Labels {
    let handed_down = parent.iter().filter(|(key, _)| is_handed_down(key));
    let mut labels: Labels = handed_down.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.extend(own);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
        with(Labels::new(), pairs)
    }

    fn orders() -> FlowName {
        "orders".parse().unwrap()
    }

    fn tomcat() -> (ClusterName, CartridgeName) {
        ("tomcat".parse().unwrap(), "tomcat-9".parse().unwrap())
    }

    #[test]
    fn a_nodes_labels_say_flow_and_node() {
        assert_eq!(
            of_node(&orders(), &"fetch".parse().unwrap()),
            labels([
                ("app.kubernetes.io/component", "node"),
                ("app.kubernetes.io/instance", "flow.orders"),
                ("app.kubernetes.io/managed-by", "millrace"),
                ("app.kubernetes.io/name", "millrace"),
                ("app.kubernetes.io/part-of", "millrace"),
                ("millrace.dev/flow", "orders"),
                ("millrace.dev/node", "fetch"),
            ])
        );
    }

    #[test]
    fn a_members_pod_says_instance_cluster_and_cartridge() {
        let (cluster, cartridge) = tomcat();
        assert_eq!(
            of_instance(&cluster.member(0), Some(&cluster), &cartridge),
            labels([
                ("app.kubernetes.io/component", "instance"),
                ("app.kubernetes.io/instance", "instance.tomcat-0"),
                ("app.kubernetes.io/managed-by", "millrace"),
                ("app.kubernetes.io/name", "millrace"),
                ("app.kubernetes.io/part-of", "millrace"),
                ("millrace.dev/cartridge", "tomcat-9"),
                ("millrace.dev/cluster", "tomcat"),
                ("millrace.dev/instance", "tomcat-0"),
            ])
        );
        assert_eq!(of_instance(&cluster.member(0), None, &cartridge).get(CLUSTER), None);
    }

    #[test]
    fn a_slice_is_found_by_its_service_and_left_alone_by_kubernetes() {
        let (cluster, cartridge) = tomcat();
        let mut expected = of_cluster(&cluster, &cartridge);
        expected.extend(labels([
            ("endpointslice.kubernetes.io/managed-by", "millrace.dev"),
            ("kubernetes.io/service-name", "tomcat-abc"),
        ]));
        assert_eq!(of_slice(&cluster, &cartridge, "tomcat-abc"), expected);
    }

    #[test]
    fn a_selector_is_part_of_the_labels_of_what_it_selects() {
        let node = "fetch".parse().unwrap();
        let (cluster, cartridge) = tomcat();
        let instance = cluster.member(0);
        for (selector, labels) in [
            (select_node(&orders(), &node), of_node(&orders(), &node)),
            (select_cluster(&cluster), of_member(&cluster, &cartridge)),
            (select_cluster(&cluster), of_cluster(&cluster, &cartridge)),
            (select_cluster(&cluster), of_instance(&instance, Some(&cluster), &cartridge)),
        ] {
            assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{selector:?}");
        }
        assert_eq!(text(&select_node(&orders(), &node)), "millrace.dev/flow=orders,millrace.dev/node=fetch");
    }

    #[test]
    fn the_longest_names_still_make_labels() {
        let flow = "a".repeat(FlowName::MAX).parse().unwrap();
        let node = "a".repeat(NodeId::MAX).parse().unwrap();
        let cluster: ClusterName = "a".repeat(ClusterName::MAX).parse().unwrap();
        let cartridge = "a".repeat(CartridgeName::MAX).parse().unwrap();
        let instance = "a".repeat(InstanceName::MAX).parse().unwrap();
        let all = [
            of_flow(&flow),
            of_node(&flow, &node),
            of_cluster(&cluster, &cartridge),
            of_slice(&cluster, &cartridge, &"a".repeat(63)),
            of_member(&cluster, &cartridge),
            of_instance(&instance, Some(&cluster), &cartridge),
        ];
        for value in all.iter().flat_map(BTreeMap::values) {
            assert!(value.len() <= 63, "{value}");
        }
    }

    #[test]
    fn labels_by_which_tools_track_objects_are_never_handed_down() {
        let tracked = labels([
            ("app.kubernetes.io/instance", "shop"),
            ("app.kubernetes.io/managed-by", "Helm"),
            ("app.kubernetes.io/version", "1"),
            ("applyset.kubernetes.io/part-of", "x"),
            ("argocd.argoproj.io/instance", "shop"),
            ("argocd.argoproj.io/tracking-id", "shop:millrace.dev/Flow:shop/orders"),
            ("config.k8s.io/owning-inventory", "x"),
            ("fleet.cattle.io/bundle-id", "x"),
            ("helm.sh/chart", "shop-1.0"),
            ("helm.toolkit.fluxcd.io/name", "shop"),
            ("kapp.k14s.io/app", "x"),
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
            ("kustomize.toolkit.fluxcd.io/name", "shop"),
            ("kustomize.toolkit.fluxcd.io/namespace", "flux-system"),
            ("meta.helm.sh/release-name", "shop"),
            ("millrace.dev/flow", "another"),
            ("olm.managed.openshift.io.k8s.io/x", "x"),
        ]);
        assert_eq!(inherit(&tracked, Labels::new()), Labels::new());
    }

    #[test]
    fn a_users_labels_are_handed_down_but_never_over_a_childs_own() {
        let parent = labels([
            ("team", "payments"),
            ("example.com/cost-centre", "7"),
            ("nothelm.sh/chart", "x"),
            ("kubernetes.io.example.com/a", "x"),
        ]);
        let own = labels([("team", "ours"), ("millrace.dev/flow", "orders")]);
        assert_eq!(
            inherit(&parent, own),
            labels([
                ("team", "ours"),
                ("example.com/cost-centre", "7"),
                ("nothelm.sh/chart", "x"),
                ("kubernetes.io.example.com/a", "x"),
                ("millrace.dev/flow", "orders"),
            ])
        );
    }
}
