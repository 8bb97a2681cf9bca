//! Tables of one line a row, as wide as the terminal at most.
//!
//! The columns that hold ids, states and times keep their width; those that may be long are
//! shortened, the widest one first, and end with `…`. So a row can be found by `grep` at any width.

use console::{measure_text_width, truncate_str};
use gleitzeit_domain::printable;

use super::style::Style;

/// Columns between two cells.
const GAP: usize = 2;
/// A flexible column keeps this many columns of the terminal.
const SHORTEST: usize = 10;

/// A cell: its text and its style.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text in a style.
    pub(crate) fn new(text: &str, style: Style) -> Self {
        Self { text: printable::line(text.trim_end()).into_owned(), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text.as_ref(), Style::Plain)
    }
}

/// Rows of `N` cells.
#[derive(Debug)]
pub(crate) struct Lines<const N: usize> {
    rows: Vec<[Cell; N]>,
    is_flexible: [bool; N],
}

impl<const N: usize> Lines<N> {
    /// With these titles; a column whose title begins with `~` is flexible.
    pub(crate) fn new(titles: [&str; N]) -> Self {
        let is_flexible = titles.map(|title| title.starts_with('~'));
        let titles = titles.map(|title| Cell::new(title.trim_start_matches('~'), Style::Faint));
        Self { rows: vec![titles], is_flexible }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// The table within `width` columns, without a line end at its end.
    pub(crate) fn render(&self, width: usize, is_coloured: bool) -> String {
        let widths = self.widths(width);
        let lines: Vec<String> =
            self.rows.iter().map(|row| line(row, &widths, is_coloured)).collect();
        lines.join("\n")
    }

    fn widths(&self, width: usize) -> [usize; N] {
        let mut widths = [0; N];
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = measure_text_width(&cell.text).max(*widest);
            }
        }
        let mut over = (widths.iter().sum::<usize>() + GAP * (N - 1)).saturating_sub(width);
        while over > 0 {
            let mut flexible =
                widths.iter_mut().zip(self.is_flexible).filter(|(_, is_flexible)| *is_flexible);
            // Of two that are as wide, the last one.
            let widest = flexible.by_ref().map(|(column, _)| column).max();
            let Some(widest) = widest.filter(|column| **column > SHORTEST) else { break };
            *widest -= 1;
            over -= 1;
        }
        widths
    }
}

fn line<const N: usize>(row: &[Cell; N], widths: &[usize; N], is_coloured: bool) -> String {
    let mut line = String::new();
    let mut pending = 0;
    for (cell, width) in row.iter().zip(widths) {
        let text = truncate_str(&cell.text, *width, "…");
        if !text.is_empty() {
            line.extend(std::iter::repeat_n(' ', pending));
            line.push_str(&cell.style.paint(&text, is_coloured));
            pending = 0;
        }
        pending += width.saturating_sub(measure_text_width(&text)) + GAP;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Lines<3> {
        let mut table = Lines::new(["id", "~name", "~result"]);
        table.add(["0197c5e0-0000".into(), "a name of a workflow".into(), "x".repeat(50).into()]);
        table.add(["w".into(), "日本語".into(), "\u{1b}[2J".into()]);
        table
    }

    /// Ids stay whole; the widest flexible column is shortened first.
    #[test]
    fn long_cells_are_shortened() {
        let wide = table().render(200, false);
        assert!(wide.contains(&"x".repeat(50)), "{wide}");
        for width in [80, 60, 40] {
            let text = table().render(width, false);
            for line in text.lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line}");
            }
            assert!(text.contains("0197c5e0-0000") && text.contains("xxxxxxxxx…"), "{text}");
        }
        assert!(table().render(60, false).contains("a name of a workflow"));
    }

    /// Columns begin at the same position whatever the characters' widths, and no cell drives the
    /// terminal.
    #[test]
    fn columns_are_aligned() {
        let text = table().render(100, false);
        let at = |line: &str, part: &str| measure_text_width(&line[..line.find(part).unwrap()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(at(lines[0], "result"), at(lines[1], "xxx"));
        assert_eq!(at(lines[0], "result"), at(lines[2], "\\u001b[2J"));
    }
}
