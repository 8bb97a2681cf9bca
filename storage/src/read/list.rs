//! Lists workflows, with the counts of their tasks.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use gleitzeit_domain::{store::ListFilter, task::TaskStatus, workflow::WorkflowSummary};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _, QueryTrait as _,
};

use super::{
    Answer, Reader,
    assemble::{task_status, workflow_status},
    query,
};
use crate::{
    encode::{count_of, escape, time_of, time_of_nullable, unescape},
    entity::workflow,
    fault::ReadError,
};

impl Reader {
    pub(crate) async fn list(&self, filter: ListFilter) -> Answer<Vec<WorkflowSummary>> {
        use workflow::Column;
        let snapshot = self.snapshot().await?;
        let mut select = workflow::Entity::find().select_only().columns([
            Column::Key,
            Column::Id,
            Column::Name,
            Column::Status,
            Column::CreatedAt,
            Column::CompletedAt,
            Column::TaskCount,
        ]);
        if let Some(status) = filter.status {
            select = select.filter(Column::Status.eq(status.as_str()));
        }
        if let Some(name) = &filter.name {
            select = select.filter(Column::Name.eq(&*escape(name)));
        }
        if let Some(since) = filter.since {
            select = select.filter(Column::CreatedAt.gte(ceil_micros(since)));
        }
        if let Some(until) = filter.until {
            select = select.filter(Column::CreatedAt.lt(ceil_micros(until)));
        }
        let to_i64 = |number: usize| u64::try_from(number).unwrap_or(u64::MAX).min(i64::MAX as u64);
        let select = select
            // By key, not by time: keys are in the order of submission, and a clock may be set
            // back.
            .order_by_desc(Column::Key)
            .limit(to_i64(filter.limit))
            .offset(to_i64(filter.offset))
            .build(self.backend);
        let rows = query(&snapshot, select).await?;
        let mut open = Vec::new();
        let mut summaries = Vec::with_capacity(rows.len());
        for row in rows {
            match summary(&row) {
                Ok((key, summary)) => {
                    // Only unsettled ones are counted: all tasks of a settled workflow have
                    // settled.
                    if !summary.status.is_settled() {
                        open.push((key, summaries.len()));
                    }
                    summaries.push(summary);
                }
                Err(ReadError(error)) => {
                    self.report(&row.try_get_by_index::<String>(1).unwrap_or_default(), &error);
                }
            }
        }
        self.count_tasks(&snapshot, &open, &mut summaries).await?;
        snapshot.commit().await?;
        Ok(summaries)
    }

    /// Adds the counts of unsettled workflows: (key, index in `summaries`).
    async fn count_tasks(
        &self,
        snapshot: &DatabaseTransaction,
        open: &[(i64, usize)],
        summaries: &mut [WorkflowSummary],
    ) -> Answer<()> {
        let indexes: HashMap<i64, usize> = open.iter().copied().collect();
        let keys = open.iter().map(|(key, _)| (*key).into()).collect();
        for statement in self.task_counts.statements(keys) {
            for row in query(snapshot, statement).await? {
                let key: i64 = row.try_get_by_index(0)?;
                let count: u32 = count_of(row.try_get_by_index(2)?)?;
                let Some(summary) = indexes.get(&key).and_then(|at| summaries.get_mut(*at)) else {
                    continue;
                };
                let status = match task_status(&row.try_get_by_index::<String>(1)?) {
                    Ok(status) => status,
                    Err(error) => {
                        self.report(summary.id.as_str(), &error);
                        continue;
                    }
                };
                if status.is_settled() {
                    summary.settled_count += count;
                } else if status == TaskStatus::OutcomeUnknown {
                    summary.outcome_unknown_count += count;
                } else if status == TaskStatus::Queued {
                    // A queued task has a row only while it waits for a provider that is down.
                    summary.waiting_count += count;
                }
            }
        }
        Ok(())
    }
}

/// The microsecond of a row that is the first at this time or later.
fn ceil_micros(at: DateTime<Utc>) -> i64 {
    let is_between = !at.timestamp_subsec_nanos().is_multiple_of(1_000);
    at.timestamp_micros().saturating_add(i64::from(is_between))
}

/// The summary of a row without the counts of its tasks, and its key.
fn summary(row: &QueryResult) -> Answer<(i64, WorkflowSummary)> {
    let status = workflow_status(&row.try_get_by_index::<String>(3)?)?;
    let task_count = count_of(row.try_get_by_index(6)?)?;
    let summary = WorkflowSummary {
        id: unescape(row.try_get_by_index(1)?).into(),
        name: unescape(row.try_get_by_index(2)?).into(),
        status,
        created_at: time_of(row.try_get_by_index(4)?)?,
        completed_at: time_of_nullable(row.try_get_by_index(5)?)?,
        task_count,
        settled_count: if status.is_settled() { task_count } else { 0 },
        outcome_unknown_count: 0,
        waiting_count: 0,
    };
    Ok((row.try_get_by_index(0)?, summary))
}
