//! What follows from the ends of tasks, applied to the run: skips, failures and decisions.

use std::{ops::AddAssign, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    Run,
    measure::{NotAResult, result_size},
};
use crate::{
    decision::Decision,
    error::{ErrorCode, TaskError},
    event::EventData,
    graph::Settlement,
    metrics::ExecutionStats,
    task::TaskStatus,
};

/// How many tasks ended without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecidedCounts {
    /// With a value.
    pub completed: u64,
    /// Left out by a condition.
    pub skipped: u64,
    /// By a dependency that did not complete.
    pub upstream_failed: u64,
    /// By a decision that cannot be made, or a dependency.
    pub failed: u64,
}

impl AddAssign<DecidedCounts> for ExecutionStats {
    fn add_assign(&mut self, counts: DecidedCounts) {
        self.tasks_processed += counts.completed;
        self.tasks_succeeded += counts.completed;
        self.tasks_skipped += counts.skipped;
        self.tasks_upstream_failed += counts.upstream_failed;
        self.tasks_failed += counts.failed;
    }
}

impl Run {
    /// Applies what follows from the ends of tasks; ready tasks are the caller's.
    pub fn apply(&mut self, settlement: &Settlement, now: DateTime<Utc>) -> DecidedCounts {
        let mut counts = DecidedCounts {
            skipped: settlement.skipped.len() as u64,
            upstream_failed: settlement.upstream_failed.len() as u64,
            failed: settlement.failed.len() as u64,
            ..DecidedCounts::default()
        };
        // First: those that need the result of one of these name it as their cause.
        for (index, decision) in &settlement.decided {
            self.decide(*index, decision, &mut counts, now);
        }
        for (index, because) in &settlement.upstream_failed {
            self.upstream_failed(*index, *because, now);
        }
        for (index, because) in &settlement.skipped {
            self.skip_for(*index, *because, now);
        }
        for (index, because) in &settlement.failed {
            self.fail_dependency(*index, *because, now);
        }
        counts
    }

    fn decide(
        &mut self,
        index: u32,
        decision: &Decision,
        counts: &mut DecidedCounts,
        now: DateTime<Utc>,
    ) {
        // Stored before a crash; or cancelled while the resolver decided.
        if self.task(index).status.is_settled() {
            return;
        }
        match decision {
            Decision::Completed(value) => match result_size(value, self.result_max) {
                Ok(size) => {
                    counts.completed += 1;
                    self.complete(index, Arc::clone(value), size, now);
                }
                Err(wrong) => {
                    counts.failed += 1;
                    self.fail(index, NotAResult::into_error(wrong), now);
                }
            },
            Decision::Failed(error) => {
                counts.failed += 1;
                self.fail(index, error.clone(), now);
            }
            Decision::Skipped(condition) => {
                counts.skipped += 1;
                self.skip(index, index, condition, now);
            }
        }
    }

    /// A task is skipped because it needs the result of task `because`, which was.
    fn skip_for(&mut self, index: u32, because: u32, now: DateTime<Utc>) {
        let error = self.task(because).error.as_ref().and_then(|error| error.data.as_deref());
        let condition = error.and_then(|data| data["condition"].as_str()).unwrap_or_default();
        let condition: Arc<str> = condition.into();
        self.skip(index, because, &condition, now);
    }

    fn skip(&mut self, index: u32, because: u32, condition: &Arc<str>, now: DateTime<Utc>) {
        if self.task(index).status.is_settled() {
            return;
        }
        let because = self.task(because).id.clone();
        let task_id = self.task(index).id.clone();
        let message = if because == task_id {
            format!("`{condition}` does not hold")
        } else {
            format!("needs task `{because}`, which was skipped: `{condition}` does not hold")
        };
        let data = json!({ "because": because, "condition": condition });
        let error = TaskError::new(ErrorCode::TaskSkipped, message).with_data(data);
        self.record.tasks[index as usize].error = Some(Arc::new(error));
        self.settle(index, TaskStatus::Skipped, now);
        let condition = Arc::clone(condition);
        self.log(now, EventData::TaskSkipped { task_id, because, condition });
    }
}
