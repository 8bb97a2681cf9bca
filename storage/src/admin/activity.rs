//! What goes on in a database now: tasks by provider, what waits, and how much settled of late.
//!
//! Each answer is one snapshot. Only what is stored is seen: a short task may begin and end between two
//! writes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gleitzeit_domain::{store::StoreError, task::TaskStatus, workflow::WorkflowStatus};
use sea_orm::{DatabaseTransaction, DbErr};
use serde::Serialize;

use super::{OpenDatabase, of_read, rows};
use crate::{StoreUrl, encode::unescape, open::Role, read};

/// What goes on in a database.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Activity {
    /// Workflows that are not settled.
    pub workflows: u64,
    /// Their tasks.
    pub tasks: TaskCounts,
    /// The providers that run tasks or are waited for, by id.
    pub providers: Vec<ProviderActivity>,
    /// What settled within the span that was asked about.
    pub settled: Settled,
}

/// The tasks of workflows that are not settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TaskCounts {
    /// Their calls run.
    pub executing: u64,
    /// They wait for a dependency, or for their turn.
    pub waiting: u64,
    /// They wait for their next attempt.
    pub retry_pending: u64,
    /// Their outcome is unknown; a person must say.
    pub outcome_unknown: u64,
    /// They are done.
    pub settled: u64,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderActivity {
    /// Its id.
    pub provider_id: String,
    /// Tasks that it runs.
    pub executing: u64,
    /// Tasks whose last attempt it ran, and which wait for the next one.
    pub retry_pending: u64,
}

/// What settled within a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// The span, in seconds.
    pub seconds: u64,
    /// Workflows that completed.
    pub completed: u64,
    /// Workflows that settled otherwise.
    pub failed: u64,
    /// The tasks of both.
    pub tasks: u64,
}

/// Looks at what goes on, and at what settled between `now` and `span` before it.
///
/// # Errors
/// As [`status`](super::status).
pub async fn activity(
    url: &StoreUrl,
    now: DateTime<Utc>,
    span: Duration,
) -> Result<Activity, StoreError> {
    let database = OpenDatabase::open_current(url, Role::Inspect).await?;
    let activity = inspect(&database, now, span).await.map_err(of_read);
    database.close().await;
    activity
}

async fn inspect(
    database: &OpenDatabase,
    now: DateTime<Utc>,
    span: Duration,
) -> Result<Activity, DbErr> {
    let snapshot = read::snapshot(&database.db).await?;
    let mut activity = Activity::default();
    open_tasks(&snapshot, &mut activity).await?;
    activity.settled = settled(&snapshot, now, span).await?;
    snapshot.commit().await?;
    Ok(activity)
}

async fn open_tasks(db: &DatabaseTransaction, activity: &mut Activity) -> Result<(), DbErr> {
    let open = "SELECT COUNT(*), CAST(SUM(task_count) AS BIGINT) FROM gleitzeit_workflows \
                WHERE status IN ('pending', 'running')";
    let mut all = 0;
    for row in rows(db, open, Vec::new()).await? {
        activity.workflows = count(row.try_get_by_index(0)?);
        all = count(row.try_get_by_index::<Option<i64>>(1)?.unwrap_or(0));
    }
    let by_provider = "SELECT t.provider_id, t.status, COUNT(*) FROM gleitzeit_workflows w \
                       JOIN gleitzeit_tasks t ON t.workflow_key = w.key \
                       WHERE w.status IN ('pending', 'running') GROUP BY t.provider_id, t.status \
                       ORDER BY t.provider_id";
    let tasks = &mut activity.tasks;
    for row in rows(db, by_provider, Vec::new()).await? {
        let provider: Option<String> = row.try_get_by_index(0)?;
        let status = TaskStatus::from_name(&row.try_get_by_index::<String>(1)?);
        let number = count(row.try_get_by_index(2)?);
        match status {
            Some(TaskStatus::Executing) => tasks.executing += number,
            Some(TaskStatus::RetryPending) => tasks.retry_pending += number,
            Some(TaskStatus::OutcomeUnknown) => tasks.outcome_unknown += number,
            Some(status) if status.is_settled() => tasks.settled += number,
            _ => {}
        }
        let is_shown = matches!(status, Some(TaskStatus::Executing | TaskStatus::RetryPending));
        let Some(provider) = provider.filter(|_| is_shown) else { continue };
        let provider_id = unescape(provider);
        let known = activity.providers.last().is_some_and(|it| it.provider_id == provider_id);
        if !known {
            let idle = ProviderActivity { provider_id, executing: 0, retry_pending: 0 };
            activity.providers.push(idle);
        }
        let Some(last) = activity.providers.last_mut() else { continue };
        match status {
            Some(TaskStatus::Executing) => last.executing += number,
            _ => last.retry_pending += number,
        }
    }
    // A task that waits need not have a row.
    let others = tasks.executing + tasks.retry_pending + tasks.outcome_unknown + tasks.settled;
    tasks.waiting = all.saturating_sub(others);
    Ok(())
}

/// The index on status and time has them.
async fn settled(
    db: &DatabaseTransaction,
    now: DateTime<Utc>,
    span: Duration,
) -> Result<Settled, DbErr> {
    let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    let since = now.timestamp_micros().saturating_sub(micros);
    let mut settled = Settled { seconds: span.as_secs(), ..Settled::default() };
    for status in WorkflowStatus::ALL.into_iter().filter(|status| status.is_settled()) {
        let select = "SELECT COUNT(*), CAST(SUM(task_count) AS BIGINT) FROM gleitzeit_workflows \
                      WHERE status = $1 AND completed_at >= $2";
        for row in rows(db, select, vec![status.as_str().into(), since.into()]).await? {
            let number = count(row.try_get_by_index(0)?);
            settled.tasks += count(row.try_get_by_index::<Option<i64>>(1)?.unwrap_or(0));
            if status == WorkflowStatus::Completed {
                settled.completed += number;
            } else {
                settled.failed += number;
            }
        }
    }
    Ok(settled)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
