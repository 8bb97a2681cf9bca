//! Spans of time as files write them: seconds, whole or with a fraction, or with units: `5m`.
//!
//! Invariant: what is written is seconds as a number, however it was read.

use std::{fmt, time::Duration};

use serde::{Deserializer, Serializer, de};

/// How a span is written, for the help of an error.
pub const EXPECTED: &str =
    "a number of seconds, or with the units ms, s, m, h, d, such as `5m` or `1h30m`";

/// The units, the largest first, each with the milliseconds that it has.
const UNITS: [(&str, f64); 5] =
    [("d", 86_400_000.0), ("h", 3_600_000.0), ("m", 60_000.0), ("s", 1_000.0), ("ms", 1.0)];

/// Why a text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A unit without a number before it.
    #[error("no number before `{0}`")]
    Number(String),
    /// It ends with a number that has no unit.
    #[error("no unit after `{0}`")]
    NoUnit(String),
    /// An unknown unit.
    #[error("unknown unit `{0}`")]
    Unit(String),
    /// A unit that is not smaller than the one before it.
    #[error("`{0}` stands after a unit that is not larger")]
    Order(String),
    /// It is too long for a clock.
    #[error("it is too long")]
    TooLong,
}

/// Reads a span as a person writes it: `90` and `1.5` are seconds, `500ms`, `5m`, `1h30m`.
///
/// # Errors
/// [`DurationError`]; [`EXPECTED`] describes the format.
///
/// ```
/// # use std::time::Duration;
/// use gleitzeit_domain::duration::parse;
///
/// assert_eq!(parse("1h30m"), Ok(Duration::from_secs(90 * 60)));
/// assert_eq!(parse("1.5"), Ok(Duration::from_millis(1500)));
/// assert_eq!(parse("5x").unwrap_err().to_string(), "unknown unit `x`");
/// ```
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| {
            if seconds > 0.0 {
                DurationError::TooLong
            } else {
                DurationError::Number(text.to_owned())
            }
        });
    }
    let (mut rest, mut milliseconds, mut smallest) = (text, 0.0, f64::INFINITY);
    loop {
        let is_part = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let value: f64 = number.parse().map_err(|_| DurationError::Number(rest.to_owned()))?;
        let after = after.trim_start();
        let end = after.find(|c: char| is_part(c) || c.is_whitespace()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(DurationError::NoUnit(number.to_owned()));
        }
        let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationError::Unit(unit.to_owned()));
        };
        if *size >= smallest {
            return Err(DurationError::Order(unit.to_owned()));
        }
        smallest = *size;
        milliseconds += value * size;
        rest = after.trim_start();
        if rest.is_empty() {
            let span = Duration::try_from_secs_f64(milliseconds / 1_000.0);
            return span.map_err(|_| DurationError::TooLong);
        }
    }
}

/// Writes seconds, as a whole number if possible.
///
/// # Errors
/// The errors of the serializer.
pub fn serialize<S: Serializer>(span: &Duration, out: S) -> Result<S::Ok, S::Error> {
    if span.subsec_nanos() == 0 {
        out.serialize_u64(span.as_secs())
    } else {
        out.serialize_f64(span.as_secs_f64())
    }
}

/// Reads seconds, or a text that [`parse`] understands.
///
/// # Errors
/// When it is no number, negative, not finite, or too large.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    struct Span;

    impl de::Visitor<'_> for Span {
        type Value = Duration;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("f64")
        }

        fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| E::custom(format!("`{seconds}` is not a number of seconds")))
        }

        #[expect(clippy::cast_precision_loss, reason = "a span is read as a fraction anyway")]
        fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
            self.visit_f64(seconds as f64)
        }

        #[expect(clippy::cast_precision_loss, reason = "a span is read as a fraction anyway")]
        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
            self.visit_f64(seconds as f64)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            if !text.starts_with(|c: char| c.is_ascii_digit()) || text.parse::<f64>().is_ok() {
                return Err(E::invalid_type(de::Unexpected::Str(text), &self));
            }
            parse(text).map_err(|why| E::custom(format!("`{text}`: {why}; expected {EXPECTED}")))
        }
    }

    input.deserialize_any(Span)
}

/// The same for a span that may be absent.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes seconds, or null.
    ///
    /// # Errors
    /// The errors of the serializer.
    pub fn serialize<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => super::serialize(span, out),
            None => out.serialize_none(),
        }
    }

    /// Reads seconds, or null.
    ///
    /// # Errors
    /// When it is no number, negative, not finite, or too large.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Span(#[serde(with = "super")] Duration);
        Ok(Option::<Span>::deserialize(input)?.map(|span| span.0))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// Each unit, several of them, and every way to be wrong.
    #[test]
    fn spans_are_read_as_a_person_writes_them() {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("1.5", 1_500),
            ("0", 0),
            ("500ms", 500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m 5s", 5_405_000),
            ("1.5h", 5_400_000),
            (" 2d ", 172_800_000),
            ("5 m", 300_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for (text, why) in [
            ("", "no number before ``"),
            ("soon", "no number before `soon`"),
            ("5x", "unknown unit `x`"),
            ("5M", "unknown unit `M`"),
            ("5min", "unknown unit `min`"),
            ("1h30", "no unit after `30`"),
            ("1m1h", "`h` stands after a unit that is not larger"),
            ("1m1m", "`m` stands after a unit that is not larger"),
            ("1.2.3s", "no number before `1.2.3s`"),
            ("-5", "no number before `-5`"),
            ("nan", "no number before `nan`"),
            ("1e30", "it is too long"),
            ("99999999999999999999999d", "it is too long"),
        ] {
            assert_eq!(parse(text).map_err(|it| it.to_string()), Err(why.to_owned()), "{text}");
        }
    }

    /// Settings and stored workflows have numbers; a text with a unit is read, and never written.
    #[test]
    fn what_is_written_is_a_number_of_seconds() {
        #[derive(Debug, Deserialize, serde::Serialize)]
        struct Span(#[serde(with = "super")] Duration);
        let read = |value| serde_json::from_value::<Span>(value);
        for (input, written) in [(json!(5), json!(5)), (json!(0.5), json!(0.5))] {
            assert_eq!(serde_json::to_value(read(input).unwrap()).unwrap(), written);
        }
        assert_eq!(serde_json::to_value(read(json!("1h30m")).unwrap()).unwrap(), json!(5400));
        for wrong in [json!("5"), json!("soon"), json!(true), json!(-1), json!("5x")] {
            read(wrong).unwrap_err();
        }
        let message = read(json!("soon")).unwrap_err().to_string();
        assert_eq!(message, "invalid type: string \"soon\", expected f64");
    }
}
