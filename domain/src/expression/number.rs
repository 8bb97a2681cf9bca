//! Ints beside doubles.

use std::cmp::Ordering;

use super::value::Val;

/// The least double that is above every int.
const ABOVE: f64 = 9_223_372_036_854_775_808.0;

/// The int that a double is exactly.
pub(super) fn exact_int(value: f64) -> Option<i64> {
    if value.fract() == 0.0 { truncated(value) } else { None }
}

/// The int that is left when the fraction is cut off.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn truncated(value: f64) -> Option<i64> {
    (value > -ABOVE - 1.0 && value < ABOVE).then(|| value.trunc() as i64)
}

#[expect(clippy::cast_precision_loss, reason = "an int beside a double is read as a double")]
pub(super) const fn as_double(value: i64) -> f64 {
    value as f64
}

/// The order of two numbers; `None` beside NaN, and for what is no number.
pub(super) fn compare(one: &Val<'_>, two: &Val<'_>) -> Option<Ordering> {
    match (one, two) {
        (Val::Int(one), Val::Int(two)) => Some(one.cmp(two)),
        (Val::Double(one), Val::Double(two)) => one.partial_cmp(two),
        (Val::Int(one), Val::Double(two)) => int_and_double(*one, *two),
        (Val::Double(one), Val::Int(two)) => int_and_double(*two, *one).map(Ordering::reverse),
        _ => None,
    }
}

/// Exactly: as doubles, different large ints would be equal.
fn int_and_double(int: i64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // As doubles at the ends of the range, as CEL has it; exactly within.
    let Some(whole) = truncated(double) else { return as_double(int).partial_cmp(&double) };
    Some(int.cmp(&whole).then_with(|| {
        let fraction = double - as_double(whole);
        0.0_f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal)
    }))
}

/// A double as a text.
pub(super) fn text_of(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}
