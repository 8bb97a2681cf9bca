//! Submits a workflow within a transaction of the host.
//!
//! A host with tables of its own beside those of gleitzeit commits its rows and the workflow
//! together, or neither. The rows and statements are the writer's.
//!
//! Invariants: the workflow has no lease, so that an engine claims it after the commit and not
//! before. A failed submission leaves the transaction as it was.

use std::path::Path;

use async_trait::async_trait;
use gleitzeit_domain::{
    id::WorkflowId,
    store::{NewWorkflow, Store, StoreError, Submitted},
    workflow::WorkflowSpec,
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr,
    EntityTrait as _, QueryFilter as _, Statement, TransactionTrait as _,
};

use super::SqlStore;
use crate::{
    encode::{escape, parse, refused},
    entity::{blob, workflow},
    fault::Fault,
    key_cache::KeyCache,
    location::Location,
    notify,
    queue::Answer,
    statements::Statements,
    write_call::{Write, WriteCall},
    writer::group,
};

/// A [`Store`] that writes within a transaction of its caller.
#[async_trait]
pub trait SubmitIn: Store {
    /// Writes a new workflow within `transaction`, which must be in this store's database. The
    /// engines on the database are notified after its commit.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the transaction is in another database, as far as the store can tell;
    /// the errors of [`Store::submit`]. The transaction may continue after an error.
    async fn submit_in(
        &self,
        transaction: &DatabaseTransaction,
        new: NewWorkflow,
    ) -> Result<Submitted, StoreError>;

    /// The spec of a stored workflow, as the transaction sees it; `None` if there is none.
    ///
    /// # Errors
    /// The errors of [`Store::workflow`].
    async fn spec_in(
        &self,
        transaction: &DatabaseTransaction,
        id: &WorkflowId,
    ) -> Result<Option<WorkflowSpec>, StoreError>;
}

#[async_trait]
impl SubmitIn for SqlStore {
    async fn submit_in(
        &self,
        transaction: &DatabaseTransaction,
        new: NewWorkflow,
    ) -> Result<Submitted, StoreError> {
        self.check_open()?;
        self.check_database(transaction).await?;
        let statements = Statements::new(transaction.get_database_backend());
        // Without a lease: the host may still roll back, and an engine must not start the workflow
        // before the commit.
        let call = WriteCall::new(Write::Submit(vec![NewWorkflow { epoch: None, ..new }]));
        // Boxed: the future is large, and would become part of the host's futures.
        let written = Box::pin(write(transaction, &statements, &call));
        let answers = written.await.map_err(of_write)??;
        answers.first().copied().ok_or_else(|| refused("a submission was not answered".into()))
    }

    async fn spec_in(
        &self,
        transaction: &DatabaseTransaction,
        id: &WorkflowId,
    ) -> Result<Option<WorkflowSpec>, StoreError> {
        let of_read = |error| Fault::from(error).of_read();
        let select =
            workflow::Entity::find().filter(workflow::Column::Id.eq(&*escape(id.as_str())));
        let Some(row) = select.one(transaction).await.map_err(of_read)? else { return Ok(None) };
        let json = match (row.spec, row.spec_blob) {
            (Some(json), _) => Some(json),
            (None, Some(hash)) => {
                let blob = blob::Entity::find_by_id(hash).one(transaction).await;
                blob.map_err(of_read)?.map(|blob| blob.body)
            }
            (None, None) => None,
        };
        json.as_deref().map(parse).transpose()
    }
}

impl SqlStore {
    /// Rejects a transaction in another database: no engine of this store would run the workflow.
    async fn check_database(&self, transaction: &DatabaseTransaction) -> Result<(), StoreError> {
        match (&self.location, transaction.get_database_backend()) {
            (Location::Sqlite(path), DbBackend::Sqlite) => {
                let file = file_of(transaction).await.map_err(of_write)?;
                if is_same(Path::new(&file), path) {
                    return Ok(());
                }
                let file = if file.is_empty() { "no file" } else { &file };
                Err(self.elsewhere(&format!("`{file}`")))
            }
            // Not compared further: two URLs of different text may lead to one database.
            (Location::Postgres(_), DbBackend::Postgres) => Ok(()),
            (_, other) => Err(self.elsewhere(&format!("a database of another kind, {other:?}"))),
        }
    }

    fn elsewhere(&self, database: &str) -> StoreError {
        StoreError::Open {
            detail: format!(
                "the transaction is in {database}, and workflows are kept in `{}`; begin it there",
                self.name
            ),
        }
    }
}

/// The file of a transaction's database.
async fn file_of(transaction: &DatabaseTransaction) -> Result<String, DbErr> {
    let file = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    let file = Statement::from_string(DbBackend::Sqlite, file);
    match transaction.query_one_raw(file).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(String::new()),
    }
}

/// True if both paths lead to one file.
fn is_same(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

/// Writes within a savepoint of the transaction, so that a failure undoes the submission only.
async fn write(
    transaction: &DatabaseTransaction,
    statements: &Statements,
    call: &WriteCall,
) -> Result<Answer, DbErr> {
    let inner = transaction.begin().await?;
    // With a cache of its own: keys of a transaction that the host may roll back must not reach the
    // cache of the writer.
    let written = group::write(&inner, statements, &KeyCache::default(), &[call]).await;
    let (mut answers, effects) = match written {
        Ok(written) => written,
        Err(error) => {
            inner.rollback().await?;
            return Err(error);
        }
    };
    if effects.leaves_free {
        // Delivered with the commit of the whole transaction.
        notify::notify_other_processes(&inner).await?;
    }
    inner.commit().await?;
    Ok(answers.pop().unwrap_or_else(|| Ok(Vec::new())))
}

fn of_write(error: DbErr) -> StoreError {
    Fault::from(error).of_write()
}
