//! A table like those of kubectl.

use k8s_openapi::jiff::Timestamp;

use crate::broker::dead_letters::Letter;

/// The longest reason in a table that is not wide, in characters.
const REASON: usize = 60;

/// A table that is printed in parts.
#[derive(Debug)]
pub struct Table {
    wide: bool,
    /// The widths so far: a column may grow from part to part.
    widths: Vec<usize>,
}

impl Table {
    /// Nothing is printed yet.
    #[must_use]
    pub const fn new(wide: bool) -> Self {
        Self { wide, widths: vec![] }
    }

    /// The next rows; those that come first bring the head.
    pub fn rows(&mut self, letters: &[Letter], now: Timestamp) -> String {
        let mut rows: Vec<_> = letters.iter().map(|letter| self.row(letter, now)).collect();
        if self.widths.is_empty() && !rows.is_empty() {
            rows.insert(0, self.head());
        }
        for row in &rows {
            self.widths.resize(row.len(), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String]) -> String {
        let cells = row.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        format!("{}\n", line.trim_end())
    }

    fn head(&self) -> Vec<String> {
        let wide: &[&str] = if self.wide { &["SIZE", "MESSAGE"] } else { &[] };
        let all = [&["ID", "NAMESPACE", "FLOW", "NODE", "ATTEMPTS", "AGE"], wide, &["REASON"]];
        all.concat().into_iter().map(ToOwned::to_owned).collect()
    }

    fn row(&self, letter: &Letter, now: Timestamp) -> Vec<String> {
        let mut row = vec![
            letter.id.to_string(),
            letter.namespace.to_string(),
            letter.flow.to_string(),
            letter.node.to_string(),
            letter.attempts.to_string(),
            age(letter.time, now),
        ];
        if self.wide {
            let id = if letter.message_id.is_empty() { "<none>" } else { &letter.message_id };
            row.extend([size(letter.size), id.to_owned(), letter.reason.clone()]);
        } else {
            row.push(cut(&letter.reason));
        }
        row
    }
}

fn cut(reason: &str) -> String {
    if reason.chars().count() <= REASON {
        return reason.to_owned();
    }
    reason.chars().take(REASON - 1).chain(['…']).collect()
}

/// How long ago it was, as kubectl says it: two units where the second matters, one where it does not.
#[must_use]
pub fn age(then: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let two = |n: i64, unit: i64, name, lower: i64, of| match n % unit / lower {
        0 => format!("{}{name}", n / unit),
        rest => format!("{}{name}{rest}{of}", n / unit),
    };
    match now.as_second().saturating_sub(then.as_second()).max(0) {
        n if n < 2 * MINUTE => format!("{n}s"),
        n if n < 10 * MINUTE => two(n, MINUTE, "m", 1, "s"),
        n if n < 3 * HOUR => format!("{}m", n / MINUTE),
        n if n < 8 * HOUR => two(n, HOUR, "h", MINUTE, "m"),
        n if n < 2 * DAY => format!("{}h", n / HOUR),
        n if n < 8 * DAY => two(n, DAY, "d", HOUR, "h"),
        n => format!("{}d", n / DAY),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{}KiB", bytes >> 10),
        _ => format!("{}MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u64, node: &str, reason: &str) -> Letter {
        Letter {
            id,
            namespace: "shop".parse().unwrap(),
            flow: "orders".parse().unwrap(),
            node: node.parse().unwrap(),
            attempts: 3,
            time: "2026-01-01T00:00:00Z".parse().unwrap(),
            message_id: "m1".into(),
            size: 2048,
            reason: reason.into(),
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let now = "2026-01-01T00:05:30Z".parse().unwrap();
        let mut table = Table::new(false);
        assert_eq!(
            table.rows(&[letter(7, "map", "a"), letter(12, "enrich", &"x".repeat(61))], now),
            format!(
                "ID   NAMESPACE   FLOW     NODE     ATTEMPTS   AGE     REASON\n\
                 7    shop        orders   map      3          5m30s   a\n\
                 12   shop        orders   enrich   3          5m30s   {}…\n",
                "x".repeat(59)
            )
        );
        let more = table.rows(&[letter(13, "map", "")], now);
        assert_eq!(more, "13   shop        orders   map      3          5m30s\n");
        let wide = Table::new(true).rows(&[letter(7, "map", &"x".repeat(61))], now);
        assert_eq!(
            wide.lines().last().unwrap(),
            format!(
                "7    shop        orders   map    3          5m30s   2KiB   m1        {}",
                "x".repeat(61)
            )
        );
        assert_eq!(Table::new(true).rows(&[], now), "");
    }

    #[test]
    fn an_age_reads_as_kubectl_writes_it() {
        let ages = [-5, 119, 120, 599, 600, 10_800, 18_060, 28_800, 172_800, 176_400, 691_200]
            .map(|seconds| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap()));
        assert_eq!(ages, ["0s", "119s", "2m", "9m59s", "10m", "3h", "5h1m", "8h", "2d", "2d1h", "8d"]);
    }
}
