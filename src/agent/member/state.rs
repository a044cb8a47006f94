//! What the agent of an Instance decides: pure, with the time passed in.
//!
//! Whatever has happened, [`State::settle`] says what is to be done about what is the case now: so no order of events is a
//! special one, and an agent that begins anew in the middle goes on.

use std::time::Duration;

use launch::wire::News;
use tokio::time::Instant;

use crate::broker::member::{MemberReport, MemberWork, Setup, Stage};

use super::hooks::Turn;

/// How long an application has to end after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(30);

/// Something has happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The operator wants this.
    Work(MemberWork),
    /// The files of this revision are written.
    Written(String),
    /// They could not be.
    NotWritten(String),
    /// The launcher says something.
    News(News),
    /// The launcher is gone.
    LauncherLost,
    /// A hook has ended.
    Hook(Turn, Result<(), String>),
    /// All that is checked is well, or what is not.
    Checked(Result<(), String>),
    /// The application is not well and must be started anew: a check has failed for good.
    Unwell(String),
    /// Without a launcher: the container is about to be ended.
    Ending,
    /// Time has passed.
    Time,
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Write the files of this work.
    Write(MemberWork),
    /// Let the launcher start the application.
    Start,
    /// Let the launcher end it, within this time.
    Stop(Duration),
    /// Let the launcher end it, and itself: the kubelet starts it anew.
    Fail(String),
    /// Run a hook.
    Hook(Turn),
    /// Begin to check, or cease.
    Check(bool),
}

/// Where an application is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Requests in flight have time until then.
    Drained(Instant),
    /// Its stop hook runs.
    Hook,
    /// Its process was told to end.
    Process,
    /// Nothing more is to be done: without a launcher the kubelet ends it.
    Done,
}

/// A hook that is to run once, and again where it fails.
#[derive(Clone, Debug, Default, PartialEq)]
enum Duty {
    /// It is not due.
    #[default]
    None,
    /// It runs.
    Runs,
    /// It has failed; when it is tried again, and why it failed.
    Failed(Instant, String),
    /// It is done.
    Done,
}

/// What is known.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; what they mean together is decided in one place"
)]
#[derive(Debug)]
pub struct State {
    setup: Setup,
    pod: String,
    work: Option<MemberWork>,
    written: Option<String>,
    unwritten: Option<String>,
    /// Whether a launcher is there.
    launcher: bool,
    /// Whether the application's process runs; without a launcher, whether it was let in.
    running: bool,
    /// It was told to start, and did not say so yet.
    starting: bool,
    starts: u32,
    start_hook: Duty,
    update_hook: Duty,
    /// How often in a row a hook has failed.
    failures: u32,
    applied: Option<String>,
    checking: bool,
    checked: Result<(), String>,
    /// Whether it has served since it was started.
    served: bool,
    ending: Option<Ending>,
    /// The container is to end.
    terminating: bool,
    /// Why it ended last, where it did so by itself.
    why_ended: Option<String>,
}

impl State {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(setup: Setup, pod: String) -> Self {
        Self {
            setup,
            pod,
            work: None,
            written: None,
            unwritten: None,
            launcher: false,
            running: false,
            starting: false,
            starts: 0,
            start_hook: Duty::None,
            update_hook: Duty::None,
            failures: 0,
            applied: None,
            checking: false,
            checked: Err("its ports were not checked yet".into()),
            served: false,
            ending: None,
            terminating: false,
            why_ended: None,
        }
    }

    /// Takes note of what has happened, and says what is to be done.
    pub fn hear(&mut self, input: Input, now: Instant) -> Vec<Deed> {
        match input {
            Input::Work(work) if work.pod == self.pod => self.work = Some(work),
            Input::Unwell(why) if self.running && self.ending.is_none() => {
                self.ending = Some(Ending::Process);
                self.why_ended = Some(why.clone());
                return vec![Deed::Fail(why)];
            }
            // Work for another pod of the same name, and what came too late to matter.
            Input::Work(_) | Input::Time | Input::Unwell(_) => {}
            Input::Written(revision) => (self.written, self.unwritten) = (Some(revision), None),
            Input::NotWritten(why) => self.unwritten = Some(why),
            Input::News(news) => self.news(news),
            Input::LauncherLost => (self.launcher, self.starting) = (false, false),
            Input::Hook(turn, result) => self.hook(turn, &result, now),
            Input::Checked(result) => self.checked = result,
            Input::Ending => self.terminating = true,
        }
        self.settle(now)
    }

    fn news(&mut self, news: News) {
        match news {
            News::Hello { pid, starts, terminating } => {
                (self.launcher, self.starting, self.starts) = (true, false, starts);
                self.terminating |= terminating;
                if self.ending == Some(Ending::Process) {
                    // The order may have been lost with the connection.
                    self.ending = Some(Ending::Done);
                }
                if pid == 0 {
                    self.has_ended();
                } else if !self.running {
                    // It was started before this agent was: it goes on, and has what was written for it then.
                    self.has_started();
                    self.start_hook = Duty::Done;
                }
            }
            News::Started { starts, .. } => {
                self.starts = starts;
                self.has_started();
            }
            News::Ended { code, why } => {
                let ordered = self.ending == Some(Ending::Process) && self.why_ended.is_none();
                if !ordered && self.why_ended.is_none() {
                    let why =
                        if why.is_empty() { format!("the application ended with code {code}") } else { why };
                    self.why_ended = Some(why);
                }
                self.has_ended();
            }
            News::Terminating => self.terminating = true,
            News::Done { .. } => {}
        }
    }

    fn has_started(&mut self) {
        (self.running, self.starting, self.served, self.ending) = (true, false, false, None);
        (self.start_hook, self.update_hook) = (Duty::None, Duty::None);
        self.why_ended = None;
        self.applied = self.written.clone();
    }

    fn has_ended(&mut self) {
        (self.running, self.starting, self.served, self.ending) = (false, false, false, None);
        (self.start_hook, self.update_hook, self.applied) = (Duty::None, Duty::None, None);
        self.checked = Err("its ports were not checked yet".into());
    }

    fn hook(&mut self, turn: Turn, result: &Result<(), String>, now: Instant) {
        self.failures = if result.is_ok() { 0 } else { self.failures.saturating_add(1) };
        let again = now + pause(self.failures);
        let after = |result: &Result<(), String>| match result {
            Ok(()) => Duty::Done,
            Err(why) => Duty::Failed(again, why.clone()),
        };
        match turn {
            Turn::Start if self.running => self.start_hook = after(result),
            Turn::Update(revision) if self.running => {
                self.update_hook = after(result);
                if result.is_ok() {
                    self.applied = Some(revision);
                }
            }
            Turn::Start | Turn::Update(_) => {}
            // Whatever became of it, the end goes on.
            Turn::Stop => {
                if self.ending == Some(Ending::Hook) {
                    self.ending = Some(Ending::Done);
                }
            }
        }
    }

    /// What is to be done about what is the case.
    fn settle(&mut self, now: Instant) -> Vec<Deed> {
        let mut deeds = vec![];
        if let Some(work) = &self.work
            && self.written.as_ref() != Some(&work.revision)
            && self.unwritten.is_none()
        {
            // What was written before stays until all of the new is there.
            return vec![Deed::Write(work.clone())];
        }
        let wanted = self.is_wanted();
        if wanted && !self.running && !self.starting {
            if self.setup.wrapped {
                if self.launcher {
                    self.starting = true;
                    deeds.push(Deed::Start);
                }
            } else {
                self.has_started();
            }
        }
        if wanted && matches!(self.ending, Some(Ending::Drained(_))) {
            // Nothing was ended yet.
            self.ending = None;
        }
        if self.running && (!wanted || self.ending.is_some()) {
            deeds.extend(self.end(now));
        }
        if self.running && self.ending.is_none() {
            deeds.extend(self.hooks(now));
        }
        let check = self.running && self.ending.is_none();
        if check != self.checking {
            self.checking = check;
            deeds.push(Deed::Check(check));
        }
        self.served |= self.serves();
        deeds
    }

    /// Whether the application is to run, and may.
    fn is_wanted(&self) -> bool {
        let work = self.work.as_ref().is_some_and(|work| {
            // One that runs is not ended because its files could not be written.
            work.run && (self.running || self.written.as_ref() == Some(&work.revision))
        });
        // Before the first word of the operator, one that was found running goes on.
        let unheard = self.work.is_none() && self.running;
        (work || unheard) && !self.terminating
    }

    fn end(&mut self, now: Instant) -> Vec<Deed> {
        let drain = Duration::from_secs(u64::from(self.setup.drain_seconds));
        let ending = *self.ending.get_or_insert(Ending::Drained(if self.served { now + drain } else { now }));
        match ending {
            Ending::Drained(until) if until > now => vec![],
            Ending::Drained(_) if self.setup.lifecycle.stop.is_some() => {
                self.ending = Some(Ending::Hook);
                vec![Deed::Hook(Turn::Stop)]
            }
            Ending::Drained(_) | Ending::Done if self.setup.wrapped && self.launcher => {
                self.ending = Some(Ending::Process);
                vec![Deed::Stop(GRACE)]
            }
            Ending::Drained(_) => {
                self.ending = Some(Ending::Done);
                vec![]
            }
            Ending::Hook | Ending::Process | Ending::Done => vec![],
        }
    }

    fn hooks(&mut self, now: Instant) -> Vec<Deed> {
        let due = |duty: &Duty| match duty {
            Duty::None => true,
            Duty::Failed(at, _) => *at <= now,
            Duty::Runs | Duty::Done => false,
        };
        let up = self.is_up();
        if self.start_hook != Duty::Done {
            if self.setup.lifecycle.start.is_none() {
                self.start_hook = Duty::Done;
            } else if due(&self.start_hook) && up {
                self.start_hook = Duty::Runs;
                return vec![Deed::Hook(Turn::Start)];
            }
        }
        // What failed may have been half done: it is done again also where its reason was taken back.
        let failed = matches!(self.update_hook, Duty::Failed(..));
        let told = |written: &String| self.applied.as_ref() == Some(written) && !failed;
        let Some(written) = self.written.clone().filter(|written| !told(written)) else {
            return vec![];
        };
        if self.setup.lifecycle.update.is_none() {
            self.applied = Some(written);
            return vec![];
        }
        // A newer revision is another duty, once the one that runs has ended.
        if self.update_hook == Duty::Done {
            self.update_hook = Duty::None;
        }
        if due(&self.update_hook) && self.start_hook == Duty::Done && up {
            self.update_hook = Duty::Runs;
            return vec![Deed::Hook(Turn::Update(written))];
        }
        vec![]
    }

    /// Whether hooks can reach it. Where no launcher says that it runs, an answering port does.
    const fn is_up(&self) -> bool {
        self.setup.wrapped || self.checked.is_ok()
    }

    fn serves(&self) -> bool {
        self.running && self.ending.is_none() && self.start_hook == Duty::Done && self.checked.is_ok()
    }

    /// What the operator is to know.
    #[must_use]
    pub fn report(&self) -> MemberReport {
        let stage = if self.ending.is_some() {
            Stage::Stopping
        } else if self.serves() {
            Stage::Serving
        } else if self.running && (self.setup.wrapped || self.served) {
            Stage::Running
        } else {
            Stage::Down
        };
        MemberReport {
            pod: self.pod.clone(),
            stage,
            applied: self.applied.clone(),
            starts: self.starts,
            problem: self.problem(),
        }
    }

    fn problem(&self) -> Option<String> {
        let failed = |duty: &Duty, hook: &str| match duty {
            Duty::Failed(_, why) => Some(format!("the hook `{hook}` failed: {why}")),
            Duty::None | Duty::Runs | Duty::Done => None,
        };
        let unwritten = self.unwritten.clone().map(|why| format!("its files cannot be written: {why}"));
        let unchecked = || self.checked.clone().err().filter(|_| self.running && self.ending.is_none());
        unwritten
            .or_else(|| self.why_ended.clone().filter(|_| !self.running))
            .or_else(|| failed(&self.start_hook, "start"))
            .or_else(unchecked)
            .or_else(|| failed(&self.update_hook, "update"))
    }

    /// Whether the application's container may begin, where no launcher holds it.
    #[must_use]
    pub const fn gate_is_open(&self) -> bool {
        self.running
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serves()
    }

    /// Whether all that is to happen before the container ends has happened.
    #[must_use]
    pub fn has_said_farewell(&self) -> bool {
        !self.running || self.ending == Some(Ending::Done)
    }

    /// Whether the operator was heard of.
    #[must_use]
    pub const fn has_work(&self) -> bool {
        self.work.is_some()
    }

    /// The work whose files are written.
    #[must_use]
    pub const fn work(&self) -> Option<&MemberWork> {
        self.work.as_ref()
    }

    /// When something is to be done though nothing happens.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        // What is not tried now whatever the time, since it ends or is not up, needs no waking.
        let may = self.running && self.ending.is_none() && self.is_up();
        let retry = |duty: &Duty| match duty {
            Duty::Failed(at, _) if may => Some(*at),
            _ => None,
        };
        let drained = match self.ending {
            Some(Ending::Drained(until)) => Some(until),
            _ => None,
        };
        [retry(&self.start_hook), retry(&self.update_hook), drained].into_iter().flatten().min()
    }

    /// Tries again to write what could not be written.
    pub fn retry_files(&mut self) {
        self.unwritten = None;
    }
}

/// The pause after so many failures: from a tenth of a second to half a minute.
fn pause(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(12)).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests;
