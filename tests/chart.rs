//! The chart, as helm renders it: what it installs is restricted, small, explained, and fits the programs that it starts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

async fn helm(arguments: &[&str]) -> Output {
    let program = rig::Program::get().await.unwrap();
    Command::new(program.named("helm")).args(arguments).current_dir(ROOT).output().unwrap()
}

/// What helm makes of the chart with these options.
async fn render(options: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["template", "millrace", "charts/millrace", "--namespace", "millrace-system"];
    arguments.extend(options);
    let rendered = helm(&arguments).await;
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let text = String::from_utf8(rendered.stdout).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// What helm says when it refuses these options.
async fn refusal(options: &[&str]) -> String {
    let mut arguments = vec!["template", "millrace", "charts/millrace"];
    arguments.extend(options);
    let rendered = helm(&arguments).await;
    assert!(!rendered.status.success(), "helm takes {options:?}");
    String::from_utf8_lossy(&rendered.stderr).into_owned()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// All that has a pod template.
fn workloads(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| object["spec"]["template"]["spec"]["containers"].is_array()).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[tokio::test]
async fn the_chart_is_clean_and_holds_the_definitions_of_this_version() {
    let linted = helm(&["lint", "--strict", "charts/millrace"]).await;
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    for (file, yaml) in millrace::cli::crds().unwrap() {
        let copy = Path::new(ROOT).join("charts/millrace/files/crds").join(&file);
        let copy = std::fs::read_to_string(copy).unwrap_or_default();
        assert!(
            copy == yaml,
            "the chart's {file} is not what src/api says; to write it again, run: make generate"
        );
    }
    let objects = render(&[]).await;
    let definitions = of_kind(&objects, "CustomResourceDefinition");
    let kept = |crd: &&Value| crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep";
    assert_eq!((definitions.len(), definitions.iter().all(kept)), (4, true));
    assert_eq!(of_kind(&render(&["--set", "crds.install=false"]).await, "CustomResourceDefinition").len(), 0);
}

#[tokio::test]
async fn every_pod_is_restricted_and_all_of_them_fit_on_a_small_node() {
    let objects = render(&[]).await;
    let mut cores = 0.0;
    for workload in workloads(&objects) {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{}", name(workload));
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{}", name(workload));
        assert!(
            pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"].is_null()
        );
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"][0], "ALL");
            for probe in ["readinessProbe", "livenessProbe"] {
                assert!(container[probe].is_object(), "{} has no {probe}", name(workload));
            }
            let request = container["resources"]["requests"]["cpu"].as_str().unwrap();
            let replicas = workload["spec"]["replicas"].as_f64().unwrap();
            cores += replicas * millicores(&Quantity(request.into()));
        }
    }
    assert!(
        (1.0..=500.0).contains(&cores),
        "all pods of the chart together request {cores} thousandths of a core"
    );
}

fn millicores(quantity: &Quantity) -> f64 {
    match quantity.0.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap(),
        None => quantity.0.parse::<f64>().unwrap() * 1000.0,
    }
}

#[tokio::test]
async fn every_variable_is_one_that_the_role_reads() {
    let objects =
        render(&["--set", "nats.allow={sync-interval}", "--set", "runner.httpAllow={10.0.0.0/8,::1/128}"])
            .await;
    let mut roles = BTreeSet::new();
    for workload in workloads(&objects) {
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        let Some(role @ ("operator" | "gateway")) = container["args"][0].as_str() else { continue };
        let help = Command::new(env!("CARGO_BIN_EXE_millrace")).args([role, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for variable in container["env"].as_array().unwrap() {
            let variable = variable["name"].as_str().unwrap();
            assert!(
                help.contains(&format!("[env: {variable}=")),
                "`millrace {role}` reads no {variable}:\n{help}"
            );
        }
        roles.insert(role.to_owned());
    }
    assert_eq!(roles.len(), 2);
}

#[tokio::test]
async fn an_existing_nats_takes_the_place_of_the_charts_own() {
    let objects = render(&["--set", "nats.url=nats://nats.messaging:4222"]).await;
    assert_eq!(of_kind(&objects, "StatefulSet").len(), 0);
    for workload in workloads(&objects) {
        let env = workload["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let value = |wanted: &str| env.iter().find(|it| it["name"] == wanted).map(|it| it["value"].clone());
        assert_eq!(value("MILLRACE_NATS_URL"), Some("nats://nats.messaging:4222".into()));
        assert!(value("MILLRACE_NATS_AUTH").is_none_or(|auth| auth == "none"));
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_is_refused_by_name() {
    for (option, named) in [
        ("operator.replica=3", "replica"),
        ("gateway.service.type=Nodeport", "type"),
        ("nats.allow={everything}", "allow"),
        ("runner.httpAllow={localhost}", "httpAllow"),
        ("nats.url=localhost", "url"),
        ("nats.maxFileStore=2G", "maxFileStore"),
        ("image.digest=latest", "digest"),
    ] {
        let said = refusal(&["--set", option]).await;
        assert!(said.contains(named), "{option}: {said}");
    }
}

#[test]
fn every_rule_says_why() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("charts/millrace/templates/rbac.yaml")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("- apiGroups:")) {
        assert!(lines[at - 1].starts_with("# "), "line {} has no reason: {line}", at + 1);
    }
}
