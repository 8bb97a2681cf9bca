//! Colours and widths: what each stream can show.
//!
//! `FORCE_COLOR` (<https://force-color.org>) comes before `NO_COLOR` (<https://no-color.org>), both
//! before what the stream is; `TERM=dumb` shows neither colours nor moving progress.

use std::{env, ffi::OsStr, io::IsTerminal as _, sync::LazyLock};

use console::Term;
use gleitzeit_domain::printable;

/// Columns of what is no terminal.
const WIDTH: usize = 100;
/// Columns below which a table is not squeezed further; a terminal then wraps its lines.
const WIDTH_MIN: usize = 20;

/// Every sequence that the program writes to set a colour: its own, those of diagnostics, of the
/// help and of the log. Any other one comes from outside and is escaped.
const SEQUENCES: [&str; 17] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[3m",
    "\u{1b}[4m",
    "\u{1b}[22m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[34m",
    "\u{1b}[35m",
    "\u{1b}[36m",
    "\u{1b}[1;31m",
    "\u{1b}[1;32m",
    "\u{1b}[1;33m",
    "\u{1b}[1;34m",
    "\u{1b}[39m",
];

/// The style of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As everything else.
    Plain,
    /// It went well.
    Good,
    /// It failed.
    Bad,
    /// Needs attention.
    Odd,
    /// It is under way.
    Busy,
    /// Of less interest.
    Faint,
}

impl Style {
    /// The text, cleaned, in this style, if `is_coloured`.
    pub(crate) fn paint(self, text: &str, is_coloured: bool) -> String {
        let text = printable::line(text).into_owned();
        let sequence = match self {
            Self::Plain => return text,
            Self::Good => "\u{1b}[32m",
            Self::Bad => "\u{1b}[1;31m",
            Self::Odd => "\u{1b}[33m",
            Self::Busy => "\u{1b}[36m",
            Self::Faint => "\u{1b}[2m",
        };
        if is_coloured && !text.is_empty() { format!("{sequence}{text}\u{1b}[0m") } else { text }
    }
}

/// The sequence of the program that `text` begins with.
pub(super) fn prefix(text: &str) -> Option<&'static str> {
    SEQUENCES.into_iter().find(|sequence| text.starts_with(sequence))
}

/// True if standard output shows colours.
pub(crate) fn is_coloured() -> bool {
    static COLOURED: LazyLock<bool> = LazyLock::new(|| shows(std::io::stdout().is_terminal()));
    *COLOURED
}

/// True if standard error shows colours.
pub(crate) fn errors_are_coloured() -> bool {
    static COLOURED: LazyLock<bool> = LazyLock::new(|| shows(std::io::stderr().is_terminal()));
    *COLOURED
}

fn shows(is_terminal: bool) -> bool {
    decide(
        env::var_os("FORCE_COLOR").as_deref(),
        env::var_os("NO_COLOR").as_deref(),
        is_dumb(),
        is_terminal,
    )
}

fn decide(forced: Option<&OsStr>, refused: Option<&OsStr>, is_dumb: bool, is_there: bool) -> bool {
    match forced.filter(|value| !value.is_empty()) {
        Some(value) => value != "0" && value != "false",
        None => refused.is_none_or(OsStr::is_empty) && !is_dumb && is_there,
    }
}

fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// True if lines on standard error can be drawn over.
pub(crate) fn can_move() -> bool {
    std::io::stderr().is_terminal() && !is_dumb()
}

/// Columns of standard output: `COLUMNS` if it is set, those of the terminal, or 100.
pub(crate) fn width() -> usize {
    let set = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let of_terminal = || Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let width = set.filter(|width| *width > 0).or_else(of_terminal);
    width.filter(|width| *width > 0).unwrap_or(WIDTH).max(WIDTH_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person sets comes before what the stream is.
    #[test]
    fn colours_follow_the_variables() {
        let some = |text| Some(OsStr::new(text));
        assert!(decide(None, None, false, true));
        assert!(!decide(None, None, false, false));
        assert!(!decide(None, None, true, true));
        assert!(!decide(None, some("1"), false, true));
        assert!(decide(None, some(""), false, true));
        assert!(decide(some("1"), some("1"), true, false));
        assert!(!decide(some("0"), None, false, true));
        assert!(decide(some(""), None, false, true));
    }
}
