//! An install with fake agents, and how its Clusters and Instances are looked at.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt as _};
use millrace::api::cartridge::Cartridge;
use millrace::api::cluster::Cluster;
use millrace::api::condition;
use millrace::api::instance::Instance;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::agents::Agents;
use crate::common;
use crate::install::{Install, eventually};

pub struct World {
    pub install: Install,
    pub agents: Agents,
    hearing: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

impl World {
    pub async fn start() -> Self {
        let install = Install::start(&[]).await;
        let (agents, hearing) = Agents::start(&install.nats_url).await;
        Self { install, agents, hearing }
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.install.client.clone(), namespace)
    }

    pub async fn namespace(&self, name: &str) {
        common::make_namespace(&self.install.client, name).await;
    }

    pub async fn make<K>(&self, namespace: &str, object: Value)
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>(namespace).create(&PostParams::default(), &object).await.unwrap();
    }

    pub async fn change<K>(&self, namespace: &str, name: &str, change: Value)
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let params = PatchParams::default();
        self.api::<K>(namespace).patch(name, &params, &Patch::Merge(change)).await.unwrap();
    }

    /// A cartridge with a port and an address to export, which imports from these.
    pub async fn cartridge(&self, namespace: &str, name: &str, imports: &[&str]) {
        self.make::<Cartridge>(namespace, cartridge(name, imports)).await;
    }

    pub async fn cluster(&self, namespace: &str, name: &str, more: Value) {
        let mut spec = json!({"cartridge": {"name": name}, "loadBalancer": {"drainSeconds": 0}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.make::<Cluster>(namespace, object("Cluster", name, &spec)).await;
    }

    pub async fn scale(&self, namespace: &str, name: &str, replicas: i32) {
        self.change::<Cluster>(namespace, name, json!({"spec": {"replicas": replicas}})).await;
    }

    /// Lists; an API server whose cache is still being filled is asked again.
    pub async fn list<K>(&self, namespace: &str, params: &ListParams) -> Vec<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let api = self.api::<K>(namespace);
        let mut listed = None;
        let done = eventually(async || match api.list(params).await {
            Err(kube::Error::Api(status)) if status.code == 429 => false,
            result => {
                listed = Some(result.unwrap().items);
                true
            }
        });
        assert!(done.await, "the API server never lists");
        listed.unwrap()
    }

    /// The phases of all Instances of a namespace, by name.
    pub async fn phases(&self, namespace: &str) -> BTreeMap<String, String> {
        let all = self.list::<Instance>(namespace, &ListParams::default()).await;
        let phase =
            |it: &Instance| it.status.as_ref().and_then(|status| status.phase).map(|phase| phase.to_string());
        all.iter().map(|it| (it.name_any(), phase(it).unwrap_or_default())).collect()
    }

    /// Waits until these are all the Instances that there are, in these phases.
    pub async fn all(&self, namespace: &str, expected: &[(&str, &str)]) {
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let mut last = BTreeMap::new();
        let reached = eventually(async || {
            last = self.phases(namespace).await;
            last == expected
        });
        assert!(
            reached.await,
            "expected {expected:?}, and there was {last:?}: {:?}",
            self.messages(namespace).await
        );
    }

    /// What the Ready conditions of all Instances say.
    pub async fn messages(&self, namespace: &str) -> BTreeMap<String, String> {
        let all = self.list::<Instance>(namespace, &ListParams::default()).await;
        all.iter()
            .map(|it| (it.name_any(), of_ready(it.status.as_ref().map(|status| &status.conditions[..]))))
            .collect()
    }

    /// Waits until the Ready condition of an Instance has this reason, and says this.
    pub async fn instance_says(&self, namespace: &str, name: &str, reason: &str, words: &str) {
        let mut last = String::new();
        let reached = eventually(async || {
            let it = self.api::<Instance>(namespace).get_opt(name).await.unwrap();
            last =
                of_ready(it.as_ref().and_then(|it| it.status.as_ref()).map(|status| &status.conditions[..]));
            last.starts_with(reason) && last.contains(words)
        });
        assert!(reached.await, "{name} does not say {reason} '{words}', but: {last}");
    }

    pub async fn cluster_says(&self, namespace: &str, name: &str, reason: &str, words: &str) {
        let mut last = String::new();
        let reached = eventually(async || {
            let it = self.api::<Cluster>(namespace).get_opt(name).await.unwrap();
            last =
                of_ready(it.as_ref().and_then(|it| it.status.as_ref()).map(|status| &status.conditions[..]));
            last.starts_with(reason) && last.contains(words)
        });
        assert!(reached.await, "{name} does not say {reason} '{words}', but: {last}");
    }

    /// The names of the Instances that the load balancer of a Cluster sends to.
    pub async fn balanced(&self, namespace: &str, cluster: &str) -> Vec<String> {
        let params = ListParams::default().labels(&format!("millrace.dev/cluster={cluster}"));
        let slices = self.list::<EndpointSlice>(namespace, &params).await;
        let pods = self.list::<Pod>(namespace, &params).await;
        let ready = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or_default()
        });
        let uids: Vec<_> = ready.filter_map(|endpoint| endpoint.target_ref.clone()?.uid).collect();
        let mut names: Vec<_> = pods
            .iter()
            .filter(|pod| pod.uid().is_some_and(|uid| uids.contains(&uid)))
            .filter_map(|pod| pod.labels().get("millrace.dev/instance").cloned())
            .collect();
        names.sort();
        names
    }

    /// The versions of all that the operator writes for members.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        self.add_versions::<Cartridge>(&mut all).await;
        self.add_versions::<Cluster>(&mut all).await;
        self.add_versions::<Instance>(&mut all).await;
        self.add_versions::<Pod>(&mut all).await;
        self.add_versions::<Secret>(&mut all).await;
        self.add_versions::<Service>(&mut all).await;
        self.add_versions::<EndpointSlice>(&mut all).await;
        self.add_versions::<k8s_openapi::api::apps::v1::ControllerRevision>(&mut all).await;
        all
    }

    async fn add_versions<K>(&self, all: &mut BTreeMap<String, String>)
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.install.client.clone());
        for it in api.list(&ListParams::default()).await.unwrap() {
            let name = format!("{} {}/{}", K::kind(&()), it.namespace().unwrap_or_default(), it.name_any());
            all.insert(name, it.resource_version().unwrap());
        }
    }
}

fn of_ready(conditions: Option<&[condition::Condition]>) -> String {
    let ready = condition::find(conditions.unwrap_or_default(), condition::ConditionType::Ready);
    ready.map(|ready| format!("{}: {}", ready.reason, ready.message)).unwrap_or_default()
}

pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "millrace.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub fn cartridge(name: &str, imports: &[&str]) -> Value {
    let import = |import: &&str| json!({"name": import, "cartridge": import, "variables": ["ip", "port"]});
    let spec = json!({
        "image": "example/app:1", "command": ["/app"], "ports": [{"name": "http", "port": 8080}],
        "imports": imports.iter().map(import).collect::<Vec<_>>(),
        "exports": [{"name": "ip", "address": "PodIP"}, {"name": "port", "port": "http"}],
    });
    object("Cartridge", name, &spec)
}
