//! A real kube-apiserver with our definitions in it, and a namespace of its own for each test.

#![allow(dead_code, reason = "each binary of tests uses its part")]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    reason = "tests write as users do, and fail where they cannot go on"
)]

use std::path::Path;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind, Request};
use rig::Plane;
use serde_json::Value;
use tokio::sync::OnceCell;

/// The field manager of the tests.
pub const MANAGER: &str = "millrace-test";

/// Talks to the apiserver of this test binary, where the files of `crds/` are installed.
pub async fn client() -> Client {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    // Each test has a runtime of its own, and connections do not outlive theirs: so a client each.
    let client = Plane::shared().await.unwrap().client().await.unwrap();
    INSTALLED.get_or_init(|| install(client.clone())).await;
    client
}

async fn install(client: Client) {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        define(&client, &serde_saphyr::from_str(&text).unwrap()).await;
    }
}

/// Installs a definition and waits until its objects can be made.
pub async fn define(client: &Client, crd: &CustomResourceDefinition) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.metadata.name.as_deref().unwrap();
    let mut seen = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(crd)).await.unwrap();
    for _ in 0..100 {
        let conditions = seen.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen = api.get(name).await.unwrap();
    }
    panic!("{name} was not established within 5 s");
}

/// A new namespace, which nobody else uses.
pub async fn namespace() -> String {
    Plane::shared().await.unwrap().namespace("test").await.unwrap()
}

/// The API of the kind that an object says it is of.
pub fn api_of(client: &Client, namespace: &str, object: &Value) -> Api<DynamicObject> {
    let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap_or(("", "v1"));
    let kind = object["kind"].as_str().unwrap();
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &format!("{}s", kind.to_lowercase()));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// How a creation is asked for. `kube` has no field validation for it.
pub const STRICT: &str = "fieldValidation=Strict";
pub const STRICT_DRY_RUN: &str = "fieldValidation=Strict&dryRun=All";
pub const WARN_DRY_RUN: &str = "fieldValidation=Warn&dryRun=All";

/// The request that creates an object.
fn creation(namespace: &str, object: &Value, query: &str) -> http::Request<Vec<u8>> {
    let version = object["apiVersion"].as_str().unwrap();
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    let url = format!("/apis/{version}/namespaces/{namespace}/{plural}");
    let body = object.to_string().into_bytes();
    let mut request = Request::new(&url).create(&PostParams::default(), body).unwrap();
    *request.uri_mut() = format!("{url}?{query}").parse().unwrap();
    request
}

/// Creates an object, or only asks whether it could be.
pub async fn create(
    client: &Client,
    namespace: &str,
    object: &Value,
    query: &str,
) -> kube::Result<DynamicObject> {
    client.request(creation(namespace, object, query)).await
}

/// What the server warns of when it is asked whether an object could be created.
pub async fn warnings(client: &Client, namespace: &str, object: &Value) -> Vec<String> {
    let request = creation(namespace, object, WARN_DRY_RUN);
    let answer = client.send(request.map(Body::from)).await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// What `kubectl get` prints.
pub async fn table(client: &Client, namespace: &str, plural: &str) -> Value {
    let request = http::Request::get(format!("/apis/millrace.dev/v1alpha1/namespaces/{namespace}/{plural}"))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    client.request(request.body(vec![]).unwrap()).await.unwrap()
}

/// Makes a namespace of this name.
pub async fn make_namespace(client: &Client, name: &str) {
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap();
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &namespace).await.unwrap();
}

/// What an address answers to a GET: status and body.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    request("GET", url, &[], Vec::new()).await.map(|(status, _, body)| (status, body))
}

/// What an address answers: status, headers, body.
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> anyhow::Result<(u16, http::HeaderMap, String)> {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Full::new(bytes::Bytes::from(body)))?).await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, headers, String::from_utf8_lossy(&body).into_owned()))
}
