//! Reads JSON into the tree, token by token, so that every value knows its place.
//!
//! Used by [`parse`](super::parse). `serde_json` decodes strings; this reader finds their ends. It
//! stops at the first error, because RFC 8259 defines no recovery.

use super::{
    findings::Findings,
    node::{DEPTH_MAX, Entry, Kind, Node, shorten, unique},
    scalar::{self, Plain},
    span::{Lines, Span},
};

/// The value of a JSON text, or `None` when it could not be read.
pub(super) fn read(text: &str, lines: &Lines, findings: &mut Findings) -> Option<Node> {
    let mut reader = JsonReader { text, at: 0, depth: 0, lines, findings };
    reader.skip_space();
    if reader.peek().is_none() {
        return Some(Node { span: Span::default(), kind: Kind::Null });
    }
    let root = reader.value().ok()?;
    reader.skip_space();
    if reader.peek().is_some() {
        reader.expected("the end of the file").ok()?;
    }
    Some(root)
}

/// Parsing stops; the finding was added already.
struct Aborted;

struct JsonReader<'t> {
    text: &'t str,
    /// The next byte; always on the border of a character.
    at: usize,
    depth: usize,
    lines: &'t Lines,
    findings: &'t mut Findings,
}

impl JsonReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Tells what stands here instead of what was expected.
    fn expected<T>(&mut self, what: &str) -> Result<T, Aborted> {
        let rest = &self.text[self.at..];
        let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let len = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        let found = match &rest[..len] {
            "" => "the end of the file".to_owned(),
            token => format!("`{}`", shorten(token)),
        };
        let span = Span::new(self.at, self.at + len);
        self.findings.unreadable(span, format!("found {found}; expected {what}"));
        Err(Aborted)
    }

    fn value(&mut self) -> Result<Node, Aborted> {
        self.skip_space();
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Kind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { span: Span::new(start, self.at), kind })
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Kind, Aborted>) -> Result<Kind, Aborted> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let span = Span::new(self.at, self.at + 1);
            self.findings.unreadable(span, format!("nested deeper than {DEPTH_MAX} levels"));
            return Err(Aborted);
        }
        self.at += 1;
        let kind = read(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn array(&mut self) -> Result<Kind, Aborted> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Kind::Array(items));
        }
        loop {
            items.push(self.value()?);
            if !self.has_next(b']')? {
                return Ok(Kind::Array(items));
            }
        }
    }

    fn object(&mut self) -> Result<Kind, Aborted> {
        let mut entries = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Kind::Object(entries));
        }
        loop {
            entries.push(self.entry()?);
            if !self.has_next(b'}')? {
                return Ok(Kind::Object(unique(entries, self.lines, self.findings)));
            }
        }
    }

    fn entry(&mut self) -> Result<Entry, Aborted> {
        self.skip_space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.expected("a key in double quotes");
        }
        let key = self.string()?;
        let key_span = Span::new(start, self.at);
        self.skip_space();
        if self.peek() != Some(b':') {
            return self.expected("`:` behind the key");
        }
        self.at += 1;
        Ok(Entry { key, key_span, value: self.value()? })
    }

    /// Takes a comma (true) or the closing bracket (false).
    fn has_next(&mut self, close: u8) -> Result<bool, Aborted> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ => self.expected(&format!("`,` or `{}`", char::from(close))),
        }
    }

    fn string(&mut self) -> Result<String, Aborted> {
        let start = self.at;
        let mut end = start + 1;
        let bytes = self.text.as_bytes();
        while let Some(b) = bytes.get(end) {
            match b {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        // Both the closing quote and what a backslash hides may be missing at the end.
        let literal = self.text.get(start..=end).unwrap_or(&self.text[start..]);
        match serde_json::from_str(literal) {
            Ok(text) => {
                self.at = end + 1;
                Ok(text)
            }
            Err(error) => {
                let mut why = error.to_string();
                why.truncate(why.find(" at line").unwrap_or(why.len()));
                let span = Span::new(start, start + literal.len());
                self.findings.unreadable(span, format!("a text that cannot be read: {why}"));
                Err(Aborted)
            }
        }
    }

    fn number(&mut self) -> Result<Kind, Aborted> {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let literal = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let span = Span::new(self.at, self.at + literal.len());
        // Checks the grammar; the value is taken from the digits, so that none is lost.
        if serde_json::from_str::<serde::de::IgnoredAny>(literal).is_err() {
            self.findings.unreadable(span, format!("`{}` is no number", shorten(literal)));
            return Err(Aborted);
        }
        let is_integer = !literal.contains(['.', 'e', 'E']);
        let plain = if is_integer { scalar::integer(literal) } else { scalar::float(literal) };
        self.at += literal.len();
        if let Plain::Number(number) = plain {
            return Ok(Kind::Number(number, literal.to_owned()));
        }
        let found = format!("the number {} does not fit into 64 bits", shorten(literal));
        self.findings.error_with_help(span, found, "put it into quotes to pass it as text");
        Ok(Kind::Null)
    }

    fn word(&mut self) -> Result<Kind, Aborted> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let kind = match &rest[..len] {
            "null" => Kind::Null,
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ => return self.expected("a value"),
        };
        self.at += len;
        Ok(kind)
    }
}
