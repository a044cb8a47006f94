//! Numbers that are compared exactly.

use std::cmp::Ordering;

/// 2⁶⁴: no integer of a JSON document reaches it.
const BEYOND: f64 = 18_446_744_073_709_551_616.0;

/// A number of a JSON document.
///
/// Each number has one form only, so that equal numbers are the same value: 1 and 1.0 are both `Int(1)`.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number below 2⁶⁴ in size, however it was written.
    Int(i128),
    /// Any other number: one with a fraction, or a very large one. Never NaN.
    Float(f64),
}

impl Number {
    /// The number of a document.
    pub fn of(number: &serde_json::Number) -> Option<Self> {
        if let Some(int) = number.as_i64() {
            Some(Self::Int(int.into()))
        } else if let Some(int) = number.as_u64() {
            Some(Self::Int(int.into()))
        } else {
            number.as_f64().and_then(Self::of_float)
        }
    }

    fn of_float(float: f64) -> Option<Self> {
        if float.is_nan() {
            None
        } else if float.abs() < BEYOND && float.trunc().total_cmp(&float).is_eq() {
            Some(Self::Int(floor(float)))
        } else {
            Some(Self::Float(float))
        }
    }

    /// The number as an integer, if it is one of 64 bits.
    pub fn integer(self) -> Option<i64> {
        match self {
            Self::Int(int) => int.try_into().ok(),
            Self::Float(_) => None,
        }
    }
}

/// The largest integer that is not above a float. What an `i128` cannot hold becomes its least or largest.
#[expect(clippy::cast_possible_truncation, reason = "nothing is left to truncate, and the cast saturates")]
fn floor(float: f64) -> i128 {
    float.floor() as i128
}

fn compare(int: i128, float: f64) -> Ordering {
    let whole_then_fraction = if float.fract() == 0.0 { Ordering::Equal } else { Ordering::Less };
    int.cmp(&floor(float)).then(whole_then_fraction)
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Int(one), Self::Int(other)) => one.cmp(&other),
            (Self::Int(one), Self::Float(other)) => compare(one, other),
            (Self::Float(one), Self::Int(other)) => compare(other, one).reverse(),
            // Zero is an integer, so that this order differs from the usual one in nothing.
            (Self::Float(one), Self::Float(other)) => one.total_cmp(&other),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn number(text: &str) -> Number {
        let value: Value = serde_json::from_str(text).unwrap();
        Number::of(value.as_number().unwrap()).unwrap()
    }

    /// All digits of a number, written out: the sign, the digits before the point, and the 1074 after it.
    fn digits(value: &Value) -> (bool, String, String) {
        let text = match (value.as_i64(), value.as_u64()) {
            (Some(int), _) => format!("{int}.{}", "0".repeat(1074)),
            (None, Some(int)) => format!("{int}.{}", "0".repeat(1074)),
            (None, None) => format!("{:.1074}", value.as_f64().unwrap()),
        };
        let (negative, text) = text.strip_prefix('-').map_or((false, &*text), |rest| (true, rest));
        let (whole, fraction) = text.split_once('.').unwrap();
        let zero = whole.chars().chain(fraction.chars()).all(|digit| digit == '0');
        (negative && !zero, whole.into(), fraction.into())
    }

    /// Compares two numbers by their digits: the slow and obvious way.
    fn reference(one: &Value, other: &Value) -> Ordering {
        let ((below, whole, fraction), (other_below, other_whole, other_fraction)) =
            (digits(one), digits(other));
        if below != other_below {
            return if below { Ordering::Less } else { Ordering::Greater };
        }
        let size = (whole.len(), whole, fraction).cmp(&(other_whole.len(), other_whole, other_fraction));
        if below { size.reverse() } else { size }
    }

    /// Numbers close to where floats lose integers, and to each other.
    fn any_number() -> impl Strategy<Value = Value> {
        let edge = prop_oneof![Just(0i128), Just(1 << 20), Just(1 << 53), Just(1 << 63), Just(1 << 64)];
        let near = (edge, -3i128..=3, any::<bool>()).prop_map(|(edge, by, minus)| {
            let int = if minus { by - edge } else { edge + by };
            let float: f64 = int.to_string().parse().unwrap();
            let exact = i64::try_from(int).map(Value::from).or_else(|_| u64::try_from(int).map(Value::from));
            (exact.unwrap_or_else(|_| float.into()), float)
        });
        prop_oneof![
            near.clone().prop_map(|(exact, _)| exact),
            near.clone().prop_map(|(_, float)| float.into()),
            (near, prop_oneof![Just(0.5), Just(1e-11), Just(-0.25)])
                .prop_map(|((_, float), by)| (float + by).into()),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter_map("a number", |float| serde_json::Number::from_f64(float).map(Value::Number)),
            prop_oneof![Just(-0.0), Just(f64::MAX), Just(f64::MIN), Just(f64::MIN_POSITIVE), Just(5e-324)]
                .prop_map(Value::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn numbers_compare_as_their_digits_do(one in any_number(), other in any_number()) {
            let of = |value: &Value| Number::of(value.as_number().unwrap()).unwrap();
            prop_assert_eq!(of(&one).cmp(&of(&other)), reference(&one, &other));
            prop_assert_eq!(of(&other).cmp(&of(&one)), reference(&other, &one));
            prop_assert_eq!(of(&one).cmp(&of(&one)), Ordering::Equal);
        }
    }

    #[test]
    fn a_number_has_one_form_however_it_is_written() {
        for (one, other) in
            [("1", "1.0"), ("1", "10e-1"), ("0", "-0"), ("0", "-0.0"), ("-5", "-5.0"), ("1e3", "1000")]
        {
            assert!(matches!(number(one), Number::Int(_)), "{one}");
            assert_eq!(number(one), number(other));
        }
        assert!(matches!(number("18446744073709551615"), Number::Int(_)));
        assert!(matches!(number("18446744073709551616"), Number::Float(_)));
        assert!(matches!(number("0.5"), Number::Float(_)));
    }

    #[test]
    fn integers_that_no_float_can_tell_apart_differ() {
        assert!(number("9007199254740993") > number("9007199254740992.0"));
        assert!(number("18446744073709551615") < number("18446744073709551616"));
        assert!(number("-9223372036854775808") < number("-9223372036854775807"));
        assert_eq!(number("-9223372036854775808"), number("-9.223372036854775808e18"));
    }

    #[test]
    fn only_what_fits_is_an_integer() {
        assert_eq!(number("-1").integer(), Some(-1));
        assert_eq!(number("2.0").integer(), Some(2));
        assert_eq!(number("2.5").integer(), None);
        assert_eq!(number("9223372036854775808").integer(), None);
        assert_eq!(number("1e300").integer(), None);
    }
}
