//! Scalars and tags of YAML, and their byte ranges.

use granit_parser::{Span as EventSpan, Tag};
use serde_json::Number;

use crate::files::{
    findings::Findings,
    node::{Kind, shorten},
    scalar::{self, Plain},
    span::Span,
};

pub(super) fn plain(text: &str, location: Span, findings: &mut Findings) -> Kind {
    match scalar::resolve(text) {
        Plain::Null => Kind::Null,
        Plain::Bool(flag) => Kind::Bool(flag),
        Plain::Number(number) => Kind::Number(number, text.to_owned()),
        Plain::Text => Kind::String(text.to_owned()),
        Plain::Unfit(why) => {
            let found = format!("the number {} cannot be kept: {why}", shorten(text));
            findings.error_with_help(location, found, "put it into quotes to pass it as text");
            Kind::Null
        }
    }
}

pub(super) fn tagged(text: &str, tag: &Tag, span: &EventSpan, findings: &mut Findings) -> Kind {
    match (tag.core_suffix(), scalar::resolve(text)) {
        (Some("str"), _) => Kind::String(text.to_owned()),
        (Some("null"), Plain::Null) => Kind::Null,
        (Some("bool"), Plain::Bool(flag)) => Kind::Bool(flag),
        (Some("int"), Plain::Number(number)) if !number.is_f64() => {
            Kind::Number(number, text.to_owned())
        }
        (Some("float"), Plain::Number(number)) => {
            let number = number.as_f64().and_then(Number::from_f64).unwrap_or(number);
            Kind::Number(number, text.to_owned())
        }
        (None, _) if is_plain_tag(tag) => Kind::String(text.to_owned()),
        (None | Some("map" | "seq"), _) => {
            refuse_tag(tag, span, findings);
            Kind::Null
        }
        (Some(_), _) => {
            let found = format!("`{}` is no `{}`", shorten(text), tag.original());
            findings.wrong(location(span), found);
            Kind::Null
        }
    }
}

/// A collection may carry the tag of its own kind, and no other.
pub(super) fn check_tag(tag: Option<&Tag>, own: &str, span: &EventSpan, findings: &mut Findings) {
    if let Some(tag) = tag
        && tag.core_suffix() != Some(own)
        && !is_plain_tag(tag)
    {
        refuse_tag(tag, span, findings);
    }
}

fn refuse_tag(tag: &Tag, span: &EventSpan, findings: &mut Findings) {
    let location = span.tag_span().as_ref().map_or_else(|| location(span), location);
    let found = format!("the tag `{}` means nothing here", shorten(&tag.original()));
    findings.error_with_help(location, found, "leave the tag out");
}

/// The tag `!`, which forbids type resolution.
pub(super) fn is_plain_tag(tag: &Tag) -> bool {
    tag.original() == "!"
}

pub(super) fn location(span: &EventSpan) -> Span {
    let start = span.start.byte_offset().unwrap_or_default();
    Span::new(start, span.end.byte_offset().unwrap_or(start))
}

/// The span of a scalar: empty if it spans several lines, so that messages point at its key instead
/// of at the first of many lines.
pub(super) fn scalar_location(span: &EventSpan) -> Span {
    let location = location(span);
    if span.start.line() == span.end.line() {
        location
    } else {
        Span::new(location.start, location.start)
    }
}

/// A scalar as the text of a key.
pub(super) fn scalar_text(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Null => Some("null".to_owned()),
        Kind::Bool(flag) => Some(flag.to_string()),
        Kind::Number(_, written) => Some(written.clone()),
        Kind::String(text) => Some(text.clone()),
        Kind::Array(_) | Kind::Object(_) => None,
    }
}
