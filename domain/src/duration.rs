//! Spans of time as files write them: seconds, whole or with a fraction.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Writes seconds: a whole number where it is one.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(span: &Duration, out: S) -> Result<S::Ok, S::Error> {
    if span.subsec_nanos() == 0 {
        out.serialize_u64(span.as_secs())
    } else {
        out.serialize_f64(span.as_secs_f64())
    }
}

/// Reads seconds.
///
/// # Errors
/// When it is no number, negative, not finite, or too large.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(input)?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| D::Error::custom(format!("`{seconds}` is not a number of seconds")))
}

/// The same for a span that may be absent.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes seconds, or null.
    ///
    /// # Errors
    /// Those of the serializer.
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
