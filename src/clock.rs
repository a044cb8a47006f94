//! The one place that reads the clock. Whatever decides something gets the time as an argument.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// The time now.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the edge")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A clock that can be waited for.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns when it shows this time or a later one, and also when somebody has set it: look again.
    fn reached(&self, time: Timestamp) -> BoxFuture<'_, ()>;
}

/// The clock on the wall: that of the machine, which people and NTP set forward and back.
#[derive(Debug)]
pub struct Wall(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Wall {
    /// Needs a runtime of tokio.
    ///
    /// # Errors
    /// The system gives no timer.
    #[allow(
        deprecated,
        reason = "what replaces it is unsafe code; the descriptor is the timer's own, and lives as long"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(AsyncFd::new(Timer(TimerFd::new(ClockId::CLOCK_REALTIME, flags)?))?))
    }

    async fn wait(&self, time: Timestamp) -> io::Result<()> {
        // A time of zero would switch the timer off.
        let (seconds, nanos) = (time.as_second(), i64::from(time.subsec_nanosecond()));
        let at = Expiration::OneShot(TimeSpec::new(seconds.max(1), nanos.max(0)));
        // The kernel tells when the clock is set: who only slept would be an hour late, or early.
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        let timer = &self.0.get_ref().0;
        timer.set(at, flags)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = nix::unistd::read(timer.as_fd(), &mut [0; 8]);
            match read {
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Ok(_) | Err(Errno::ECANCELED) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        now()
    }

    fn reached(&self, time: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.wait(time).await {
                tracing::error!(%error, "The timer of the system does not work");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    #[tokio::test]
    async fn a_time_is_never_reached_before_it_is() {
        let wall = Wall::new().unwrap();
        for millis in [-1000, 0, 1, 20] {
            let time = wall.now() + SignedDuration::from_millis(millis);
            wall.reached(time).await;
            assert!(wall.now() >= time, "{millis} ms too early");
        }
    }

    #[tokio::test]
    async fn who_gives_up_waiting_can_wait_for_something_else() {
        let wall = Wall::new().unwrap();
        let (soon, late) =
            (wall.now() + SignedDuration::from_millis(20), wall.now() + SignedDuration::from_hours(1));
        tokio::select! {
            () = wall.reached(late) => panic!("an hour has not passed"),
            () = std::future::ready(()) => {}
        }
        wall.reached(soon).await;
        assert!(wall.now() >= soon);
    }
}
