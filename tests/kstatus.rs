//! What the tools that wait for objects make of ours: the real kstatus library, by which Helm and Flux decide, judges the
//! conditions of every situation of every kind.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use millrace::api::{
    cartridge,
    cluster::phase::{self as cluster, Members},
    condition::{self, Condition, ConditionType, Reason, Refusal, Status, Summary, Visit},
    flow::phase::{self as flow, Nodes},
    instance::phase::{self as instance, Application, Form},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

const BOTH: [bool; 2] = [false, true];
const REFUSALS: [Option<Refusal>; 3] = [None, Some(Refusal::InvalidSpec), Some(Refusal::NotYetSupported)];

const CURRENT: &str = "Current";
const IN_PROGRESS: &str = "InProgress";
const FAILED: &str = "Failed";
const TERMINATING: &str = "Terminating";

/// The program that prints, a line for each object, what the library says of it.
async fn program() -> Result<PathBuf> {
    Ok(rig::Program::get().await?.named("kstatus"))
}

/// Asks the library about objects: one word for each.
async fn kstatus(objects: &[Value]) -> Result<Vec<String>> {
    let mut child = Command::new(program().await?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("kstatus has no standard input")?;
    let lines: Vec<_> = objects.iter().map(ToString::to_string).collect();
    let write = async move { stdin.write_all(lines.join("\n").as_bytes()).await };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    ensure!(output.status.success(), "kstatus failed: {}", output.status);
    written?;
    let text = String::from_utf8(output.stdout)?;
    let words = text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
    let words: Vec<_> = words.collect();
    ensure!(words.len() == objects.len(), "{} lines for {} objects", words.len(), objects.len());
    Ok(words)
}

/// One situation: what it is, for the reader; the object; the word that is meant.
struct Case {
    what: String,
    object: Value,
    meant: &'static str,
}

fn object(kind: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "orders", "namespace": "shop", "generation": 7},
        "status": status,
    })
}

/// An object as a controller leaves it that saw it stalled, then working, before it saw what it sees now.
fn visited(kind: &str, refused: Option<Refusal>, summary: Summary) -> Value {
    let mut conditions: Vec<Condition> = vec![];
    let mut visit = Visit { generation: 6, now: Timestamp::UNIX_EPOCH };
    for before in [Summary::Stalled(Reason::InvalidSpec), Summary::Working(Reason::Starting)] {
        condition::summarise(&mut conditions, visit, before, "an earlier visit");
    }
    visit.generation = 7;
    let reason = refused.map_or(Reason::Active, Reason::from);
    let accepted = Status::from(refused.is_none());
    condition::set(&mut conditions, visit, ConditionType::Accepted, accepted, reason, "of the spec");
    condition::summarise(&mut conditions, visit, summary, "why");
    object(kind, &json!({"observedGeneration": 7, "conditions": conditions}))
}

/// The same, while it is being deleted.
fn leaving(mut object: Value) -> Value {
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    object["metadata"]["finalizers"] = json!(["millrace.dev/announce"]);
    object
}

/// Asks about all cases at once, and shows the first few that are read differently.
async fn check(cases: &[Case]) -> Result<()> {
    let objects: Vec<_> = cases.iter().map(|case| case.object.clone()).collect();
    let wrong: Vec<_> = cases
        .iter()
        .zip(kstatus(&objects).await?)
        .filter(|(case, said)| case.meant != said)
        .map(|(case, said)| format!("{}: meant {}, read as {said}: {}", case.what, case.meant, case.object))
        .collect();
    let some = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} are misread, such as\n{some}", wrong.len(), cases.len());
    Ok(())
}

#[tokio::test]
async fn a_flow_is_current_as_wanted_failed_when_a_person_must_act_and_in_progress_otherwise() -> Result<()> {
    let cases: Vec<_> = flows()
        .into_iter()
        .map(|situation| {
            let (_, summary) = situation.assess();
            let mut object = visited("Flow", situation.refused, summary);
            if situation.wish == flow::Wish::Delete {
                object = leaving(object);
            }
            Case { what: format!("{situation:?}"), object, meant: meant_of_flow(situation) }
        })
        .collect();
    assert_eq!(cases.len(), 144);
    check(&cases).await
}

fn meant_of_flow(situation: flow::Situation) -> &'static str {
    use flow::Wish;
    let stalled = situation.refused.is_some() || situation.nodes == Nodes::Overdue;
    match situation.wish {
        Wish::Delete => TERMINATING,
        Wish::Suspend if situation.drained => CURRENT,
        Wish::Run if stalled => FAILED,
        Wish::Run if situation.trigger_armed && situation.nodes == Nodes::Ready => CURRENT,
        Wish::Suspend | Wish::Run => IN_PROGRESS,
    }
}

fn flows() -> Vec<flow::Situation> {
    use flow::Wish;
    let mut all = vec![];
    for wish in [Wish::Run, Wish::Suspend, Wish::Delete] {
        for nodes in [Nodes::Ready, Nodes::Starting, Nodes::Waiting, Nodes::Overdue] {
            for refused in REFUSALS {
                for drained in BOTH {
                    all.extend(BOTH.map(|trigger_armed| flow::Situation {
                        wish,
                        drained,
                        refused,
                        nodes,
                        trigger_armed,
                    }));
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn an_instance_is_current_in_the_state_that_is_desired_and_in_no_other() -> Result<()> {
    let cases: Vec<_> = instances()
        .into_iter()
        .map(|situation| {
            let (_, summary) = situation.assess();
            let mut object = visited("Instance", situation.refused, summary);
            if situation.wish == instance::Wish::Delete {
                object = leaving(object);
            }
            Case { what: format!("{situation:?}"), object, meant: meant_of_instance(situation) }
        })
        .collect();
    assert_eq!(cases.len(), 1440);
    check(&cases).await
}

fn meant_of_instance(situation: instance::Situation) -> &'static str {
    use instance::Wish;
    let current_if = |reached: bool| if reached { CURRENT } else { IN_PROGRESS };
    let record = situation.form == Form::Record;
    let valid = situation.refused.is_none();
    let stands_by = match situation.form {
        Form::Wrapped => situation.pod == Some(Application::Down),
        Form::Record | Form::Plain => situation.pod.is_none(),
    };
    let runs = matches!(situation.pod, Some(Application::Started | Application::Serving));
    let maintained = !situation.in_balancer && if record { valid } else { runs };
    match situation.wish {
        Wish::Delete => TERMINATING,
        Wish::Stop => current_if(stands_by),
        Wish::Undeploy => current_if(situation.pod.is_none()),
        Wish::Maintain if maintained => CURRENT,
        Wish::Maintain | Wish::Start if !valid => FAILED,
        Wish::Maintain => IN_PROGRESS,
        Wish::Start => current_if(record || situation.pod == Some(Application::Serving)),
    }
}

fn instances() -> Vec<instance::Situation> {
    use instance::Wish;
    let pods = [None, Some(Application::Down), Some(Application::Started), Some(Application::Serving)];
    let mut all = vec![];
    for wish in [Wish::Start, Wish::Stop, Wish::Undeploy, Wish::Maintain, Wish::Delete] {
        for refused in REFUSALS {
            for form in [Form::Record, Form::Plain, Form::Wrapped] {
                for pod in pods {
                    for (waiting, imports_resolved) in pairs() {
                        all.extend(BOTH.map(|in_balancer| instance::Situation {
                            wish,
                            refused,
                            form,
                            pod,
                            waiting,
                            imports_resolved,
                            in_balancer,
                        }));
                    }
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn a_cluster_is_current_when_exactly_the_wanted_members_are_active_and_updated() -> Result<()> {
    let cases: Vec<_> = clusters()
        .into_iter()
        .map(|situation| {
            let (_, summary) = situation.assess();
            let mut object = visited("Cluster", situation.refused, summary);
            if situation.deleting {
                object = leaving(object);
            }
            Case { what: format!("{situation:?}"), object, meant: meant_of_cluster(situation) }
        })
        .collect();
    check(&cases).await
}

fn meant_of_cluster(situation: cluster::Situation) -> &'static str {
    let Members { wanted, present, active, updated } = situation.members;
    if situation.deleting {
        TERMINATING
    } else if situation.refused.is_some() {
        FAILED
    } else if [present, active, updated] == [wanted; 3] {
        CURRENT
    } else {
        IN_PROGRESS
    }
}

fn clusters() -> Vec<cluster::Situation> {
    let mut all = vec![];
    for (members, min) in members() {
        for refused in REFUSALS {
            for (deleting, waiting) in pairs() {
                all.extend(BOTH.map(|was_active| cluster::Situation {
                    deleting,
                    refused,
                    waiting,
                    members,
                    min,
                    was_active,
                }));
            }
        }
    }
    all
}

/// Members up to three, with every `instances.min` that goes with them.
fn members() -> Vec<(Members, u32)> {
    let mut all = vec![];
    for wanted in 0..=3 {
        for present in 0..=3 {
            for active in 0..=present {
                for updated in 0..=active {
                    all.extend((0..=wanted).map(|min| (Members { wanted, present, active, updated }, min)));
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn a_cartridge_is_current_or_failed_at_the_first_visit() -> Result<()> {
    let cases = REFUSALS.map(|refused| {
        let (_, summary) = cartridge::phase::assess(refused);
        let meant = if refused.is_some() { FAILED } else { CURRENT };
        Case { what: format!("{refused:?}"), object: visited("Cartridge", refused, summary), meant }
    });
    check(&cases).await
}

#[tokio::test]
async fn an_object_that_no_controller_has_seen_is_in_progress() -> Result<()> {
    let kinds = ["Flow", "Cartridge", "Cluster", "Instance"];
    let unseen = kinds.map(|kind| object(kind, &json!({"observedGeneration": -1})));
    assert_eq!(kstatus(&unseen).await?, [IN_PROGRESS; 4]);
    // Why the schema gives every new object that status: without one it is taken for ready at once.
    assert_eq!(kstatus(&kinds.map(|kind| object(kind, &json!({})))).await?, [CURRENT; 4]);
    Ok(())
}

#[tokio::test]
async fn a_status_of_an_earlier_generation_is_in_progress_whatever_its_conditions_say() -> Result<()> {
    let ready = visited("Flow", None, Summary::Settled(Reason::Active));
    let mut edited = ready.clone();
    edited["metadata"]["generation"] = json!(8);
    assert_eq!(kstatus(&[ready, edited]).await?, [CURRENT, IN_PROGRESS]);
    Ok(())
}

fn pairs() -> impl Iterator<Item = (bool, bool)> {
    BOTH.into_iter().flat_map(|first| BOTH.map(|second| (first, second)))
}
