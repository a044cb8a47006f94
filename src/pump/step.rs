//! What to do with a message after an attempt at it.

use std::time::Duration;

use crate::broker::work::RetryPolicy;
use crate::jq::pool::Stopped;

/// The longest pause that whoever failed may ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);
/// The longest pause before a queue that was full is tried again.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// How many deliveries a message may cost beyond its attempts: each is one that never came to an end, since whoever had
/// it died. Then nobody is given it any more, since it may be what they died of.
const LIVES: u64 = 5;

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, for people.
    pub reason: String,
    /// Whether the reason may pass.
    pub again: bool,
    /// The least pause before that, where whoever failed asks for one.
    pub pause: Option<Duration>,
}

impl Failure {
    /// One that would happen each time.
    pub fn last(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: false, pause: None }
    }

    /// One that may pass.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: true, pause: None }
    }
}

impl From<Stopped> for Failure {
    fn from(Stopped { reason, again }: Stopped) -> Self {
        Self { reason, again, pause: None }
    }
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another attempt, after a pause.
    Again(Duration),
    /// It becomes a dead letter, for this reason.
    Dead(String),
}

/// After an attempt that failed; `attempts` counts it.
#[must_use]
pub fn after(failure: Failure, attempts: u64, policy: RetryPolicy) -> Step {
    if !failure.again {
        Step::Dead(failure.reason)
    } else if attempts > u64::from(policy.limit) {
        let times = if attempts == 1 { "once".into() } else { format!("{attempts} times") };
        Step::Dead(format!("it was tried {times}, at last: {}", failure.reason))
    } else {
        let asked = failure.pause.unwrap_or_default().min(ASKED_MAX);
        Step::Again(pause(attempts, policy).max(asked))
    }
}

/// Before an attempt: why there is none any more.
#[must_use]
pub fn given_up(attempts: u64, policy: RetryPolicy) -> Option<String> {
    (attempts > u64::from(policy.limit) + 1 + LIVES)
        .then(|| format!("it was handed out {} times and nobody lived to finish it", attempts - 1))
}

/// The pause after so many attempts: it doubles with each, up to the longest.
#[must_use]
pub fn pause(attempts: u64, policy: RetryPolicy) -> Duration {
    let first = Duration::from_millis(policy.backoff_millis);
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
    first.saturating_mul(1 << doublings).min(Duration::from_millis(policy.max_backoff_millis).max(first))
}

/// A pause that is up to a quarter longer: what failed together is not tried again together.
#[must_use]
pub fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + 0.25 * fastrand::f64())
}

/// The pause before what could not be stored is tried again, for the `times`th time.
#[must_use]
pub fn hold(times: u32) -> Duration {
    Duration::from_millis(50).saturating_mul(1 << times.min(16)).min(HOLD_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { limit: 2, backoff_millis: 1000, max_backoff_millis: 300_000 };

    #[test]
    fn a_message_is_tried_as_often_as_its_node_allows_and_then_it_is_a_dead_letter() {
        let step = |attempts| after(Failure::passing("500"), attempts, POLICY);
        assert_eq!(step(1), Step::Again(Duration::from_secs(1)));
        assert_eq!(step(2), Step::Again(Duration::from_secs(2)));
        assert_eq!(step(3), Step::Dead("it was tried 3 times, at last: 500".into()));
    }

    #[test]
    fn a_node_that_retries_nothing_has_one_attempt() {
        let policy = RetryPolicy { limit: 0, ..POLICY };
        assert_eq!(
            after(Failure::passing("500"), 1, policy),
            Step::Dead("it was tried once, at last: 500".into())
        );
        // A delivery that died is no answer of the component.
        assert_eq!(given_up(2, policy), None);
    }

    #[test]
    fn what_would_fail_each_time_is_not_tried_again() {
        assert_eq!(after(Failure::last("422"), 1, POLICY), Step::Dead("422".into()));
    }

    #[test]
    fn a_longer_pause_that_was_asked_for_is_kept_up_to_five_minutes() {
        let step = |seconds| {
            let failure = Failure { pause: Some(Duration::from_secs(seconds)), ..Failure::passing("429") };
            after(failure, 1, POLICY)
        };
        assert_eq!(
            [step(0), step(7), step(100_000)],
            [1, 7, 300].map(|seconds| Step::Again(Duration::from_secs(seconds)))
        );
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds: Vec<_> = [1, 2, 3, 9, 10, 1000].map(|n| pause(n, POLICY).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
        let hour = RetryPolicy { limit: 9, backoff_millis: 3_600_000, ..POLICY };
        assert_eq!([pause(1, hour), pause(9, hour)], [Duration::from_secs(3600); 2]);
    }

    proptest! {
        #[test]
        fn every_message_comes_to_an_end(limit in 0_u32..=100, backoff in 1_u64..=86_400_000, most in 1_u64..=86_400_000) {
            let policy = RetryPolicy { limit, backoff_millis: backoff, max_backoff_millis: most };
            let last = u64::from(limit) + 1;
            prop_assert!(matches!(after(Failure::passing("x"), last, policy), Step::Dead(_)));
            prop_assert!(given_up(last + LIVES, policy).is_none());
            prop_assert!(given_up(last + LIVES + 1, policy).is_some());
            for attempts in 1..last {
                let Step::Again(pause) = after(Failure::passing("x"), attempts, policy) else { panic!() };
                prop_assert!(pause >= Duration::from_millis(backoff));
                prop_assert!(pause <= Duration::from_millis(most.max(backoff)));
                prop_assert!((pause..=pause.mul_f64(1.25)).contains(&jitter(pause)));
            }
        }
    }
}
