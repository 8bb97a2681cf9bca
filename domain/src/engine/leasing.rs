//! The lease of the engine: taken, renewed, lost; and the polls for work that it may claim.
//!
//! Invariant: what runs here bears the lease that is held. When that is lost, all of it is removed at
//! once, and the store refuses what is still on its way.

use std::time::Duration;

use super::{
    Callers, ClaimBudget, Effect, Engine, LeaseBound, Moment, Now, Phase, Removal, Step,
    active_run::ActiveRun, effect::Notice, lease::HeldLease,
};
use crate::{
    problem::SubmitError,
    run::{RunKey, TaskKey},
    store::{Epoch, StoreError, lease::Lease},
    task::TaskStatus,
};

/// The store is being asked for a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked;

impl<C: Callers> Engine<C> {
    /// The lease for what is written now; `None` if the store has none. If it is being asked for,
    /// what is new is stored once it is there.
    pub(super) fn lease_now(&mut self, now: Now) -> Result<Option<Epoch>, Asked> {
        if !self.config.store.has_leases {
            return Ok(None);
        }
        let Some(held) = self.ownership.fresh(now.moment) else {
            self.ask_for_lease();
            return Err(Asked);
        };
        // While the engine owned nothing, it did not renew.
        if let Some(pause) = self.ownership.renew_unless_armed(now.moment) {
            self.effects.push_back(Effect::ArmRenewal(Some(pause)));
        }
        Ok(Some(held.lease.epoch))
    }

    /// The same for a question from outside: answered by [`Effect::LeaseKnown`] if `None` is returned.
    pub fn need_lease(&mut self, now: Now) -> Option<Option<Epoch>> {
        self.lease_now(now).ok()
    }

    /// The room for the next claim, beside so many tasks that are about to be loaded.
    pub fn claim_budget(&mut self, epoch: Option<Epoch>, besides: u64) -> ClaimBudget {
        let has_room = self.load + besides < self.config.max_queued_tasks;
        match epoch {
            None => ClaimBudget::Everything,
            Some(epoch) if has_room && self.phase == Phase::Running => ClaimBudget::Part(epoch),
            Some(_) => {
                if !has_room {
                    self.ownership.defer();
                }
                ClaimBudget::NoRoom
            }
        }
    }

    /// True for a run that another process may have taken over by now.
    pub(super) fn is_lost(&self, epoch: Option<Epoch>) -> bool {
        epoch.is_some() && epoch != self.ownership.epoch()
    }

    fn ask_for_lease(&mut self) {
        if self.ownership.begin_asking() {
            self.effects.push_back(Effect::AskForLease(self.ownership.epoch()));
        }
    }

    /// The answer of the store about the lease that it was asked for at `since`.
    pub fn lease_answered(&mut self, answer: Result<Lease, StoreError>, since: Moment, now: Now) {
        self.ownership.end_asking();
        match answer {
            Ok(lease) => {
                self.step(Step::LeaseTaken);
                let before = self.ownership.take(HeldLease { lease, since });
                self.lease_changed();
                if let Some(before) = before {
                    self.release_all(before);
                }
                let pause = self.ownership.renew_after(now.moment);
                self.effects.push_back(Effect::ArmRenewal(pause));
                self.effects.push_back(Effect::LeaseKnown(Ok(Some(lease.epoch))));
            }
            Err(error) => {
                self.log(Notice::LeaseFailed(error.clone()));
                let pause = self.ownership.renew_again_after(self.config.lease_term);
                self.effects.push_back(Effect::ArmRenewal(Some(pause)));
                self.effects.push_back(Effect::LeaseKnown(Err(error.clone())));
                if self.ownership.fresh(now.moment).is_none() {
                    self.reject_all_new(&SubmitError::Store(error));
                }
            }
        }
        self.store_new(now);
        self.check_drained();
    }

    /// Calls with an effect begin and end as the lease that is held now allows.
    fn lease_changed(&mut self) {
        let bound = match self.ownership.held() {
            None => LeaseBound::Now,
            Some(held) => match held.bounds() {
                None => LeaseBound::Never,
                Some((begin, end)) => {
                    LeaseBound::Until { begin, end, epoch: held.lease.epoch, since: held.since }
                }
            },
        };
        self.effects.push_back(Effect::BoundEffects(bound));
        // Tasks with an effect stayed in the queue without a lease: nothing else would dispatch
        // them.
        if bound != LeaseBound::Now && !self.ready.is_empty() {
            self.wake();
        }
    }

    /// The lease is gone: what it owned is another's by now.
    pub(super) fn lose_lease(&mut self, epoch: Epoch) {
        if self.ownership.epoch() != Some(epoch) {
            return;
        }
        // The gate closes before the runs are removed: a task on its way must not begin its call.
        self.ownership.drop_lease();
        self.lease_changed();
        self.release_all(epoch);
        if self.config.takes_over {
            self.effects.push_back(Effect::PollNow);
        }
    }

    fn release_all(&mut self, epoch: Epoch) {
        // What is not stored belongs to no other: the answer to its write says what becomes of it.
        let is_lost = |active: &ActiveRun<C>| active.run.epoch() == Some(epoch) && !active.is_new;
        let lost = self.runs.iter().filter(|(_, active)| is_lost(active));
        let keys: Vec<RunKey> = lost.map(|(key, _)| *key).collect();
        self.stats.leases_lost += 1;
        self.log(Notice::LeaseLost(epoch, keys.len()));
        for key in &keys {
            self.remove_run(*key, Removal::Released);
        }
        if !keys.is_empty() {
            self.effects.push_back(Effect::RemoveGraphs(keys));
        }
    }

    /// It is time to renew: only an engine that owns something does.
    pub fn renewal_due(&mut self) {
        self.ownership.renewal_fired();
        let has_work = !self.submissions.is_empty() || !self.unconfirmed.is_empty();
        let owns = !self.runs.is_empty() || has_work;
        if owns && self.ownership.epoch().is_some() && self.phase != Phase::Stopped {
            self.ask_for_lease();
        }
    }

    /// The lease is closed by the caller, and held no more.
    pub fn take_lease_to_close(&mut self) -> Option<Epoch> {
        self.ownership.renewal_fired();
        self.effects.push_back(Effect::ArmRenewal(None));
        let epoch = self.ownership.drop_lease();
        self.lease_changed();
        epoch
    }

    /// The term of a lease is over without a renewal: another process may run the same by now.
    pub fn term_over(&mut self, epoch: Epoch, since: Moment) {
        // A timer that was armed before the renewal fires after it.
        if !self.ownership.is_unrenewed(epoch, since) {
            return;
        }
        let mut tasks = Vec::new();
        for (&run, active) in &self.runs {
            for task in &active.run.record().tasks {
                let planned = &active.run.plan().tasks[task.index as usize];
                if task.status == TaskStatus::Executing && planned.has_effect() {
                    let key = TaskKey { run, index: task.index };
                    self.budget.cut_off(key, task.attempts);
                    tasks.push(key);
                }
            }
        }
        if !tasks.is_empty() {
            self.log(Notice::CallsEnded(tasks.len()));
        }
        self.end_calls(tasks);
    }

    // ---- polls ----

    /// There may be something to claim, or a request to answer.
    pub fn poll(&mut self) {
        let owns = !self.runs.is_empty();
        let may_poll = self.phase == Phase::Running && self.config.store.has_leases;
        if !may_poll || !(owns || self.config.takes_over) || !self.ownership.begin_poll() {
            return;
        }
        self.step(Step::PollBegun);
        let claims = self.config.takes_over && self.ownership.has_begun();
        let epoch = self.ownership.epoch().filter(|_| owns);
        self.effects.push_back(Effect::Poll { epoch, claims });
    }

    /// The methods that this process can run have changed: workflows may be claimed that it could
    /// not run before.
    pub fn offer_changed(&mut self) {
        // Before the start has claimed what is stored, it is about to.
        if self.ownership.has_begun() {
            self.poll();
        }
    }

    /// The start claims everything that is stored; what happens meanwhile is polled for after that.
    pub fn begin_start(&mut self) {
        self.ownership.begin_start();
    }

    /// A poll has ended.
    pub fn poll_ended(&mut self) {
        self.step(Step::PollEnded);
        if self.ownership.end_poll() {
            self.poll();
        }
    }

    /// Everything was claimed that could be; there may be more after `pause`.
    pub fn poll_after(&mut self, pause: Option<Duration>, now: Now) {
        if !self.config.takes_over || !self.config.store.has_leases {
            return;
        }
        if let Some(pause) = self.ownership.poll_after(pause, self.config.sweep, now.moment) {
            self.effects.push_back(Effect::PollAfter(pause));
        }
    }

    /// There may be room again for what could not be claimed.
    pub(super) fn claim_deferred(&mut self) {
        // At half of the limit: at the limit itself each workflow that ends would cost a claim.
        let has_room = self.load < self.config.max_queued_tasks / 2;
        if self.ownership.claim_deferred(has_room) {
            self.effects.push_back(Effect::PollNow);
        }
    }
}
