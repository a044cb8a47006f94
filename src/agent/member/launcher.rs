//! The launcher, as the agent sees it: it connects to the agent's socket.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use launch::wire::{self, News, Order};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// What became of a command: its exit code, and what it said.
type Outcome = (Option<i32>, String);

/// Speaks to the launcher that is there, if one is.
#[derive(Clone, Debug, Default)]
pub struct Launcher(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    orders: Option<mpsc::UnboundedSender<Order>>,
    commands: HashMap<u64, oneshot::Sender<Outcome>>,
    last: u64,
    connection: u64,
}

/// What is heard of it.
#[derive(Debug)]
pub enum Heard {
    /// It says something.
    News(News),
    /// It is gone.
    Lost,
}

impl Launcher {
    /// Listens on the socket. Applications may run under any user, so that anybody in the pod may connect.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&self, socket: &Path, heard: mpsc::UnboundedSender<Heard>) -> io::Result<()> {
        // That of an agent before this one.
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
        let launcher = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                launcher.connected(stream, heard.clone());
            }
        });
        Ok(())
    }

    /// The newest is the one: its container was started last.
    fn connected(&self, stream: UnixStream, heard: mpsc::UnboundedSender<Heard>) {
        let (mut reading, mut writing) = stream.into_split();
        let (sender, mut orders) = mpsc::unbounded_channel::<Order>();
        let connection = {
            let mut line = self.lock();
            line.orders = Some(sender);
            line.connection += 1;
            line.connection
        };
        tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                if writing.write_all(&order.frame()).await.is_err() {
                    break;
                }
            }
        });
        let launcher = self.clone();
        tokio::spawn(async move {
            while let Ok(news) = receive(&mut reading).await {
                let Some(news) = news else { continue };
                if let News::Done { id, code, output } = news {
                    launcher.done(id, code, output);
                } else if heard.send(Heard::News(news)).is_err() {
                    return;
                }
            }
            if launcher.lose(connection) {
                let _ = heard.send(Heard::Lost);
            }
        });
    }

    /// Forgets a connection that has ended, unless there is a newer one.
    fn lose(&self, connection: u64) -> bool {
        let mut line = self.lock();
        let last = line.connection == connection;
        if last {
            line.orders = None;
            line.commands.clear();
        }
        last
    }

    fn done(&self, id: u64, code: Option<i32>, output: String) {
        if let Some(waiting) = self.lock().commands.remove(&id) {
            let _ = waiting.send((code, output));
        }
    }

    /// Gives an order. Where no launcher is, nobody hears it: it is given again when one comes.
    pub fn order(&self, order: Order) {
        if let Some(orders) = &self.lock().orders {
            let _ = orders.send(order);
        }
    }

    /// Runs a command beside the application.
    ///
    /// # Errors
    /// Why it failed, in words.
    pub async fn exec(&self, command: &[String], limit: Duration) -> Result<(), String> {
        let (sender, waiting) = oneshot::channel();
        {
            let mut line = self.lock();
            line.last += 1;
            let id = line.last;
            line.commands.insert(id, sender);
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let order = Order::Exec { id, limit, command: command.to_vec() };
            match &line.orders {
                Some(orders) => drop(orders.send(order)),
                None => drop(line.commands.remove(&id)),
            }
        }
        match waiting.await {
            Ok((Some(0), _)) => Ok(()),
            Ok((Some(code), output)) => Err(match output.lines().last() {
                Some(last) => format!("it ended with code {code}, and its last words were: {last}"),
                None => format!("it ended with code {code}"),
            }),
            Ok((None, why)) => Err(why),
            Err(_) => Err("the application's container is not there".into()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next message; none where it is none that is known.
async fn receive(from: &mut OwnedReadHalf) -> io::Result<Option<News>> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let mut body = vec![0; wire::length(head)?];
    from.read_exact(&mut body).await?;
    Ok(News::read(&body))
}
