//! The file that all processes of a test append to: what they were told, ran and decided, in the
//! order in which it happened.
//!
//! Invariant: a line is in the file, whole, before its writer goes on. One that a kill cuts short, as
//! can happen where it crosses from one page of the file into the next, is known by its missing end
//! and counts for nothing: its writer did not go on.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
};

/// The end of a line.
const END: &str = " .";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A process was told that a workflow is stored.
    Accepted { workflow: String },
    /// A call begins, so many microseconds after 1970.
    Begins { process: String, task: String, attempt: u32, key: String, at_us: i64 },
    /// A call has ended, well or not.
    Ends { process: String, task: String, attempt: u32, well: bool },
    /// A person says that a task whose outcome is unknown may be done with, or run again.
    Word { task: String },
    /// A process stopped while a call ran, and said so.
    Cut { process: String, task: String },
    /// A process found that it had lost leases, and so many of its changes refused.
    Lost { process: String, leases: u64, refused: u64 },
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Accepted { workflow } => format!("accepted {workflow}"),
            Self::Begins { process, task, attempt, key, at_us } => {
                format!("begins {process} {task} {attempt} {key} {at_us}")
            }
            Self::Ends { process, task, attempt, well } => {
                format!("ends {process} {task} {attempt} {well}")
            }
            Self::Word { task } => format!("word {task}"),
            Self::Cut { process, task } => format!("cut {process} {task}"),
            Self::Lost { process, leases, refused } => {
                format!("lost {process} {leases} {refused}")
            }
        }
    }

    fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        Some(match *words.as_slice() {
            ["accepted", workflow] => Self::Accepted { workflow: workflow.into() },
            ["begins", process, task, attempt, key, at_us] => Self::Begins {
                process: process.into(),
                task: task.into(),
                attempt: attempt.parse().ok()?,
                key: key.into(),
                at_us: at_us.parse().ok()?,
            },
            ["ends", process, task, attempt, well] => Self::Ends {
                process: process.into(),
                task: task.into(),
                attempt: attempt.parse().ok()?,
                well: well.parse().ok()?,
            },
            ["word", task] => Self::Word { task: task.into() },
            ["cut", process, task] => Self::Cut { process: process.into(), task: task.into() },
            ["lost", process, leases, refused] => Self::Lost {
                process: process.into(),
                leases: leases.parse().ok()?,
                refused: refused.parse().ok()?,
            },
            _ => return None,
        })
    }
}

/// Appends a line; it is on the disk when this returns.
pub(crate) fn append(folder: &Path, line: &Line) {
    hand_over(folder, line).sync_data().unwrap();
}

/// Appends a line; it is in the kernel's hands when this returns, which outlive a killed process.
pub(crate) fn hand_over(folder: &Path, line: &Line) -> File {
    let path = folder.join("journal");
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    // One write, so that lines of several processes do not mix; and none begins behind one that was
    // cut short.
    file.write_all(format!("\n{}{END}\n", line.text()).as_bytes()).unwrap();
    file
}

/// All lines that were written whole, in order.
pub(crate) fn read(folder: &Path) -> Vec<Line> {
    let text = fs::read_to_string(folder.join("journal")).unwrap_or_default();
    let line = |text| Line::read(text).unwrap_or_else(|| panic!("`{text}` in the journal"));
    text.lines().filter_map(|text| text.strip_suffix(END)).map(line).collect()
}

/// Whatever is left of a line counts for nothing, and costs none of the others.
#[test]
fn a_line_that_was_cut_short_counts_for_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let line = |workflow: &str| Line::Accepted { workflow: workflow.into() };
    append(folder.path(), &line("a"));
    let whole = fs::read(folder.path().join("journal")).unwrap();
    // All but the last byte, which ends nothing.
    for length in 0..whole.len() - 1 {
        let mut file = File::create(folder.path().join("journal")).unwrap();
        file.write_all(&whole[..length]).unwrap();
        append(folder.path(), &line("b"));
        assert_eq!(read(folder.path()), [line("b")], "{length} bytes of {whole:?}");
    }
}
