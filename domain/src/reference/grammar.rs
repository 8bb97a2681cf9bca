//! Reads one reference out of a text.
//!
//! ```text
//! reference = "${" name path [ ":-" fallback ] "}"
//! name      = bare | "[" quoted "]"
//! path      = { "." bare | "[" digits "]" | "[" quoted "]" }
//! bare      = characters other than . [ ] { } " and newline, and not ":-"; spaces inside count
//! quoted    = a JSON string, or text in single quotes with \' and \\ as its escapes
//! fallback  = a JSON value, or text in which braces balance
//! ```

use serde_json::Value;

use super::ReferenceFault;

/// One key or index of a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    /// Without quotes and brackets.
    pub(super) key: Box<str>,
    /// The index into a list, if the key is digits.
    pub(super) index: Option<usize>,
    /// Written without brackets.
    pub(super) bare: bool,
    /// The offset of its end in the reference's text.
    pub(super) end: usize,
}

impl Segment {
    fn new(key: impl Into<Box<str>>, bare: bool, end: usize) -> Self {
        let key = key.into();
        let digits = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
        let index = if digits { key.parse().ok() } else { None };
        Self { key, index, bare, end }
    }
}

/// A reference as written; offsets count from its `$`.
pub(super) struct Parsed {
    pub(super) begin: usize,
    pub(super) segments: Box<[Segment]>,
    pub(super) fallback: Option<Value>,
    /// The first byte behind its `}`.
    pub(super) end: usize,
}

/// Reads the reference that `text` begins with.
pub(super) fn parse(text: &str) -> Result<Parsed, ReferenceFault> {
    let mut cursor = SegmentCursor { text, at: "${".len() };
    cursor.skip_space();
    let begin = cursor.at;
    let segments = cursor.segments()?;
    if !segments[0].bare
        && segments[0].index.is_some()
        && !text[begin + 1..].starts_with(['"', '\''])
    {
        return Err(ReferenceFault::NoName);
    }
    let fallback = if cursor.take(":-") { Some(cursor.fallback()?) } else { None };
    cursor.expect_close()?;
    Ok(Parsed { begin, segments, fallback, end: cursor.at })
}

struct SegmentCursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> SegmentCursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn expect_close(&mut self) -> Result<(), ReferenceFault> {
        if self.take("}") { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> ReferenceFault {
        match self.rest().chars().next() {
            Some(found) => ReferenceFault::Unexpected { found },
            None => ReferenceFault::Unclosed,
        }
    }

    /// The name and the path, with the space after them.
    fn segments(&mut self) -> Result<Box<[Segment]>, ReferenceFault> {
        let mut segments = Vec::with_capacity(2);
        segments.push(if self.take("[") { self.bracket()? } else { self.bare(true)? });
        loop {
            if self.take(".") {
                segments.push(self.bare(false)?);
            } else if self.take("[") {
                segments.push(self.bracket()?);
            } else {
                self.skip_space();
                return Ok(segments.into());
            }
        }
    }

    fn bare(&mut self, first: bool) -> Result<Segment, ReferenceFault> {
        let rest = self.rest();
        let stops = |(at, c): &(usize, char)| match c {
            '.' | '[' | ']' | '{' | '}' | '"' | '\n' => true,
            ':' => rest[at + 1..].starts_with('-'),
            _ => false,
        };
        let len = rest.char_indices().find(stops).map_or(rest.len(), |(at, _)| at);
        let (raw, behind) = rest.split_at(len);
        // Space belongs to a name if it is inside of it. Space before the end of the reference does
        // not.
        let last = !behind.starts_with(['.', '[']);
        let key = if last { raw.trim_end() } else { raw };
        if key.is_empty() {
            return Err(match behind.chars().next() {
                None => ReferenceFault::Unclosed,
                Some('}' | ':') if first => ReferenceFault::Empty,
                Some('}' | ':' | '.' | '[' | '\n') => ReferenceFault::EmptySegment,
                Some(found) => ReferenceFault::Unexpected { found },
            });
        }
        let end = self.at + key.len();
        self.at += len;
        Ok(Segment::new(key, true, end))
    }

    /// The rest of a bracket after `[`, with its `]`.
    fn bracket(&mut self) -> Result<Segment, ReferenceFault> {
        let key = match self.rest().as_bytes().first() {
            None => return Err(ReferenceFault::Unclosed),
            Some(b'"') => self.double_quoted()?,
            Some(b'\'') => self.single_quoted()?,
            Some(_) => {
                let rest = self.rest();
                let len = rest.bytes().take_while(u8::is_ascii_digit).count();
                self.at += len;
                if rest[..len].parse::<usize>().is_err() {
                    return Err(ReferenceFault::Bracket);
                }
                rest[..len].to_owned()
            }
        };
        if self.take("]") {
            Ok(Segment::new(key, false, self.at))
        } else if self.rest().is_empty() {
            Err(ReferenceFault::Unclosed)
        } else {
            Err(ReferenceFault::Bracket)
        }
    }

    fn double_quoted(&mut self) -> Result<String, ReferenceFault> {
        let raw = self.quoted('"')?;
        serde_json::from_str(raw).map_err(|_| ReferenceFault::Bracket)
    }

    fn single_quoted(&mut self) -> Result<String, ReferenceFault> {
        let raw = self.quoted('\'')?;
        let mut key = String::with_capacity(raw.len());
        let mut chars = raw[1..raw.len() - 1].chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => key.push(match chars.next() {
                    Some(escaped @ ('\\' | '\'')) => escaped,
                    _ => return Err(ReferenceFault::Bracket),
                }),
                c => key.push(c),
            }
        }
        Ok(key)
    }

    /// The quoted text that begins here, with its quotes.
    fn quoted(&mut self, quote: char) -> Result<&'a str, ReferenceFault> {
        let rest = self.rest();
        let mut escaped = true; // The opening quote does not close.
        for (at, c) in rest.char_indices() {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                self.at += at + 1;
                return Ok(&rest[..=at]);
            }
        }
        Err(ReferenceFault::Unclosed)
    }

    /// The text before the closing `}`: JSON if it parses as JSON up to there.
    fn fallback(&mut self) -> Result<Value, ReferenceFault> {
        let rest = self.rest();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let (value, end) = match values.next() {
            Some(Ok(value)) if rest[values.byte_offset()..].trim_start().starts_with('}') => {
                let tail = &rest[values.byte_offset()..];
                (value, rest.len() - tail.trim_start().len())
            }
            _ => {
                let end = balanced(rest)?;
                (Value::String(rest[..end].to_owned()), end)
            }
        };
        if rest[..end].contains("${") {
            return Err(ReferenceFault::NestedFallback);
        }
        self.at += end;
        Ok(value)
    }
}

/// The offset of the first `}` that closes no `{` of the text.
fn balanced(text: &str) -> Result<usize, ReferenceFault> {
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            // The search must stop here: a text full of references without an end would else be
            // read once for each of them.
            b'$' if bytes.get(at + 1) == Some(&b'{') => return Err(ReferenceFault::NestedFallback),
            b'{' => open += 1,
            b'}' if open == 0 => return Ok(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    Err(ReferenceFault::Unclosed)
}
