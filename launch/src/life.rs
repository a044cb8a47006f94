//! The life of an application: one loop that hears of signals, orders and time.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use launch::wire::{self, News, Order};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::commands::Commands;

/// How long an application has to end where nobody says.
const GRACE: Duration = Duration::from_secs(30);
/// How long the agent may take to order the end beyond the drain: a stop hook runs meanwhile.
const HOOK: Duration = Duration::from_secs(70);
/// The pause before the agent's socket is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// What the loop hears.
enum Event {
    Signal(i32),
    Connected(UnixStream),
    Order(Order),
    Lost,
}

/// The application.
struct Life<'a> {
    command: &'a [OsString],
    hold: Duration,
    agent: Option<UnixStream>,
    commands: Commands,
    /// The process of the application.
    pid: Option<Pid>,
    starts: u32,
    /// It is to end: when it is killed.
    stopping: Option<Instant>,
    /// It was told to end.
    ordered: bool,
    /// Why it is to be started anew by the kubelet.
    failed: Option<String>,
    /// Since when the container is to end.
    terminating: Option<Instant>,
}

/// Lives until the application has ended for good, and gives its exit code.
pub fn run(socket: PathBuf, hold: Duration, command: &[OsString]) -> u8 {
    let (sender, events) = channel();
    // Where this is not the first process, orphans come here all the same.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let watched = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
    match Signals::new(watched) {
        Ok(signals) => hear_signals(signals, sender.clone()),
        Err(error) => {
            eprintln!("launch: cannot hear signals: {error}");
            return 125;
        }
    }
    thread::spawn(move || hear_agent(&socket, &sender));
    let life = Life {
        command,
        hold,
        agent: None,
        commands: Commands::default(),
        pid: None,
        starts: 0,
        stopping: None,
        ordered: false,
        failed: None,
        terminating: None,
    };
    life.live(&events)
}

fn hear_signals(mut signals: Signals, events: Sender<Event>) {
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

/// Connects to the agent, again and again: one that is started anew finds the application as it is.
fn hear_agent(socket: &PathBuf, events: &Sender<Event>) {
    loop {
        let Ok(mut stream) = UnixStream::connect(socket) else {
            thread::sleep(AGAIN);
            continue;
        };
        let Ok(writing) = stream.try_clone() else { continue };
        if events.send(Event::Connected(writing)).is_err() {
            return;
        }
        while let Ok(frame) = wire::receive(&mut stream) {
            if let Some(order) = Order::read(&frame)
                && events.send(Event::Order(order)).is_err()
            {
                return;
            }
        }
        if events.send(Event::Lost).is_err() {
            return;
        }
        thread::sleep(AGAIN);
    }
}

impl Life<'_> {
    fn live(mut self, events: &Receiver<Event>) -> u8 {
        loop {
            let next = self.next();
            let heard = match next {
                Some(next) => events.recv_timeout(next.saturating_duration_since(Instant::now())),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let end = match heard {
                Ok(Event::Signal(signal)) => self.signal(signal),
                Ok(Event::Connected(agent)) => {
                    self.agent = Some(agent);
                    let pid = self.pid.map_or(0, |pid| u32::try_from(pid.as_raw()).unwrap_or_default());
                    let terminating = self.terminating.is_some();
                    self.tell(&News::Hello { pid, starts: self.starts, terminating });
                    None
                }
                Ok(Event::Order(order)) => self.order(order),
                Ok(Event::Lost) => {
                    self.agent = None;
                    None
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(125),
            };
            if let Some(code) = end {
                return code;
            }
            self.expire();
        }
    }

    /// When something is to be done though nothing is heard.
    fn next(&mut self) -> Option<Instant> {
        let command = self.commands.expire(Instant::now());
        [command, self.stopping, self.forsaken()].into_iter().flatten().min()
    }

    /// When the application is told to end without an order of the agent.
    fn forsaken(&self) -> Option<Instant> {
        let since = self.terminating.filter(|_| self.stopping.is_none() && self.pid.is_some())?;
        Some(since + self.hold + if self.agent.is_some() { HOOK } else { Duration::ZERO })
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if self.forsaken().is_some_and(|at| at <= now) {
            self.stop(GRACE);
        }
        if self.stopping.is_some_and(|at| at <= now) {
            self.kill_all();
            // Once is enough, and what cannot be killed is the kernel's.
            self.stopping = Some(now + Duration::from_secs(3600));
        }
    }

    fn tell(&mut self, news: &News) {
        if let Some(agent) = &mut self.agent
            && wire::send(agent, &news.frame()).is_err()
        {
            self.agent = None;
        }
    }

    fn order(&mut self, order: Order) -> Option<u8> {
        match order {
            Order::Start(variables) if self.pid.is_none() && self.terminating.is_none() => {
                return self.start(&variables);
            }
            Order::Start(_) => {}
            Order::Stop(grace) => self.stop(Duration::from_millis(grace)),
            Order::Fail(why) => {
                eprintln!("launch: {why}");
                if self.pid.is_none() {
                    return Some(1);
                }
                self.failed = Some(why);
                self.stop(GRACE.min(Duration::from_secs(10)));
            }
            Order::Exec { id, limit, command } => {
                let failed = self.commands.start(id, Duration::from_millis(limit), &command);
                failed.inspect(|news| self.tell(news));
            }
        }
        None
    }

    fn start(&mut self, variables: &[String]) -> Option<u8> {
        let (program, arguments) = self.command.split_first()?;
        let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
        // In a group of its own: what it starts can be ended with it.
        let spawned = Command::new(program).args(arguments).envs(pairs).process_group(0).spawn();
        match spawned {
            Ok(child) => {
                self.starts += 1;
                self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
                (self.stopping, self.ordered) = (None, false);
                self.tell(&News::Started { pid: child.id(), starts: self.starts });
                None
            }
            Err(error) => {
                let why = format!("the command '{}' cannot be started: {error}", program.to_string_lossy());
                eprintln!("launch: {why}");
                let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                self.tell(&News::Ended { code: code.into(), why });
                Some(code)
            }
        }
    }

    fn stop(&mut self, grace: Duration) {
        let Some(pid) = self.pid else {
            // The answer is what the agent waits for.
            return self.tell(&News::Ended { code: 0, why: String::new() });
        };
        if self.stopping.is_none() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        self.ordered = true;
        let at = Instant::now() + grace;
        self.stopping = Some(self.stopping.map_or(at, |before| before.min(at)));
    }

    fn kill_all(&self) {
        if let Some(pid) = self.pid {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        self.kill_others();
    }

    /// As the first process of a container, all others in it are of the application.
    fn kill_others(&self) {
        if getpid() == Pid::from_raw(1) && !self.commands.any() {
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        }
    }

    fn signal(&mut self, signal: i32) -> Option<u8> {
        match signal {
            SIGCHLD => self.reap(),
            SIGTERM => {
                if self.terminating.is_some() {
                    return None;
                }
                self.terminating = Some(Instant::now());
                if self.pid.is_none() {
                    return Some(0);
                }
                self.tell(&News::Terminating);
                None
            }
            other => {
                if let (Some(pid), Ok(signal)) = (self.pid, Signal::try_from(other)) {
                    let _ = kill(pid, signal);
                }
                None
            }
        }
    }

    /// Takes note of all that have ended: the application, commands, and orphans.
    fn reap(&mut self) -> Option<u8> {
        let mut ended = None;
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) => {
                    return ended.and_then(|code| self.ended(code, true));
                }
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return ended.and_then(|code| self.ended(code, false)),
            };
            if Some(pid) == self.pid {
                ended = Some(code);
            } else if let Some(news) = self.commands.ended(pid.as_raw(), code) {
                self.tell(&news);
            }
        }
    }

    /// The application's first process has ended; `others` says whether other processes are left.
    fn ended(&mut self, code: i32, others: bool) -> Option<u8> {
        let forks = others && code == 0 && self.stopping.is_none() && !self.commands.any();
        self.kill_all();
        (self.pid, self.stopping) = (None, None);
        let why = if forks {
            "the application goes on in the background: start it so that its first process stays, in the foreground".into()
        } else {
            self.failed.clone().unwrap_or_default()
        };
        let ordered = self.was_ordered(forks);
        self.tell(&News::Ended { code: if forks { 1 } else { code }, why: why.clone() });
        if ordered {
            return None;
        }
        if forks {
            eprintln!("launch: {why}");
        }
        let failed = forks || self.failed.is_some();
        Some(if failed { 1 } else { u8::try_from(code).unwrap_or(1) })
    }

    /// Whether the application was stopped on purpose, so that it may be started again.
    fn was_ordered(&mut self, forks: bool) -> bool {
        let ordered = std::mem::take(&mut self.ordered);
        ordered && !forks && self.failed.is_none() && self.terminating.is_none()
    }
}
