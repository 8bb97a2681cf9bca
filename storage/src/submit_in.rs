//! Writes a workflow within a transaction that somebody else began.
//!
//! Asked by a handle, for a host that keeps tables of its own beside those of gleitzeit: what it
//! writes and the workflow that follows from it are committed together, or neither is. The rows and
//! the statements are the writer's.
//!
//! Invariants: what is written belongs to nobody, so that an engine takes it up when, and only when,
//! it sees it, which is after the commit. A failure leaves the transaction as it was before.

use std::path::Path;

use gleitzeit_domain::{
    id::WorkflowId,
    store::{NewWorkflow, StoreError, Submitted},
    workflow::WorkflowSpec,
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr,
    EntityTrait as _, QueryFilter as _, Statement, TransactionTrait as _,
};

use super::{
    SqlStore,
    call::{Call, Write},
    encode::{escape, parse, refused},
    entity::{blob, workflow},
    fault::Fault,
    group::{self, Answer, Places},
    location::Location,
    notifier,
    statements::Statements,
};

impl SqlStore {
    /// Writes a new workflow within `transaction`, which must be one in this store's database. Once
    /// that is committed, the engines on the database hear of it.
    ///
    /// # Errors
    /// [`StoreError::Open`] where the transaction is in another database, as far as that can be
    /// seen; those of writing. The transaction may go on all the same.
    pub async fn submit_in(
        &self,
        transaction: &DatabaseTransaction,
        new: NewWorkflow,
    ) -> Result<Submitted, StoreError> {
        self.check_open()?;
        self.check_place(transaction).await?;
        let statements = Statements::new(transaction.get_database_backend());
        let call = Call::new(Write::Submit(vec![NewWorkflow { epoch: None, ..new }]));
        // Kept off the stack of the host, whose futures this one becomes a part of.
        let written = Box::pin(write(transaction, &statements, &call));
        let answers = written.await.map_err(of_write)??;
        answers.first().copied().ok_or_else(|| refused("a submission was not answered".into()))
    }

    /// The spec of a stored workflow, as the transaction sees it.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn spec_in(
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

    /// Refuses a transaction in another database: what is written there nobody here would run.
    async fn check_place(&self, transaction: &DatabaseTransaction) -> Result<(), StoreError> {
        match (&self.location, transaction.get_database_backend()) {
            (Location::Sqlite(path), DbBackend::Sqlite) => {
                let file = file_of(transaction).await.map_err(of_write)?;
                if is_same(Path::new(&file), path) {
                    return Ok(());
                }
                let file = if file.is_empty() { "no file" } else { &file };
                Err(self.elsewhere(&format!("`{file}`")))
            }
            (Location::Postgres(_), DbBackend::Postgres) => Ok(()),
            (_, other) => Err(self.elsewhere(&format!("a database of another kind, {other:?}"))),
        }
    }

    fn elsewhere(&self, place: &str) -> StoreError {
        StoreError::Open {
            detail: format!(
                "the transaction is in {place}, and workflows are kept in `{}`; begin it there",
                self.name
            ),
        }
    }
}

/// The file that a transaction is in.
async fn file_of(transaction: &DatabaseTransaction) -> Result<String, DbErr> {
    let file = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    let file = Statement::from_string(DbBackend::Sqlite, file);
    match transaction.query_one_raw(file).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(String::new()),
    }
}

/// True where both paths lead to one file.
fn is_same(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

/// Writes within a transaction in the transaction, so that a failure undoes this much only.
async fn write(
    transaction: &DatabaseTransaction,
    statements: &Statements,
    call: &Call,
) -> Result<Answer, DbErr> {
    let inner = transaction.begin().await?;
    let written = group::write(&inner, statements, &Places::default(), &[call]).await;
    let (mut answers, effects) = match written {
        Ok(written) => written,
        Err(error) => {
            inner.rollback().await?;
            return Err(error);
        }
    };
    if effects.leaves_free {
        // Told when the whole transaction is committed.
        notifier::announce(&inner).await?;
    }
    inner.commit().await?;
    Ok(answers.pop().unwrap_or_else(|| Ok(Vec::new())))
}

fn of_write(error: DbErr) -> StoreError {
    Fault::from(error).of_write()
}
