//! The bounds of a number: those that its schema names, and those of its Rust type.

use std::cmp::Ordering;

use gleitzeit_domain::protocol::ParameterSpec;
use serde_json::{Map, Number, Value};

use super::{INSTEAD, Lowering, Side};

impl Lowering<'_> {
    pub(super) fn bounds(
        &mut self,
        rules: &Map<String, Value>,
        is_integer: bool,
        spec: &mut ParameterSpec,
    ) {
        let bound = |rule: &str| match rules.get(rule) {
            Some(Value::Number(number)) => Some(number.clone()),
            _ => None,
        };
        let of_type = is_integer && self.side == Side::Input;
        let (least, greatest) = if of_type { of_format(rules) } else { (None, None) };
        spec.minimum = narrower(bound("minimum"), least, Ordering::Greater);
        spec.maximum = narrower(bound("maximum"), greatest, Ordering::Less);
        for (rule, by) in [("exclusiveMinimum", 1), ("exclusiveMaximum", -1)] {
            let Some(number) = bound(rule) else { continue };
            let next = if is_integer { beside(&number, by) } else { None };
            let Some(next) = next else {
                self.refuse(format!("its schema has the rule `{rule}`; {INSTEAD}"));
                continue;
            };
            if by > 0 {
                spec.minimum = narrower(spec.minimum.take(), Some(next), Ordering::Greater);
            } else {
                spec.maximum = narrower(spec.maximum.take(), Some(next), Ordering::Less);
            }
        }
    }
}

/// The range of a Rust type: a number outside of it is refused with the workflow, not by the call.
fn of_format(rules: &Map<String, Value>) -> (Option<Number>, Option<Number>) {
    let (least, greatest): (Number, Number) = match rules.get("format").and_then(Value::as_str) {
        Some("int8") => (i8::MIN.into(), i8::MAX.into()),
        Some("int16") => (i16::MIN.into(), i16::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("int64" | "int") => (i64::MIN.into(), i64::MAX.into()),
        Some("uint8") => (0.into(), u8::MAX.into()),
        Some("uint16") => (0.into(), u16::MAX.into()),
        Some("uint32") => (0.into(), u32::MAX.into()),
        Some("uint64" | "uint") => (0.into(), u64::MAX.into()),
        _ => return (None, None),
    };
    (Some(least), Some(greatest))
}

/// The one of two bounds that allows less.
fn narrower(one: Option<Number>, other: Option<Number>, order: Ordering) -> Option<Number> {
    let (Some(left), Some(right)) = (&one, &other) else { return one.or(other) };
    let compared = match (whole(left), whole(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64().partial_cmp(&right.as_f64()),
    };
    if compared == Some(order) { one } else { other }
}

/// The integer beside this one; `None` for a fraction.
fn beside(number: &Number, by: i128) -> Option<Number> {
    let next = whole(number)? + by;
    let small = i64::try_from(next).ok().map(Number::from);
    small.or_else(|| u64::try_from(next).ok().map(Number::from))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float without a fraction, and `as` saturates"
)]
fn whole(number: &Number) -> Option<i128> {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    integer.or_else(|| number.as_f64().filter(|it| it.fract() == 0.0).map(|it| it as i128))
}
