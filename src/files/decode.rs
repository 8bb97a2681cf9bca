//! Single values of the format: texts, numbers, spans of time, words out of a list.
//!
//! Used by the decoders of workflows, tasks and batches. Each function returns `None` after it has
//! added a finding, so that the decoder continues and reports everything at once.

use std::time::Duration;

use gleitzeit_domain::duration;

use super::{
    findings::Findings,
    keys::nearest,
    node::{Entry, Kind, Node},
    span::Span,
};

/// Seconds that a span of time may have at most: about 31 years. Clocks overflow far above.
const SECONDS_MAX: f64 = 1e9;

/// Tells that the value of `entry` is not what was expected.
pub(super) fn refuse(entry: &Entry, expected: &str, findings: &mut Findings) {
    let found = format!("`{}` is {}; expected {expected}", entry.key, entry.value.describe());
    findings.wrong(entry.location(), found);
}

/// The same, with what to do.
pub(super) fn refuse_with(entry: &Entry, expected: &str, help: &str, findings: &mut Findings) {
    let found = format!("`{}` is {}; expected {expected}", entry.key, entry.value.describe());
    findings.error_with_help(entry.location(), found, help);
}

/// A text that is not empty. Numbers and booleans are taken as they are written.
pub(super) fn text(entry: &Entry, findings: &mut Findings) -> Option<String> {
    match written(&entry.value) {
        Some(text) if !text.trim().is_empty() => Some(text),
        _ => {
            refuse(entry, "a text that is not empty", findings);
            None
        }
    }
}

/// A text that may be empty.
pub(super) fn free_text(entry: &Entry, findings: &mut Findings) -> Option<String> {
    let text = written(&entry.value);
    if text.is_none() {
        refuse(entry, "a text", findings);
    }
    text
}

/// A scalar as it is written.
pub(super) fn written(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::String(text) => Some(text.clone()),
        Kind::Number(_, written) => Some(written.clone()),
        Kind::Bool(flag) => Some(flag.to_string()),
        Kind::Null | Kind::Array(_) | Kind::Object(_) => None,
    }
}

/// True or false. The words of YAML 1.1 and quotes are allowed, because no other type is possible
/// here.
pub(super) fn flag(entry: &Entry, findings: &mut Findings) -> Option<bool> {
    let flag = match &entry.value.kind {
        Kind::Bool(flag) => Some(*flag),
        Kind::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    if flag.is_none() {
        refuse(entry, "true or false", findings);
    }
    flag
}

/// A number of seconds, above 0.
pub(super) fn limit(entry: &Entry, findings: &mut Findings) -> Option<Duration> {
    seconds(entry, "a number of seconds above 0", findings).filter(|span| {
        let fits = !span.is_zero();
        if !fits {
            refuse(entry, "a number of seconds above 0", findings);
        }
        fits
    })
}

/// A number of seconds, 0 or more.
pub(super) fn pause(entry: &Entry, findings: &mut Findings) -> Option<Duration> {
    seconds(entry, "a number of seconds", findings)
}

fn seconds(entry: &Entry, expected: &str, findings: &mut Findings) -> Option<Duration> {
    if let Kind::String(text) = &entry.value.kind
        && text.trim_start().starts_with(|c: char| c.is_ascii_digit())
        && text.trim().parse::<f64>().is_err()
    {
        return human(entry, text, findings);
    }
    let seconds = number(entry, expected, findings)?;
    if seconds > SECONDS_MAX {
        refuse(entry, "at most 1000000000 seconds", findings);
        return None;
    }
    let span = Duration::try_from_secs_f64(seconds).ok();
    if span.is_none() {
        refuse(entry, expected, findings);
    }
    span
}

/// A span as a person writes it: `5m`, `1h30m`.
fn human(entry: &Entry, text: &str, findings: &mut Findings) -> Option<Duration> {
    match duration::parse(text) {
        Ok(span) if span.as_secs_f64() <= SECONDS_MAX => return Some(span),
        Ok(_) => refuse(entry, "at most 1000000000 seconds", findings),
        Err(why) => {
            let found = format!("`{}` is {}: {why}", entry.key, entry.value.describe());
            findings.error_with_help(entry.location(), found, duration::EXPECTED);
        }
    }
    None
}

/// A number, 0 or more.
pub(super) fn amount(entry: &Entry, findings: &mut Findings) -> Option<f64> {
    const EXPECTED: &str = "a number, 0 or more";
    let amount = number(entry, EXPECTED, findings)?;
    if amount >= 0.0 {
        return Some(amount);
    }
    refuse(entry, EXPECTED, findings);
    None
}

/// A number, also in quotes.
fn number(entry: &Entry, expected: &str, findings: &mut Findings) -> Option<f64> {
    let number = match &entry.value.kind {
        Kind::Number(number, _) => number.as_f64(),
        Kind::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    };
    if number.is_none() {
        refuse(entry, expected, findings);
    }
    number
}

/// A whole number of at least `min`; `8.0` is one too.
pub(super) fn count(entry: &Entry, min: u64, findings: &mut Findings) -> Option<u64> {
    let expected = match min {
        0 => "a whole number, 0 or more".to_owned(),
        min => format!("a whole number, at least {min}"),
    };
    let number = number(entry, &expected, findings)?;
    let exact = match &entry.value.kind {
        Kind::Number(exact, _) => exact.as_u64(),
        _ => None,
    };
    let count = exact.or_else(|| whole(number)).filter(|count| *count >= min);
    if count.is_none() {
        refuse(entry, &expected, findings);
    }
    count
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole, not negative, and small enough to be exact"
)]
fn whole(number: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number)).then_some(number as u64)
}

/// The same for a count that 32 bits hold.
pub(super) fn small_count(entry: &Entry, min: u64, findings: &mut Findings) -> Option<u32> {
    let count = u32::try_from(count(entry, min, findings)?).ok();
    if count.is_none() {
        refuse(entry, "a smaller number", findings);
    }
    count
}

/// One of several words; case does not matter.
pub(super) fn choice<T: Copy>(
    entry: &Entry,
    choices: &[(&'static str, T)],
    findings: &mut Findings,
) -> Option<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let expected = either(&names);
    let Kind::String(text) = &entry.value.kind else {
        refuse(entry, &expected, findings);
        return None;
    };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Some(*value);
    }
    match nearest(text, names.into_iter()) {
        Some(name) => refuse_with(entry, &expected, &format!("did you mean `{name}`?"), findings),
        None => refuse(entry, &expected, findings),
    }
    None
}

/// `a, b or c`.
pub(super) fn either(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [all @ .., last] => {
            let all: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", all.join(", "))
        }
    }
}

/// The items of a list.
pub(super) fn items<'n>(
    entry: &'n Entry,
    expected: &str,
    findings: &mut Findings,
) -> Option<&'n [Node]> {
    match &entry.value.kind {
        Kind::Array(items) => Some(items),
        Kind::String(text) => {
            refuse_with(entry, expected, &format!("write [{text}]"), findings);
            None
        }
        _ => {
            refuse(entry, expected, findings);
            None
        }
    }
}

/// The span to report for an item of a list: its first key, or the item itself.
pub(super) fn item_location(node: &Node) -> Span {
    match &node.kind {
        Kind::Object(entries) => entries.first().map_or(node.span, |entry| entry.key_span),
        _ => node.span,
    }
}
