//! Inherited workflows: those of an ended lease whose successor the claiming lease is.
//!
//! A successor inherits everything with one row, however many workflows there are, and claims them
//! page by page. Once another process is there, it frees the rest for both.

use gleitzeit_domain::store::Epoch;
use sea_orm::DatabaseTransaction;

use crate::{
    entity::workflow,
    fault::RequestError,
    leases::{LeaseTable, Wanted, sql},
};

/// The part of an inheritance that one claim handles.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// Ended leases that this claim listed, with the keys of their workflows.
    pub(super) listed: Vec<(i64, Vec<i64>)>,
    /// The keys that this claim returns.
    pub(super) page: Vec<i64>,
    /// True if this claim freed the rest for other processes.
    pub(super) is_shared: bool,
}

impl Inheritance {
    /// Lists the inherited workflows that the lease table does not know; also returns the number of
    /// those that were freed because the process cannot run them.
    pub(super) async fn list(
        db: &DatabaseTransaction,
        lease_table: &LeaseTable,
        epoch: Epoch,
        wanted: &Wanted,
    ) -> Result<(Self, u64), RequestError> {
        let mut inheritance = Self::default();
        let mut freed = 0;
        for ended in sql::transfers_to(db, epoch).await? {
            if !lease_table.has_listed(epoch, ended) {
                // Before the list: a successor that kept what it cannot run would keep it from
                // every process that can.
                if !wanted.unfit.is_empty() {
                    freed += sql::free_unfit(db, ended, &wanted.unfit).await?;
                }
                inheritance.listed.push((ended, sql::workflows_of(db, ended).await?));
                gleitzeit_failpoint::failpoint!("store.claim.listed");
            }
        }
        Ok((inheritance, freed))
    }

    /// The keys that no claim has returned yet, without those of `returned`.
    fn rest(
        &self,
        lease_table: &LeaseTable,
        epoch: Epoch,
        returned: &[workflow::Model],
    ) -> impl Iterator<Item = i64> {
        let listed = self.listed.iter().flat_map(|(_, keys)| keys.iter().copied());
        let rest = lease_table.inheritance(epoch).chain(listed);
        rest.filter(|key| returned.iter().all(|row| row.key != *key))
    }

    /// The first `limit` keys of the rest.
    pub(super) fn page(
        &self,
        lease_table: &LeaseTable,
        epoch: Epoch,
        limit: usize,
        returned: &[workflow::Model],
    ) -> Vec<i64> {
        self.rest(lease_table, epoch, returned).take(limit).collect()
    }

    /// Frees the rest for other processes; returns the number of freed workflows.
    pub(super) async fn share(
        &mut self,
        db: &DatabaseTransaction,
        lease_table: &LeaseTable,
        epoch: Epoch,
        returned: &[workflow::Model],
    ) -> Result<u64, RequestError> {
        let rest: Vec<i64> = self.rest(lease_table, epoch, returned).collect();
        if rest.is_empty() {
            return Ok(0);
        }
        let freed = sql::release_workflows(db, epoch, &rest).await?;
        gleitzeit_failpoint::failpoint!("store.claim.shared");
        self.is_shared = true;
        Ok(freed)
    }
}
