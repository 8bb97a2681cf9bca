//! Cuts a source into tokens.

use super::{Span, SyntaxError, text};

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    /// 9223372036854775808, which only a minus before it makes a number in range.
    IntMin,
    Double(f64),
    Text(String),
    Name(Box<str>),
    Symbol(&'static str),
    End,
}

/// The longer of two that begin alike comes first.
const SYMBOLS: [&str; 24] = [
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",",
    "(", ")", "[", "]", "{", "}",
];

/// All tokens, each with its place; the last is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, Span)>, SyntaxError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let from = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push((token, Span::new(from, lexer.at)));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn error(&self, from: usize, message: impl Into<String>) -> SyntaxError {
        let span = Span::new(from, self.at.max(from + 1).min(self.source.len().max(from)));
        SyntaxError { message: message.into(), span }
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let second = rest[first.len_utf8()..].chars().next();
        let begins_number = first.is_ascii_digit()
            || (first == '.' && second.is_some_and(|second| second.is_ascii_digit()));
        if begins_number {
            return self.number();
        }
        if matches!(first, '"' | '\'') {
            return self.text(false);
        }
        if matches!(first, 'r' | 'R') && matches!(second, Some('"' | '\'')) {
            self.at += 1;
            return self.text(true);
        }
        if first == '_' || first.is_ascii_alphabetic() {
            let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
            let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            self.at += len;
            if matches!(first, 'b' | 'B') && self.rest().starts_with(['"', '\'']) {
                return Err(self.error(self.at - len, "bytes are not supported"));
            }
            return Ok(Token::Name(rest[..len].into()));
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            self.at += symbol.len();
            return Ok(Token::Symbol(symbol));
        }
        let from = self.at;
        self.at += first.len_utf8();
        Err(self.error(
            from,
            match first {
                '=' => "`=` is not an operator; `==` compares".to_owned(),
                '&' => "`&` is not an operator; `&&` is".to_owned(),
                '|' => "`|` is not an operator; `||` is".to_owned(),
                '$' => "references are written without `${}` in an expression".to_owned(),
                other => format!("unexpected `{}`", other.escape_debug()),
            },
        ))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let (from, rest) = (self.at, self.rest());
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let len = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            self.at += 2 + len;
            self.end_of_number(from)?;
            return match u64::from_str_radix(&hex[..len], 16) {
                Ok(0x8000_0000_0000_0000) => Ok(Token::IntMin),
                Ok(value) => self.int(from, value),
                Err(_) => Err(self.error(from, "this number is not in the range of 64 bits")),
            };
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut len = digits(rest);
        let mut is_double = false;
        if rest[len..].starts_with('.') && rest[len + 1..].starts_with(|c: char| c.is_ascii_digit())
        {
            len += 1 + digits(&rest[len + 1..]);
            is_double = true;
        }
        if let Some(exponent) = rest[len..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(&exponent[sign..]);
            if count > 0 {
                len += 1 + sign + count;
                is_double = true;
            }
        }
        self.at += len;
        self.end_of_number(from)?;
        if is_double {
            let value = rest[..len].parse();
            return value.map(Token::Double).map_err(|_| self.error(from, "this is no number"));
        }
        match rest[..len].parse::<u64>() {
            Ok(9_223_372_036_854_775_808) => Ok(Token::IntMin),
            Ok(value) => self.int(from, value),
            Err(_) => Err(self.error(from, "this number is not in the range of 64 bits")),
        }
    }

    fn int(&self, from: usize, value: u64) -> Result<Token, SyntaxError> {
        let value = i64::try_from(value);
        value
            .map(Token::Int)
            .map_err(|_| self.error(from, "this number is not in the range of 64 bits"))
    }

    /// A letter right behind a number is a typing error, or one of the kinds that are left out.
    fn end_of_number(&mut self, from: usize) -> Result<(), SyntaxError> {
        let Some(next) = self.rest().chars().next().filter(char::is_ascii_alphanumeric) else {
            return Ok(());
        };
        self.at += 1;
        Err(self.error(
            from,
            match next {
                'u' | 'U' => "unsigned numbers are not supported; leave the `u` away".to_owned(),
                other => format!("unexpected `{other}` after a number"),
            },
        ))
    }

    fn text(&mut self, is_raw: bool) -> Result<Token, SyntaxError> {
        let from = self.at - usize::from(is_raw);
        let (len, value) = text::read(self.rest(), is_raw).map_err(|(offset, message)| {
            SyntaxError { message, span: Span::new(self.at + offset, self.at + offset + 1) }
        })?;
        self.at += len;
        debug_assert!(self.at > from);
        Ok(Token::Text(value))
    }
}
