//! A connection that waits for nobody for ever.
//!
//! hyper has one limit for reading a header, and it runs while a kept connection is idle too. Both are needed: a header
//! must come within seconds, while an idle connection must outlast the pools of the proxies before us. A proxy that sends
//! a request just as we close its idle connection cannot know whether it was taken.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long the header of a request may take, from its first byte; from the beginning for a connection's first.
const HEADER: Duration = Duration::from_secs(10);
/// How long who gets an answer may take nothing of it.
const STALL: Duration = Duration::from_secs(10);

/// Whether a request of this connection is being answered: then its handler has the limits.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicBool>);

impl Busy {
    /// Says so.
    pub fn set(&self, busy: bool) {
        self.0.store(busy, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream with limits of time.
#[derive(Debug)]
pub struct Limited<S> {
    stream: S,
    busy: Busy,
    /// Runs while a header is being received.
    header: Option<Pin<Box<Sleep>>>,
    /// Runs while nothing can be written.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Limited<S> {
    /// A stream that has just been accepted.
    pub fn new(stream: S, busy: Busy) -> Self {
        Self { stream, busy, header: Some(Box::pin(sleep(HEADER))), stall: None }
    }

    /// Fails when what is waited for has been waited for too long.
    fn in_time(
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
        what: &'static str,
    ) -> Poll<io::Error> {
        match timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| io::Error::new(ErrorKind::TimedOut, what)),
            None => Poll::Pending,
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stall = None;
            return done;
        }
        self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
        Self::in_time(&mut self.stall, cx, "the answer was not taken in time").map(Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.busy.get() {
            self.header = None;
            return read;
        }
        if read.is_ready() {
            if buf.filled().len() > before {
                self.header.get_or_insert_with(|| Box::pin(sleep(HEADER)));
            }
            return read;
        }
        let late =
            ready!(Self::in_time(&mut self.header, cx, "the header of a request did not come in time"));
        Poll::Ready(Err(late))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    fn pair() -> (DuplexStream, Limited<DuplexStream>, Busy) {
        let (near, far) = duplex(16);
        let busy = Busy::default();
        (near, Limited::new(far, busy.clone()), busy)
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_trickles_is_cut_off() {
        let (mut sender, mut limited, _) = pair();
        tokio::spawn(async move {
            while sender.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let (begun, mut sink) = (Instant::now(), vec![]);
        let error = limited.read_to_end(&mut sink).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_may_be_idle_and_its_next_header_gets_its_own_time() {
        let (mut sender, mut limited, busy) = pair();
        sender.write_all(b"first").await.unwrap();
        let mut buf = [0; 16];
        assert_eq!(limited.read(&mut buf).await.unwrap(), 5);
        busy.set(true);
        assert!(timeout(Duration::from_secs(60), limited.read(&mut buf)).await.is_err());
        busy.set(false);
        assert!(timeout(Duration::from_secs(60), limited.read(&mut buf)).await.is_err());
        sender.write_all(b"second").await.unwrap();
        assert_eq!(limited.read(&mut buf).await.unwrap(), 6);
        let begun = Instant::now();
        assert_eq!(limited.read(&mut buf).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answer_is_cut_off() {
        let (_sender, mut limited, _) = pair();
        limited.write_all(&[0; 16]).await.unwrap();
        let begun = Instant::now();
        assert_eq!(limited.write_all(b"x").await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}
