//! The right to make one call at a provider.
//!
//! Invariant: a ticket is released once, when it is dropped: no path of a call can keep the slot.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    balance::{Sample, Slot},
    id::ProviderId,
};
use tokio::sync::watch;

use crate::provider_supervisor::ProviderSupervisor;

/// The right to make one call; the call counts as in flight until this is dropped.
#[derive(Debug)]
pub struct ProviderTicket {
    slot: Slot,
    sample: Option<Sample>,
    address: Arc<ProviderAddress>,
}

/// How to reach a provider; all of its tickets share this.
#[derive(Debug)]
pub(super) struct ProviderAddress {
    pub(super) provider_id: ProviderId,
    pub(super) supervisor: Addr<ProviderSupervisor>,
    /// The balancer, for released tickets.
    pub(super) releases: Recipient<ReleaseTicket>,
    /// Closes when no supervisor answers for the calls in flight any more.
    pub(super) liveness: watch::Receiver<()>,
}

/// Sent by a dropped [`ProviderTicket`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ReleaseTicket {
    pub(super) slot: Slot,
    pub(super) sample: Option<Sample>,
}

impl ProviderTicket {
    pub(super) fn new(slot: Slot, address: Arc<ProviderAddress>) -> Self {
        Self { slot, sample: None, address }
    }

    /// The provider that was chosen.
    pub fn provider_id(&self) -> &ProviderId {
        &self.address.provider_id
    }

    /// Where to send the call.
    pub fn supervisor(&self) -> &Addr<ProviderSupervisor> {
        &self.address.supervisor
    }

    /// True if both are for one provider.
    pub fn same_provider(&self, other: &Self) -> bool {
        self.slot == other.slot
    }

    /// Resolves when no supervisor answers for the provider's calls any more: its thread is blocked
    /// and given up, or the provider was removed. A call without an answer by then gets none.
    pub async fn abandoned(&self) {
        let mut liveness = self.address.liveness.clone();
        while liveness.changed().await.is_ok() {}
    }

    /// Notes how the call went, for strategies that learn from it.
    pub fn finished(&mut self, latency: Duration, ok: bool) {
        self.sample = Some(Sample { latency, ok });
    }
}

impl Drop for ProviderTicket {
    fn drop(&mut self) {
        // `do_send`: a destructor cannot wait, and a message that is refused for a full mailbox
        // would leave the slot taken for ever.
        self.address.releases.do_send(ReleaseTicket { slot: self.slot, sample: self.sample });
    }
}
