//! The launcher with real processes; the test is the agent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use launch::wire::{self, News, Order};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(20);

/// A launcher, and the agent's end of the line.
struct Launched {
    folder: tempfile::TempDir,
    listener: UnixListener,
    child: Child,
    line: UnixStream,
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Launched {
    fn new(command: &[&str]) -> Self {
        Self::with_hold(command, "1")
    }

    fn with_hold(command: &[&str], hold: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_launch"))
            .args(["run", "--socket", socket.to_str().unwrap(), "--hold", hold, "--"])
            .args(command)
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = accept(&listener);
        Self { folder, listener, child, line }
    }

    /// A launcher whose application was started.
    fn started(command: &[&str]) -> (Self, u32) {
        let mut launched = Self::new(command);
        assert_eq!(launched.hear(), News::Hello { pid: 0, starts: 0, terminating: false });
        launched.order(&Order::Start(vec!["GREETING=good day".into()]));
        match launched.hear() {
            News::Started { pid, starts: 1 } => (launched, pid),
            other => panic!("{other:?}"),
        }
    }

    fn order(&mut self, order: &Order) {
        wire::send(&mut self.line, &order.frame()).unwrap();
    }

    fn hear(&mut self) -> News {
        self.line.set_read_timeout(Some(LIMIT)).unwrap();
        News::read(&wire::receive(&mut self.line).unwrap()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait_for(&self, name: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            match std::fs::read_to_string(self.file(name)) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
                _ => assert!(Instant::now() < end, "there is no {name}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// The exit code, and what it said on standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut said).unwrap();
        (code, said)
    }
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.accept().unwrap().0
}

fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

#[test]
fn the_application_starts_when_it_is_told_to_with_what_it_is_given() {
    let (mut launched, pid) = Launched::started(&sh("echo \"$GREETING $$\" > said; exec sleep 60"));
    assert_eq!(launched.wait_for("said"), format!("good day {pid}"));
    launched.order(&Order::Stop(10_000));
    assert_eq!(launched.hear(), News::Ended { code: 143, why: String::new() });
    // It stays, and can start it again.
    launched.order(&Order::Start(vec!["GREETING=again".into()]));
    assert!(matches!(launched.hear(), News::Started { starts: 2, .. }));
}

#[test]
fn an_agent_that_comes_anew_finds_the_application_as_it_is() {
    let (mut launched, pid) = Launched::started(&sh("exec sleep 60"));
    launched.line.shutdown(std::net::Shutdown::Both).unwrap();
    launched.line = accept(&launched.listener);
    assert_eq!(launched.hear(), News::Hello { pid, starts: 1, terminating: false });
}

#[test]
fn an_end_of_its_own_is_told_and_the_launcher_ends_alike() {
    let (mut launched, _) = Launched::started(&sh("exit 3"));
    assert_eq!(launched.hear(), News::Ended { code: 3, why: String::new() });
    assert_eq!(launched.end().0, Some(3));
}

#[test]
fn one_that_goes_on_in_the_background_is_ended_with_a_word_of_why() {
    let (mut launched, _) = Launched::started(&sh("sleep 60 & exit 0"));
    match launched.hear() {
        News::Ended { code: 1, why } => assert!(why.contains("in the foreground"), "{why}"),
        other => panic!("{other:?}"),
    }
    let (code, said) = launched.end();
    assert_eq!(code, Some(1));
    assert!(said.contains("start it so that its first process stays"), "{said}");
}

#[test]
fn a_command_that_is_not_there_is_said() {
    let mut launched = Launched::new(&["/nowhere/at/all"]);
    launched.hear();
    launched.order(&Order::Start(vec![]));
    let News::Ended { code: 127, why } = launched.hear() else { panic!() };
    assert!(why.starts_with("the command '/nowhere/at/all' cannot be started: No such file"), "{why}");
    assert_eq!(launched.end().0, Some(127));
}

#[test]
fn sigterm_is_held_until_the_agent_orders_the_end() {
    let (mut launched, _) =
        Launched::started(&sh("trap 'echo ended > said; exit 0' TERM; while :; do sleep 0.05; done"));
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.hear(), News::Terminating);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!launched.file("said").exists(), "it was ended before it was drained");
    launched.order(&Order::Stop(10_000));
    assert_eq!(launched.hear(), News::Ended { code: 0, why: String::new() });
    assert_eq!((launched.end().0, launched.wait_for("said").as_str()), (Some(0), "ended"));
}

#[test]
fn without_an_agent_it_drains_and_ends_by_itself() {
    let (mut launched, _) = Launched::started(&sh("trap 'exit 0' TERM; while :; do sleep 0.05; done"));
    launched.line.shutdown(std::net::Shutdown::Both).unwrap();
    let _ = std::fs::remove_file(launched.file("agent.sock"));
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.end().0, Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not drained");
}

#[test]
fn nothing_is_held_where_nothing_runs() {
    let mut launched = Launched::with_hold(&sh("exit 9"), "3600");
    launched.hear();
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.end().0, Some(0));
}

#[test]
fn one_that_ignores_sigterm_is_killed_with_all_that_it_has_started() {
    let (mut launched, _) =
        Launched::started(&sh("trap '' TERM; sleep 300 & echo $! > child; while :; do sleep 0.05; done"));
    let child: i32 = launched.wait_for("child").parse().unwrap();
    launched.order(&Order::Stop(200));
    assert_eq!(launched.hear(), News::Ended { code: 137, why: String::new() });
    let end = Instant::now() + LIMIT;
    while kill(Pid::from_raw(child), None).is_ok() {
        assert!(Instant::now() < end, "its child lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn commands_run_beside_it_and_are_killed_when_they_take_too_long() {
    let (mut launched, _) = Launched::started(&sh("exec sleep 60"));
    let exec = |id, limit, command: &[&str]| Order::Exec {
        id,
        limit,
        command: command.iter().map(ToString::to_string).collect(),
    };
    launched.order(&exec(1, 10_000, &sh("echo hello; exit 4")));
    assert_eq!(launched.hear(), News::Done { id: 1, code: Some(4), output: "hello".into() });
    launched.order(&exec(2, 100, &sh("sleep 60")));
    assert_eq!(
        launched.hear(),
        News::Done { id: 2, code: None, output: "it took too long, and was killed".into() }
    );
    launched.order(&exec(3, 100, &["/no/program"]));
    let News::Done { id: 3, code: None, output } = launched.hear() else { panic!() };
    assert!(output.starts_with("'/no/program' cannot be started: No such file"), "{output}");
}

#[test]
fn other_signals_are_passed_on_and_a_failure_ends_it_with_a_word() {
    let (mut launched, _) =
        Launched::started(&sh("trap 'echo hup > said' HUP; while :; do sleep 0.05; done"));
    std::thread::sleep(Duration::from_millis(300));
    launched.signal(Signal::SIGHUP);
    assert_eq!(launched.wait_for("said"), "hup");
    launched.order(&Order::Fail("the check fails".into()));
    let News::Ended { why, .. } = launched.hear() else { panic!() };
    let (code, said) = launched.end();
    assert_eq!((why.as_str(), code), ("the check fails", Some(1)));
    assert!(said.contains("launch: the check fails"), "{said}");
}
