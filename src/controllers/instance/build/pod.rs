//! The pod of an Instance: the application, and beside it the agent that lets it start, tells it of its imports, and says how it
//! is. Where the cartridge has a command, the launcher is the application's first process.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, Pod, PodSpec, PodTemplateSpec, SecretVolumeSource, Toleration, Volume,
};
use serde_json::{Map, Value, json};

use crate::api::cluster::placement::{Effect, Operator, Partition};
use crate::api::revision::Revision;
use crate::broker::message::keyed_id;
use crate::controllers::flow::build::BuildConfig;
use crate::controllers::pod::{AGENT, pod_security};
use crate::controllers::template::Own;

use super::{Identity, container};

/// The user's container.
pub const APPLICATION: &str = "application";
/// Copies the launcher.
pub const LAUNCH: &str = "millrace-launch";
/// What of the pod is ours.
pub const OWN: Own = Own {
    main: APPLICATION,
    whose: "cartridge",
    containers: &[AGENT, LAUNCH],
    volumes: &[LAUNCH, RUN, BROKER],
};
/// Names what a pod was made from: one that differs is replaced.
pub const TEMPLATE: &str = "millrace.dev/template";

pub(super) const RUN: &str = "millrace-run";
pub(super) const BROKER: &str = "millrace-broker";

/// Seconds that a stop hook may take.
const HOOK: i64 = 60;
/// Seconds that an application has to end, and the pod beyond that.
const END: i64 = 40;
/// Seconds that requests in flight have where nobody says.
const DRAIN: i32 = 30;

/// What a pod is made from.
#[derive(Clone, Debug)]
pub struct Given<'a> {
    /// What it runs.
    pub revision: &'a Revision,
    /// The values, which are in its environment where no launcher is.
    pub values: &'a Map<String, Value>,
    /// Where it runs.
    pub partition: Option<&'a Partition>,
    /// Whether the namespace asks for the Pod Security Standard `restricted`.
    pub restricted: bool,
    /// Seconds that its node may be silent.
    pub node_loss_seconds: i64,
}

impl Given<'_> {
    /// Whether the launcher starts the application.
    #[must_use]
    pub const fn is_wrapped(&self) -> bool {
        !self.revision.cartridge.command.is_empty()
    }

    pub(super) fn drain_seconds(&self) -> i32 {
        self.revision.drain_seconds.unwrap_or(DRAIN)
    }
}

/// Whether the launcher starts the application in a pod.
#[must_use]
pub fn is_wrapped(pod: &Pod) -> bool {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.into_iter().any(|container| container.name == LAUNCH)
}

/// Names what a pod is made from, and not how: a newer Millrace builds another pod from the same, and that alone is no reason to
/// replace one that runs.
#[must_use]
pub fn template_hash(given: &Given<'_>) -> String {
    let cartridge = &given.revision.cartridge;
    let place = given
        .partition
        .map(|partition| json!([partition.node_selector, partition.zone, partition.tolerations]));
    // Where no launcher hands them over, a change of values needs another pod.
    let values = (!given.is_wrapped()).then(|| container::value_variables(given.values));
    let made_from = json!([
        cartridge.image,
        cartridge.command,
        cartridge.args,
        cartridge.env,
        cartridge.ports,
        cartridge.resources,
        cartridge.probes,
        cartridge.lifecycle,
        cartridge.pod_template,
        given.drain_seconds(),
        place,
        values,
    ]);
    let mut name = keyed_id(b"template", [made_from.to_string().as_bytes()]);
    name.truncate(16);
    name
}

/// The pod.
#[must_use]
pub fn pod(config: &BuildConfig, identity: &Identity, given: &Given<'_>) -> Pod {
    let mut metadata = identity.metadata(identity.pod());
    metadata.annotations = Some([(TEMPLATE.to_owned(), template_hash(given))].into());
    let mut template =
        PodTemplateSpec { metadata: Some(metadata), spec: Some(spec(config, identity, given)) };
    let user = given.revision.cartridge.pod_template.clone();
    // Its form was checked when the cartridge was accepted.
    if let Some(user) =
        user.and_then(|user| serde_json::from_value::<PodTemplateSpec>(Value::Object(user)).ok())
    {
        template.merge_from(user);
    }
    Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None }
}

fn spec(config: &BuildConfig, identity: &Identity, given: &Given<'_>) -> PodSpec {
    let wrapped = given.is_wrapped();
    let launch = wrapped.then(|| container::launch(config));
    let stop_hook = given.revision.cartridge.lifecycle.as_ref().is_some_and(|hooks| hooks.stop.is_some());
    let grace = i64::from(given.drain_seconds()) + if stop_hook { HOOK } else { 0 } + END;
    let mut security = pod_security();
    if !given.restricted {
        // Many images begin as root and give it up by themselves.
        security.run_as_non_root = None;
    }
    PodSpec {
        automount_service_account_token: user_has_no_account(given).then_some(false),
        enable_service_links: Some(false),
        hostname: Some(identity.name.to_string()),
        security_context: Some(security),
        termination_grace_period_seconds: Some(grace),
        init_containers: Some(
            launch.into_iter().chain([container::agent(config, identity, given)]).collect(),
        ),
        containers: vec![container::application(identity, given)],
        volumes: Some(volumes(identity, wrapped)),
        node_selector: node_selector(given.partition),
        tolerations: Some(tolerations(given)),
        ..PodSpec::default()
    }
}

/// The application gets an account's token only where its account was chosen for it.
fn user_has_no_account(given: &Given<'_>) -> bool {
    let template = given.revision.cartridge.pod_template.as_ref();
    template.and_then(|template| template.get("spec")?.get("serviceAccountName")).is_none()
}

fn node_selector(partition: Option<&Partition>) -> Option<BTreeMap<String, String>> {
    let partition = partition?;
    let zone = partition.zone.iter().map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.clone()));
    let all: BTreeMap<_, _> = partition.node_selector.clone().into_iter().chain(zone).collect();
    (!all.is_empty()).then_some(all)
}

fn tolerations(given: &Given<'_>) -> Vec<Toleration> {
    let of_partition = given.partition.iter().flat_map(|partition| &partition.tolerations);
    let user = of_partition.map(|given| Toleration {
        key: given.key.clone(),
        operator: given.operator.map(|operator| match operator {
            Operator::Equal => "Equal".into(),
            Operator::Exists => "Exists".into(),
        }),
        value: given.value.clone(),
        effect: given.effect.map(|effect| match effect {
            Effect::NoSchedule => "NoSchedule".into(),
            Effect::PreferNoSchedule => "PreferNoSchedule".into(),
            Effect::NoExecute => "NoExecute".into(),
        }),
        toleration_seconds: given.toleration_seconds,
    });
    // Without these Kubernetes would evict it after five minutes, whatever was asked for.
    let lost = ["not-ready", "unreachable"].map(|what| Toleration {
        key: Some(format!("node.kubernetes.io/{what}")),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(given.node_loss_seconds),
        ..Toleration::default()
    });
    user.into_iter().chain(lost).collect()
}

fn volumes(identity: &Identity, wrapped: bool) -> Vec<Volume> {
    let empty = |name: &str, medium: Option<&str>| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(Into::into),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let launch = wrapped.then(|| empty(LAUNCH, None));
    let broker = Volume {
        name: BROKER.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(identity.secret()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    // In memory: secret imports are there.
    launch.into_iter().chain([empty(RUN, Some("Memory")), broker]).collect()
}
