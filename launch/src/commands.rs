//! Commands that run beside the application: hooks and checks.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use launch::wire::News;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of what a command says is kept: the end of it.
const KEPT: usize = 1024;

/// The commands that run.
#[derive(Default)]
pub struct Commands(HashMap<i32, Running>);

struct Running {
    id: u64,
    deadline: Instant,
    killed: bool,
    said: Said,
}

/// What a command says, and who hears it.
type Said = (Arc<Mutex<Vec<u8>>>, thread::JoinHandle<()>);

/// How long the last words of a command that has ended may take to be heard.
const LAST_WORDS: Duration = Duration::from_millis(200);

impl Commands {
    /// Starts one; or says why that cannot be.
    pub fn start(&mut self, id: u64, limit: Duration, command: &[String]) -> Option<News> {
        match spawn(command) {
            Ok((pid, said)) => {
                self.0.insert(pid, Running { id, deadline: Instant::now() + limit, killed: false, said });
                None
            }
            Err(error) => {
                let program = command.first().map(String::as_str).unwrap_or_default();
                Some(News::Done { id, code: None, output: format!("'{program}' cannot be started: {error}") })
            }
        }
    }

    /// Takes note that a process has ended; gives what to tell where it was one of these.
    pub fn ended(&mut self, pid: i32, code: i32) -> Option<News> {
        let running = self.0.remove(&pid)?;
        // What it left behind must not live on in its name.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let (said, hearing) = running.said;
        let end = Instant::now() + LAST_WORDS;
        while !hearing.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let output = String::from_utf8_lossy(&said).trim().to_owned();
        let code = (!running.killed).then_some(code);
        let output = if running.killed { "it took too long, and was killed".to_owned() } else { output };
        Some(News::Done { id: running.id, code, output })
    }

    /// Kills those that take too long, and says when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        for (pid, running) in &mut self.0 {
            if running.deadline <= now && !running.killed {
                running.killed = true;
                let _ = killpg(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
        self.0.values().filter(|running| !running.killed).map(|running| running.deadline).min()
    }

    /// Whether some run.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }
}

fn spawn(command: &[String]) -> std::io::Result<(i32, Said)> {
    let (mut reader, writer) = std::io::pipe()?;
    let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let kept = said.clone();
    let hearing = thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count) = reader.read(&mut buffer) {
            if count == 0 {
                break;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
        }
    });
    Ok((i32::try_from(child.id()).unwrap_or_default(), (said, hearing)))
}
