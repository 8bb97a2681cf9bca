//! The meaning of a plain scalar of YAML: the core schema of YAML 1.2.
//!
//! Used by the YAML reader. Only `true` and `false` are booleans and only `null` and `~` are null,
//! so `yes`, `on`, `no` and a leading zero stay text. Source: YAML 1.2.2, section 10.3.2, except
//! that numbers with leading zeros (`012`) are text: YAML 1.1 reads them as octal, 1.2 as decimal,
//! and their authors mostly mean neither.

use serde_json::Number;

/// The meaning of a plain scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plain {
    /// `null`, `~`, or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number that 64 bits hold.
    Number(Number),
    /// Anything else.
    Text,
    /// Written as a number, but none that a result can hold; why.
    Unfit(&'static str),
}

/// The meaning of `text` without quotes and without a tag.
pub(super) fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
        "true" | "True" | "TRUE" => Plain::Bool(true),
        "false" | "False" | "FALSE" => Plain::Bool(false),
        _ => number(text),
    }
}

fn number(text: &str) -> Plain {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Plain::Unfit("JSON has no infinity and no NaN");
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if !is_decimal(unsigned) {
        return Plain::Text;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if unsigned.bytes().all(|b| b.is_ascii_digit()) { integer(plain) } else { float(plain) }
}

/// A decimal integer, with `-` or without a sign.
pub(super) fn integer(text: &str) -> Plain {
    if let Ok(number) = text.parse::<i64>() {
        return Plain::Number(number.into());
    }
    match text.parse::<u64>() {
        Ok(number) => Plain::Number(number.into()),
        Err(_) => Plain::Unfit("it does not fit into 64 bits"),
    }
}

/// A decimal number with a fraction or an exponent.
pub(super) fn float(text: &str) -> Plain {
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Plain::Number(number),
        None => Plain::Unfit("it does not fit into 64 bits"),
    }
}

fn radix(digits: &str, radix: u32) -> Plain {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Plain::Text;
    }
    match u64::from_str_radix(digits, radix) {
        Ok(number) => Plain::Number(number.into()),
        Err(_) => Plain::Unfit("it does not fit into 64 bits"),
    }
}

/// Digits, a fraction, an exponent: `1`, `1.5`, `.5`, `1.`, `1e3`; no leading zeros.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    exponent_fits
        && digits(whole)
        && digits(fraction)
        && !leading_zero
        && !(whole.is_empty() && fraction.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A country code, a switch word or a time must not change its type on the way in.
    #[test]
    fn words_and_odd_numbers_stay_text() {
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "NO",
            "y",
            "n",
            "012",
            "-012",
            "00",
            "007.5",
            "1_000",
            "12:30",
            "2024-01-01",
            "0x",
            "0o9",
            "1.2.3",
            "-",
            "+",
            ".",
            "e3",
            "1e",
            "0b11",
            "nan",
            "inf",
            "tRue",
            "nULL",
            "1 2",
            "--1",
            "+-1",
        ] {
            assert_eq!(resolve(text), Plain::Text, "{text}");
        }
    }

    /// Only the words of the core schema mean something.
    #[test]
    fn the_words_of_the_core_schema_are_understood() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(text), Plain::Null, "{text}");
        }
        for text in ["true", "True", "TRUE"] {
            assert_eq!(resolve(text), Plain::Bool(true), "{text}");
        }
        assert_eq!(resolve("False"), Plain::Bool(false));
    }

    /// Large integers keep every digit; a float would lose the last ones.
    #[test]
    fn integers_are_exact() {
        let integer = |text: &str| match resolve(text) {
            Plain::Number(number) => number.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(integer("9007199254740993"), "9007199254740993");
        assert_eq!(integer("18446744073709551615"), "18446744073709551615");
        assert_eq!(integer("-9223372036854775808"), "-9223372036854775808");
        assert_eq!(integer("+7"), "7");
        assert_eq!(integer("0x1F"), "31");
        assert_eq!(integer("0o17"), "15");
        assert_eq!(integer("0"), "0");
    }

    /// Fractions in every spelling of the core schema.
    #[test]
    fn fractions_are_read_in_every_spelling() {
        for (text, value) in [("0.5", 0.5), (".5", 0.5), ("1.", 1.0), ("-1e3", -1000.0)] {
            assert_eq!(resolve(text), Plain::Number(Number::from_f64(value).unwrap()), "{text}");
        }
    }

    /// A number that JSON cannot hold is reported, not changed.
    #[test]
    fn numbers_beyond_json_are_reported() {
        for text in [".inf", "-.INF", ".nan", "18446744073709551616", "1e999"] {
            assert!(matches!(resolve(text), Plain::Unfit(_)), "{text}");
        }
    }
}
