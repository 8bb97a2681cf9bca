//! Writes once more what the engine wrote, without the engine: in a plain loop that commits in
//! groups.
//!
//! The rows are those of a workflow that the engine has run, under other ids.

/// How the rows are spread over transactions.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "the same shape in every build")
)]
pub(crate) enum Shape {
    /// `count` workflows like the sample, `group` of them in a transaction: with their outcomes, or
    /// with those of the `group` before.
    Many { count: u64, group: u64, at_once: bool },
    /// The sample once; a transaction writes the outcomes of `group` tasks.
    One { group: usize },
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use replaying::replay;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod replaying {
    use std::time::Duration;

    use gleitzeit::{Event, EventData, WorkflowId};

    use super::Shape;
    use crate::baseline::{Baseline, Batch, Change, Sample};

    /// Writes the rows of `shape`; returns how long the database took.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn replay(
        baseline: &Baseline,
        sample: &WorkflowId,
        events: &[Event],
        shape: Shape,
    ) -> anyhow::Result<Duration> {
        let sample = baseline.sample(sample).await?;
        let script = Script::of(&sample, events);
        match shape {
            Shape::Many { count, group, at_once } => {
                many(baseline, &script, count, group, at_once).await
            }
            Shape::One { group } => one(baseline, &script, group).await,
        }
    }

    /// The rows of a workflow, in the order of their writing.
    struct Script<'a> {
        sample: &'a Sample,
        /// Written with the submission.
        first: &'a [Event],
        /// Written later.
        rest: &'a [Event],
        all: &'a [Event],
    }

    impl<'a> Script<'a> {
        fn of(sample: &'a Sample, events: &'a [Event]) -> Self {
            // A submission is written with what became ready at once.
            let at_once = |event: &&Event| {
                matches!(
                    event.data,
                    EventData::WorkflowSubmitted { .. } | EventData::TaskQueued { .. }
                )
            };
            let (first, rest) = events.split_at(events.iter().take_while(at_once).count());
            Self { sample, first, rest, all: events }
        }

        /// Adds a workflow that was submitted and has ended.
        fn add_whole(&self, batch: &mut Batch, id: &WorkflowId) -> anyhow::Result<()> {
            let rest = Change { tasks: &self.sample.tasks, events: self.all, state: None };
            batch.add(id, self.sample, &self.sample.workflow, rest)
        }

        /// Adds a workflow that was submitted and has not begun; its tasks have no rows.
        fn add_submission(&self, batch: &mut Batch, id: &WorkflowId) -> anyhow::Result<()> {
            let mut row = self.sample.workflow.clone();
            "pending".clone_into(&mut row.status);
            (row.started_at, row.completed_at, row.error) = (None, None, None);
            row.last_sequence = i64::try_from(self.first.len())?;
            let rest = Change { tasks: &[], events: self.first, state: None };
            batch.add(id, self.sample, &row, rest)
        }

        /// All that follows a submission.
        fn outcome(&self) -> Change<'a> {
            let sample = self.sample;
            Change { tasks: &sample.tasks, events: self.rest, state: Some(&sample.workflow) }
        }
    }

    async fn many(
        baseline: &Baseline,
        script: &Script<'_>,
        count: u64,
        group: u64,
        at_once: bool,
    ) -> anyhow::Result<Duration> {
        let mut took = Duration::ZERO;
        let mut left = count;
        let mut before: Vec<i64> = Vec::new();
        while left > 0 || !before.is_empty() {
            let now = left.min(group.max(1));
            left -= now;
            let mut batch = Batch::default();
            for key in before {
                batch.change(key, script.outcome())?;
            }
            for _ in 0..now {
                let id = WorkflowId::generate();
                if at_once {
                    script.add_whole(&mut batch, &id)?;
                } else {
                    script.add_submission(&mut batch, &id)?;
                }
            }
            let (of_batch, keys) = baseline.write(batch).await?;
            took += of_batch;
            before = if at_once { Vec::new() } else { keys };
        }
        Ok(took)
    }

    async fn one(
        baseline: &Baseline,
        script: &Script<'_>,
        group: usize,
    ) -> anyhow::Result<Duration> {
        let mut batch = Batch::default();
        script.add_submission(&mut batch, &WorkflowId::generate())?;
        let (mut took, keys) = baseline.write(batch).await?;
        let Change { tasks, events, state } = script.outcome();
        let group = group.max(1);
        let groups = tasks.len().div_ceil(group).max(1);
        let mut events = events.chunks(events.len().div_ceil(groups).max(1));
        for (number, tasks) in (1..).zip(tasks.chunks(group)) {
            let events = events.next().unwrap_or_default();
            let state = if number == groups { state } else { None };
            let mut batch = Batch::default();
            batch.change(keys[0], Change { tasks, events, state })?;
            took += baseline.write(batch).await?.0;
        }
        Ok(took)
    }
}
