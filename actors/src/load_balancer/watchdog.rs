//! Finds providers whose thread is blocked, and gives them a new one.
//!
//! A provider that blocks its thread answers nothing: no call, no health check, no timeout of its
//! own. So every supervisor on another thread is asked for a sign of life from here; one that owes
//! it for longer than its health check may take is taken for lost, and a new supervisor is started
//! for it, on a thread of its own where the old one's is shared.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    event::EventData,
    id::ProviderId,
    provider::{Placement, ProviderSpec},
};
use tokio::time::Instant;

use super::{LoadBalancer, directory};
use crate::provider_supervisor::{Ping, ProviderStatusChanged};

/// Between two rounds of pings.
const ROUND: Duration = Duration::from_secs(5);

/// Asks every provider for a sign of life.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct PingAll;

/// A provider gave one.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Pong {
    id: ProviderId,
}

/// Sees to the next round.
pub(super) fn watch(ctx: &mut Context<LoadBalancer>) {
    ctx.notify_later(PingAll, ROUND);
}

impl LoadBalancer {
    pub(super) fn note_generation(&mut self, status: &ProviderStatusChanged) {
        let slot = self.book.find(&status.provider_id);
        if let Some(desk) = slot.and_then(|slot| self.book.handle_mut(slot)) {
            desk.generation = status.generation;
            desk.last_pong = Instant::now();
        }
    }

    fn replace_blocked(&mut self, id: &ProviderId, ctx: &mut Context<Self>) {
        let Some(entry) = self.book.find(id).and_then(|slot| self.book.get(slot)) else { return };
        let generation = entry.handle.generation;
        // What blocks once may block again: not on a shared thread any more.
        let spec = Arc::new(ProviderSpec {
            placement: Placement::Dedicated,
            ..ProviderSpec::clone(&entry.handle.spec)
        });
        let registration = entry.registration.clone();
        tracing::error!(provider = %id, generation, "provider blocks its thread; it gets a new one");
        let event = EventData::ProviderRestarted {
            provider_id: id.clone(),
            generation,
            reason: "blocks its thread".into(),
        };
        self.bus.do_send(crate::loose(self.clock.now(), event));
        if let Some(old) = self.book.remove(id) {
            directory::dismiss(old.thread);
        }
        let desk = self.hire(&spec, ctx);
        self.book.register(registration, desk);
        self.note_outages(ctx);
    }
}

impl Handler<PingAll> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, _: PingAll, ctx: &mut Self::Context) {
        let now = Instant::now();
        let mut blocked = Vec::new();
        for (_, entry) in self.book.iter() {
            let desk = &entry.handle;
            if desk.spec.placement == Placement::Control {
                // Its thread is this one.
                continue;
            }
            let limit = desk.spec.supervision.health_timeout + ROUND;
            if now.saturating_duration_since(desk.last_pong) > limit {
                blocked.push(entry.registration.id.clone());
                continue;
            }
            let id = entry.registration.id.clone();
            let ping = desk.supervisor.send(Ping);
            let balancer = ctx.address();
            actix_rt::spawn(async move {
                if ping.await.is_ok() {
                    balancer.do_send(Pong { id });
                }
            });
        }
        for id in blocked {
            self.replace_blocked(&id, ctx);
        }
        watch(ctx);
    }
}

impl Handler<Pong> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, Pong { id }: Pong, _: &mut Self::Context) {
        let slot = self.book.find(&id);
        if let Some(desk) = slot.and_then(|slot| self.book.handle_mut(slot)) {
            desk.last_pong = Instant::now();
        }
    }
}
