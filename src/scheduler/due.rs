//! What is due: pure, with the time passed in.

use jiff::{SignedDuration, Timestamp};

use super::schedule::Schedule;

/// A tick that is at most so late is late, and not missed: whoever leads may have changed, or the broker was away.
pub const LATE: SignedDuration = SignedDuration::from_secs(30);

/// What to do about a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// This tick is due.
    Now(Timestamp),
    /// The next one is due then.
    At(Timestamp),
    /// None will ever be.
    Never,
}

/// The first tick after `last` that is still to be done at the time `now`. `last` is the last one that was done, or the
/// time before which none counts.
///
/// Ticks that are at most [`LATE`] come one after the other. Of those that were missed the last one is made up, however
/// many there are; none is where even that one is later than `deadline` allows.
#[must_use]
pub fn due(schedule: &Schedule, last: Timestamp, now: Timestamp, deadline: Option<SignedDuration>) -> Due {
    let Some(first) = schedule.next_after(last) else { return Due::Never };
    if first > now {
        return Due::At(first);
    }
    let late = |tick: Timestamp| now.duration_since(tick);
    let tick = if late(first) <= LATE {
        first
    } else {
        schedule.last_until(now).map_or(first, |tick| tick.max(first))
    };
    match deadline {
        Some(deadline) if late(tick) > deadline => in_time(schedule, tick, now, deadline),
        _ => Due::Now(tick),
    }
}

/// The first tick after one that is too late.
fn in_time(schedule: &Schedule, tick: Timestamp, now: Timestamp, deadline: SignedDuration) -> Due {
    // One that was due at that very moment is just in time.
    let since =
        now.checked_sub(deadline + SignedDuration::from_nanos(1)).map_or(tick, |since| tick.max(since));
    match schedule.next_after(since) {
        None => Due::Never,
        Some(next) if next <= now => Due::Now(next),
        Some(next) => Due::At(next),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(expression: &str) -> Schedule {
        Schedule::parse(expression, None).unwrap()
    }

    fn seconds(count: i64) -> SignedDuration {
        SignedDuration::from_secs(count)
    }

    #[test]
    fn a_tick_is_due_from_its_second_on_and_not_again() {
        let every_three_minutes = schedule("*/3 * * * *");
        let due = |last: &str, now: &str| due(&every_three_minutes, at(last), at(now), None);
        let (twelve, three) = ("2026-03-01T12:00:00Z", "2026-03-01T12:03:00Z");
        assert_eq!(due(twelve, "2026-03-01T12:02:59.999Z"), Due::At(at(three)));
        assert_eq!(due(twelve, three), Due::Now(at(three)));
        assert_eq!(due(three, three), Due::At(at("2026-03-01T12:06:00Z")));
    }

    #[test]
    fn ticks_that_are_a_little_late_come_one_after_the_other() {
        let every_second = schedule("* * * * * *");
        let (last, now) = (at("2026-03-01T12:00:00Z"), at("2026-03-01T12:00:30Z"));
        let mut done = vec![last];
        while let Due::Now(tick) = due(&every_second, done[done.len() - 1], now, None) {
            done.push(tick);
        }
        assert_eq!(done.len(), 31);
        assert!(done.windows(2).all(|pair| pair[1] == pair[0] + seconds(1)), "{done:?}");
    }

    #[test]
    fn of_any_number_of_missed_ticks_the_last_is_made_up() {
        for missed in [1, 99, 101, 5000] {
            let last = at("2026-03-01T12:00:00Z");
            let now = last + seconds(missed * 60 + 45);
            let expected = last + seconds(missed * 60);
            let every_minute = schedule("* * * * *");
            assert_eq!(due(&every_minute, last, now, None), Due::Now(expected), "{missed}");
            assert_eq!(due(&every_minute, expected, now, None), Due::At(expected + seconds(60)));
            assert_eq!(due(&every_minute, last, now, Some(seconds(45))), Due::Now(expected), "just in time");
            assert_eq!(due(&every_minute, last, now, Some(seconds(44))), Due::At(expected + seconds(60)));
        }
    }

    #[test]
    fn of_late_ticks_those_that_are_too_late_are_passed_over() {
        let every_second = schedule("* * * * * *");
        let (last, now) = (at("2026-03-01T12:00:00Z"), at("2026-03-01T12:00:20.5Z"));
        assert_eq!(due(&every_second, last, now, Some(seconds(3))), Due::Now(at("2026-03-01T12:00:18Z")));
        assert_eq!(
            due(&every_second, last, at("2026-03-01T12:00:20Z"), Some(seconds(3))),
            Due::Now(at("2026-03-01T12:00:17Z"))
        );
    }

    #[test]
    fn a_clock_that_jumps_an_hour_forward_makes_up_one_tick_and_one_that_goes_back_repeats_none() {
        let every_minute = schedule("* * * * *");
        let last = at("2026-03-01T12:00:00Z");
        let ahead = last + seconds(3610);
        assert_eq!(due(&every_minute, last, ahead, None), Due::Now(last + seconds(3600)));
        assert_eq!(due(&every_minute, last + seconds(3600), ahead, None), Due::At(last + seconds(3660)));
        let back = last - seconds(3600);
        assert_eq!(due(&every_minute, last, back, None), Due::At(last + seconds(60)));
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_no_tick_is_done_twice_and_none_early(
            steps in prop::collection::vec(-4000_i64..8000, 1..200),
            deadline in prop::option::of(1_i64..600),
            expression in prop::sample::select(vec!["* * * * * *", "*/7 * * * * *", "* * * * *", "*/5 * * * *", "0 3 * * *"]),
        ) {
            let (schedule, deadline) = (schedule(expression), deadline.map(seconds));
            let mut now = at("2026-03-01T12:00:00Z");
            let mut last = now;
            for step in steps {
                now += SignedDuration::from_millis(step * 100);
                while let Due::Now(tick) = due(&schedule, last, now, deadline) {
                    prop_assert!(tick > last && tick <= now);
                    prop_assert!(deadline.is_none_or(|deadline| now.duration_since(tick) <= deadline));
                    last = tick;
                }
                let Due::At(next) = due(&schedule, last, now, deadline) else { panic!("it ends") };
                prop_assert!(next > now);
            }
        }

        #[test]
        fn while_it_is_looked_at_often_enough_no_tick_is_left_out(pauses in prop::collection::vec(1_i64..30, 1..100)) {
            let every_second = schedule("* * * * * *");
            let mut last = at("2026-03-01T12:00:00Z");
            let mut now = last;
            for pause in pauses {
                now += seconds(pause);
                while let Due::Now(tick) = due(&every_second, last, now, None) {
                    prop_assert_eq!(tick, last + seconds(1));
                    last = tick;
                }
                prop_assert_eq!(last, now);
            }
        }
    }
}
