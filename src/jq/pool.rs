//! A few workers for all flows. Each flow has its turn, and one whose expression ran away waits with its like: that no
//! flow's expression holds up those of others.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::{LIMIT, MEMORY, frame};

/// How many expressions are evaluated at a time.
const WORKERS: usize = 2;
/// How many of them may be such as ran away before.
const SUSPECTS: usize = 1;
/// How long a worker without work is kept.
const KEEP: Duration = Duration::from_secs(30);
/// A worker that had so much to do with is not kept, since it would keep its memory.
const LARGE: usize = 1 << 20;
/// How long a worker that is ending may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The workers.
pub struct Pool {
    program: PathBuf,
    idle: Mutex<Vec<(Instant, Worker)>>,
    workers: Semaphore,
    suspects: Semaphore,
}

/// The turn of one flow.
#[derive(Debug)]
pub struct Lane {
    pool: Arc<Pool>,
    turn: Semaphore,
    suspect: AtomicBool,
}

struct Worker {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

/// Why an expression gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Why, for people.
    pub reason: String,
    /// Whether the reason may pass: it was not the expression's.
    pub again: bool,
}

impl Stopped {
    fn last(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: false }
    }

    fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: true }
    }
}

/// How an evaluation ended without an answer.
enum Lost {
    /// It took too long.
    Late,
    /// The worker died.
    Died(io::Error),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of workers; each starts when there is something to do for it. `program` is this program, by default as the
    /// kernel knows it: wherever it lies, and if it was replaced meanwhile.
    #[must_use]
    pub fn new(program: Option<PathBuf>) -> Arc<Self> {
        let pool = Arc::new(Self {
            program: program.unwrap_or_else(|| "/proc/self/exe".into()),
            idle: Mutex::default(),
            workers: Semaphore::new(WORKERS),
            suspects: Semaphore::new(SUSPECTS),
        });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// The turn of another flow.
    #[must_use]
    pub fn lane(self: &Arc<Self>) -> Arc<Lane> {
        Arc::new(Lane { pool: Arc::clone(self), turn: Semaphore::new(1), suspect: AtomicBool::new(false) })
    }

    fn worker(&self) -> io::Result<Worker> {
        while let Some((_, mut worker)) = self.idle().pop() {
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Ok(worker);
            }
        }
        Worker::start(&self.program)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, Worker)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the workers that have had nothing to do.
async fn sweep(pool: Weak<Pool>) {
    while let Some(pool) = {
        sleep(KEEP / 2).await;
        pool.upgrade()
    } {
        pool.idle().retain(|(since, _)| since.elapsed() < KEEP);
    }
}

impl Lane {
    /// Evaluates an expression over a message. Time in the queue does not count.
    ///
    /// # Errors
    /// It fails, takes longer than the limit, or too much memory.
    pub async fn evaluate(
        &self,
        expression: &str,
        message: &Bytes,
        limit: Duration,
    ) -> Result<Bytes, Stopped> {
        let limit = limit.min(LIMIT);
        let busy = |_| Stopped::passing("the runner is ending");
        let _turn = self.turn.acquire().await.map_err(busy)?;
        let _suspect = if self.suspect.load(Ordering::Relaxed) {
            Some(self.pool.suspects.acquire().await.map_err(busy)?)
        } else {
            None
        };
        let _worker = self.pool.workers.acquire().await.map_err(busy)?;
        let mut worker = self
            .pool
            .worker()
            .map_err(|error| Stopped::passing(format!("no worker for jq can be started: {error}")))?;
        let asked = match timeout(limit, worker.ask(expression, message)).await {
            Ok(asked) => asked.map_err(Lost::Died),
            Err(_) => Err(Lost::Late),
        };
        self.suspect.store(asked.is_err(), Ordering::Relaxed);
        match asked {
            Ok(answer) => {
                if message.len().max(answer.len()) < LARGE {
                    self.pool.idle().push((Instant::now(), worker));
                }
                read(answer)
            }
            // The worker is killed when it is dropped.
            Err(Lost::Late) => Err(Stopped::last(format!(
                "the jq expression took longer than {} ms and was stopped",
                limit.as_millis()
            ))),
            Err(Lost::Died(error)) => Err(worker.post_mortem(&error).await),
        }
    }
}

fn read(answer: Vec<u8>) -> Result<Bytes, Stopped> {
    let mut answer = Bytes::from(answer);
    if answer.is_empty() {
        return Err(Stopped::passing("the worker for jq gave half an answer"));
    }
    let kind = answer.split_to(1);
    if kind[0] == frame::RESULT {
        return Ok(answer);
    }
    Err(Stopped::last(format!("the jq expression failed: {}", String::from_utf8_lossy(&answer))))
}

impl Worker {
    fn start(program: &PathBuf) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg0("millrace")
            .arg("jq-worker")
            // Expressions can read the environment: there is nothing in it.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = child.stdout.take().ok_or_else(missing)?;
        Ok(Self { child, to, from })
    }

    async fn ask(&mut self, expression: &str, message: &[u8]) -> io::Result<Vec<u8>> {
        frame::send(&mut self.to, expression.as_bytes()).await?;
        frame::send(&mut self.to, message).await?;
        frame::receive(&mut self.from).await
    }

    /// Why it died: by its own limits, or by somebody's hand.
    async fn post_mortem(mut self, error: &io::Error) -> Stopped {
        match timeout(LAST_WORDS, self.child.wait()).await {
            Ok(Ok(status)) if matches!(status.signal(), Some(6 | 11)) => Stopped::last(format!(
                "the jq expression took more than {} MiB of memory, or called itself too often, and was stopped",
                MEMORY >> 20
            )),
            Ok(Ok(status)) => Stopped::passing(format!("the worker for jq ended: {status}")),
            _ => Stopped::passing(format!("the worker for jq does not answer: {error}")),
        }
    }
}
