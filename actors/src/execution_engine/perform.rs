//! Carries out what the core decided.

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context as PollContext, Poll, Waker},
};

use actix::prelude::*;
use gleitzeit_domain::{
    engine::{ClaimBudget, Effect, LeaseBound, Notice},
    id::WorkflowId,
    run::TaskKey,
    store::{Epoch, StoreError, lease::Release},
};

use super::{
    ExecutionEngine, LeaseWaiter,
    callers::{Channels, Waiter, send},
    claims::{PollClaims, RecoveryGuard, Released},
    elsewhere::settled_elsewhere,
    handlers::{ConfirmDue, LongStartsDue, ProcessBatch, RenewLease, TermOver, TimerFired},
    log, plan, requests, steps, unconfirmed,
};
use crate::{
    dependency_resolver::RemoveWorkflows,
    event_bus::Publish,
    load_balancer::CancelTasks,
    monitor::RecordCalls,
    pipeline::{self, Attempt, LeaseBound as GateBound},
    resource_manager::CancelWaiting,
    store_writes::{self, Writing},
};

impl ExecutionEngine {
    /// Carries out all that is decided, and what follows from that at once.
    pub(super) fn run_effects(&mut self, ctx: &mut Context<Self>) {
        // An answer that is there at once is handled within an effect: what follows from it comes
        // after the effects before it, and does not deepen the stack.
        if std::mem::replace(&mut self.is_performing, true) {
            return;
        }
        // In order, and to the end: an event must not be published before the answer of the same
        // write.
        while let Some(effect) = self.core.next_effect() {
            self.perform(effect, ctx);
        }
        self.is_performing = false;
    }

    fn perform(&mut self, effect: Effect<Channels>, ctx: &mut Context<Self>) {
        match effect {
            Effect::Publish(events) => self.connections().peers.bus.do_send(Publish { events }),
            Effect::PublishSystem(data) => {
                let event = crate::system_event(self.clock.now(), data);
                self.connections().peers.bus.do_send(event);
            }
            Effect::Reply(reply) => {
                if let Some((waiter, id)) = send(reply) {
                    self.await_elsewhere(id, waiter);
                }
            }
            // Through the mailbox, behind the messages that are queued now: those join the batch.
            Effect::Wake => ctx.address().do_send(ProcessBatch),
            Effect::Dispatch => self.dispatch(),
            Effect::StartEarly(keys) => {
                let now = self.now();
                self.core.start_before_commit(keys, now);
            }
            Effect::RemoveGraphs(keys) => {
                self.connections().peers.resolver.do_send(RemoveWorkflows(keys));
            }
            Effect::EndCalls(tasks) => self.end_calls(tasks),
            Effect::Measure(calls) => {
                self.connections().peers.monitor.do_send(RecordCalls { calls });
            }
            Effect::BlockEffects(is_blocked) => self.gate.set_blocked(is_blocked),
            Effect::BoundEffects(bound) => self.bound_effects(bound, ctx),
            Effect::LeaseKnown(lease) => self.answer_lease(&lease),
            Effect::Halted(report) => {
                if let Some(stop) = self.stop.take() {
                    let _ = stop.send(report);
                }
            }
            Effect::Log(notice) => self.log(&notice),
            Effect::Step(step) => steps::pass(step),
            Effect::ArmTimer(_)
            | Effect::ArmLongStarts(_)
            | Effect::ArmPause(..)
            | Effect::ArmRenewal(_)
            | Effect::ArmConfirm(_)
            | Effect::RecordAfter(..)
            | Effect::PollAfter(_) => self.arm(effect, ctx),
            Effect::Plan(_)
            | Effect::Submit(_)
            | Effect::Existed(_)
            | Effect::RunClaimed(_)
            | Effect::Record(_)
            | Effect::Settle(_)
            | Effect::LoseResult(_)
            | Effect::AskForLease(_)
            | Effect::Poll { .. }
            | Effect::PollNow
            | Effect::Release { .. }
            | Effect::Confirm(_) => self.ask(effect, ctx),
        }
    }

    /// Sets a timer.
    fn arm(&mut self, effect: Effect<Channels>, ctx: &mut Context<Self>) {
        match effect {
            Effect::ArmTimer(at) => {
                let pause = at.saturating_sub(self.started_at.elapsed());
                // The old one is disarmed: otherwise both fire, and the core would take the old
                // one for the new.
                let armed = ctx.notify_later(TimerFired, pause);
                disarm(self.armed.timer.replace(armed), ctx);
            }
            Effect::ArmRenewal(pause) => {
                let armed = pause.map(|pause| ctx.notify_later(RenewLease, pause));
                disarm(std::mem::replace(&mut self.armed.renewal, armed), ctx);
            }
            Effect::PollAfter(pause) => {
                let armed = ctx.notify_later(PollClaims, pause);
                disarm(self.armed.poll.replace(armed), ctx);
            }
            Effect::ArmLongStarts(pause) => {
                ctx.notify_later(LongStartsDue, pause);
            }
            Effect::ArmConfirm(pause) => {
                ctx.notify_later(ConfirmDue, pause);
            }
            Effect::ArmPause(key, pause) => {
                ctx.run_later(pause, move |engine, ctx| {
                    engine.core.pause_over(key);
                    engine.run_effects(ctx);
                });
            }
            Effect::RecordAfter(pause, changes) => {
                // The changes move into the timer: the runs have given them out, and nothing else
                // has them.
                ctx.run_later(pause, move |engine, ctx| {
                    engine.ask(Effect::Record(changes), ctx);
                    engine.run_effects(ctx);
                });
            }
            _ => {}
        }
    }

    /// Asks the store or another actor; the answer comes back as a message.
    fn ask(&mut self, effect: Effect<Channels>, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.store);
        let address = ctx.address();
        match effect {
            Effect::Plan(batch) => {
                let peers = self.peers();
                actix_rt::spawn(async move { address.do_send(plan::validate(peers, batch).await) });
            }
            Effect::Submit(new) => self.await_now_or_later(store_writes::submit(store, new), ctx),
            Effect::Record(changes) => {
                self.await_now_or_later(store_writes::record(store, changes), ctx);
            }
            Effect::AskForLease(held) => {
                let owner = Arc::clone(&self.owner);
                let asked = store_writes::ask_for_lease(store, held, owner, self.lease_term);
                self.await_now_or_later(asked, ctx);
            }
            Effect::Settle(settled) => {
                let followed = plan::settle(self.peers(), settled);
                actix_rt::spawn(async move { followed.await.map(|it| address.do_send(it)) });
            }
            Effect::LoseResult(lost) => {
                let followed = plan::lose_result(self.peers(), lost);
                actix_rt::spawn(async move { followed.await.map(|it| address.do_send(it)) });
            }
            Effect::Existed(existed) => {
                let (engine, follower) = (self.engine(), self.follower.clone());
                actix_rt::spawn(unconfirmed::answer_existed(store, engine, follower, *existed));
            }
            Effect::RunClaimed(id) => {
                let engine = self.engine();
                actix_rt::spawn(async move { unconfirmed::run_until_answered(&engine, &id).await });
            }
            Effect::Confirm(submissions) => {
                let confirmed = unconfirmed::confirm(store, self.engine(), submissions);
                actix_rt::spawn(async move { address.do_send(confirmed.await) });
            }
            Effect::Poll { epoch, claims } => self.poll(epoch, claims),
            // Not at once: the effects that are still to be carried out come first.
            Effect::PollNow => address.do_send(PollClaims),
            Effect::Release { epoch, id } => {
                actix_rt::spawn(async move {
                    let ids = std::slice::from_ref(&id);
                    store_writes::release(&*store, epoch, ids, Release::ForAll).await;
                    address.do_send(Released(id));
                });
            }
            _ => {}
        }
    }

    /// Handles the result of `work` now if it is there at the first poll, and otherwise when it
    /// arrives. A store in memory is done at once and needs no task.
    fn await_now_or_later<M>(&mut self, mut work: Writing<M>, ctx: &mut Context<Self>)
    where
        M: Message<Result = ()> + Send + 'static,
        Self: Handler<M>,
    {
        let mut unwoken = PollContext::from_waker(Waker::noop());
        match work.as_mut().poll(&mut unwoken) {
            Poll::Ready(message) => {
                <Self as Handler<M>>::handle(self, message, ctx);
            }
            // Polled again by its own task, so that the waker of the first poll does not matter.
            Poll::Pending => {
                let engine = ctx.address();
                actix_rt::spawn(async move { engine.do_send(work.await) });
            }
        }
    }

    /// Sends as many tasks on their way as there is room for.
    fn dispatch(&mut self) {
        let Some(connections) = &self.connections else { return };
        let route = &connections.route;
        let Some(mut budget) = self.core.dispatch_budget(self.gate.has_lease()) else { return };
        let mut batch = Vec::new();
        while let Some(task) = self.core.next_dispatch(&mut budget) {
            batch.push(Attempt::new(task, route));
        }
        if !batch.is_empty() {
            gleitzeit_failpoint::failpoint!("engine.dispatch");
            // A task of its own: the engine must not be blocked by a provider that answers late.
            actix_rt::spawn(pipeline::run(Rc::clone(route), batch));
        }
    }

    fn end_calls(&self, tasks: Vec<TaskKey>) {
        let tasks = Arc::new(tasks);
        let peers = &self.connections().peers;
        // A task waits at one of the two, or its call runs: which one is not known here.
        peers.resources.do_send(CancelWaiting(Arc::clone(&tasks)));
        peers.balancer.do_send(CancelTasks(tasks));
    }

    fn bound_effects(&mut self, bound: LeaseBound, ctx: &mut Context<Self>) {
        let mut armed = None;
        let gate = match bound {
            LeaseBound::Never => GateBound::Never,
            LeaseBound::Now => GateBound::Now,
            LeaseBound::Until { begin, end, epoch, since } => {
                let left = end.saturating_sub(self.started_at.elapsed());
                armed = Some(ctx.notify_later(TermOver { epoch, since }, left));
                // A moment beyond all time is never reached.
                let begin = begin.and_then(|begin| self.started_at.checked_add(begin));
                begin.map_or(GateBound::Never, GateBound::At)
            }
        };
        // The end of the old term must not end the calls of the renewed lease.
        disarm(std::mem::replace(&mut self.armed.term, armed), ctx);
        self.gate.set_lease(gate);
    }

    fn answer_lease(&mut self, lease: &Result<Option<Epoch>, StoreError>) {
        // Taken first: an answer may ask again, and must not be answered by the same lease.
        for waiter in std::mem::take(&mut self.lease_waiters) {
            match waiter {
                LeaseWaiter::Lease(waiting) => {
                    let _ = waiting.send(lease.clone());
                }
                LeaseWaiter::Budget(besides, waiting) => {
                    let _ = waiting.send(self.budget(lease.clone(), besides));
                }
            }
        }
    }

    pub(super) fn budget(
        &mut self,
        lease: Result<Option<Epoch>, StoreError>,
        besides: u64,
    ) -> Result<ClaimBudget, StoreError> {
        lease.map(|epoch| self.core.claim_budget(epoch, besides))
    }

    fn poll(&mut self, epoch: Option<Epoch>, claims: bool) {
        let engine = self.engine();
        // Before the claim is sent: what settles here from now on is not resumed from an older
        // read.
        let recovery = claims.then(|| self.begin_recovery());
        let (store, peers) = (Arc::clone(&self.store), self.peers());
        let last_seen = Rc::clone(&self.last_seen);
        let poll = requests::Poll { store, engine, peers, last_seen, epoch, recovery };
        actix_rt::spawn(requests::poll(poll));
    }

    pub(super) fn begin_recovery(&mut self) -> RecoveryGuard {
        let begun = self.core.begin_recovery();
        RecoveryGuard::new(self.engine(), begun)
    }

    /// Answers once a workflow that does not run here has settled.
    pub(super) fn await_elsewhere(&self, id: WorkflowId, waiter: Waiter) {
        actix_rt::spawn(settled_elsewhere(self.follower.clone(), id, waiter));
    }

    fn log(&self, notice: &Notice) {
        log::log(notice);
        if let Notice::Ended(record) = notice
            && let Some(file_access) = &record.spec.file_access
            && file_access.output.is_some()
            && let Some(results) = &self.results
        {
            // If the writer of the files has stopped with the runtime, they are written on resume.
            let _ = results.send(Arc::clone(record));
        }
    }
}

fn disarm(armed: Option<SpawnHandle>, ctx: &mut Context<ExecutionEngine>) {
    if let Some(armed) = armed {
        ctx.cancel_future(armed);
    }
}
