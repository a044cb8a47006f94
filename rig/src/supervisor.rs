//! Long-running components, and the leash they are on.
//!
//! A small process (`supervise`, one of the names of the built program) starts the components, reports each death at
//! once, and ends them all when its standard input closes: whatever happens to the process that holds a [`Supervisor`],
//! nothing that it started survives it, unless it was told to [settle](Supervisor::settle).

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Doing as _, Error, Result};

/// How many lines of a dead component's log its report shows.
const TAIL: usize = 15;

/// A component to run: what `supervise` is told of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Component {
    /// Its name, also that of its log.
    pub name: String,
    /// The program, as an absolute path, and its arguments.
    pub argv: Vec<String>,
    /// Variables added to the environment, as `KEY=value`.
    pub env: Vec<String>,
    /// The working directory.
    pub dir: PathBuf,
    /// Where its output goes, as the supervisor sees it.
    pub log: PathBuf,
}

/// What `supervise` says, on its standard output and in its record.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Event {
    #[serde(default)]
    pub launched: bool,
    pub started: Option<String>,
    pub died: Option<String>,
    #[serde(default)]
    pub settled: bool,
    #[serde(default)]
    pub pid: u32,
    #[serde(default)]
    pub why: String,
}

/// What the holder has heard.
#[derive(Debug, Default)]
struct News {
    /// The process that `supervise` has become, where that is another than the one that was spawned.
    launched: Option<u32>,
    /// Whether the components are on their own.
    settled: bool,
    /// The first death.
    death: Option<Event>,
    /// Whether a death is to be told on standard error, because nobody waits for one.
    aloud: bool,
}

/// The holder's end of the leash.
#[derive(Debug)]
pub(crate) struct Supervisor {
    process: Child,
    leash: Option<ChildStdin>,
    news: watch::Sender<News>,
    /// Where the holder finds the logs.
    logs: PathBuf,
}

impl Supervisor {
    /// Runs `supervise` beside this process; `scratch` is removed when it ends.
    pub fn local(supervise: &Path, scratch: &Path, logs: &Path) -> Result<Self> {
        let mut command = Command::new(supervise);
        command.arg("--scratch").arg(scratch);
        Self::spawn(command, logs)
    }

    /// Runs a command that is `supervise`, or turns into it.
    pub fn spawn(mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join("supervise.log");
        let complaints = fs::File::create(&log).doing(format!("write {}", log.display()))?;
        let mut process = command
            .stderr(complaints)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(format!("run {}", command.get_program().display()))?;
        let leash = process.stdin.take();
        let news = watch::Sender::new(News::default());
        if let Some(output) = process.stdout.take() {
            let (news, logs) = (news.clone(), logs.to_owned());
            // A thread, not a task: the supervisor outlives the runtime of the test that happened to start it.
            std::thread::spawn(move || listen(output, &news, &logs));
        }
        Ok(Self { process, leash, news, logs: logs.to_owned() })
    }

    /// Waits for the process that `supervise` has become in namespaces of its own.
    pub async fn launched(&self) -> Result<u32> {
        let mut news = self.news.subscribe();
        let heard = news.wait_for(|news| news.launched.is_some() || news.death.is_some()).await;
        match heard.as_deref() {
            Ok(News { launched: Some(pid), .. }) => Ok(*pid),
            Ok(News { death: Some(death), .. }) => Err(self.obituary(death.clone())),
            _ => Err(self.obituary(Event::default())),
        }
    }

    /// Starts a component. That it could not be started is reported as its death.
    pub fn start(&mut self, component: &Component) -> Result<()> {
        self.say(&serde_json::json!({ "start": component }))
    }

    /// Lets the components live on without a holder, and waits until it is so.
    pub async fn settle(&mut self) -> Result<()> {
        self.say(&serde_json::json!({ "settle": true }))?;
        let mut news = self.news.subscribe();
        let settled = async { news.wait_for(|news| news.settled).await.map(drop).or(Ok(())) };
        self.until("the supervisor's agreement", Duration::from_secs(10), settled).await
    }

    fn say(&mut self, command: &serde_json::Value) -> Result<()> {
        let Some(leash) = &mut self.leash else { return Ok(()) };
        writeln!(leash, "{command}").doing("tell the supervisor what to start: it has ended")
    }

    /// Waits for `ready`; a component that dies meanwhile ends the wait at once.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        ready: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            death = self.death() => Err(death),
            done = tokio::time::timeout(limit, ready) => done.unwrap_or_else(|_| {
                Err(Error::TimedOut { what: what.to_owned(), limit, logs: self.logs.clone() })
            }),
        }
    }

    /// From now on nobody waits: a death is told on standard error.
    pub fn tell_deaths(&self) {
        self.news.send_modify(|news| news.aloud = true);
    }

    /// Waits for the first death.
    pub async fn death(&self) -> Error {
        let mut news = self.news.subscribe();
        let heard = news.wait_for(|news| news.death.is_some()).await;
        self.obituary(heard.ok().and_then(|news| news.death.clone()).unwrap_or_default())
    }

    fn obituary(&self, death: Event) -> Error {
        let component = death.died.unwrap_or_default();
        obituary(&self.logs, component, death.why)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.news.send_modify(|news| news.aloud = false);
        drop(self.leash.take());
        // It ends by itself; without this wait it would stay a zombie, and its components a moment longer than we say.
        let _ = self.process.wait();
    }
}

/// The error for a component that ended, with the end of its log.
pub(crate) fn obituary(logs: &Path, component: String, why: String) -> Error {
    let log = logs.join(format!("{component}.log"));
    let tail = tail(&log, TAIL);
    Error::Died { component, why, log, tail }
}

fn listen(output: ChildStdout, told: &watch::Sender<News>, logs: &Path) {
    let events = BufReader::new(output).lines().map_while(std::result::Result::ok);
    for event in events.filter_map(|line| serde_json::from_str::<Event>(&line).ok()) {
        told.send_modify(|news| match event {
            Event { launched: true, pid, .. } => news.launched = Some(pid),
            Event { settled: true, .. } => news.settled = true,
            Event { died: Some(_), .. } => hear_death(news, event, logs),
            _ => {}
        });
    }
    let end = Event { died: Some("supervise".into()), why: "it ended".into(), ..Event::default() };
    told.send_modify(|news| hear_death(news, end, logs));
}

fn hear_death(news: &mut News, death: Event, logs: &Path) {
    if news.aloud {
        eprintln!("rig: {}", obituary(logs, death.died.clone().unwrap_or_default(), death.why.clone()));
    }
    news.death.get_or_insert(death);
}

/// The last lines of a log, or why there are none.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    match fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(no log: {error})"),
    }
}

/// Who runs and who died, by a supervisor's record.
pub(crate) fn read_record(record: &Path) -> (bool, HashMap<String, Event>) {
    let text = fs::read_to_string(record).unwrap_or_default();
    let mut settled = false;
    let mut last = HashMap::new();
    for event in text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()) {
        settled |= event.settled;
        if let Some(name) = event.died.clone().or_else(|| event.started.clone()) {
            last.insert(name, event);
        }
    }
    (settled, last)
}
