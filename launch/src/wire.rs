//! The messages between launcher and agent: a length of four bytes, the highest first, and then texts with a zero byte between
//! them, the first of which is the message's name. No argument and no variable of a process can hold a zero byte.

use std::io::{self, Read, Write};

/// The longest message: the environment that a process can be given is shorter.
pub const MAX: usize = 4 << 20;

/// What the agent orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start the application with these variables added: `NAME=value`. Nothing happens where it runs.
    Start(Vec<String>),
    /// Let the application end: SIGTERM, and SIGKILL after so many milliseconds. The launcher stays.
    Stop(u64),
    /// The application is to be started anew by the kubelet: end it, say why, and end too.
    Fail(String),
    /// Run a command beside the application.
    Exec {
        /// The answer repeats it.
        id: u64,
        /// Milliseconds until it is killed.
        limit: u64,
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// What the launcher tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The first message of each connection.
    Hello {
        /// The process id of the application; 0 where it does not run.
        pid: u32,
        /// How often it was started.
        starts: u32,
        /// Whether the container is to end.
        terminating: bool,
    },
    /// The application was started.
    Started {
        /// Its process id.
        pid: u32,
        /// How often it was started.
        starts: u32,
    },
    /// The application has ended, or could not be started.
    Ended {
        /// Its exit code; 128 and the signal's number where a signal ended it.
        code: i32,
        /// Why, in words; empty where there is nothing to say beyond the code.
        why: String,
    },
    /// A command has ended.
    Done {
        /// Which one.
        id: u64,
        /// Its exit code; none where it was killed because it took too long, or could not be started.
        code: Option<i32>,
        /// The last that it said, or why it could not be started.
        output: String,
    },
    /// The container is to end: the launcher waits for orders.
    Terminating,
}

impl Order {
    fn texts(&self) -> Vec<String> {
        let text = |name: &str| name.to_owned();
        match self {
            Self::Start(variables) => [text("start")].into_iter().chain(variables.clone()).collect(),
            Self::Stop(grace) => vec![text("stop"), grace.to_string()],
            Self::Fail(why) => vec![text("fail"), why.clone()],
            Self::Exec { id, limit, command } => {
                [text("exec"), id.to_string(), limit.to_string()].into_iter().chain(command.clone()).collect()
            }
        }
    }

    /// Reads an order; none where it is none that is known.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let texts = texts(frame)?;
        let (name, rest) = texts.split_first()?;
        match (name.as_str(), rest) {
            ("start", variables) => Some(Self::Start(variables.to_vec())),
            ("stop", [grace, ..]) => Some(Self::Stop(grace.parse().ok()?)),
            ("fail", [why, ..]) => Some(Self::Fail(why.clone())),
            ("exec", [id, limit, command @ ..]) if !command.is_empty() => Some(Self::Exec {
                id: id.parse().ok()?,
                limit: limit.parse().ok()?,
                command: command.to_vec(),
            }),
            _ => None,
        }
    }

    /// As it is sent.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame(&self.texts())
    }
}

impl News {
    fn texts(&self) -> Vec<String> {
        let text = |name: &str| name.to_owned();
        match self {
            Self::Hello { pid, starts, terminating } => {
                vec![text("hello"), pid.to_string(), starts.to_string(), terminating.to_string()]
            }
            Self::Started { pid, starts } => vec![text("started"), pid.to_string(), starts.to_string()],
            Self::Ended { code, why } => vec![text("ended"), code.to_string(), why.clone()],
            Self::Done { id, code, output } => {
                let code = code.map(|code| code.to_string()).unwrap_or_default();
                vec![text("done"), id.to_string(), code, output.clone()]
            }
            Self::Terminating => vec![text("terminating")],
        }
    }

    /// Reads news; none where they are none that are known.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let texts = texts(frame)?;
        let (name, rest) = texts.split_first()?;
        match (name.as_str(), rest) {
            ("hello", [pid, starts, terminating, ..]) => Some(Self::Hello {
                pid: pid.parse().ok()?,
                starts: starts.parse().ok()?,
                terminating: terminating == "true",
            }),
            ("started", [pid, starts, ..]) => {
                Some(Self::Started { pid: pid.parse().ok()?, starts: starts.parse().ok()? })
            }
            ("ended", [code, why, ..]) => Some(Self::Ended { code: code.parse().ok()?, why: why.clone() }),
            ("done", [id, code, output, ..]) => {
                Some(Self::Done { id: id.parse().ok()?, code: code.parse().ok(), output: output.clone() })
            }
            ("terminating", _) => Some(Self::Terminating),
            _ => None,
        }
    }

    /// As they are sent.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame(&self.texts())
    }
}

fn frame(texts: &[String]) -> Vec<u8> {
    let body = texts.iter().map(|text| text.replace('\0', " ")).collect::<Vec<_>>().join("\0");
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], body.as_bytes()].concat()
}

fn texts(frame: &[u8]) -> Option<Vec<String>> {
    Some(std::str::from_utf8(frame).ok()?.split('\0').map(str::to_owned).collect())
}

/// How long the message is that begins so.
///
/// # Errors
/// It is longer than any message may be.
pub fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > MAX { Err(io::Error::other("a message is too long")) } else { Ok(length) }
}

/// Receives a message.
///
/// # Errors
/// The other side has gone, or sends what is no message.
pub fn receive(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body)?;
    Ok(body)
}

/// Sends a message.
///
/// # Errors
/// The other side has gone.
pub fn send(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    to.write_all(frame)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let text = |text: &str| text.to_owned();
        let orders = [
            Order::Start(vec![]),
            Order::Start(vec![text("A=1"), text("B=two words\nand a line"), text("C=")]),
            Order::Stop(30_000),
            Order::Fail(text("why")),
            Order::Exec { id: 7, limit: 1, command: vec![text("sh"), text("-c"), text("true")] },
        ];
        for order in orders {
            let received = receive(&mut &order.frame()[..]).unwrap();
            assert_eq!(Order::read(&received), Some(order));
        }
        let all = [
            News::Hello { pid: 0, starts: 0, terminating: true },
            News::Started { pid: 12, starts: 3 },
            News::Ended { code: -1, why: text("it forks") },
            News::Done { id: 9, code: None, output: text("") },
            News::Done { id: 9, code: Some(3), output: text("a\nb") },
            News::Terminating,
        ];
        for news in all {
            let received = receive(&mut &news.frame()[..]).unwrap();
            assert_eq!(News::read(&received), Some(news));
        }
    }

    #[test]
    fn what_is_no_message_is_none() {
        for nothing in [&b""[..], b"stop", b"stop\0soon", b"dance", b"exec\x001\x002", b"\xff"] {
            assert_eq!((Order::read(nothing), News::read(nothing)), (None, None));
        }
        assert!(receive(&mut &[0xff; 8][..]).is_err());
        assert!(receive(&mut &[0, 0, 0, 9, 1][..]).is_err());
    }
}
