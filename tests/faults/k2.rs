//! K2: clocks that go forward and back, a leap day, and a zone that does not exist (any more).

use k8s_openapi::jiff::Timestamp;
use millrace::scheduler::schedule::Schedule;

/// The due times after a time.
fn after(expression: &str, zone: &str, start: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(expression, Some(zone)).unwrap();
    let mut time: Timestamp = start.parse().unwrap();
    let next = |_| {
        time = schedule.next_after(time).unwrap();
        time.to_string()
    };
    (0..count).map(next).collect()
}

#[test]
fn k2_a_fixed_time_runs_once_on_each_day_whatever_the_clocks_do() {
    // 2:30 does not exist on 29 March: it runs when the clocks have gone forward, at 3:00.
    let forward = after("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
    assert_eq!(forward, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    // 2:30 comes twice on 25 October.
    let back = after("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(back, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // Lord Howe goes half an hour forward, at 2:00 to 2:30, and half an hour back.
    let forward = after("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 2);
    assert_eq!(forward, ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]);
    let back = after("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2);
    assert_eq!(back, ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
}

#[test]
fn k2_what_runs_each_half_hour_runs_each_half_hour_of_real_time() {
    let all = after("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59:00Z", 6);
    let expected = ["00:00", "00:30", "01:00", "01:30", "02:00", "02:30"];
    assert_eq!(all, expected.map(|time| format!("2026-10-25T{time}:00Z")));
}

#[test]
fn k2_a_leap_day_is_due_in_leap_years_only() {
    let all = after("0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2);
    assert_eq!(all, ["2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"]);
}
