//! Loads workflows: their rows, tasks, blobs and last sequences, page by page.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::join;
use gleitzeit_domain::{
    id::WorkflowId,
    workflow::{WorkflowRecord, WorkflowStatus},
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseTransaction, EntityTrait as _,
    QueryFilter as _, QueryOrder as _, QueryResult, QuerySelect as _, QueryTrait as _,
};

use super::{
    Answer, Reader,
    assemble::{Blob, Loaded, LoadedRows},
    outline::{Extent, tasks_of},
    query,
};
use crate::{
    encode::{escape, parse},
    entity::{task, workflow},
    fault::Fault,
};

/// Workflows that are loaded at a time, and payloads that are fetched in one statement.
const PAGE: usize = 256;

/// Pages whose workflows one statement finds.
const PAGES: usize = 4;

/// The last sequence of each workflow: `key, sequence of its own row`; returns `key, last sequence
/// by its events` if that is greater. A sum that overflows is an error on PostgreSQL and a float on
/// SQLite, and either fails the whole page: numbers above 2^53 are not added, and return
/// `NO_SEQUENCE`.
pub(super) const LAST_SEQUENCES: &str = "SELECT key, last FROM \
    (SELECT v.column1 AS key, v.column2 AS known, (SELECT CASE WHEN e.first_sequence BETWEEN 1 AND 9007199254740992 \
    AND e.event_count BETWEEN 0 AND 9007199254740992 \
    THEN e.first_sequence + e.event_count - 1 ELSE 9223372036854775807 END \
    FROM gleitzeit_events e WHERE e.workflow_key = v.column1 \
    ORDER BY e.first_sequence DESC LIMIT 1) AS last \
    FROM (VALUES";

impl Reader {
    pub(crate) async fn unsettled(&self) -> Answer<Vec<WorkflowRecord>> {
        let open = WorkflowStatus::ALL.into_iter().filter(|status| !status.is_settled());
        let open: Vec<&str> = open.map(WorkflowStatus::as_str).collect();
        let snapshot = self.snapshot().await?;
        // All keys at once: no index has status and key, so that each page by status and key would
        // sort all unsettled workflows again.
        let mut keys: Vec<i64> = workflow::Entity::find()
            .select_only()
            .column(workflow::Column::Key)
            .filter(workflow::Column::Status.is_in(open))
            .into_tuple()
            .all(&snapshot)
            .await?;
        keys.sort_unstable();
        let mut records = Vec::with_capacity(keys.len());
        for page in keys.chunks(PAGES * PAGE) {
            let select = workflow::Entity::find()
                .filter(workflow::Column::Key.is_in(page.iter().copied()))
                .order_by_asc(workflow::Column::Key)
                .build(snapshot.get_database_backend());
            let rows = self.rows_of(&query(&snapshot, select).await?);
            let mut loaded = self.load(&snapshot, rows).await?;
            self.report_all(&loaded);
            records.append(&mut loaded.records);
        }
        snapshot.commit().await?;
        Ok(records)
    }

    pub(crate) async fn workflow(&self, id: &WorkflowId) -> Answer<Option<WorkflowRecord>> {
        self.one(id, Extent::Whole).await
    }

    pub(super) async fn one(
        &self,
        id: &WorkflowId,
        extent: Extent,
    ) -> Answer<Option<WorkflowRecord>> {
        let snapshot = self.snapshot().await?;
        let row = workflow::Entity::find()
            .filter(workflow::Column::Id.eq(&*escape(id.as_str())))
            .one(&snapshot)
            .await?;
        let record = match row {
            Some(row) => self.load_extent(&snapshot, vec![row], extent).await?.only()?,
            None => None,
        };
        snapshot.commit().await?;
        Ok(record)
    }

    /// The rows that can be read; the others are logged.
    fn rows_of(&self, rows: &[QueryResult]) -> Vec<workflow::Model> {
        let read = rows.iter().filter_map(|row| match workflow::Model::by_position(row) {
            Ok(row) => Some(row),
            Err(error) => {
                let id = row.try_get_by_index::<String>(1).unwrap_or_default();
                self.report(&id, &Fault::from(error).of_read());
                None
            }
        });
        read.collect()
    }

    /// Loads the workflows of these rows, in their order. The next page is fetched while the
    /// records of this one are assembled.
    pub(crate) async fn load(
        &self,
        snapshot: &DatabaseTransaction,
        rows: Vec<workflow::Model>,
    ) -> Answer<Loaded> {
        self.load_extent(snapshot, rows, Extent::Whole).await
    }

    async fn load_extent(
        &self,
        snapshot: &DatabaseTransaction,
        rows: Vec<workflow::Model>,
        extent: Extent,
    ) -> Answer<Loaded> {
        let mut loaded = Loaded::default();
        loaded.records.reserve(rows.len());
        loaded.keys.reserve(rows.len());
        let mut rows = rows.into_iter();
        let mut page =
            self.fetch_page(snapshot, rows.by_ref().take(PAGE).collect(), extent).await?;
        while !page.rows.is_empty() {
            let next = self.fetch_page(snapshot, rows.by_ref().take(PAGE).collect(), extent);
            // In this order: `join` polls its first future first, so that the query is sent before
            // the records are assembled.
            let (next, ()) = join(next, page.complete(&mut loaded)).await;
            page = next?;
        }
        Ok(loaded)
    }

    /// Fetches the tasks, blobs and last sequences of workflows.
    async fn fetch_page(
        &self,
        snapshot: &DatabaseTransaction,
        rows: Vec<workflow::Model>,
        extent: Extent,
    ) -> Answer<LoadedRows> {
        let mut page = LoadedRows { rows, ..LoadedRows::default() };
        if page.rows.is_empty() {
            return Ok(page);
        }
        let mut results = HashSet::new();
        let select = tasks_of(extent)
            .filter(task::Column::WorkflowKey.is_in(page.rows.iter().map(|row| row.key)))
            .build(snapshot.get_database_backend());
        for row in query(snapshot, select).await? {
            let mut task = match task::Model::by_position(&row) {
                Ok(task) => task,
                Err(error) => {
                    let key = row.try_get_by_index(0)?;
                    page.unreadable.insert(key, Fault::from(error).of_read());
                    continue;
                }
            };
            if extent == Extent::Outline {
                task.result_blob = None;
            }
            results.extend(task.result_blob.clone());
            let tasks = page.tasks.entry(task.workflow_key);
            // Capacity 1: the default of 4 would keep three empty rows for most workflows.
            tasks.or_insert_with(|| Vec::with_capacity(1)).push(task);
        }
        let specs = page.rows.iter().filter_map(|row| row.spec_blob.clone()).collect();
        gleitzeit_failpoint::failpoint!("store.read.tasks");
        page.blobs = self.fetch(snapshot, &results, specs).await?;
        gleitzeit_failpoint::failpoint!("store.read.blobs");
        page.sequences = self.sequences(snapshot, &page.rows).await?;
        gleitzeit_failpoint::failpoint!("store.read.sequences");
        Ok(page)
    }

    async fn fetch(
        &self,
        snapshot: &DatabaseTransaction,
        results: &HashSet<Vec<u8>>,
        specs: HashSet<Vec<u8>>,
    ) -> Answer<HashMap<Vec<u8>, Blob>> {
        let hashes: Vec<sea_orm::Value> =
            results.union(&specs).map(|hash| hash.clone().into()).collect();
        let mut blobs = HashMap::with_capacity(hashes.len());
        for statement in self.blobs.statements(hashes) {
            for row in query(snapshot, statement).await? {
                // The workflow that refers to an unreadable blob is reported as broken.
                let Ok(body) = row.try_get_by_index::<String>(1) else { continue };
                let hash: Vec<u8> = row.try_get_by_index(0)?;
                drop(row);
                let result = if specs.contains(&hash) { None } else { parse(&body).ok() };
                // A text that is no JSON breaks the workflow that refers to it, not the page.
                let blob = result.map_or(Blob::Text(body), |it| Blob::Result(Arc::new(it)));
                blobs.insert(hash, blob);
            }
        }
        Ok(blobs)
    }

    async fn sequences(
        &self,
        snapshot: &DatabaseTransaction,
        rows: &[workflow::Model],
    ) -> Answer<HashMap<i64, i64>> {
        let mut sequences = HashMap::new();
        let own = rows.iter().flat_map(|row| [row.key.into(), row.last_sequence.into()]);
        for statement in self.last_sequences.statements(own.collect()) {
            for row in query(snapshot, statement).await? {
                sequences.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            }
        }
        Ok(sequences)
    }
}
