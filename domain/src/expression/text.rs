//! Reads a text literal with its escapes.

/// The text that `source` begins with, in any of the four quotes, and the bytes that it takes.
///
/// # Errors
/// The offset of what is wrong, and what.
pub(super) fn read(source: &str, is_raw: bool) -> Result<(usize, String), (usize, String)> {
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| source.starts_with(quote));
    let Some(quote) = quote else { return Err((0, "a text needs quotes".into())) };
    let mut value = String::new();
    let mut at = quote.len();
    loop {
        let rest = &source[at..];
        if rest.starts_with(quote) {
            return Ok((at + quote.len(), value));
        }
        let Some(next) = rest.chars().next() else {
            return Err((0, "this text has no end".into()));
        };
        if next == '\\' && !is_raw {
            let (len, escaped) = escape(rest).map_err(|message| (at, message))?;
            value.push(escaped);
            at += len;
            continue;
        }
        if matches!(next, '\n' | '\r') && quote.len() == 1 {
            return Err((0, "this text has no end on its line".into()));
        }
        value.push(next);
        at += next.len_utf8();
    }
}

/// The character of an escape, and the bytes that it takes.
fn escape(rest: &str) -> Result<(usize, char), String> {
    let Some(kind) = rest[1..].chars().next() else {
        return Err("this text has no end".into());
    };
    let simple = match kind {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' | '?' | '"' | '\'' | '`' => kind,
        'x' | 'X' => return code(rest, 2, 2, 16),
        'u' => return code(rest, 2, 4, 16),
        'U' => return code(rest, 2, 8, 16),
        '0'..='3' => return code(rest, 1, 3, 8),
        other => return Err(format!("`\\{other}` is no escape; a backslash is written `\\\\`")),
    };
    Ok((2, simple))
}

fn code(rest: &str, from: usize, len: usize, radix: u32) -> Result<(usize, char), String> {
    let digits =
        rest.get(from..from + len).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
    let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
    let found = code.and_then(char::from_u32);
    let found = found.ok_or_else(|| format!("this escape needs {len} digits of a character"))?;
    Ok((from + len, found))
}
