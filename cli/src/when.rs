//! Times as a person writes them: how long ago (`2h`), a day (`2026-11-30`), or RFC 3339.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use gleitzeit_domain::duration;

const EXPECTED: &str = "expected how long ago (`2h`, `3d`), a day (`2026-11-30`, UTC) or a time (`2026-11-30T08:00:00Z`)";

/// The first moment that `--since` covers.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn since(text: &str) -> Result<DateTime<Utc>, String> {
    read(text, gleitzeit_actors::clock::utc_now(), false)
}

/// The first moment that `--until` does not cover: a day is covered to its end.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn until(text: &str) -> Result<DateTime<Utc>, String> {
    read(text, gleitzeit_actors::clock::utc_now(), true)
}

fn read(text: &str, now: DateTime<Utc>, is_end: bool) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        let day = if is_end { day.checked_add_days(Days::new(1)) } else { Some(day) };
        let start = day.and_then(|day| day.and_hms_opt(0, 0, 0));
        return start.map(|at| at.and_utc()).ok_or_else(|| EXPECTED.to_owned());
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    for format in
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
    {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(at.and_utc());
        }
    }
    let is_ago = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic());
    if !is_ago {
        return Err(EXPECTED.to_owned());
    }
    let ago = duration::parse(text).map_err(|why| format!("{why}; {EXPECTED}"))?;
    let start = TimeDelta::from_std(ago).ok().and_then(|ago| now.checked_sub_signed(ago));
    start.ok_or_else(|| EXPECTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form, and what is none.
    #[test]
    fn times_are_read_as_a_person_writes_them() {
        let now: DateTime<Utc> = "2026-11-30T12:00:00Z".parse().unwrap();
        for (text, is_end, at) in [
            ("2h", false, "2026-11-30T10:00:00Z"),
            ("3d", false, "2026-11-27T12:00:00Z"),
            ("1h30m", true, "2026-11-30T10:30:00Z"),
            ("2026-11-30", false, "2026-11-30T00:00:00Z"),
            ("2026-11-30", true, "2026-12-01T00:00:00Z"),
            ("2026-11-30T08:00:00+02:00", false, "2026-11-30T06:00:00Z"),
            ("2026-11-30 08:00", true, "2026-11-30T08:00:00Z"),
            ("2026-11-30T08:00:01.5", true, "2026-11-30T08:00:01.5Z"),
        ] {
            let at: DateTime<Utc> = at.parse().unwrap();
            assert_eq!(read(text, now, is_end), Ok(at), "{text}");
        }
        for text in ["", "yesterday", "5", "2x", "2026-13-01", "-2h", "99999999999d"] {
            assert!(read(text, now, false).is_err(), "{text}");
        }
        assert!(read("2x", now, false).unwrap_err().starts_with("unknown unit `x`"));
    }
}
