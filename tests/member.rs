//! The agent of an Instance with a real broker, the real launcher and real applications: the test is the operator, and the
//! kubelet that begins and ends the containers of a pod.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "member/pod.rs"]
mod pod;

mod mill;

use std::process::Stdio;

use mill::proxy::Proxy;
use mill::{Mill, http, until};
use millrace::broker::member::{MemberWork, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pod::{Pod as Member, noted, setup, work};
use serde_json::{Value, json};

/// A hook that makes the example's application read its imports again.
fn reload() -> Value {
    json!({"httpGet": {"path": "/reload", "port": "PORT"}})
}

fn pid(view: &Value) -> Pid {
    Pid::from_raw(i32::try_from(view["pid"].as_i64().unwrap()).unwrap())
}

async fn status(member: &Member<'_>, path: &str) -> Option<u16> {
    Some(http("GET", &format!("{}{path}", member.agent.admin), &[]).await?.0)
}

#[tokio::test]
async fn an_application_starts_once_it_may_and_gets_what_it_is_given() {
    let mill = Mill::start().await;
    let mut member = Member::new(&mill, setup(&json!({}))).await;
    member.tier(&[]).await;
    until("the agent", async || status(&member, "/readyz").await.filter(|status| *status == 503)).await;
    member.want(&work("r1", false, &[])).await;
    until("readiness", async || status(&member, "/readyz").await.filter(|status| *status == 200)).await;
    assert_eq!(member.report().await.unwrap().stage, Stage::Down);
    assert_eq!((status(&member, "/gate").await, member.ask("/view").await), (Some(503), None));

    let given = MemberWork {
        values: json!({"greeting": "good day"}).as_object().unwrap().clone(),
        secrets: Some(member.sealed(&json!({"db": {"db-8": {"password": "swordfish"}}}))),
        ..work("r2", true, &["10.0.0.1"])
    };
    member.want(&given).await;
    assert_eq!(member.reaches(Stage::Serving, "r2").await.starts, 1);
    let view = member.view().await;
    assert_eq!(view["imports"], json!({"db": [{"name": "db-8", "ip": "10.0.0.1", "port": 5000}]}));
    let environment: Value = serde_json::from_str(&member.ask("/env").await.unwrap().1).unwrap();
    for (name, value) in [("DB_IP", "10.0.0.1"), ("DB_0_PORT", "5000"), ("VALUE_GREETING", "good day")] {
        assert_eq!(environment[name], value, "{name}");
    }
    assert!(!environment.to_string().contains("swordfish"));
    assert_eq!(member.ask("/secrets").await.unwrap().1, "{\"db/db-8/password\":9}\n");
    assert_eq!(status(&member, "/application/ready").await, Some(200));
}

#[tokio::test]
async fn what_changes_reaches_the_application_that_runs_each_time() {
    let mill = Mill::start().await;
    let mut member = Member::new(&mill, setup(&json!({"lifecycle": {"update": reload()}}))).await;
    member.tier(&[]).await;
    member.want(&work("r1", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r1").await;
    let before = member.view().await;
    for (revision, members) in [("r2", &["10.0.0.1", "10.0.0.22"][..]), ("r3", &[]), ("r4", &["10.0.0.333"])]
    {
        member.want(&work(revision, true, members)).await;
        assert_eq!(member.reaches(Stage::Serving, revision).await.starts, 1);
        let view = member.view().await;
        let ips: Vec<_> =
            view["imports"]["db"].as_array().unwrap().iter().map(|one| one["ip"].as_str().unwrap()).collect();
        assert_eq!((ips.as_slice(), &view["pid"]), (members, &before["pid"]));
    }
    // What is meant for a pod that was here before is not for this one.
    let other = MemberWork { pod: "pod-0".into(), ..work("r5", false, &[]) };
    member.want(&other).await;
    member.want(&work("r6", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r6").await;
    assert_eq!(member.view().await["pid"], before["pid"]);
}

#[tokio::test]
async fn what_changes_while_the_broker_is_away_arrives_afterwards() {
    let mill = Mill::start().await;
    let proxy = Proxy::to(&mill.url).await;
    let lifecycle = json!({"lifecycle": {"update": reload()}});
    let mut member = Member::at(&mill, proxy.url.clone(), setup(&lifecycle)).await;
    member.tier(&[]).await;
    member.want(&work("r1", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r1").await;
    let before = member.view().await;
    proxy.cut();
    member.want(&work("r2", true, &["10.0.0.22"])).await;
    member.want(&work("r3", true, &["10.0.0.333"])).await;
    assert_eq!(status(&member, "/readyz").await, Some(200), "what runs needs no broker");
    assert_eq!(member.view().await, before);
    proxy.mend();
    member.reaches(Stage::Serving, "r3").await;
    let view = member.view().await;
    assert_eq!((&view["imports"]["db"][0]["ip"], &view["pid"]), (&json!("10.0.0.333"), &before["pid"]));
}

#[tokio::test]
async fn an_agent_that_is_killed_finds_the_application_as_it_is_and_what_changed_meanwhile() {
    let mill = Mill::start().await;
    let lifecycle = json!({"lifecycle": {"start": noted("start"), "update": reload()}});
    let mut member = Member::new(&mill, setup(&lifecycle)).await;
    member.tier(&[]).await;
    member.want(&work("r1", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r1").await;
    let before = member.view().await;
    member.agent.child.kill().await.unwrap();
    member.want(&work("r2", true, &["10.0.0.22"])).await;
    assert_eq!(member.view().await, before);
    member.another_agent().await;
    assert_eq!(member.reaches(Stage::Serving, "r2").await.starts, 1);
    let view = member.view().await;
    assert_eq!((&view["imports"]["db"][0]["ip"], &view["pid"]), (&json!("10.0.0.22"), &before["pid"]));
    assert_eq!(member.hooks(), "start");
}

#[tokio::test]
async fn it_stops_and_starts_again_on_order_with_its_hooks_in_their_order() {
    let mill = Mill::start().await;
    let lifecycle = json!({"start": noted("start"), "update": noted("update"), "stop": noted("stop")});
    let mut member = Member::new(&mill, setup(&json!({"lifecycle": lifecycle, "drainSeconds": 1}))).await;
    member.tier(&[]).await;
    member.want(&work("r1", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r1").await;
    member.want(&work("r2", true, &["10.0.0.22"])).await;
    member.reaches(Stage::Serving, "r2").await;
    member.want(&work("r2", false, &["10.0.0.22"])).await;
    member.says("the drain", |report| report.stage == Stage::Stopping).await;
    assert_eq!((member.hooks().as_str(), member.ask("/").await.is_some()), ("start update", true));
    member.says("the end", |report| report.stage == Stage::Down && report.problem.is_none()).await;
    assert_eq!((member.hooks().as_str(), member.ask("/").await), ("start update stop", None));
    member.want(&work("r2", true, &["10.0.0.22"])).await;
    assert_eq!(member.reaches(Stage::Serving, "r2").await.starts, 2);
    // The kubelet ends the container.
    let launcher = member.launcher.as_ref().unwrap().id().unwrap();
    kill(Pid::from_raw(i32::try_from(launcher).unwrap()), Signal::SIGTERM).unwrap();
    member.says("the drain", |report| report.stage == Stage::Stopping).await;
    assert!(member.ask("/").await.is_some(), "it ends before it is drained");
    assert_eq!(member.ended().await.0, Some(0));
    assert_eq!(member.hooks(), "start update stop start stop");
}

#[tokio::test]
async fn a_process_that_is_killed_is_told_and_begins_anew_with_its_container() {
    let mill = Mill::start().await;
    let mut member = Member::new(&mill, setup(&json!({"lifecycle": {"start": noted("start")}}))).await;
    member.tier(&[]).await;
    member.want(&work("r1", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r1").await;
    kill(pid(&member.view().await), Signal::SIGKILL).unwrap();
    let report = member.complains("the application ended with code 137").await;
    assert_eq!(report.stage, Stage::Down);
    assert_eq!(member.ended().await.0, Some(137));
    member.tier(&[]).await;
    member.reaches(Stage::Serving, "r1").await;
    assert_eq!(member.hooks(), "start start");
}

#[tokio::test]
async fn one_that_ends_at_once_or_answers_at_no_port_or_leaves_itself_behind_is_told() {
    let mill = Mill::start().await;
    for (env, words, code) in [
        ("TIER_EXIT", "the application ended with code 3", Some(3)),
        ("TIER_FORK", "start it so that its first process stays", Some(1)),
        ("TIER_SILENT", "does not accept connections at the pod's address", None),
    ] {
        let mut member = Member::new(&mill, setup(&json!({}))).await;
        member.tier(&[(env, "3")]).await;
        member.want(&work(env, true, &[])).await;
        member.complains(words).await;
        if code.is_some() {
            assert_eq!(member.ended().await.0, code, "{env}");
        } else {
            member.reaches(Stage::Running, env).await;
        }
    }
}

#[tokio::test]
async fn a_hook_that_hangs_or_cannot_run_holds_up_neither_what_comes_nor_the_end() {
    let mill = Mill::start().await;
    let hang = json!({"exec": {"command": ["sh", "-c", "echo begun >> hooks; exec sleep 600"]}});
    let none = json!({"exec": {"command": ["/no/shell"]}});
    // It is tried again and again; the end does not wait for it.
    let mut member = Member::new(&mill, setup(&json!({"lifecycle": {"start": none}}))).await;
    member.tier(&[]).await;
    member.want(&work("r1", true, &["10.0.0.1"])).await;
    let report =
        member.complains("the hook `start` failed: '/no/shell' cannot be started: No such file").await;
    assert_eq!(report.stage, Stage::Running);
    member.want(&work("r1", false, &[])).await;
    member.says("the end", |report| report.stage == Stage::Down).await;
    drop(member);

    let mut member = Member::new(&mill, setup(&json!({"lifecycle": {"start": hang, "update": hang}}))).await;
    member.tier(&[]).await;
    member.want(&work("r2", true, &["10.0.0.1"])).await;
    until("the hook", async || (member.hooks() == "begun").then_some(())).await;
    assert_eq!(member.report().await.unwrap().stage, Stage::Running, "it is not done yet");
    member.want(&work("r3", false, &[])).await;
    member.says("the end", |report| report.stage == Stage::Down).await;
    drop(member);

    // One that hangs at an update: the application goes on, and what it has is what it had.
    let mut member = Member::new(&mill, setup(&json!({"lifecycle": {"update": hang}}))).await;
    member.tier(&[]).await;
    member.want(&work("r4", true, &["10.0.0.1"])).await;
    member.reaches(Stage::Serving, "r4").await;
    member.want(&work("r5", true, &["10.0.0.22"])).await;
    until("the hook", async || (member.hooks() == "begun").then_some(())).await;
    member.reaches(Stage::Serving, "r4").await;
    member.want(&work("r5", false, &["10.0.0.22"])).await;
    member.says("the end", |report| report.stage == Stage::Down).await;
}

#[tokio::test]
async fn a_liveness_check_restarts_what_runs_and_nothing_that_waits() {
    let mill = Mill::start().await;
    let probes = json!({"probes": {"liveness": {
        "exec": {"command": ["sh", "-c", "test ! -e sick || { echo I am sick; exit 1; }"]}, "periodSeconds": 1, "failureThreshold": 1,
    }}});
    let mut member = Member::new(&mill, setup(&probes)).await;
    std::fs::write(member.file("sick"), "").unwrap();
    member.tier(&[]).await;
    member.want(&work("r1", false, &[])).await;
    until("readiness", async || status(&member, "/readyz").await.filter(|status| *status == 200)).await;
    std::fs::remove_file(member.file("sick")).unwrap();
    member.want(&work("r2", true, &[])).await;
    assert_eq!(member.reaches(Stage::Serving, "r2").await.starts, 1);
    assert!(member.launcher.as_mut().unwrap().try_wait().unwrap().is_none());
    std::fs::write(member.file("sick"), "").unwrap();
    member.complains("I am sick").await;
    let (code, said) = member.ended().await;
    assert!(code == Some(1) && said.contains("I am sick"), "{code:?} {said}");
}

#[tokio::test]
async fn without_a_launcher_the_gate_opens_and_the_end_waits_for_the_hook() {
    let mill = Mill::start().await;
    let more = json!({"wrapped": false, "drainSeconds": 1, "lifecycle": {"stop": {"httpGet": {"path": "/stopping", "port": "PORT"}}}});
    let member = Member::new(&mill, setup(&more)).await;
    until("the gate", async || status(&member, "/gate").await.filter(|status| *status == 503)).await;
    member.want(&work("r1", true, &[])).await;
    until("the gate", async || status(&member, "/gate").await.filter(|status| *status == 200)).await;
    // The kubelet begins the container once the gate is open.
    let _application = tokio::process::Command::new(mill::program("tier").await)
        .arg("web")
        .env("PORT", member.port.to_string())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    member.reaches(Stage::Serving, "r1").await;
    let began = std::time::Instant::now();
    assert_eq!(status(&member, "/application/stop").await, Some(200));
    assert!(began.elapsed().as_millis() >= 1000, "it was not drained");
    assert_eq!(member.view().await["hooks"], json!(["stopping"]));
    assert_eq!(member.report().await.unwrap().stage, Stage::Stopping);
}
