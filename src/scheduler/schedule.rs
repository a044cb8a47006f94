//! A schedule: the due times of a cron expression in a time zone.
//!
//! Times are whole seconds. What happens when clocks go forward or back is croner's rule, which is Vixie cron's: a fixed
//! time that does not exist is due when the gap ends, one that comes twice is due once; what has `*`, a step, a range or a
//! list in its seconds, minutes or hours follows the clock on the wall.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Unit};
use thiserror::Error;

use crate::api::flow::trigger;

/// The time zone of a schedule that does not name one.
const UTC: &str = "UTC";

/// When a flow is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why a schedule cannot be followed, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidSchedule {
    /// It is no cron expression.
    #[error(
        "`schedule` '{0}' is no cron expression: {1}; give minute, hour, day of month, month and day of week, such as \
         `*/3 * * * *`"
    )]
    Expression(String, String),
    /// It is one, and no day fits it.
    #[error("`schedule` '{0}' is never due: no day of any year fits it")]
    Never(String),
    /// There is no such time zone.
    #[error(
        "`timeZone` '{0}' is unknown: give a name of the IANA database, such as `Europe/Berlin`, or `UTC`"
    )]
    Zone(String),
}

impl Schedule {
    /// Reads the cron trigger of a Flow.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(cron: &trigger::Cron) -> Result<Self, InvalidSchedule> {
        Self::parse(&cron.schedule, cron.time_zone.as_deref())
    }

    /// Reads a cron expression and the name of a time zone; without one it is UTC.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(expression: &str, zone: Option<&str>) -> Result<Self, InvalidSchedule> {
        let name = zone.unwrap_or(UTC);
        // Those that come with the program, and no others: a schedule means the same on every machine.
        let zone = TimeZoneDatabase::bundled().get(name);
        let zone = zone.map_err(|_| InvalidSchedule::Zone(name.to_owned()))?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser
            .parse(expression)
            .map_err(|error| InvalidSchedule::Expression(expression.to_owned(), reason(&error)))?;
        let schedule = Self { cron, zone };
        // Any start does: each day of the calendar comes again within a few years.
        schedule
            .next_after(Timestamp::UNIX_EPOCH)
            .ok_or_else(|| InvalidSchedule::Never(expression.to_owned()))?;
        Ok(schedule)
    }

    /// The first due time after another time; none where the calendar ends before.
    #[must_use]
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = floor(time).to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&start, false).ok().map(|next| next.timestamp())
    }

    /// The last due time that is not after another time; none where there was none yet.
    #[must_use]
    pub fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        let start = floor(time).to_zoned(self.zone.clone());
        self.cron.find_previous_occurrence(&start, true).ok().map(|last| last.timestamp())
    }
}

/// The second that a time lies in.
fn floor(time: Timestamp) -> Timestamp {
    time.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor))
        .unwrap_or(time)
}

/// What the parser says, as a part of a sentence.
fn reason(error: &CronError) -> String {
    let text = match error {
        CronError::InvalidPattern(text)
        | CronError::IllegalCharacters(text)
        | CronError::ComponentError(text) => text.clone(),
        other => other.to_string(),
    };
    let text = text.trim_end_matches('.');
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Schedules by what they say: flows that say the same share one.
#[derive(Debug, Default)]
pub struct Schedules(Mutex<HashMap<Said, Weak<Schedule>>>);

/// A cron expression, and the name of a time zone.
type Said = (String, Option<String>);

impl Schedules {
    /// The schedule of a cron trigger.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(&self, cron: &trigger::Cron) -> Result<Arc<Schedule>, InvalidSchedule> {
        let key = (cron.schedule.clone(), cron.time_zone.clone());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let new = Arc::new(Schedule::of(cron)?);
        if all.len() == all.capacity() {
            all.retain(|_, schedule| schedule.strong_count() > 0);
        }
        all.insert(key, Arc::downgrade(&new));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use jiff::tz::Offset;
    use jiff::{SignedDuration, Zoned};

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZoneDatabase::bundled().get(name).unwrap()
    }

    /// The due times after a time, as they are read on the wall.
    fn after(expression: &str, zone: &str, start: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, Some(zone)).unwrap();
        let mut time: Timestamp = start.parse().unwrap();
        let next = |_| {
            time = schedule.next_after(time).unwrap();
            time.to_zoned(schedule.zone.clone()).strftime("%F %T %:z").to_string()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn the_two_worked_examples_are_due_when_they_should_be() {
        assert_eq!(
            after("*/3 * * * *", "UTC", "2026-03-01T11:58:30Z", 3),
            ["2026-03-01 12:00:00 +00:00", "2026-03-01 12:03:00 +00:00", "2026-03-01 12:06:00 +00:00"]
        );
        // From Friday over the week-end.
        assert_eq!(
            after("15 14 * * 1-5", "UTC", "2026-03-06T14:15:00Z", 2),
            ["2026-03-09 14:15:00 +00:00", "2026-03-10 14:15:00 +00:00"]
        );
    }

    #[test]
    fn a_leap_day_comes_every_four_years_and_not_in_2100() {
        let years: Vec<_> = after("0 0 29 2 *", "UTC", "2095-01-01T00:00:00Z", 3);
        assert_eq!(
            years,
            ["2096-02-29 00:00:00 +00:00", "2104-02-29 00:00:00 +00:00", "2108-02-29 00:00:00 +00:00"]
        );
    }

    #[test]
    fn clocks_that_go_forward_or_back_leave_out_nothing_and_double_nothing() {
        let berlin = |expression, start, count| after(expression, "Europe/Berlin", start, count);
        assert_eq!(
            berlin("30 2 * * *", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29 03:00:00 +02:00", "2026-03-30 02:30:00 +02:00"]
        );
        assert_eq!(
            berlin("30 2 * * *", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25 02:30:00 +02:00", "2026-10-26 02:30:00 +01:00"]
        );
        // Half an hour forward and back.
        assert_eq!(
            after("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", 2),
            ["2026-10-04 02:30:00 +11:00", "2026-10-04 02:45:00 +11:00"]
        );
    }

    #[test]
    fn what_cannot_be_followed_says_why() {
        let wrong = |expression, zone| Schedule::parse(expression, zone).unwrap_err().to_string();
        for expression in
            ["61 * * * *", "* * * *", "0 0 0 1 1 ? 2027", "0 25 * * *", "x * * * *", "5-1 * * * *"]
        {
            let text = wrong(expression, None);
            assert!(
                text.starts_with(&format!("`schedule` '{expression}' is no cron expression: ")),
                "{text}"
            );
        }
        assert_eq!(
            wrong("0 0 30 2 *", None),
            "`schedule` '0 0 30 2 *' is never due: no day of any year fits it"
        );
        for name in ["Europe/Atlantis", "Local", ""] {
            assert!(wrong("* * * * *", Some(name)).starts_with(&format!("`timeZone` '{name}' is unknown")));
        }
    }

    #[test]
    fn flows_that_say_the_same_share_a_schedule() {
        let all = Schedules::default();
        let cron = |schedule: &str| trigger::Cron { schedule: schedule.into(), ..trigger::Cron::default() };
        let first = all.of(&cron("* * * * *")).unwrap();
        assert!(Arc::ptr_eq(&first, &all.of(&cron("* * * * *")).unwrap()));
        for minute in 0..60 {
            drop(all.of(&cron(&format!("{minute} * * * *"))).unwrap());
        }
        assert!(all.0.lock().unwrap().len() < 30, "what nobody has any more is forgotten");
    }

    /// The moments at which the clocks of a zone change, from 2020 to 2037.
    fn changes(zone: &TimeZone) -> Vec<Timestamp> {
        let (from, until): (Timestamp, Timestamp) =
            ("2020-01-01T00:00:00Z".parse().unwrap(), "2038-01-01T00:00:00Z".parse().unwrap());
        zone.following(from).map(|change| change.timestamp()).take_while(|at| *at < until).collect()
    }

    /// All due times of a fixed time of day, by the rule and not by croner: on each day the first moment at which the wall
    /// shows it; where it never does, the moment at which the gap ends.
    fn fixed(zone: &TimeZone, time: civil::Time, around: Timestamp) -> Vec<Timestamp> {
        let today = around.to_zoned(zone.clone()).date();
        let days = (-2..=2).map(|days| today.checked_add(jiff::Span::new().days(days)).unwrap());
        days.map(|day| {
            let wall = day.to_datetime(time);
            let seen = zone.to_ambiguous_zoned(wall);
            if !matches!(seen.offset(), jiff::tz::AmbiguousOffset::Gap { .. }) {
                return seen.earlier().unwrap().timestamp();
            }
            // The gap ends where the offset changes.
            let before = seen.later().unwrap().timestamp();
            zone.preceding(before + SignedDuration::from_secs(1)).next().unwrap().timestamp()
        })
        .collect()
    }

    /// Every quarter of an hour that the wall shows, by looking at each five minutes of the world's clock.
    fn quarters(zone: &TimeZone, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let mut all = vec![];
        let mut at = from + SignedDuration::from_mins(1);
        while at <= until {
            let wall: Zoned = at.to_zoned(zone.clone());
            if wall.minute() % 15 == 0 && wall.second() == 0 {
                all.push(at);
            }
            at += SignedDuration::from_mins(1);
        }
        all
    }

    fn is_whole_minutes(offset: Offset) -> bool {
        offset.seconds() % 60 == 0
    }

    #[test]
    fn in_every_zone_each_change_of_the_clocks_from_2020_to_2037_follows_the_rules() {
        let hour = SignedDuration::from_hours(1);
        let quarter = |name: &str| Schedule::parse("*/15 * * * *", Some(name)).unwrap();
        let mut checked = std::collections::HashSet::new();
        for name in TimeZoneDatabase::bundled().available() {
            let zone = zone(name.as_str());
            let changes = changes(&zone);
            // Zones that change their clocks alike need to be looked at once.
            let alike: Vec<_> = changes.iter().map(|at| (*at, zone.to_offset(*at))).collect();
            if !checked.insert((zone.to_offset("2020-01-01T00:00:00Z".parse().unwrap()), alike)) {
                continue;
            }
            for change in changes {
                // In the middle of what is left out or doubled, one minute before and after, and at its ends.
                let wall = |at: Timestamp| at.to_zoned(zone.clone()).time();
                let times = [wall(change - SignedDuration::from_secs(60)), wall(change)];
                let half = zone
                    .to_offset(change - SignedDuration::from_secs(1))
                    .seconds()
                    .abs_diff(zone.to_offset(change).seconds())
                    / 2;
                let middle = times[0].wrapping_add(SignedDuration::from_secs(i64::from(half)));
                let back = times[1].wrapping_add(SignedDuration::from_secs(i64::from(half)));
                for time in [times[0], times[1], middle, back] {
                    let expression = format!("{} {} {} * * *", time.second(), time.minute(), time.hour());
                    let schedule = Schedule::parse(&expression, Some(name.as_str())).unwrap();
                    let all = fixed(&zone, time, change);
                    for pair in all.windows(2) {
                        assert_eq!(
                            schedule.next_after(pair[0]),
                            Some(pair[1]),
                            "{name} {expression} {pair:?}"
                        );
                        assert_eq!(
                            schedule.last_until(pair[1] - SignedDuration::from_secs(1)),
                            Some(pair[0]),
                            "{name} {expression} back"
                        );
                    }
                }
                if !is_whole_minutes(zone.to_offset(change)) {
                    continue;
                }
                let schedule = quarter(name.as_str());
                let all = quarters(&zone, change - hour * 2, change + hour * 2);
                for pair in all.windows(2) {
                    assert_eq!(schedule.next_after(pair[0]), Some(pair[1]), "{name} {pair:?}");
                    assert_eq!(
                        schedule.last_until(pair[1] - SignedDuration::from_secs(1)),
                        Some(pair[0]),
                        "{name} back"
                    );
                }
            }
        }
        assert!(checked.len() > 80, "only {} zones", checked.len());
    }
}
