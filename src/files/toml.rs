//! Reads TOML into the tree, from the spanned document of the `toml` crate.
//!
//! Used by [`parse`](super::parse). Every syntax error is reported at once. Dates become text.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    findings::Findings,
    node::{DEPTH_MAX, Entry, Kind, Node, shorten},
    scalar::{self, Plain},
    span::Span,
};

/// The value of a TOML text, or `None` when it could not be read.
pub(super) fn read(text: &str, findings: &mut Findings) -> Option<Node> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return table(document.get_ref(), span_of(document.span()), 1, findings);
    }
    for error in &errors {
        let span = error.span().map_or(Span::new(text.len(), text.len()), span_of);
        findings.unreadable(span, error.message());
    }
    None
}

fn span_of(range: Range<usize>) -> Span {
    Span::new(range.start, range.end)
}

fn table(table: &DeTable<'_>, span: Span, depth: usize, findings: &mut Findings) -> Option<Node> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, inner) in table {
        let key_span = span_of(key.span());
        let value = value(inner, depth, findings)?;
        entries.push(Entry { key: key.get_ref().to_string(), key_span, value });
    }
    // The crate sorts by key; places put them back into the order of the file.
    entries.sort_by_key(|entry| entry.key_span.start);
    Some(Node { span, kind: Kind::Object(entries) })
}

fn value(value: &Spanned<DeValue<'_>>, depth: usize, findings: &mut Findings) -> Option<Node> {
    let span = span_of(value.span());
    if depth > DEPTH_MAX {
        findings.unreadable(span, format!("nested deeper than {DEPTH_MAX} levels"));
        return None;
    }
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::String(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            let plain = match parsed {
                Ok(number) => Plain::Number(number.into()),
                Err(_) => scalar::integer(number.as_str()),
            };
            self::number(plain, number.as_str(), span, findings)
        }
        DeValue::Float(number) => {
            self::number(scalar::float(number.as_str()), number.as_str(), span, findings)
        }
        DeValue::Boolean(flag) => Kind::Bool(*flag),
        DeValue::Datetime(moment) => Kind::String(moment.to_string()),
        DeValue::Array(items) => Kind::Array(
            items
                .iter()
                .map(|item| self::value(item, depth + 1, findings))
                .collect::<Option<Vec<_>>>()?,
        ),
        DeValue::Table(inner) => return table(inner, span, depth + 1, findings),
    };
    Some(Node { span, kind })
}

fn number(plain: Plain, written: &str, span: Span, findings: &mut Findings) -> Kind {
    if let Plain::Number(number) = plain {
        return Kind::Number(number, written.to_owned());
    }
    let found = format!("the number {} does not fit into 64 bits", shorten(written));
    findings.error_with_help(span, found, "put it into quotes to pass it as text");
    Kind::Null
}
