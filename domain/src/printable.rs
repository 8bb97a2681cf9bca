//! Decides which characters of a text a person may see as they are, and how the others are written.
//!
//! Results, errors, names and file names come from outside. A control character among them moves
//! the cursor, sets the title or the clipboard of a terminal; a bidirectional one shows a line in
//! another order than it has. Both are written as `\u001b`, the way JSON writes them.
//!
//! Invariant: the answer of [`line()`] and [`block`] is unchanged by a second pass.

use std::{borrow::Cow, fmt::Write as _};

/// True if a terminal acts on `c`, or a reader cannot see it: C0 and C1 controls, DEL, line and
/// paragraph separators, bidirectional controls, invisible format characters and tags.
///
/// Joiners (U+200C, U+200D) and variation selectors are not: scripts and emoji need them.
pub const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Writes `c` as JSON does within a string: `\n`, `\u001b`, or two surrogates.
pub fn escape(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// The text on one line: line ends and tabs are escaped, too.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// The text on its lines: `\n` and tabs stay, `\r\n` becomes `\n`.
pub fn block(text: &str) -> Cow<'_, str> {
    let hides = |c| is_hidden(c) && !matches!(c, '\n' | '\t');
    if text.contains("\r\n") {
        return Cow::Owned(escaped(&text.replace("\r\n", "\n"), hides).into_owned());
    }
    escaped(text, hides)
}

/// A JSON text with its hidden characters escaped. They stand only in strings, where an escape
/// means the same; the white space between values stays.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c >= '\u{7f}' && is_hidden(c))
}

fn escaped(text: &str, hides: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&hides) else { return Cow::Borrowed(text) };
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(&text[..first]);
    for c in text[first..].chars() {
        if hides(c) {
            escape(c, &mut escaped);
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sequences that are known to drive terminals are text afterwards.
    #[test]
    fn what_drives_a_terminal_is_escaped() {
        assert_eq!(line("\u{1b}]52;c;ZXY=\u{7}"), r"\u001b]52;c;ZXY=\u0007");
        assert_eq!(line("a\r\nb\tc"), r"a\r\nb\tc");
        assert_eq!(line("\u{9b}31m\u{7f}"), r"\u009b31m\u007f");
        assert_eq!(line("\u{202e}gnp\u{2066}\u{200b}"), r"\u202egnp\u2066\u200b");
        assert_eq!(line("\u{e0041}"), r"\udb40\udc41");
        assert_eq!(block("a\r\nb\rc\n\td\u{2028}"), "a\nb\\rc\n\td\\u2028");
    }

    /// Ordinary text of any script is left alone, and not copied.
    #[test]
    fn ordinary_text_is_borrowed() {
        for text in ["plain", "Füße ⏎ ✓", "می‌خواهم", "👩‍👩‍👧", "日本語"]
        {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    /// A program reads the same value, whatever the text holds.
    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"a\u{9b}": ["\u{202e}\u{1b}\n", "\u{e0001}", "ä"]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = json(&text);
        assert!(!escaped.chars().any(|c| is_hidden(c) && c != '\n'), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    proptest! {
        /// Nothing hidden is left, and a second pass changes nothing.
        #[test]
        fn nothing_hidden_is_left(text in any::<String>()) {
            let once = line(&text).into_owned();
            prop_assert!(!once.chars().any(is_hidden));
            prop_assert_eq!(line(&once), once.as_str());
            let once = block(&text).into_owned();
            prop_assert!(!once.chars().any(|c| is_hidden(c) && c != '\n' && c != '\t'));
            prop_assert_eq!(block(&once), once.as_str());
        }
    }
}
