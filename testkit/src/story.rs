//! The outcome of a workflow, and assertions on its events.

use std::{ops::Deref, sync::Arc};

use gleitzeit::{Event, WorkflowRecord};

use crate::crash::Pattern;

/// The outcome of a workflow: its record, and its events over all lives.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The workflow as it is stored.
    pub record: Arc<WorkflowRecord>,
    /// The events of the workflow, in order.
    pub events: Vec<Event>,
}

impl Deref for Ended {
    type Target = WorkflowRecord;

    fn deref(&self) -> &WorkflowRecord {
        &self.record
    }
}

impl Ended {
    /// The events as assertions name them: `task:completed charge`.
    pub fn lines(&self) -> Vec<String> {
        let line = |event: &Event| match event.data.task_id() {
            Some(task) => format!("{} {task}", event.data),
            None => event.data.to_string(),
        };
        self.events.iter().map(line).collect()
    }

    /// The number of events with this name; without a task, those of all tasks count.
    pub fn count(&self, event: &str) -> usize {
        let pattern = Pattern::read(event);
        self.events.iter().filter(|event| pattern.fits(event)).count()
    }

    /// Asserts that these events happened in this order; others may be between them.
    ///
    /// # Panics
    /// If one is missing after those before it; the text shows all events.
    #[track_caller]
    pub fn assert_order(&self, expected: &[&str]) {
        let mut events = self.events.iter();
        for name in expected {
            let pattern = Pattern::read(name);
            let is_there = events.any(|event| pattern.fits(event));
            assert!(
                is_there,
                "no `{pattern}` in its place among the events of `{}`:\n  {}",
                self.record.id,
                self.lines().join("\n  ")
            );
        }
    }

    /// Asserts that the event did not happen.
    ///
    /// # Panics
    /// If it did; the text shows all events.
    #[track_caller]
    pub fn assert_never(&self, event: &str) {
        assert!(
            self.count(event) == 0,
            "`{event}` is among the events of `{}`:\n  {}",
            self.record.id,
            self.lines().join("\n  ")
        );
    }
}
