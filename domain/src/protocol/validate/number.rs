//! Exact comparison of JSON numbers, and equality of values by number.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Orders two numbers by their exact value.
///
/// Whole numbers are never rounded to a float: `9007199254740993` is greater than
/// `9007199254740992.0`.
pub(in crate::protocol) fn compare(left: &Number, right: &Number) -> Ordering {
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => compare_mixed(left, float(right)),
        (None, Some(right)) => compare_mixed(right, float(left)).reverse(),
        (None, None) => float(left).partial_cmp(&float(right)).unwrap_or(Ordering::Equal),
    }
}

/// True for a number without a fraction, however it is written.
pub(super) fn is_whole(number: &Number) -> bool {
    whole(number).is_some() || float(number).fract() == 0.0
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a floor is whole, and `as` saturates far outside of what `whole` can be"
)]
fn compare_mixed(whole: i128, float: f64) -> Ordering {
    let floor = float.floor();
    match whole.cmp(&(floor as i128)) {
        Ordering::Equal if float > floor => Ordering::Less,
        order => order,
    }
}

/// Equality as in JSON Schema: numbers by value (`1` is `1.0`), all else by shape. A text in `left`
/// for which `open` answers true equals anything.
pub(super) fn same_open(left: &Value, right: &Value, open: Option<&dyn Fn(&str) -> bool>) -> bool {
    if let (Some(open), Value::String(text)) = (open, left)
        && open(text)
    {
        return true;
    }
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same_open(left, right, open))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| {
                    right.get(key).is_some_and(|right| same_open(left, right, open))
                })
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn same(left: &Value, right: &Value) -> bool {
        same_open(left, right, None)
    }

    fn order(left: Value, right: Value) -> Ordering {
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => compare(&left, &right),
            other => unreachable!("{other:?}"),
        }
    }

    /// Through a float, these pairs would be equal.
    #[test]
    fn big_integers_are_distinguished() {
        assert_eq!(
            order(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64)),
            Ordering::Greater
        );
        assert_eq!(
            order(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)),
            Ordering::Greater
        );
        assert_eq!(order(json!(u64::MAX), json!(18_446_744_073_709_551_616.0)), Ordering::Less);
        assert_eq!(order(json!(i64::MIN), json!(-9_223_372_036_854_775_808.0)), Ordering::Equal);
    }

    /// Signs, fractions and floats beyond every integer.
    #[test]
    fn mixed_numbers_are_ordered() {
        assert_eq!(order(json!(1), json!(1.5)), Ordering::Less);
        assert_eq!(order(json!(-1), json!(-1.5)), Ordering::Greater);
        assert_eq!(order(json!(-2), json!(-1.5)), Ordering::Less);
        assert_eq!(order(json!(1e300), json!(u64::MAX)), Ordering::Greater);
        assert_eq!(order(json!(-1e300), json!(i64::MIN)), Ordering::Less);
        assert_eq!(order(json!(0), json!(-0.0)), Ordering::Equal);
    }

    /// `1` and `1.0` are one number at every depth; `1` and `true` are not.
    #[test]
    fn equality_is_by_value() {
        assert!(same(&json!({"a": [1, {"b": 2.0}]}), &json!({"a": [1.0, {"b": 2}]})));
        assert!(!same(&json!([1]), &json!([1, 1])));
        assert!(!same(&json!({"a": 1}), &json!({"b": 1})));
        assert!(!same(&json!(1), &json!(true)));
    }
}
