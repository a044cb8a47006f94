//! What a real kube-apiserver makes of our definitions: what it takes, what it refuses, and in which words.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};

use common::{MANAGER, STRICT, STRICT_DRY_RUN, api_of, client, create, define, namespace, table, warnings};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use millrace::api::cluster::Cluster;
use millrace::api::flow::Flow;
use millrace::api::instance::Instance;
use millrace::api::{cartridge::Cartridge, definition};
use rig::Plane;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use bad::Row;

#[path = "validation/bad.rs"]
mod bad;
#[path = "validation/good.rs"]
mod good;
#[path = "validation/legal.rs"]
mod legal;
#[path = "validation/reasons.rs"]
mod reasons;

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).unwrap()
}

/// Why the server refuses an object: field and message of each cause.
fn causes(error: &kube::Error) -> Vec<String> {
    let kube::Error::Api(status) = error else { panic!("not an answer of the apiserver: {error}") };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let told: Vec<_> = causes
        // Not a cause: the server says that it looked no further.
        .filter(|cause| !cause.message.contains("some validation rules were not checked"))
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    if told.is_empty() { vec![status.message.clone()] } else { told }
}

/// Fails with one report of all that went wrong.
fn report(misses: &[String]) {
    assert!(misses.is_empty(), "{} missed:\n\n{}\n", misses.len(), misses.join("\n\n"));
}

/// What the server says of every row of the table of bad objects; asked once.
async fn answers() -> &'static [(Row, Answer)] {
    static ANSWERS: OnceCell<Vec<(Row, Answer)>> = OnceCell::const_new();
    let ask_all = async || {
        let (client, namespace) = (client().await, namespace().await);
        let mut answers = vec![];
        for (number, row) in bad::rows().into_iter().enumerate() {
            let answer = ask(&client, &namespace, number, &row).await;
            answers.push((row, answer));
        }
        answers
    };
    ANSWERS.get_or_init(ask_all).await
}

/// What the server makes of the good and of the bad object of a row.
struct Answer {
    base: kube::Result<DynamicObject>,
    bad: kube::Result<DynamicObject>,
}

async fn ask(client: &Client, namespace: &str, number: usize, row: &Row) -> Answer {
    if !row.of_change {
        let base = create(client, namespace, &row.base, STRICT_DRY_RUN).await;
        return Answer { base, bad: create(client, namespace, &row.bad, STRICT_DRY_RUN).await };
    }
    let mut base = row.base.clone();
    base["metadata"]["name"] = json!(format!("changed-{number}"));
    let created = create(client, namespace, &base, STRICT).await.unwrap();
    let mut changed = created.clone();
    changed.data["spec"] = row.bad["spec"].clone();
    let dry = PostParams { dry_run: true, field_manager: None };
    let bad = api_of(client, namespace, &base).replace(&created.name_any(), &dry, &changed).await;
    Answer { base: Ok(created), bad }
}

#[tokio::test]
async fn every_bad_object_is_refused_for_its_own_reason() {
    let mut misses = vec![];
    for (row, answer) in answers().await {
        let complaint = match answer {
            Answer { base: Err(error), .. } => format!("the good object is refused: {:#?}", causes(error)),
            Answer { bad: Ok(_), .. } => "accepted".to_owned(),
            Answer { bad: Err(error), .. } => match causes(error).as_slice() {
                [only] if only.contains(row.says) => continue,
                causes => format!("wanted: {}\n  got: {causes:#?}", row.says),
            },
        };
        misses.push(format!("{} {}\n  {complaint}", row.base["kind"], row.name));
    }
    report(&misses);
}

#[tokio::test]
async fn every_reason_to_refuse_has_a_bad_object_at_every_place() {
    let mut without = reasons::all();
    assert!(without.len() > 200, "the reasons are found: {}", without.len());
    for (row, answer) in answers().await {
        let Err(kube::Error::Api(status)) = &answer.bad else { continue };
        for cause in status.details.iter().flat_map(|details| &details.causes) {
            let place = reasons::place(&cause.field);
            without.retain(|reason| {
                row.base["kind"] != *reason.kind
                    || place != reason.place
                    || !cause.message.contains(&reason.says)
            });
        }
    }
    report(&without.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_unusual_but_legal_is_accepted() {
    let client = client().await;
    let namespace = namespace().await;
    let mut misses = vec![];
    for (name, object) in legal::all() {
        if let Err(error) = create(&client, &namespace, &object, STRICT_DRY_RUN).await {
            misses.push(format!("{name}\n  {:#?}", causes(&error)));
        }
    }
    report(&misses);
}

#[tokio::test]
async fn the_largest_legal_objects_are_created() {
    let client = client().await;
    let namespace = namespace().await;
    let mut misses = vec![];
    for object in
        [good::largest_flow(), good::largest_cartridge(), good::largest_cluster(), good::largest_instance()]
    {
        let api = api_of(&client, &namespace, &object);
        let created = create(&client, &namespace, &object, STRICT).await;
        let (kind, bytes) = (&object["kind"], object.to_string().len());
        match created {
            Err(error) => misses.push(format!("{kind} of {bytes} bytes: {:?}", causes(&error))),
            Ok(created) => {
                // An update evaluates the rules of change too.
                let labels = json!({ "metadata": { "labels": { "a": "b" } } });
                let name = created.name_any();
                if let Err(error) = api.patch(&name, &PatchParams::default(), &Patch::Merge(labels)).await {
                    misses.push(format!("{kind} of {bytes} bytes, again: {:?}", causes(&error)));
                }
            }
        }
    }
    report(&misses);
}

/// Every object in the files of `examples/`, with its file.
fn examples() -> Vec<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folders =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files =
        folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let yaml = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.flat_map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        objects.into_iter().map(move |object| (path.clone(), object))
    })
    .collect()
}

#[tokio::test]
async fn every_example_applies_and_applying_it_again_changes_nothing() {
    let client = client().await;
    let mut misses = vec![];
    let examples = examples();
    assert!(examples.len() >= 17, "examples/ is there");
    let namespace = namespace().await;
    for (path, object) in examples {
        // What is not ours has controllers of Kubernetes' own, which write to it whenever they like.
        if !object["apiVersion"].as_str().unwrap().starts_with("millrace.dev/") {
            continue;
        }
        let (api, name) =
            (api_of(&client, &namespace, &object), object["metadata"]["name"].as_str().unwrap());
        let apply = PatchParams::apply(MANAGER).validation_strict();
        let dry = PatchParams { dry_run: true, ..apply.clone() };
        let mut seen = vec![];
        for params in [&dry, &apply, &apply, &apply] {
            match api.patch(name, params, &Patch::Apply(&object)).await {
                Ok(object) => seen.push(object),
                Err(error) => misses.push(format!("{} {name}: {error}", path.display())),
            }
        }
        let [_, first, second, third] = seen.as_mut_slice() else { continue };
        let settled = second.resource_version() == third.resource_version();
        // The second write stores the default of `status` too: another version of an object that is the same
        // to read.
        first.metadata.resource_version.clone_from(&second.metadata.resource_version);
        if !settled || first != second {
            misses.push(format!("{} {name}: applied again, it changed", path.display()));
        }
    }
    report(&misses);
}

/// Runs kubectl, and gives what it says and whether it ends well.
async fn kubectl(arguments: &[&str]) -> (bool, String) {
    let mut kubectl = Plane::shared().await.unwrap().kubectl();
    let output = kubectl.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn kubectl_sees_no_difference_after_it_applied_the_examples() {
    client().await;
    let mut misses = vec![];
    for side in ["--server-side=false", "--server-side=true"] {
        let namespace = namespace().await;
        let examples = ["--namespace", &namespace, side, "--recursive", "--filename", "examples"];
        let (applied, said) = kubectl(&[&["apply"], &examples[..]].concat()).await;
        assert!(applied, "kubectl apply {side}: {said}");
        let (same, said) = kubectl(&[&["diff"], &examples[..]].concat()).await;
        if !same || !said.is_empty() {
            misses.push(format!("{side}: {said}"));
        }
    }
    report(&misses);
}

/// The objects in the documentation of the four kinds.
fn documented() -> Vec<Value> {
    let page = include_str!("../docs/resources.md");
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.map(|block| serde_saphyr::from_str(block).unwrap()).collect()
}

#[tokio::test]
async fn the_objects_in_the_documentation_are_accepted() {
    let client = client().await;
    let namespace = namespace().await;
    let objects = documented();
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Flow", "Cartridge", "Cluster", "Instance"]);
    let mut misses = vec![];
    for object in &objects {
        if let Err(error) = create(&client, &namespace, object, STRICT_DRY_RUN).await {
            misses.push(format!("{}: {:?}", object["kind"], causes(&error)));
        }
    }
    report(&misses);
}

#[tokio::test]
async fn what_a_user_wrote_comes_back_as_it_was() {
    let client = client().await;
    let namespace = namespace().await;
    let mut misses = vec![];
    for written in [good::flow(), good::cartridge(), good::cluster(), good::instance()] {
        let read =
            api_of(&client, &namespace, &written).create(&PostParams::default(), &object(&written)).await;
        let read = serde_json::to_value(read.unwrap()).unwrap();
        // By way of our own types, as a controller reads and might write it.
        let typed = match written["kind"].as_str().unwrap() {
            "Flow" => serde_json::to_value(serde_json::from_value::<Flow>(read.clone()).unwrap()),
            "Cartridge" => serde_json::to_value(serde_json::from_value::<Cartridge>(read.clone()).unwrap()),
            "Cluster" => serde_json::to_value(serde_json::from_value::<Cluster>(read.clone()).unwrap()),
            _ => serde_json::to_value(serde_json::from_value::<Instance>(read.clone()).unwrap()),
        }
        .unwrap();
        for (who, seen) in [("the server", &read), ("our types", &typed)] {
            if seen["spec"] != written["spec"] {
                misses.push(format!(
                    "{who} changed {}\n{}\n{}",
                    written["kind"], written["spec"], seen["spec"]
                ));
            }
            if seen["status"] != json!({ "observedGeneration": -1 }) {
                misses.push(format!("{who} has another status of {}: {}", written["kind"], seen["status"]));
            }
        }
    }
    report(&misses);
}

#[tokio::test]
async fn scale_is_never_refused() {
    let client = client().await;
    let namespace = namespace().await;
    let api: Api<Cluster> = Api::namespaced(client, &namespace);
    let mut cluster = good::cluster();
    cluster["spec"].as_object_mut().unwrap().remove("replicas");
    let cluster: Cluster = serde_json::from_value(cluster).unwrap();
    api.create(&PostParams::default(), &cluster).await.unwrap();
    let name = cluster.name_any();
    let scale = api.get_scale(&name).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1), "a new cluster can be asked for its scale");
    for replicas in [0, 1, 7, 1_000_000, i32::MAX] {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        api.patch_scale(&name, &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(api.get(&name).await.unwrap().spec.replicas, replicas);
    }
}

#[tokio::test]
async fn old_objects_stay_editable_under_a_tighter_rule() {
    let client = client().await;
    let namespace = namespace().await;
    // The same kind in another group, so that no other test meets the tighter rule.
    let group = format!("{namespace}.millrace.dev");
    let mut crd = definition::all().remove(0);
    crd.metadata.name = Some(format!("flows.{group}"));
    crd.spec.group.clone_from(&group);
    (crd.spec.names.categories, crd.spec.names.short_names) = (None, None);
    define(&client, &crd).await;

    let mut flow = good::flow();
    flow["apiVersion"] = json!(format!("{group}/v1alpha1"));
    let api = api_of(&client, &namespace, &flow);
    let created = api.create(&PostParams::default(), &object(&flow)).await.unwrap();
    let name = created.name_any();

    let mut tighter = serde_json::to_value(&crd).unwrap();
    let root = &mut tighter["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let graph =
        &mut root["properties"]["spec"]["properties"]["graph"]["properties"]["nodes"]["items"]["properties"];
    let rule = json!({ "rule": "self.size() <= 3", "message": "`id` must be short" });
    graph["id"]["x-kubernetes-validations"].as_array_mut().unwrap().push(rule);
    let names = root["x-kubernetes-validations"].as_array_mut().unwrap();
    let shorter = names.iter_mut().find(|rule| rule["rule"].as_str().unwrap().contains("size()")).unwrap();
    shorter["rule"] = json!(shorter["rule"].as_str().unwrap().replace("52", "2"));
    define(&client, &serde_json::from_value(tighter).unwrap()).await;

    // The rule has arrived once a new object is refused.
    let mut another = flow.clone();
    another["metadata"]["name"] = json!("another");
    for tries in 0.. {
        if create(&client, &namespace, &another, STRICT_DRY_RUN).await.is_err() {
            break;
        }
        assert!(tries < 200, "the tighter rule is not enforced after 10 s");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let edit = |patch: Value| {
        let (api, name) = (api.clone(), name.clone());
        async move { api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await }
    };
    edit(json!({ "spec": { "suspend": true } })).await.expect("another field can be edited");
    edit(json!({ "metadata": { "labels": { "a": "b" } } })).await.expect("labels can be edited");
    let mut nodes = flow["spec"]["graph"]["nodes"].clone();
    nodes[0]["timeout"] = json!("5s");
    edit(json!({ "spec": { "graph": { "nodes": nodes } } })).await.expect("the same node can be edited");
    nodes.as_array_mut().unwrap().push(json!({ "id": "longer", "builtin": "log" }));
    let mut edges = flow["spec"]["graph"]["edges"].clone();
    edges.as_array_mut().unwrap().push(json!({ "source": "fetch", "target": "longer" }));
    let refused = edit(json!({ "spec": { "graph": { "nodes": nodes, "edges": edges } } })).await.unwrap_err();
    assert_eq!(causes(&refused).len(), 1, "only the new node is refused: {:?}", causes(&refused));

    let crds = Api::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >::all(client);
    crds.delete(&format!("flows.{group}"), &kube::api::DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_misspelt_field_is_refused_where_validation_is_strict_and_warned_of_otherwise() {
    let client = client().await;
    let namespace = namespace().await;
    let mut flow = good::flow();
    flow["spec"]["suspendd"] = json!(true);
    let refused = create(&client, &namespace, &flow, STRICT_DRY_RUN).await.unwrap_err();
    assert!(refused.to_string().contains("unknown field \"spec.suspendd\""), "{refused}");
    let warnings = warnings(&client, &namespace, &flow).await;
    assert!(warnings.iter().any(|warning| warning.contains("unknown field")), "{warnings:?}");
}

#[tokio::test]
async fn a_good_object_is_warned_of_in_nothing() {
    let client = client().await;
    let namespace = namespace().await;
    assert_eq!(warnings(&client, &namespace, &good::flow()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_generated_name_is_accepted_up_to_its_length() {
    let client = client().await;
    let namespace = namespace().await;
    let api = api_of(&client, &namespace, &good::flow());
    let mut flow = good::flow();
    flow["metadata"] = json!({ "generateName": format!("{}-", "a".repeat(46)) });
    let created = api.create(&PostParams::default(), &object(&flow)).await.unwrap();
    assert_eq!(created.name_any().len(), 52);
    flow["metadata"] = json!({ "generateName": format!("{}-", "a".repeat(47)) });
    let refused = create(&client, &namespace, &flow, STRICT_DRY_RUN).await.unwrap_err();
    assert!(causes(&refused)[0].contains("`generateName` at most 47"), "{refused}");
}

#[tokio::test]
async fn a_null_is_an_absent_field() {
    let client = client().await;
    let namespace = namespace().await;
    let mut flow = good::flow();
    flow["spec"]["suspend"] = Value::Null;
    flow["spec"]["trigger"]["webhook"] = Value::Null;
    let api = api_of(&client, &namespace, &flow);
    let read = api.create(&PostParams::default(), &object(&flow)).await.unwrap();
    assert_eq!(read.data["spec"].get("suspend"), None);
    assert_eq!(read.data["spec"]["trigger"].get("webhook"), None);
}

/// Writes the statuses of a running system.
async fn run(client: &Client, namespace: &str) -> Vec<Value> {
    let objects = [good::flow(), good::hooked_flow(), good::cartridge(), good::cluster(), good::instance()];
    let mut written = vec![];
    for (number, mut object) in objects.into_iter().enumerate() {
        if number == 1 {
            object["metadata"]["name"] = json!("order-confirmations");
        }
        let api = api_of(client, namespace, &object);
        let created = create(client, namespace, &object, STRICT).await.unwrap();
        let status = good::status(object["kind"].as_str().unwrap());
        let patch = Patch::Merge(json!({ "status": status }));
        let read = api.patch_status(&created.name_any(), &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(read.data["status"], status, "the server keeps all of it");
        written.push(serde_json::to_value(read).unwrap());
    }
    written
}

#[tokio::test]
async fn a_status_is_stored_whole_and_reads_back_in_our_types() {
    let client = client().await;
    let namespace = namespace().await;
    for object in run(&client, &namespace).await {
        let typed = match object["kind"].as_str().unwrap() {
            "Flow" => serde_json::to_value(serde_json::from_value::<Flow>(object.clone()).unwrap().status),
            "Cartridge" => {
                serde_json::to_value(serde_json::from_value::<Cartridge>(object.clone()).unwrap().status)
            }
            "Cluster" => {
                serde_json::to_value(serde_json::from_value::<Cluster>(object.clone()).unwrap().status)
            }
            _ => serde_json::to_value(serde_json::from_value::<Instance>(object.clone()).unwrap().status),
        };
        assert_eq!(typed.unwrap(), object["status"], "{}", object["kind"]);
    }
}

#[tokio::test]
async fn kubectl_get_fits_into_eighty_columns() {
    let client = client().await;
    let namespace = namespace().await;
    run(&client, &namespace).await;
    let mut misses = vec![];
    for plural in ["flows", "cartridges", "clusters", "instances"] {
        let table = table(&client, &namespace, plural).await;
        let wide = |column: &Value| column["priority"] != 0;
        let columns = table["columnDefinitions"].as_array().unwrap().iter().enumerate();
        let widths = columns.filter(|(_, column)| !wide(column)).map(|(index, column)| {
            let cells = table["rows"].as_array().unwrap().iter().map(|row| match &row["cells"][index] {
                Value::String(text) => text.len(),
                other => other.to_string().len(),
            });
            cells.chain([column["name"].as_str().unwrap().len()]).max().unwrap()
        });
        // kubectl puts three spaces between columns.
        let widths: Vec<_> = widths.collect();
        let width = widths.iter().sum::<usize>() + 3 * (widths.len() - 1);
        let names: Vec<_> =
            table["columnDefinitions"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        if width > 80 || names.first() != Some(&&json!("Name")) || names.last() != Some(&&json!("Age")) {
            misses.push(format!("{plural}: {width} wide, {names:?}"));
        }
    }
    report(&misses);
}

#[tokio::test]
async fn objects_are_found_by_the_fields_people_ask_for() {
    let client = client().await;
    let namespace = namespace().await;
    run(&client, &namespace).await;
    let found = async |kind: Value, selector: &str| {
        let api = api_of(&client, &namespace, &kind);
        let list = api.list(&kube::api::ListParams::default().fields(selector)).await;
        list.unwrap_or_else(|error| panic!("{selector}: {error}")).items.len()
    };
    assert_eq!(found(good::flow(), "status.phase=Active").await, 2);
    assert_eq!(found(good::flow(), "spec.suspend=true").await, 0);
    assert_eq!(found(good::cartridge(), "status.phase=Active").await, 1);
    assert_eq!(found(good::cluster(), "spec.cartridge.name=tomcat,status.phase=Active").await, 1);
    assert_eq!(found(good::instance(), "spec.cluster=tomcat,status.node=node-1").await, 1);
    assert_eq!(found(good::instance(), "spec.cluster=other").await, 0);
}
