//! Which members move to the present revision next: pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A member, as far as its revision is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Its ordinal.
    pub ordinal: u32,
    /// Whether it is to be on the present revision.
    pub current: bool,
    /// Whether it is Active, and on the revision that it is to be on.
    pub available: bool,
}

/// How many members may be missing at a time: at least one.
#[must_use]
pub fn max_unavailable(given: Option<&IntOrString>, wanted: usize) -> usize {
    let count = match given {
        None => 1,
        Some(IntOrString::Int(count)) => usize::try_from(*count).unwrap_or(1),
        Some(IntOrString::String(share)) => {
            let percent: usize = share.trim_end_matches('%').parse().unwrap_or_default();
            wanted.saturating_mul(percent) / 100
        }
    };
    count.max(1)
}

/// The ordinals of those that move now. One that is missing anyway costs nothing; of the others, the highest first, as many as
/// may be missing.
#[must_use]
pub fn next(members: &[Moving], wanted: usize, may_miss: usize) -> Vec<u32> {
    let available = members.iter().filter(|member| member.available).count();
    let missing = wanted.saturating_sub(available);
    let mut old: Vec<&Moving> = members.iter().filter(|member| !member.current).collect();
    old.sort_by_key(|member| std::cmp::Reverse(member.ordinal));
    let (serving, idle): (Vec<&Moving>, Vec<&Moving>) = old.into_iter().partition(|member| member.available);
    let free = may_miss.saturating_sub(missing);
    idle.into_iter().chain(serving.into_iter().take(free)).map(|member| member.ordinal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_is_at_least_one() {
        let share = |text: &str| IntOrString::String(text.into());
        assert_eq!(max_unavailable(None, 10), 1);
        assert_eq!(max_unavailable(Some(&IntOrString::Int(3)), 10), 3);
        assert_eq!(max_unavailable(Some(&share("25%")), 10), 2);
        assert_eq!(max_unavailable(Some(&share("5%")), 10), 1);
        assert_eq!(max_unavailable(Some(&share("100%")), 10), 10);
    }

    /// Upper case: on the present revision; a dot after it: not available.
    fn members(text: &str) -> Vec<Moving> {
        let mut all: Vec<Moving> = vec![];
        for c in text.chars() {
            match c {
                '.' => all.iter_mut().last().unwrap().available = false,
                c => all.push(Moving {
                    ordinal: u32::try_from(all.len()).unwrap(),
                    current: c.is_ascii_uppercase(),
                    available: true,
                }),
            }
        }
        all
    }

    #[test]
    fn as_many_move_as_may_be_missing_and_those_that_are_missing_anyway() {
        for (there, wanted, may_miss, expected) in [
            ("ooo", 3, 1, &[2][..]),
            ("oooo", 4, 2, &[3, 2]),
            ("oON.", 3, 1, &[]),
            ("oNN.", 3, 2, &[0]),
            ("oo.o", 3, 1, &[1]),
            ("oo.o", 3, 2, &[1, 2]),
            ("o.o.o.", 3, 1, &[2, 1, 0]),
            ("oo", 3, 1, &[]),
            ("NNN", 3, 1, &[]),
            ("", 0, 1, &[]),
        ] {
            assert_eq!(next(&members(there), wanted, may_miss), expected, "{there}");
        }
    }
}
