//! Answers questions from the tables.
//!
//! Asked by the store on its own thread; each answer comes from one snapshot.
//!
//! A workflow that cannot be put together is left out, logged once, and named by whoever asks for it
//! alone: one broken row must not keep all the others from being seen and run.

mod ids;
mod outline;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use futures_util::future::join;
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{
        Epoch, ListFilter, StoreError,
        lease::{Command, Request, RequestAnswer, RequestKey},
    },
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowStatus, WorkflowSummary},
};
use sea_orm::{
    AccessMode, ColumnTrait as _, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction,
    DbBackend, DbErr, EntityTrait as _, IsolationLevel, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _, QueryTrait as _, Statement, TransactionOptions,
    TransactionTrait as _,
};

use super::{
    assemble::{Gathered, naming, task_status, workflow_status},
    encode::{self, count_of, escape, parse, time_of, time_of_nullable, unescape},
    entity::{event, task, workflow},
    fault::Fault,
    leases::SERVER_NOW,
    multi_row::MultiRow,
    open::Connector,
    patience::Patience,
};

use outline::{Extent, tasks_of};

/// Workflows that are loaded at a time, and payloads that are fetched in one statement.
const PAGE: usize = 256;

/// So many times that are found by one statement.
const PAGES: usize = 4;

/// Rows of events that are read at a time.
const EVENT_ROWS: u64 = 256;

/// Reads from one database.
#[derive(Debug)]
pub(super) struct Reader {
    /// Replaced when one of them did not answer.
    db: Mutex<DatabaseConnection>,
    backend: DbBackend,
    patience: Patience,
    /// Opens others; `None` where what is lost is not replaced.
    connector: Option<Connector>,
    /// The workflows that could not be put together and were logged.
    broken: Mutex<HashSet<String>>,
    /// `workflow_key, last sequence of its own row`; answers `workflow_key, last sequence told by
    /// events`, where that is greater.
    last_sequences: MultiRow,
    /// `workflow_key`; answers `workflow_key, status, count`.
    task_counts: MultiRow,
    /// `hash`; answers `hash, body`.
    blobs: MultiRow,
}

/// The last sequence of each workflow. A sum that overflows is an error on PostgreSQL and a float on
/// SQLite, either of which fails the whole page: numbers above 2^53 are not added up, and give
/// `NO_SEQUENCE`.
const LAST_SEQUENCES: &str = "SELECT key, last FROM (SELECT v.column1 AS key, v.column2 AS known, \
    (SELECT CASE WHEN e.first_sequence BETWEEN 1 AND 9007199254740992 \
    AND e.event_count BETWEEN 0 AND 9007199254740992 \
    THEN e.first_sequence + e.event_count - 1 ELSE 9223372036854775807 END \
    FROM gleitzeit_events e WHERE e.workflow_key = v.column1 \
    ORDER BY e.first_sequence DESC LIMIT 1) AS last \
    FROM (VALUES";

/// A payload of a blob. Results are parsed as soon as their row is read, so that texts and values
/// are not in memory together.
#[derive(Debug)]
pub(super) enum Blob {
    Text(String),
    Result(Arc<serde_json::Value>),
}

/// Workflows that were read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) records: Vec<WorkflowRecord>,
    /// Their keys, in the same order.
    pub(super) keys: Vec<i64>,
    /// Those that could not be put together: their ids, and why.
    pub(super) broken: Vec<(String, StoreError)>,
}

impl Loaded {
    /// The one that was asked for.
    pub(super) fn only(mut self) -> Answer<Option<WorkflowRecord>> {
        match self.broken.pop() {
            Some((_, error)) => Err(ReadError(error)),
            None => Ok(self.records.pop()),
        }
    }
}

impl From<DbErr> for ReadError {
    fn from(error: DbErr) -> Self {
        Self(Fault::from(error).of_read())
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

/// A [`StoreError`] that a database's complaint turns into by `?`.
#[derive(Debug)]
pub(super) struct ReadError(pub(super) StoreError);

type Answer<T> = Result<T, ReadError>;

impl Reader {
    /// Over connections that are not replaced when they are lost.
    pub(super) fn new(db: DatabaseConnection) -> Self {
        Self::over(db, Patience::endless(), None)
    }

    /// Over connections that are watched, and replaced when one of them does not answer.
    pub(super) fn watching(mut db: DatabaseConnection, connector: Connector) -> Self {
        let patience = connector.patience();
        patience.watch(&mut db);
        Self::over(db, patience, Some(connector))
    }

    fn over(db: DatabaseConnection, patience: Patience, connector: Option<Connector>) -> Self {
        let backend = db.get_database_backend();
        Self {
            db: Mutex::new(db),
            backend,
            patience,
            connector,
            broken: Mutex::default(),
            last_sequences: MultiRow::new(
                backend,
                LAST_SEQUENCES,
                2,
                ") AS v) AS told WHERE last > known",
            ),
            task_counts: MultiRow::new(
                backend,
                "SELECT workflow_key, status, COUNT(*) FROM gleitzeit_tasks \
                 WHERE workflow_key IN (VALUES",
                1,
                ") GROUP BY workflow_key, status",
            ),
            blobs: MultiRow::new(
                backend,
                "SELECT hash, body FROM gleitzeit_blobs WHERE hash IN (VALUES",
                1,
                ")",
            ),
        }
    }

    pub(super) async fn close(&self) {
        if let Err(error) = self.db().close_by_ref().await {
            tracing::debug!(%error, "connections closed with an error");
        }
    }

    fn db(&self) -> DatabaseConnection {
        lock(&self.db).clone()
    }

    /// Waits for a question that takes few statements.
    pub(super) async fn soon<T>(&self, asks: impl Future<Output = Answer<T>>) -> Answer<T> {
        let answer = self.patience.wait_for_one(asks).await;
        self.heard(answer).await
    }

    /// Waits for a question that takes as many statements as there is to read.
    pub(super) async fn in_time<T>(&self, asks: impl Future<Output = Answer<T>>) -> Answer<T> {
        let answer = self.patience.wait(asks).await;
        self.heard(answer).await
    }

    /// Replaces the connections where one of them did not answer: that answer may still come, and
    /// the others lead the same way.
    async fn heard<T>(&self, answer: Result<Answer<T>, DbErr>) -> Answer<T> {
        let silent = match answer {
            Ok(answer) => return answer,
            Err(silent) => silent,
        };
        if let Some(connector) = &self.connector {
            let mut fresh = connector.readers_again().await?;
            self.patience.watch(&mut fresh);
            let before = std::mem::replace(&mut *lock(&self.db), fresh);
            // It may take as long as the one that does not answer.
            tokio::spawn(async move {
                let _ = before.close().await;
            });
        }
        Err(silent.into())
    }

    /// Logs, once for each, that a workflow is left out.
    pub(super) fn report(&self, id: &str, error: &StoreError) {
        if lock(&self.broken).insert(id.to_owned()) {
            tracing::error!(
                workflow = %unescape(id.to_owned()),
                %error,
                "workflow cannot be read and is left out; `gleitzeit db check` shows what is wrong"
            );
        }
    }

    fn report_all(&self, loaded: &Loaded) {
        for (id, error) in &loaded.broken {
            self.report(id, error);
        }
    }

    /// A transaction in which every statement sees the same.
    pub(super) async fn snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        snapshot(&self.db()).await
    }

    /// The bytes of the database that are in use.
    pub(super) async fn in_use(&self) -> Answer<u64> {
        Ok(super::shrink::measure(&self.db()).await?)
    }

    /// A server's time; `None` for a file, whose processes share the clock of their machine.
    pub(super) async fn server_time(&self) -> Answer<Option<DateTime<Utc>>> {
        let backend = self.backend;
        if backend != DbBackend::Postgres {
            return Ok(None);
        }
        let asked = Statement::from_string(backend, format!("SELECT {SERVER_NOW}"));
        let Some(row) = self.db().query_one_raw(asked).await? else { return Ok(None) };
        Ok(Some(time_of(row.try_get_by_index(0)?)?))
    }

    /// How many workflows there are.
    pub(super) async fn count(&self) -> Answer<u64> {
        Ok(super::shrink::count(&self.db()).await?)
    }

    pub(super) async fn unsettled(&self) -> Answer<Vec<WorkflowRecord>> {
        let open = WorkflowStatus::ALL.into_iter().filter(|status| !status.is_settled());
        let open: Vec<&str> = open.map(WorkflowStatus::as_str).collect();
        let snapshot = self.snapshot().await?;
        // All keys at once: a page by status and key would sort all that is not settled anew.
        let mut keys: Vec<i64> = workflow::Entity::find()
            .select_only()
            .column(workflow::Column::Key)
            .filter(workflow::Column::Status.is_in(open))
            .into_tuple()
            .all(&snapshot)
            .await?;
        keys.sort_unstable();
        let mut records = Vec::with_capacity(keys.len());
        for some in keys.chunks(PAGES * PAGE) {
            let select = workflow::Entity::find()
                .filter(workflow::Column::Key.is_in(some.iter().copied()))
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

    pub(super) async fn workflow(&self, id: &WorkflowId) -> Answer<Option<WorkflowRecord>> {
        self.one(id, Extent::Whole).await
    }

    async fn one(&self, id: &WorkflowId, extent: Extent) -> Answer<Option<WorkflowRecord>> {
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

    /// The rows of workflows that can be read at all.
    fn rows_of(&self, rows: &[QueryResult]) -> Vec<workflow::Model> {
        let read = rows.iter().filter_map(|row| match workflow::Model::by_place(row) {
            Ok(row) => Some(row),
            Err(error) => {
                let id = row.try_get_by_index::<String>(1).unwrap_or_default();
                self.report(&id, &Fault::from(error).of_read());
                None
            }
        });
        read.collect()
    }

    /// Completes rows of workflows, with their tasks; in the order of the rows. What the database
    /// has of the next ones is fetched while these are put together.
    pub(super) async fn load(
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
        let mut gathered =
            self.gather(snapshot, rows.by_ref().take(PAGE).collect(), extent).await?;
        while !gathered.rows.is_empty() {
            let next = self.gather(snapshot, rows.by_ref().take(PAGE).collect(), extent);
            // In this order: the question is on its way before these are put together.
            let (next, ()) = join(next, gathered.complete(&mut loaded)).await;
            gathered = next?;
        }
        Ok(loaded)
    }

    /// What belongs to rows of workflows.
    async fn gather(
        &self,
        snapshot: &DatabaseTransaction,
        rows: Vec<workflow::Model>,
        extent: Extent,
    ) -> Answer<Gathered> {
        let mut gathered = Gathered { rows, ..Gathered::default() };
        if gathered.rows.is_empty() {
            return Ok(gathered);
        }
        let mut results = HashSet::new();
        let select = tasks_of(extent)
            .filter(task::Column::WorkflowKey.is_in(gathered.rows.iter().map(|row| row.key)))
            .build(snapshot.get_database_backend());
        for row in query(snapshot, select).await? {
            let mut task = match task::Model::by_place(&row) {
                Ok(task) => task,
                Err(error) => {
                    let key = row.try_get_by_index(0)?;
                    gathered.unreadable.insert(key, Fault::from(error).of_read());
                    continue;
                }
            };
            if extent == Extent::Outline {
                task.result_blob = None;
            }
            results.extend(task.result_blob.clone());
            let tasks = gathered.tasks.entry(task.workflow_key);
            // Room for one: most workflows are small, and a row is large.
            tasks.or_insert_with(|| Vec::with_capacity(1)).push(task);
        }
        let specs = gathered.rows.iter().filter_map(|row| row.spec_blob.clone()).collect();
        gleitzeit_failpoint::failpoint!("store.read.tasks");
        gathered.blobs = self.fetch(snapshot, &results, specs).await?;
        gleitzeit_failpoint::failpoint!("store.read.blobs");
        gathered.sequences = self.sequences(snapshot, &gathered.rows).await?;
        gleitzeit_failpoint::failpoint!("store.read.sequences");
        Ok(gathered)
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
                // What refers to one that cannot be read misses it.
                let Ok(body) = row.try_get_by_index::<String>(1) else { continue };
                let hash: Vec<u8> = row.try_get_by_index(0)?;
                drop(row);
                let result = if specs.contains(&hash) { None } else { parse(&body).ok() };
                // One that cannot be parsed is refused with the workflow that refers to it.
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
        let known = rows.iter().flat_map(|row| [row.key.into(), row.last_sequence.into()]);
        for statement in self.last_sequences.statements(known.collect()) {
            for row in query(snapshot, statement).await? {
                sequences.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            }
        }
        Ok(sequences)
    }

    pub(super) async fn list(&self, filter: ListFilter) -> Answer<Vec<WorkflowSummary>> {
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

    /// Fills in the counts of workflows that are not settled: (key, place in `summaries`).
    async fn count_tasks(
        &self,
        snapshot: &DatabaseTransaction,
        open: &[(i64, usize)],
        summaries: &mut [WorkflowSummary],
    ) -> Answer<()> {
        let places: HashMap<i64, usize> = open.iter().copied().collect();
        let keys = open.iter().map(|(key, _)| (*key).into()).collect();
        for statement in self.task_counts.statements(keys) {
            for row in query(snapshot, statement).await? {
                let key: i64 = row.try_get_by_index(0)?;
                let count: u32 = count_of(row.try_get_by_index(2)?)?;
                let Some(summary) = places.get(&key).and_then(|at| summaries.get_mut(*at)) else {
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
                    // To be in line is not worth a row, unless it is for a provider that is down.
                    summary.waiting_count += count;
                }
            }
        }
        Ok(())
    }

    /// The requests about unsettled workflows of a lease that are not answered yet.
    pub(super) async fn requests(&self, epoch: Epoch) -> Answer<Vec<(RequestKey, Request)>> {
        let select = "SELECT r.key, w.id, r.body FROM gleitzeit_requests r \
                      JOIN gleitzeit_workflows w ON w.key = r.workflow_key \
                      WHERE r.answer IS NULL AND (w.lease_epoch = $1 OR w.lease_epoch IN \
                      (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1)) \
                      AND w.status IN ('pending', 'running') ORDER BY r.key";
        let epoch = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        let mut requests = Vec::new();
        for row in self.db().query_all_raw(self.statement(select, epoch)).await? {
            let workflow = unescape(row.try_get_by_index(1)?).into();
            let body: String = row.try_get_by_index(2)?;
            let request = Request { workflow, command: parse(&body)? };
            requests.push((RequestKey(count_of(row.try_get_by_index(0)?)?), request));
        }
        Ok(requests)
    }

    /// The requests to every process behind `after`; true for those that are answered.
    pub(super) async fn asked_of_all(
        &self,
        after: RequestKey,
    ) -> Answer<Vec<(RequestKey, Command, bool)>> {
        let select = "SELECT key, body, answer IS NOT NULL FROM gleitzeit_requests \
                      WHERE workflow_key = 0 AND key > $1 ORDER BY key";
        let after = i64::try_from(after.0).unwrap_or(i64::MAX);
        let mut asked = Vec::new();
        for row in self.db().query_all_raw(self.statement(select, after)).await? {
            let body: String = row.try_get_by_index(1)?;
            let key = RequestKey(count_of(row.try_get_by_index(0)?)?);
            asked.push((key, parse(&body)?, row.try_get_by_index(2)?));
        }
        Ok(asked)
    }

    /// The answer to a request; `None` while there is none.
    pub(super) async fn answer(&self, key: RequestKey) -> Answer<Option<RequestAnswer>> {
        let select = "SELECT answer FROM gleitzeit_requests WHERE key = $1";
        let key = i64::try_from(key.0).unwrap_or(i64::MAX);
        let Some(row) = self.db().query_one_raw(self.statement(select, key)).await? else {
            return Ok(None);
        };
        let answer: Option<String> = row.try_get_by_index(0)?;
        Ok(answer.as_deref().map(encode::answer_of).transpose()?)
    }

    fn statement(&self, sql: &str, value: i64) -> Statement {
        Statement::from_sql_and_values(self.backend, sql, [value.into()])
    }

    pub(super) async fn events(
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

/// Rows have microseconds: the first one at this time or later.
fn ceil_micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
        .saturating_add(i64::from(!at.timestamp_subsec_nanos().is_multiple_of(1_000)))
}

/// A row of a list, and its key; its tasks are not counted yet.
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

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The events of a workflow, as a snapshot has them.
pub(super) async fn events_of(
    snapshot: &DatabaseTransaction,
    id: &WorkflowId,
    key: i64,
    after: u64,
    limit: usize,
) -> Answer<Vec<Event>> {
    let mut events = Vec::new();
    let Ok(wanted) = i64::try_from(after.saturating_add(1)) else { return Ok(events) };
    let mut from = first_row(snapshot, key, wanted).await?;
    while events.len() < limit {
        let rows = event::Entity::find()
            .filter(event::Column::WorkflowKey.eq(key))
            .filter(event::Column::FirstSequence.gte(from))
            .order_by_asc(event::Column::FirstSequence)
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

/// Where the row begins that holds the event `wanted`, or the first one behind it.
async fn first_row(snapshot: &DatabaseTransaction, key: i64, wanted: i64) -> Answer<i64> {
    let before: Option<i64> = event::Entity::find()
        .select_only()
        .column(event::Column::FirstSequence)
        .filter(event::Column::WorkflowKey.eq(key))
        .filter(event::Column::FirstSequence.lte(wanted))
        .order_by_desc(event::Column::FirstSequence)
        .limit(1)
        .into_tuple()
        .one(snapshot)
        .await?;
    Ok(before.unwrap_or(wanted))
}

/// A transaction in which every statement sees the same, and none writes.
pub(super) async fn snapshot(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = match db.get_database_backend() {
        DbBackend::Postgres => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
        // On SQLite every transaction sees one snapshot.
        _ => TransactionOptions::default(),
    };
    db.begin_with_options(options).await
}

async fn query(
    snapshot: &DatabaseTransaction,
    statement: sea_orm::Statement,
) -> Result<Vec<sea_orm::QueryResult>, DbErr> {
    sea_orm::ConnectionTrait::query_all_raw(snapshot, statement).await
}
