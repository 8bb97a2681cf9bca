//! Where a test has its runtime crash.

use std::fmt;

use gleitzeit::Event;

/// An event as a test names it: its type, and the task where it is about one.
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

/// Where a runtime crashes, once. Events are named as they are in the documentation of events,
/// followed by the id of the task: `task:completed charge`.
#[derive(Debug, Clone)]
pub struct Crash {
    pub(crate) place: Place,
    /// How many more times the place is passed before.
    pub(crate) left: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    Before(Pattern),
    After(Pattern),
    During(String),
}

impl Crash {
    fn at(place: Place) -> Self {
        Self { place, left: 0 }
    }

    /// Right after the event is stored: nobody has been told of it, and nothing follows from it.
    pub fn after(event: &str) -> Self {
        Self::at(Place::After(Pattern::read(event)))
    }

    /// Right before the event would be stored: what it tells of has happened, and is forgotten.
    pub fn before(event: &str) -> Self {
        Self::at(Place::Before(Pattern::read(event)))
    }

    /// When the handler of this task has returned, and before the runtime hears of it.
    pub fn during(task: &str) -> Self {
        Self::at(Place::During(task.to_owned()))
    }

    /// Not the first time, but the `number`th, from 1.
    #[must_use]
    pub fn the(mut self, number: u32) -> Self {
        self.left = number.saturating_sub(1);
        self
    }
}
