//! Serves calls about leases, each in a transaction of its own.
//!
//! Part of the [`writer`](crate::writer): between two groups, so that a call about a lease
//! takes effect in the order of the queue.

use std::{collections::HashMap, time::Duration};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{
        Epoch, StoreError,
        lease::{Claimed, ClaimedOne, ClaimedWorkflow, Lease, Release},
    },
    workflow::WorkflowStatus,
};
use sea_orm::DatabaseTransaction;

use super::{
    Call, Renewal, Reply,
    fit::Wanted,
    lease_table::{LeaseTable, LeaseView},
    requests,
    sql::{self, Dead},
};
use crate::{
    encode,
    entity::workflow,
    group::CommitEffects,
    notifier,
    read::{Loaded, ReadError, Reader},
    writer::{Refusal, Writer},
};

/// What a claim took.
#[derive(Debug, Default)]
struct Taken {
    rows: Vec<workflow::Model>,
    more: bool,
    ask_again_in: Option<Duration>,
    inheritance: Inheritance,
}

/// What a claim learns of what was inherited.
#[derive(Debug, Default)]
struct Inheritance {
    /// The workflows that an ended lease left behind, where that was not known before.
    listed: Vec<(i64, Vec<i64>)>,
    /// What is given out now.
    given: Vec<i64>,
    /// True when what is not given out was freed, for others to claim.
    is_shared: bool,
}

impl Writer {
    /// Serves one call, after the renewals that are due.
    pub(crate) async fn serve_lease(&mut self, call: Call) {
        self.renew_due().await;
        match call {
            Call::Open { owner, term, reply } => {
                let opened = self.open_lease(&owner, term).await;
                if let Err(Ok(lease)) = reply.send(opened) {
                    // Nobody will close it.
                    let _ = self.close_lease(lease.epoch).await;
                }
            }
            Call::Close { epoch, reply } => tell(reply, self.close_lease(epoch).await),
            Call::Claim { epoch, limit, offer, reply } => {
                self.lease_table.set_offer(epoch, &offer);
                self.claim(epoch, limit, reply).await;
            }
            Call::Release { epoch, ids, why, reply } => {
                let released = self.release(epoch, &ids, why).await;
                self.tell_all(reply, released);
            }
            Call::ClaimOne { epoch, id, reopens, reply } => {
                // Another process may have forgotten the one of this id, and made a new one.
                self.forget_place(&id);
                tell(reply, self.claim_one(epoch, &id, reopens).await);
            }
            Call::Ask { workflow, body, reply } => {
                let asked = self
                    .transact_alone(async |db, _| {
                        let key = requests::ask(db, &workflow, &body).await?;
                        gleitzeit_failpoint::failpoint!("store.request.asked");
                        notifier::announce(db).await?;
                        Ok(key)
                    })
                    .await;
                self.tell_all(reply, asked);
            }
            Call::AskAll { body, reply } => {
                let asked = self
                    .transact_alone(async |db, _| {
                        let key = requests::ask_all(db, &body).await?;
                        notifier::announce(db).await?;
                        Ok(key)
                    })
                    .await;
                self.tell_all(reply, asked);
            }
            Call::Answer { key, answer, reply } => {
                let answered = self
                    .transact_alone(async |db, _| {
                        requests::answer(db, key, &answer).await?;
                        gleitzeit_failpoint::failpoint!("store.request.answered");
                        Ok(notifier::announce(db).await?)
                    })
                    .await;
                self.tell_all(reply, answered);
            }
            Call::Forget { key, reply } => {
                gleitzeit_failpoint::failpoint!("store.request.forgetting");
                let forgotten = self.transact_alone(async |db, _| {
                    requests::forget(db, key).await.map_err(Refusal::from)
                });
                tell(reply, forgotten.await);
            }
        }
    }

    /// Rings, where something was written that others wait for.
    fn tell_all<T>(&self, reply: Reply<T>, answer: Result<T, StoreError>) {
        if answer.is_ok() {
            self.lease_table.ring();
        }
        tell(reply, answer);
    }

    /// Renews what is to be renewed before anything else is written.
    pub(crate) async fn renew_due(&mut self) {
        let due = self.lease_table.renewals();
        if !due.is_empty() {
            Box::pin(self.renew(due)).await;
        }
    }

    async fn renew(&mut self, due: Vec<Renewal>) {
        for Renewal { epoch, term, reply } in due {
            gleitzeit_failpoint::failpoint!("store.lease.renewing");
            let renewed = if self.lease_table.goes_by_time() {
                self.transact_alone(async |db, _| {
                    let renewed = sql::renew(db, epoch, term).await?;
                    if renewed.is_some_and(|renewed| renewed.had_run_out) {
                        // Others did not count on it any more, and are to know when it may have
                        // run out again.
                        notifier::announce(db).await?;
                    }
                    Ok(renewed.is_some())
                })
                .await
            } else {
                Ok(self.lease_table.has_open(epoch))
            };
            gleitzeit_failpoint::failpoint!("store.lease.renewed");
            if renewed == Ok(false) {
                self.forget_places();
            }
            tell(reply, renewed);
        }
    }

    /// Gives up all leases of this store, at its end.
    pub(crate) async fn close_leases(&mut self) {
        for epoch in self.lease_table.open_ones() {
            if let Err(error) = self.close_lease(epoch).await {
                tracing::warn!(%epoch, %error, "lease was not closed; it ends by itself");
            }
        }
    }

    async fn open_lease(&mut self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let mut tried = Vec::new();
        let opened = self
            .transact_alone(async |db, lease_table| {
                let lease = lease_table.open(db, owner, term).await??;
                gleitzeit_failpoint::failpoint!("store.lease.opened");
                // Others are to know when it may have run out.
                notifier::announce(db).await?;
                tried.push(lease.epoch);
                Ok(lease)
            })
            .await;
        let kept = opened.as_ref().ok().map(|lease| lease.epoch);
        for epoch in tried.into_iter().filter(|epoch| Some(*epoch) != kept) {
            self.lease_table.closed(epoch);
        }
        if let Some(epoch) = kept {
            self.lease_table.opened(epoch);
        }
        opened
    }

    async fn close_lease(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        if !self.lease_table.goes_by_time() && !self.lease_table.has_open(epoch) {
            // That of another process is not ours to close.
            return Ok(());
        }
        let was_there = self
            .transact_alone(async |db, _| {
                if !sql::close(db, epoch).await? {
                    return Ok(false);
                }
                gleitzeit_failpoint::failpoint!("store.lease.deleted");
                sql::free(db, epoch, false).await?;
                gleitzeit_failpoint::failpoint!("store.lease.freed");
                notifier::announce(db).await?;
                Ok(true)
            })
            .await;
        // Where nobody knows whether it is there, nothing more may be written under it.
        if matches!(was_there, Ok(_) | Err(StoreError::Unknown { .. })) {
            self.lease_table.closed(epoch);
            self.forget_places();
        }
        gleitzeit_failpoint::failpoint!("store.lease.forgotten");
        if was_there? {
            self.lease_table.ring();
        }
        Ok(())
    }

    async fn claim(&mut self, epoch: Epoch, limit: usize, reply: Reply<Claimed>) {
        let mut keys = Vec::new();
        let claimed = self.claim_some(epoch, limit, &mut keys).await;
        match &claimed {
            Ok(_) => self.lease_table.no_doubt(epoch),
            // It may be theirs: the next claim tells.
            Err(StoreError::Unknown { .. }) => {
                self.lease_table.doubt(epoch, keys.clone());
                self.lease_table.doubt_inheritance(epoch);
            }
            Err(StoreError::LeaseLost { .. }) => self.forget_places(),
            Err(_) => {}
        }
        if let Err(Ok(_)) = reply.send(claimed) {
            self.lease_table.doubt(epoch, keys);
        }
    }

    /// The keys of what is taken are in `keys`, also where nobody knows whether it was.
    async fn claim_some(
        &mut self,
        epoch: Epoch,
        limit: usize,
        keys: &mut Vec<i64>,
    ) -> Result<Claimed, StoreError> {
        if let Some(nothing) = self.lease_table.still_quiet(epoch) {
            return Ok(nothing);
        }
        // Whatever is written after this is seen by the survey of the leases, or rings.
        let rings = self.lease_table.rings();
        let (view, has_free) = self.look_around(epoch).await?;
        gleitzeit_failpoint::failpoint!("store.claim.looked");
        let is_owed =
            self.lease_table.has_inheritance(epoch) || !self.lease_table.doubtful(epoch).is_empty();
        if view.dead.is_empty() && !has_free && !is_owed {
            self.lease_table.found_nothing(epoch, rings, &view);
            return Ok(Claimed { ask_again_in: view.ask_again_in, ..Claimed::default() });
        }
        let reader = self.reader();
        let wanted = self.lease_table.wanted(epoch);
        let mut view = Some(view);
        let taken = self
            .transact_alone(async |db, lease_table| {
                keys.clear();
                let view = view.get_or_insert_default();
                check(lease_table.keep(db, epoch).await?, epoch)?;
                gleitzeit_failpoint::failpoint!("store.claim.kept");
                let successor = (!view.has_others).then_some(epoch);
                let mut freed = end_dead(db, view, successor).await?;
                gleitzeit_failpoint::failpoint!("store.claim.ended");
                let (mut inheritance, unfit) =
                    list_inheritance(db, lease_table, epoch, &wanted).await?;
                freed += unfit;
                let mut rows = sql::owned(db, epoch, lease_table.doubtful(epoch)).await?;
                if view.has_others {
                    freed += inheritance.share(db, lease_table, epoch, &rows).await?;
                } else {
                    let page = inheritance.page(
                        lease_table,
                        epoch,
                        limit.saturating_sub(rows.len()),
                        &rows,
                    );
                    rows.append(&mut sql::still_inherited(db, epoch, &page).await?);
                    inheritance.given = page;
                }
                let left = limit.saturating_sub(rows.len());
                let mut fresh =
                    if left > 0 { sql::claim(db, epoch, left, &wanted).await? } else { vec![] };
                gleitzeit_failpoint::failpoint!("store.claim.taken");
                let more = fresh.len() == left;
                let left_over = freed > fresh.len() as u64;
                rows.append(&mut fresh);
                let returned = give_back_unfit(db, lease_table, epoch, &mut rows).await?;
                if left_over || returned > 0 {
                    notifier::announce(db).await?;
                }
                rows.sort_unstable_by_key(|row| row.key);
                keys.extend(rows.iter().map(|row| row.key));
                let ask_again_in = view.ask_again_in;
                Ok(Taken { rows, more, ask_again_in, inheritance })
            })
            .await?;
        gleitzeit_failpoint::failpoint!("store.claim.committed");
        let Taken { rows, more, ask_again_in, inheritance } = taken;
        // Behind the commit, which others wait for: nobody else writes to what this lease owns. What
        // cannot be read is owned and left alone: the next one who takes it over reports it, too.
        let read =
            self.read(async |db, lease_table| claimed(db, lease_table, &reader, epoch, rows).await);
        let Read { keys, workflows, .. } = match read.await {
            Ok(read) => read,
            Err(error) => {
                // It is given out by the next claim.
                self.lease_table.doubt(epoch, keys.clone());
                self.lease_table.doubt_inheritance(epoch);
                return Err(error);
            }
        };
        gleitzeit_failpoint::failpoint!("store.claim.read");
        self.learn(CommitEffects::of_claimed(&keys, &workflows));
        let Inheritance { listed, given, is_shared } = inheritance;
        self.lease_table.inherited(epoch, listed, given.iter().chain(&keys));
        if is_shared {
            self.lease_table.shared_inheritance(epoch);
        }
        let more = more || self.lease_table.has_inheritance(epoch);
        Ok(Claimed { workflows, more, ask_again_in })
    }

    async fn claim_one(
        &mut self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        let (mut view, _) = self.look_around(epoch).await?;
        gleitzeit_failpoint::failpoint!("store.claim_one.looked");
        let reader = self.reader();
        let id = encode::escape(id.as_str());
        self.transact_alone(async |db, lease_table| {
            check(lease_table.keep(db, epoch).await?, epoch)?;
            // It takes one workflow, and leaves the others to whoever runs many.
            if end_dead(db, &mut view, None).await? > 0 {
                notifier::announce(db).await?;
            }
            let Some(row) = sql::workflow(db, &id).await? else { return Ok(ClaimedOne::Unknown) };
            let is_open = is_open(&row);
            let is_mine = row.lease_epoch == sql::column(epoch);
            let is_held = !is_mine
                && is_owned(db, &row, is_open).await?
                && !sql::is_successor(db, epoch, row.lease_epoch).await?;
            if is_held && (is_open || reopens) {
                return Ok(ClaimedOne::Held);
            }
            // Also what was inherited: from here on it is run, and no longer for others to share.
            if !is_mine && (is_open || reopens) {
                sql::take(db, epoch, row.key).await?;
                gleitzeit_failpoint::failpoint!("store.claim_one.taken");
            }
            if !lease_table.needs.contains(row.needs) {
                lease_table.needs.learn(sql::needs(db).await?);
            }
            let read = claimed(db, lease_table, &reader, epoch, vec![row]).await?.only()?;
            Ok(read.map_or(ClaimedOne::Unknown, |one| ClaimedOne::Taken(Box::new(one))))
        })
        .await
    }

    async fn release(
        &mut self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        let escaped: Vec<String> =
            ids.iter().map(|id| encode::escape(id.as_str()).into_owned()).collect();
        let keys = self
            .transact_alone(async |db, lease_table| {
                check(lease_table.keep(db, epoch).await?, epoch)?;
                let keys = sql::keys_of(db, &escaped).await?;
                sql::release(db, epoch, &keys).await?;
                notifier::announce(db).await?;
                Ok(keys)
            })
            .await?;
        if why == Release::ForOthers {
            self.lease_table.refuse(epoch, keys);
        }
        // From here on another process may write to them.
        for id in ids {
            self.forget_place(id);
        }
        Ok(())
    }

    /// Which leases are dead, and whether there is something to claim; changes nothing.
    async fn look_around(&mut self, epoch: Epoch) -> Result<(LeaseView, bool), StoreError> {
        if !self.lease_table.goes_by_time() {
            check(self.lease_table.has_open(epoch), epoch)?;
        }
        let wanted = self.lease_table.wanted(epoch);
        let mut lease_rows = self.look(async |db| sql::lease_rows(db, &wanted).await).await?;
        if !self.lease_table.needs.are(lease_rows.needs) {
            let all = self.look(async |db| sql::needs(db).await).await?;
            self.lease_table.needs.learn_as(all, lease_rows.needs);
        }
        if !self.lease_table.wanted(epoch).is_all() {
            let unknown = self.look(async |db| sql::unknown_needs(db).await).await?;
            self.lease_table.needs.add_unknown(unknown);
        }
        let now_wanted = self.lease_table.wanted(epoch);
        if now_wanted != wanted {
            lease_rows = self.look(async |db| sql::lease_rows(db, &now_wanted).await).await?;
        }
        check(lease_rows.leases.iter().any(|lease| lease.epoch == epoch), epoch)?;
        for ended in self.lease_table.run_out(&lease_rows, epoch) {
            if !self.look(async |db| sql::owns(db, ended).await).await? {
                self.lease_table.is_idle(&lease_rows, ended);
            }
        }
        let view =
            self.lease_table.judge(&lease_rows, epoch).map_err(|error| StoreError::Read {
                detail: format!(
                    "cannot tell whether the lease of another process is held: {error}"
                ),
            })?;
        Ok((view, lease_rows.has_free))
    }
}

/// Ends the dead leases, and frees what they owned, unless there is a successor; how many workflows are
/// free.
async fn end_dead(
    db: &DatabaseTransaction,
    view: &mut LeaseView,
    successor: Option<Epoch>,
) -> Result<u64, Refusal> {
    let mut freed = 0;
    for Dead { epoch, is_gone } in view.dead.clone() {
        if !sql::end(db, Dead { epoch, is_gone }).await? {
            view.try_again();
            continue;
        }
        gleitzeit_failpoint::failpoint!("store.takeover.ended");
        if let Some(successor) = successor {
            sql::inherit(db, epoch, successor).await?;
            gleitzeit_failpoint::failpoint!("store.takeover.inherited");
            tracing::info!(%epoch, is_gone, %successor, "inherited from the lease of another process");
        } else {
            let some = sql::free(db, epoch, true).await?;
            gleitzeit_failpoint::failpoint!("store.takeover.freed");
            tracing::info!(%epoch, is_gone, workflows = some, "ended the lease of another process");
            freed += some;
        }
    }
    Ok(freed)
}

/// Takes out of what is to be given what its process cannot run, and frees it; how many workflows.
/// That is found before, as a rule: their needs are new.
async fn give_back_unfit(
    db: &DatabaseTransaction,
    lease_table: &mut LeaseTable,
    epoch: Epoch,
    rows: &mut Vec<workflow::Model>,
) -> Result<u64, Refusal> {
    if rows.iter().any(|row| !lease_table.needs.contains(row.needs)) {
        lease_table.needs.learn(sql::needs(db).await?);
    }
    let is_unfit = |row: &mut workflow::Model| !lease_table.fits(epoch, row.needs);
    let unfit: Vec<i64> = rows.extract_if(.., is_unfit).map(|row| row.key).collect();
    if unfit.is_empty() { Ok(0) } else { Ok(sql::release(db, epoch, &unfit).await?) }
}

/// Claimed workflows, with what belongs to them.
async fn claimed(
    db: &DatabaseTransaction,
    lease_table: &LeaseTable,
    reader: &Reader,
    epoch: Epoch,
    rows: Vec<workflow::Model>,
) -> Result<Read, ReadError> {
    let mine = sql::column(epoch);
    let left_by = |row: &workflow::Model| {
        // What was inherited bears the name of who died.
        let inherited = row.lease_epoch != mine && row.lease_epoch != 0;
        let ended = if inherited { row.lease_epoch } else { row.left_by };
        // Of what is settled nothing was under way.
        (ended != 0 && is_open(row)).then(|| sql::epoch_of(ended))
    };
    let beside = rows.iter().map(|row| (row.key, (lease_table.needs.of(row.needs), left_by(row))));
    let mut beside: HashMap<i64, _> = beside.collect();
    let Loaded { records, keys, broken } = reader.load(db, rows).await?;
    let mut read = Read { broken, ..Read::default() };
    for (record, key) in records.into_iter().zip(keys) {
        if let Some((needs, left_by)) = beside.remove(&key) {
            read.keys.push(key);
            read.workflows.push(ClaimedWorkflow { record, needs, left_by });
        }
    }
    for (id, error) in &read.broken {
        reader.report(id, error);
    }
    Ok(read)
}

/// What was read of claimed rows.
#[derive(Debug, Default)]
struct Read {
    workflows: Vec<ClaimedWorkflow>,
    /// Their keys, in the same order.
    keys: Vec<i64>,
    /// Those that cannot be put together.
    broken: Vec<(String, StoreError)>,
}

impl Read {
    /// The one that was asked for.
    fn only(mut self) -> Result<Option<ClaimedWorkflow>, StoreError> {
        match self.broken.pop() {
            Some((_, error)) => Err(error),
            None => Ok(self.workflows.pop()),
        }
    }
}

/// Lists what a lease inherited, where the lease table does not know it yet; how much of it was freed, for
/// its process cannot run that.
async fn list_inheritance(
    db: &DatabaseTransaction,
    lease_table: &LeaseTable,
    epoch: Epoch,
    wanted: &Wanted,
) -> Result<(Inheritance, u64), Refusal> {
    let mut inheritance = Inheritance::default();
    let mut freed = 0;
    for ended in sql::inherited(db, epoch).await? {
        if !lease_table.has_listed(epoch, ended) {
            if !wanted.unfit.is_empty() {
                freed += sql::free_unfit(db, ended, &wanted.unfit).await?;
            }
            inheritance.listed.push((ended, sql::left_behind(db, ended).await?));
            gleitzeit_failpoint::failpoint!("store.claim.listed");
        }
    }
    Ok((inheritance, freed))
}

impl Inheritance {
    /// What is still to be given out, beside what is given out already.
    fn rest(
        &self,
        lease_table: &LeaseTable,
        epoch: Epoch,
        given: &[workflow::Model],
    ) -> impl Iterator<Item = i64> {
        let listed = self.listed.iter().flat_map(|(_, keys)| keys.iter().copied());
        let rest = lease_table.inheritance(epoch).chain(listed);
        rest.filter(|key| given.iter().all(|row| row.key != *key))
    }

    /// The first of it.
    fn page(
        &self,
        lease_table: &LeaseTable,
        epoch: Epoch,
        limit: usize,
        given: &[workflow::Model],
    ) -> Vec<i64> {
        self.rest(lease_table, epoch, given).take(limit).collect()
    }

    /// Frees it, for a process that is not alone; how many workflows.
    async fn share(
        &mut self,
        db: &DatabaseTransaction,
        lease_table: &LeaseTable,
        epoch: Epoch,
        given: &[workflow::Model],
    ) -> Result<u64, Refusal> {
        let rest: Vec<i64> = self.rest(lease_table, epoch, given).collect();
        if rest.is_empty() {
            return Ok(0);
        }
        let freed = sql::free_some(db, epoch, &rest).await?;
        gleitzeit_failpoint::failpoint!("store.claim.shared");
        self.is_shared = true;
        Ok(freed)
    }
}

/// Whether a lease owns a workflow. One that is gone has freed what is open, and nothing else.
async fn is_owned(
    db: &DatabaseTransaction,
    row: &workflow::Model,
    is_open: bool,
) -> Result<bool, Refusal> {
    Ok(row.lease_epoch != 0 && (is_open || sql::is_there(db, row.lease_epoch).await?))
}

fn is_open(row: &workflow::Model) -> bool {
    WorkflowStatus::from_name(&row.status).is_some_and(|status| !status.is_settled())
}

fn check(is_there: bool, epoch: Epoch) -> Result<(), StoreError> {
    if is_there { Ok(()) } else { Err(StoreError::LeaseLost { epoch }) }
}

fn tell<T>(reply: Reply<T>, answer: Result<T, StoreError>) {
    // Whoever asked may be gone; what was done stands all the same.
    let _ = reply.send(answer);
}
