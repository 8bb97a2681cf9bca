//! Finds providers whose thread is blocked, and gives them a new one.
//!
//! A provider that blocks its thread answers nothing: no call, no health check, no timeout of its
//! own. So every supervisor on another thread is asked for a sign of life from here; one that owes
//! it for longer than its health check may take is taken for lost: its calls are abandoned, and a
//! new supervisor is started for it, on a thread of its own where the old one's is shared. So those
//! that only share the thread with the one that blocks it come back too. One that is lost more than
//! `restarts_max` times an hour has failed.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    balance::Slot,
    event::EventData,
    id::ProviderId,
    provider::{Placement, ProviderSpec},
};
use tokio::{sync::watch, time::Instant};

use super::{LoadBalancer, directory};
use crate::provider_supervisor::{GetStatus, ProviderStatus, Stop};

/// Asks every provider for a sign of life.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct PingAll;

/// A provider gave one.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Pong {
    slot: Slot,
    status: ProviderStatus,
}

impl LoadBalancer {
    /// Sees to the next round.
    pub(super) fn watch(&self, ctx: &mut Context<Self>) {
        ctx.notify_later(PingAll, self.settings.watch_interval);
    }

    fn replace_blocked(&mut self, id: &ProviderId, ctx: &mut Context<Self>) {
        let now = self.now();
        let slot = self.table.find(id);
        let Some(provider_handle) = slot.and_then(|slot| self.table.handle_mut(slot)) else {
            return;
        };
        let generation = provider_handle.status.generation;
        if provider_handle.blocks.spend(now).is_none() {
            // Should its thread wake up, it finds that it has been given up; so do its callers now.
            provider_handle.supervisor.do_send(Stop { deadline: Duration::ZERO });
            directory::stop_thread(provider_handle.thread.take());
            provider_handle.attends = watch::Sender::new(());
            self.lose(id, "blocks its thread again and again".to_owned(), ctx);
            return;
        }
        let blocks = provider_handle.blocks.clone();
        // What blocks once may block again: not on a shared thread any more.
        let spec = Arc::new(ProviderSpec {
            placement: Placement::Dedicated,
            ..ProviderSpec::clone(&provider_handle.spec)
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
        // Where this thread itself was held up, the signs of life may not have been read yet.
        let late = now.saturating_duration_since(self.last_round) > 2 * round;
        self.last_round = now;
        let mut blocked = Vec::new();
        for (slot, entry) in self.table.iter() {
            let provider_handle = &entry.handle;
            if provider_handle.is_local || provider_handle.is_lost {
                continue;
            }
            let limit = provider_handle.spec.supervision.health_timeout + round;
            if !late && now.saturating_duration_since(provider_handle.last_pong) > limit {
                blocked.push(entry.registration.id.clone());
                continue;
            }
            let ping = provider_handle.supervisor.send(GetStatus);
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
        // A provider with a new supervisor has a new place.
        if let Some(provider_handle) = self.table.handle_mut(slot)
            && !provider_handle.is_lost
        {
            provider_handle.last_pong = Instant::now();
            provider_handle.status = status;
        }
    }
}
