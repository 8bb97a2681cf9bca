//! What a handle writes within a transaction of its host.

use std::sync::Arc;

use gleitzeit_domain::{
    difference::difference,
    id::WorkflowId,
    problem::SubmitError,
    store::{StoreError, Submitted},
    workflow::WorkflowSpec,
};
use gleitzeit_storage::sea_orm::DatabaseTransaction;

use super::{
    Handle,
    elsewhere::{shared_now, unowned},
};
use gleitzeit_storage::SqlStore;

impl Handle {
    /// Stores a workflow within a transaction of the host's own, in the database that workflows are
    /// kept in: what the host writes there and the workflow are committed together, or neither is.
    ///
    /// Nobody sees the workflow before the commit. After it, an engine on the database takes it up
    /// at once, this one or another, without polling; after a rollback there is nothing. An id that
    /// was submitted before with the same content gives the first submission, and with another
    /// [`SubmitError::Differs`].
    ///
    /// Keep the transaction short. On SQLite nobody else writes while it is open, engines included;
    /// begin it with `SqliteTransactionMode::Immediate`, or it may be refused after a read. On
    /// PostgreSQL it holds back who submits the same id.
    ///
    /// Where the system cannot tell that a SQLite file was written to (other than on Linux), engines
    /// look every five minutes; [`resume`](Self::resume) after the commit has this one look at once.
    ///
    /// # Errors
    /// [`SubmitError`]; `CONFIGURATION_ERROR` where workflows are not kept in the transaction's
    /// database. Whatever it is, the transaction is as it was before, and may go on.
    pub async fn submit_in(
        &self,
        transaction: &DatabaseTransaction,
        spec: WorkflowSpec,
    ) -> Result<WorkflowId, SubmitError> {
        let plan = self.plan_for_others(spec).await?;
        let id = plan.id.clone();
        let store = self.store.as_any().and_then(|store| store.downcast_ref::<SqlStore>());
        let store = store.ok_or_else(|| StoreError::Open {
            detail: format!(
                "workflows are kept in `{}`, which takes part in no transaction; name a database \
                 in `storage.url`",
                self.store.describe()
            ),
        })?;
        let spec = Arc::clone(&plan.spec);
        let now = shared_now(store).await;
        // Statements of many kinds make it large.
        let fate = Box::pin(store.submit_in(transaction, unowned(plan, now))).await?;
        if fate == Submitted::Existed {
            let stored = Box::pin(store.spec_in(transaction, &id)).await?;
            if let Some(what) = stored.and_then(|stored| difference(&stored, &spec)) {
                return Err(SubmitError::Differs { id, what });
            }
        }
        Ok(id)
    }
}
