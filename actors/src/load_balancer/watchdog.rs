//! Finds providers that block their thread, and starts a new supervisor for them.
//!
//! A provider that blocks its thread answers nothing: no call, no health check, and none of its own
//! timeouts fires. So the balancer pings every supervisor on another thread. If a supervisor owes an
//! answer for longer than its health check may take, its calls are abandoned and a new supervisor
//! starts, on a thread of its own. Providers that only share the blocked thread are replaced, too.
//! A provider that blocks more than `restarts_max` times an hour has failed.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    balance::Slot,
    event::EventData,
    id::ProviderId,
    provider::{Placement, ProviderSpec},
};
use tokio::{sync::watch, time::Instant};

use super::{LoadBalancer, supervisors::stop_thread};
use crate::provider_supervisor::{GetStatus, ProviderStatus, Stop};

/// Pings every provider on another thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct PingAll;

/// The answer to a ping.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Pong {
    slot: Slot,
    status: ProviderStatus,
}

impl LoadBalancer {
    /// Arms the next round.
    pub(super) fn watch(&self, ctx: &mut Context<Self>) {
        ctx.notify_later(PingAll, self.settings.watch_interval);
    }

    fn replace_blocked(&mut self, id: &ProviderId, ctx: &mut Context<Self>) {
        let now = self.now();
        let slot = self.table.find(id);
        let Some(provider) = slot.and_then(|slot| self.table.handle_mut(slot)) else {
            return;
        };
        let generation = provider.status.generation;
        if provider.blocks.spend(now).is_none() {
            // If its thread wakes up, it finds that it was given up; its callers find so now.
            provider.supervisor.do_send(Stop { deadline: Duration::ZERO });
            stop_thread(provider.thread.take());
            // Dropping the old sender ends every wait for a call that will never be answered.
            provider.liveness = watch::Sender::new(());
            self.mark_failed(id, "blocks its thread again and again".to_owned(), ctx);
            return;
        }
        let blocks = provider.blocks.clone();
        // A provider that blocked once may block again: on a shared thread it would take others with
        // it each time.
        let spec = Arc::new(ProviderSpec {
            placement: Placement::Dedicated,
            ..ProviderSpec::clone(&provider.spec)
        });
        tracing::error!(provider = %id, generation, "provider's thread is blocked; it gets a new one");
        let event = EventData::ProviderRestarted {
            provider_id: id.clone(),
            generation,
            reason: "its thread is blocked".into(),
        };
        self.bus.do_send(crate::system_event(self.clock.now(), event));
        self.replace_supervisor(id, &spec, Some(blocks), ctx);
    }
}

impl Handler<PingAll> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, _: PingAll, ctx: &mut Self::Context) {
        let now = Instant::now();
        let round = self.settings.watch_interval;
        // If this thread itself was held up, the answers may wait in its mailbox: without this, one
        // busy moment here would replace every provider.
        let late = now.saturating_duration_since(self.last_round) > 2 * round;
        self.last_round = now;
        let mut blocked = Vec::new();
        for (slot, entry) in self.table.iter() {
            let provider = &entry.handle;
            // This very thread runs, so it is not blocked now; a lost provider has no supervisor.
            if provider.is_local || provider.is_lost {
                continue;
            }
            let limit = provider.spec.supervision.health_timeout + round;
            if !late && now.saturating_duration_since(provider.last_pong) > limit {
                blocked.push(entry.registration.id.clone());
                continue;
            }
            let ping = provider.supervisor.send(GetStatus);
            let balancer = ctx.address();
            actix_rt::spawn(async move {
                if let Ok(status) = ping.await {
                    balancer.do_send(Pong { slot, status });
                }
            });
        }
        for id in blocked {
            self.replace_blocked(&id, ctx);
        }
        self.watch(ctx);
    }
}

impl Handler<Pong> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, Pong { slot, status }: Pong, _: &mut Self::Context) {
        // A provider with a new supervisor has a new slot: a late answer of the old one finds none.
        if let Some(provider) = self.table.handle_mut(slot)
            && !provider.is_lost
        {
            provider.last_pong = Instant::now();
            provider.status = status;
        }
    }
}
