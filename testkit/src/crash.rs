//! The crashes that a test plans for its runtime.

use std::fmt;

use gleitzeit::Event;

/// An event as a test names it: its type, and the task if it is about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    event_type: String,
    task: Option<String>,
}

impl Pattern {
    /// Reads `task:completed charge` or `workflow:completed`.
    pub(crate) fn read(text: &str) -> Self {
        match text.split_once(' ') {
            Some((event_type, task)) => {
                Self { event_type: event_type.to_owned(), task: Some(task.to_owned()) }
            }
            None => Self { event_type: text.to_owned(), task: None },
        }
    }

    pub(crate) fn fits(&self, event: &Event) -> bool {
        let task = event.data.task_id().map(gleitzeit::TaskId::as_str);
        event.data.event_type() == self.event_type
            && self.task.as_deref().is_none_or(|named| task == Some(named))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            Some(task) => write!(out, "{} {task}", self.event_type),
            None => out.write_str(&self.event_type),
        }
    }
}

/// A point at which a runtime crashes, once. Events are named as they are in the documentation of events,
/// followed by the id of the task: `task:completed charge`.
#[derive(Debug, Clone)]
pub struct Crash {
    pub(crate) point: CrashPoint,
    /// How often the point is still passed before the crash.
    pub(crate) left: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum CrashPoint {
    Before(Pattern),
    After(Pattern),
    During(String),
}

impl Crash {
    fn at(point: CrashPoint) -> Self {
        Self { point, left: 0 }
    }

    /// Right after the event is stored, before it is published and before anything follows from it.
    pub fn after(event: &str) -> Self {
        Self::at(CrashPoint::After(Pattern::read(event)))
    }

    /// Right before the event is stored: it has happened, and is lost.
    pub fn before(event: &str) -> Self {
        Self::at(CrashPoint::Before(Pattern::read(event)))
    }

    /// After the handler of this task has returned, before the runtime gets its answer.
    pub fn during(task: &str) -> Self {
        Self::at(CrashPoint::During(task.to_owned()))
    }

    /// The `number`th time instead of the first, from 1.
    #[must_use]
    pub fn the(mut self, number: u32) -> Self {
        self.left = number.saturating_sub(1);
        self
    }
}
