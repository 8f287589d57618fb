//! Lengths of time as people write them: `10s`, `500ms`, `1h30m`. Pure.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Below zero.
    #[error("duration {0:?} is negative: a duration is at least 0s")]
    Negative(String),
    /// A number without a unit.
    #[error("duration {0:?} has no unit: write it as 500ms, 10s, 5m, 1h or 1d")]
    NoUnit(String),
    /// Anything else.
    #[error("duration {0:?} is not understood: write it as 500ms, 10s, 5m, 1h, 1h30m or 1d")]
    Malformed(String),
    /// More than ten years.
    #[error("duration {0:?} is too long: at most 3650d")]
    TooLong(String),
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const MAX_MS: u64 = 3_650 * 86_400_000;
/// What a Kubernetes API server admits, or nothing. All of it can be read: a stored object that
/// cannot would keep the controller from reading any.
const PATTERN: &str = "([0-9]{1,3}d)?([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?([0-9]{1,9}ms)?";

impl FromStr for Millis {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Millis, DurationError> {
        let shown = || text.chars().take(40).collect::<String>();
        if text.starts_with('-') {
            return Err(DurationError::Negative(shown()));
        }
        let (mut rest, mut total) = (text, 0_u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| DurationError::NoUnit(shown()))?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
            let number: Option<u64> = number.parse().ok();
            let (Some(scale), Some(number)) = (scale, number) else {
                return Err(DurationError::Malformed(shown()));
            };
            total = number.checked_mul(scale).and_then(|part| total.checked_add(part)).unwrap_or(u64::MAX);
            if total > MAX_MS {
                return Err(DurationError::TooLong(shown()));
            }
            rest = after;
        }
        if text.is_empty() { Err(DurationError::Malformed(shown())) } else { Ok(Millis(total)) }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, scale) in UNITS {
            if rest >= scale {
                write!(f, "{}{name}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Millis {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 40,
            "x-kubernetes-validations": crate::schema::text_rule(
                &format!("self != '' && self.matches('^{PATTERN}$')"),
                "has to be a length of time: write it as 500ms, 10s, 5m, 1h, 1h30m or 1d, the largest unit first",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0s", 0)]
    #[case("500ms", 500)]
    #[case("10s", 10_000)]
    #[case("1h30m", 5_400_000)]
    #[case("1d", 86_400_000)]
    fn reads_and_writes(#[case] text: &str, #[case] ms: u64) {
        assert_eq!(text.parse(), Ok(Millis(ms)));
        assert_eq!(Millis(ms).to_string(), text);
    }

    proptest! {
        #[test]
        fn what_is_admitted_can_be_read(text in PATTERN) {
            prop_assume!(!text.is_empty());
            prop_assert!(text.parse::<Millis>().is_ok(), "{text}");
        }
    }

    #[rstest]
    #[case("999d9999h99999m999999s999999999ms")]
    fn so_can_the_longest(#[case] text: &str) {
        assert!(text.parse::<Millis>().is_ok());
    }

    #[rstest]
    #[case("-1s", "negative")]
    #[case("10", "no unit")]
    #[case("", "not understood")]
    #[case("10 s", "not understood")]
    #[case("s", "not understood")]
    #[case("1.5s", "not understood")]
    #[case("99999999999999999999d", "not understood")]
    #[case("99999999d", "too long")]
    fn says_what_is_wrong(#[case] text: &str, #[case] why: &str) {
        let error = text.parse::<Millis>().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
