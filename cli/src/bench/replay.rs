//! Writes what the engine wrote once more, without the engine: in a plain loop that commits in
//! groups.
//!
//! The rows are those of a workflow that the engine has run, with other ids.

/// How the rows are spread over transactions.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "the same shape in every build")
)]
pub(super) enum Shape {
    /// `count` workflows like the sample, `group` of them in a transaction: with their outcomes, or
    /// with those of the `group` before.
    Many { count: u64, group: u64, at_once: bool },
    /// The sample once; a transaction writes the outcomes of `group` tasks.
    One { group: usize },
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use replaying::replay;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod replaying {
    use std::time::Duration;

    use gleitzeit::{
        WorkflowId, WorkflowRecord, WorkflowStatus,
        domain::{
            event::{Event, EventData},
            needs::Needs,
            store::{NewWorkflow, WorkflowChange, WorkflowState},
            task::TaskRecord,
        },
        storage::plain::Plain,
    };

    use super::Shape;

    /// Writes; how long the database took.
    ///
    /// # Errors
    /// What the database says.
    pub(in super::super) async fn replay(
        plain: &mut Plain,
        sample: &WorkflowRecord,
        events: &[Event],
        shape: Shape,
    ) -> anyhow::Result<Duration> {
        let script = Script::of(sample, events);
        match shape {
            Shape::Many { count, group, at_once } => {
                many(plain, &script, count, group, at_once).await
            }
            Shape::One { group } => one(plain, &script, group).await,
        }
    }

    /// What was written about a workflow.
    struct Script<'a> {
        settled: &'a WorkflowRecord,
        /// As it was submitted.
        new: NewWorkflow,
        /// Told later.
        events: &'a [Event],
        all_events: &'a [Event],
    }

    impl<'a> Script<'a> {
        fn of(settled: &'a WorkflowRecord, events: &'a [Event]) -> Self {
            // A submission is written with what became ready at once.
            let at_once = |event: &&Event| {
                matches!(
                    event.data,
                    EventData::WorkflowSubmitted { .. } | EventData::TaskQueued { .. }
                )
            };
            let (first, rest) = events.split_at(events.iter().take_while(at_once).count());
            let waiting = |task: &TaskRecord| {
                TaskRecord::pending(task.index, task.id.clone(), task.name.clone())
            };
            let record = WorkflowRecord {
                status: WorkflowStatus::Pending,
                started_at: None,
                completed_at: None,
                last_sequence: first.len() as u64,
                tasks: settled.tasks.iter().map(waiting).collect(),
                ..settled.clone()
            };
            Self {
                settled,
                new: NewWorkflow {
                    record,
                    events: first.to_vec(),
                    epoch: None,
                    needs: Needs::default(),
                },
                events: rest,
                all_events: events,
            }
        }

        /// The submission of what has ended by then, of another id.
        fn whole(&self, id: &WorkflowId) -> NewWorkflow {
            let record = WorkflowRecord { id: id.clone(), ..self.settled.clone() };
            NewWorkflow {
                record,
                events: self.all_events.to_vec(),
                epoch: None,
                needs: Needs::default(),
            }
        }

        /// The submission, of another id.
        fn submission(&self, id: &WorkflowId) -> NewWorkflow {
            let mut new = self.new.clone();
            new.record.id = id.clone();
            new
        }

        fn change(
            &self,
            id: &WorkflowId,
            tasks: &[TaskRecord],
            events: &[Event],
        ) -> WorkflowChange {
            WorkflowChange {
                id: id.clone(),
                workflow: None,
                tasks: tasks.to_vec(),
                events: events.to_vec(),
                last_sequence: self.settled.last_sequence,
                epoch: None,
            }
        }

        fn state(&self) -> WorkflowState {
            WorkflowState {
                status: self.settled.status,
                started_at: self.settled.started_at,
                completed_at: self.settled.completed_at,
                error: self.settled.error.clone(),
            }
        }
    }

    fn new_id() -> WorkflowId {
        WorkflowId::generate()
    }

    async fn many(
        plain: &mut Plain,
        script: &Script<'_>,
        count: u64,
        group: u64,
        at_once: bool,
    ) -> anyhow::Result<Duration> {
        let mut took = Duration::ZERO;
        let mut left = count;
        let mut before: Vec<WorkflowId> = Vec::new();
        while left > 0 || !before.is_empty() {
            let now = left.min(group.max(1));
            left -= now;
            let ids: Vec<WorkflowId> = (0..now).map(|_| new_id()).collect();
            let new = |id| if at_once { script.whole(id) } else { script.submission(id) };
            let news: Vec<NewWorkflow> = ids.iter().map(new).collect();
            let outcome = |id: &WorkflowId| WorkflowChange {
                workflow: Some(script.state()),
                ..script.change(id, &script.settled.tasks, script.events)
            };
            let changes: Vec<WorkflowChange> = before.iter().map(outcome).collect();
            took += plain.write(&news, &changes).await?;
            before = if at_once { Vec::new() } else { ids };
        }
        Ok(took)
    }

    async fn one(plain: &mut Plain, script: &Script<'_>, group: usize) -> anyhow::Result<Duration> {
        let id = new_id();
        let mut took = plain.write(&[script.submission(&id)], &[]).await?;
        let group = group.max(1);
        let groups = script.settled.tasks.len().div_ceil(group).max(1);
        let mut told = script.events.chunks(script.events.len().div_ceil(groups).max(1));
        for (number, tasks) in (1..).zip(script.settled.tasks.chunks(group)) {
            let mut change = script.change(&id, tasks, told.next().unwrap_or_default());
            if number == groups {
                change.workflow = Some(script.state());
            }
            took += plain.write(&[], std::slice::from_ref(&change)).await?;
        }
        Ok(took)
    }
}
