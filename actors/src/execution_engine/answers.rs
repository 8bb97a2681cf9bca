//! The messages of a runtime's handle, each with its answer.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::{WeakAddr, prelude::*};
use futures_util::StreamExt as _;
use gleitzeit_domain::{
    command::Command,
    engine::{EngineCounts, RecoverOptions, Recovered, StopReport, stopped},
    error::TaskError,
    event::EventData,
    id::WorkflowId,
    store::Epoch,
};
use tokio::sync::oneshot;

use super::{
    Connections, ExecutionEngine,
    callers::Waiter,
    claims::{EngineRecipients, PollClaims, PollDone},
    commands::{
        Apply, Connect, EngineHealth, GetEngineCounts, GetHealth, IsIdle, Recover, Reopen,
        Shutdown, Wait,
    },
    elsewhere::answer_from_store,
    recovery::{self, Recovery},
};
use crate::{
    load_balancer::RestartProvider, monitor::GetStats, pipeline::Route, store_writes::close_lease,
};

/// The time that a store has for the last writes after the deadline of a stop.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Asks for the lease in order to close it; it is held no more.
#[derive(Debug, Message)]
#[rtype(result = "Option<Epoch>")]
struct TakeLease;

impl Handler<Connect> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Connect(peers): Connect, ctx: &mut Self::Context) {
        let engine = ctx.address();
        let route = Route::new(&engine, &peers, Rc::clone(&self.gate));
        let peers = Rc::new(peers);
        let started = EventData::EngineStarted { max_concurrent_tasks: self.max_concurrent_tasks };
        peers.bus.do_send(crate::system_event(self.clock.now(), started));
        let recipients = EngineRecipients::new(&engine);
        self.connections = Some(Connections { peers, route, engine: recipients });
        self.listen(engine.downgrade());
    }
}

impl Handler<Wait> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Wait { id, answer, outline }: Wait, ctx: &mut Self::Context) {
        match self.core.await_end(&id, Waiter { answer, outline }) {
            Ok(()) => {}
            // Another process runs it, or this one claims it soon.
            Err(waiter) if self.reads_elsewhere => self.await_elsewhere(id, waiter),
            Err(waiter) => {
                actix_rt::spawn(answer_from_store(Arc::clone(&self.store), id, waiter));
            }
        }
        self.run_effects(ctx);
    }
}

impl Handler<Apply> for ExecutionEngine {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, Apply { id, command }: Apply, ctx: &mut Self::Context) -> Self::Result {
        let now = self.now();
        let (caller, stored) = oneshot::channel();
        let ack = match command {
            Command::Cancel { reason } => self.core.cancel(&id, reason, caller, now),
            Command::CancelTask { task, reason } => {
                self.core.cancel_task(&id, &task, &reason, caller, now)
            }
            Command::Resolve { task, resolution } => {
                self.core.resolve_unknown(&id, &task, resolution, caller, now)
            }
            Command::Retry => {
                let recovered = self.handle(Reopen(id), ctx);
                return Box::pin(async { recovered.await.map(|_| ()) });
            }
            Command::RestartProvider { provider } => {
                let restarted = self.peers().balancer.send(RestartProvider(provider));
                return Box::pin(async { restarted.await.unwrap_or_else(|_| Err(stopped())) });
            }
        };
        self.run_effects(ctx);
        Box::pin(async move {
            let ack = ack?;
            // A caller that is dropped was never answered: why depends on what it waited for.
            stored.await.map_err(|_| ack.dropped(&id))?;
            gleitzeit_failpoint::failpoint!("engine.stop_run.stored");
            Ok(())
        })
    }
}

impl Handler<Recover> for ExecutionEngine {
    type Result = ResponseFuture<Result<Recovered, TaskError>>;

    fn handle(&mut self, Recover { id, hold }: Recover, _: &mut Self::Context) -> Self::Result {
        let store = Arc::clone(&self.store);
        let recovery = self.recovery();
        let Some(id) = id else {
            // Before the claim: a notification meanwhile polls after it, and not beside it.
            self.core.begin_start();
            return Box::pin(async move {
                let recovered = recovery::claim_all(&recovery, store).await;
                recovery.engine.poll_done.do_send(PollDone);
                recovered
            });
        };
        let released = self.await_release(&id);
        Box::pin(async move {
            released.await;
            let options = RecoverOptions { reopen: false, hold };
            Ok(recovery::recover_one(recovery, store, id, options).await?.0)
        })
    }
}

impl Handler<Reopen> for ExecutionEngine {
    type Result = ResponseFuture<Result<Recovered, TaskError>>;

    fn handle(&mut self, Reopen(id): Reopen, _: &mut Self::Context) -> Self::Result {
        let store = Arc::clone(&self.store);
        // Counted from here, before the wait: what settles during it is not run again.
        let (recovery, released) = (self.recovery(), self.await_release(&id));
        Box::pin(async move {
            released.await;
            recovery::reopen(recovery, store, id).await
        })
    }
}

impl ExecutionEngine {
    fn recovery(&mut self) -> Recovery {
        let guard = self.begin_recovery();
        Recovery { guard, engine: self.engine(), peers: self.peers() }
    }

    /// Until the store has a workflow back that is being released. Loaded before that, it would run
    /// here and belong to no one.
    fn await_release(&mut self, id: &WorkflowId) -> impl Future<Output = ()> + use<> {
        let (caller, released) = oneshot::channel();
        let is_releasing = self.core.await_release(id, caller).is_ok();
        async move {
            if is_releasing {
                // An engine that is gone releases nothing any more.
                let _ = released.await;
            }
        }
    }

    /// Polls at the store's notifications, for as long as both live.
    fn listen(&self, engine: WeakAddr<Self>) {
        let Some(leases) = self.store.leases() else { return };
        let mut notifications = leases.notifications();
        actix_rt::spawn(async move {
            while notifications.next().await.is_some() {
                // A strong address would keep the engine alive after its system.
                let Some(engine) = engine.upgrade() else { return };
                engine.do_send(PollClaims);
            }
        });
    }
}

impl Handler<IsIdle> for ExecutionEngine {
    type Result = bool;

    fn handle(&mut self, _: IsIdle, _: &mut Self::Context) -> bool {
        self.core.is_idle()
    }
}

impl Handler<GetEngineCounts> for ExecutionEngine {
    type Result = MessageResult<GetEngineCounts>;

    fn handle(&mut self, _: GetEngineCounts, _: &mut Self::Context) -> Self::Result {
        let counts: EngineCounts = self.core.counts();
        MessageResult(counts)
    }
}

impl Handler<GetStats> for ExecutionEngine {
    type Result = MessageResult<GetStats>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.core.stats())
    }
}

impl Handler<GetHealth> for ExecutionEngine {
    type Result = EngineHealth;

    fn handle(&mut self, _: GetHealth, _: &mut Self::Context) -> EngineHealth {
        EngineHealth {
            takes_work: self.core.is_running(),
            is_stored: self.core.is_stored(),
            lease: self.core.lease_health(self.now()),
        }
    }
}

impl Handler<Shutdown> for ExecutionEngine {
    type Result = ResponseFuture<StopReport>;

    fn handle(&mut self, Shutdown { deadline }: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        // A second stop must not replace the channel of the first, which would never be answered.
        if !self.core.is_running() {
            return Box::pin(async { StopReport { stored: true, ..StopReport::default() } });
        }
        gleitzeit_failpoint::failpoint!("engine.shutdown.begun");
        let (stop, report) = oneshot::channel();
        // Before the core stops: with nothing under way it halts at once.
        self.stop = Some(stop);
        self.core.begin_stop();
        self.run_effects(ctx);
        // After the deadline the stop ends with what still runs: a call that hangs must not keep
        // the process.
        ctx.run_later(deadline, move |engine, ctx| {
            engine.core.stop_due();
            engine.run_effects(ctx);
            // A stop at once waits for the store no more than for calls.
            let flush = if deadline.is_zero() { deadline } else { FLUSH_LIMIT };
            ctx.run_later(flush, |engine, ctx| {
                engine.core.flush_due();
                engine.run_effects(ctx);
            });
        });
        let store = Arc::clone(&self.store);
        let engine = ctx.address();
        Box::pin(async move {
            let report = report.await.unwrap_or_default();
            // After the report: until then the lease is needed for the last writes.
            if let Ok(Some(epoch)) = engine.send(TakeLease).await {
                gleitzeit_failpoint::failpoint!("engine.lease.given_up");
                close_lease(&*store, epoch).await;
                gleitzeit_failpoint::failpoint!("engine.lease.closed");
            }
            report
        })
    }
}

impl Handler<TakeLease> for ExecutionEngine {
    type Result = MessageResult<TakeLease>;

    fn handle(&mut self, _: TakeLease, ctx: &mut Self::Context) -> Self::Result {
        let epoch = self.core.take_lease_to_close();
        self.run_effects(ctx);
        MessageResult(epoch)
    }
}
