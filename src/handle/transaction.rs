//! Submission within a transaction of the host.

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

impl Handle {
    /// Stores a workflow within a transaction of the host, in the database of the workflows: the
    /// host's writes and the workflow are committed together, or neither is.
    ///
    /// No one sees the workflow before the commit. After the commit, an engine on the database is
    /// notified and claims it at once, this one or another; after a rollback there is nothing. If the
    /// id was submitted before with the same content, the first submission is returned; with other
    /// content, [`SubmitError::Differs`].
    ///
    /// Keep the transaction short. On SQLite no one else writes while it is open, engines included;
    /// begin it with `SqliteTransactionMode::Immediate`, or it may be refused after a read. On
    /// PostgreSQL it blocks other submissions of the same id.
    ///
    /// If the system cannot report writes to a SQLite file (other than on Linux), engines poll every
    /// five minutes; [`resume`](Self::resume) after the commit makes this one poll at once.
    ///
    /// # Errors
    /// [`SubmitError`]; `CONFIGURATION_ERROR` if the workflows are not in the transaction's database.
    /// After an error the transaction is unchanged and can be continued.
    pub async fn submit_in(
        &self,
        transaction: &DatabaseTransaction,
        spec: WorkflowSpec,
    ) -> Result<WorkflowId, SubmitError> {
        let plan = self.plan_for_others(spec).await?;
        let id = plan.id.clone();
        let store = self.submit_in.as_deref().ok_or_else(|| StoreError::Open {
            detail: format!(
                "workflows are kept in `{}`, which takes part in no transaction; name a database \
                 in `storage.url`",
                self.store.describe()
            ),
        })?;
        let spec = Arc::clone(&plan.spec);
        let now = shared_now(store).await;
        // Boxed: statements of many kinds make the future so large that it could overflow the stack
        // of the caller's task.
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
