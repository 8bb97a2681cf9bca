//! Reads the events of a workflow.

use gleitzeit_domain::{event::Event, id::WorkflowId};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::{Answer, Reader, assemble::naming};
use crate::{
    encode::{self, count_of, escape},
    entity::{event, workflow},
};

/// Rows of events that one statement reads.
const EVENT_ROWS: u64 = 256;

impl Reader {
    pub(crate) async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Answer<Vec<Event>> {
        let snapshot = self.snapshot().await?;
        let key: Option<i64> = workflow::Entity::find()
            .select_only()
            .column(workflow::Column::Key)
            .filter(workflow::Column::Id.eq(&*escape(id.as_str())))
            .into_tuple()
            .one(&snapshot)
            .await?;
        let events = match key {
            Some(key) => events_of(&snapshot, id, key, after, limit).await?,
            None => Vec::new(),
        };
        snapshot.commit().await?;
        Ok(events)
    }
}

/// The events of a workflow in a snapshot.
pub(crate) async fn events_of(
    snapshot: &DatabaseTransaction,
    id: &WorkflowId,
    key: i64,
    after: u64,
    limit: usize,
) -> Answer<Vec<Event>> {
    let mut events = Vec::new();
    let Ok(wanted) = i64::try_from(after.saturating_add(1)) else { return Ok(events) };
    // A row has several events: the first wanted one may be in a row that begins before it.
    let mut from = first_row(snapshot, key, wanted).await?;
    while events.len() < limit {
        let rows = event::Entity::find()
            .filter(event::Column::WorkflowKey.eq(key))
            .filter(event::Column::FirstSequence.gte(from))
            .order_by_asc(event::Column::FirstSequence)
            // Each row has at least one event: more rows than missing events would be read in vain.
            .limit(EVENT_ROWS.min((limit - events.len()) as u64))
            .all(snapshot)
            .await?;
        let Some(last) = rows.last() else { break };
        from = last.first_sequence.saturating_add(1);
        for row in rows {
            let first: u64 = count_of(row.first_sequence)?;
            let body = encode::events_of(id, first, &row.body)
                .map_err(|error| naming(id.as_str(), error))?;
            events.extend(body.into_iter().filter(|event| event.sequence > after));
        }
    }
    events.truncate(limit);
    Ok(events)
}

/// The first sequence of the row that holds the event `wanted`, or of the next row.
async fn first_row(snapshot: &DatabaseTransaction, key: i64, wanted: i64) -> Answer<i64> {
    let row: Option<i64> = event::Entity::find()
        .select_only()
        .column(event::Column::FirstSequence)
        .filter(event::Column::WorkflowKey.eq(key))
        .filter(event::Column::FirstSequence.lte(wanted))
        .order_by_desc(event::Column::FirstSequence)
        .limit(1)
        .into_tuple()
        .one(snapshot)
        .await?;
    Ok(row.unwrap_or(wanted))
}
