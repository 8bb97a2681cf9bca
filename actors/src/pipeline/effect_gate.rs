//! When calls with an effect outside may begin, as the pipeline reads it directly before a call.
//!
//! Another process may take over what runs here once the lease has run out, and this engine may not
//! notice: the line to the database may be cut. So the gate uses its own monotonic clock. It is
//! closed as well while too many outcomes wait for the store, or the store refuses them. Pure calls
//! pass at any time.
//!
//! Set by the engine. Invariant: no call with an effect begins later than its lease is certainly
//! held.

use std::{cell::Cell, rc::Rc};

use tokio::time::Instant;

/// The gate; lives on the control thread.
#[derive(Debug)]
pub struct EffectGate {
    lease: Cell<LeaseBound>,
    /// Too many outcomes wait for the store, or it refuses them.
    is_blocked: Cell<bool>,
}

/// Until when calls may begin, as far as the lease goes.
#[derive(Debug, Clone, Copy)]
pub enum LeaseBound {
    /// The store has no leases, or they do not run out.
    Never,
    /// Until this instant.
    At(Instant),
    /// There is no lease.
    Now,
}

impl EffectGate {
    /// A gate that is closed if there must be a lease first.
    pub fn new(has_leases: bool) -> Rc<Self> {
        let lease = if has_leases { LeaseBound::Now } else { LeaseBound::Never };
        Rc::new(Self { lease: Cell::new(lease), is_blocked: Cell::new(false) })
    }

    /// Sets until when the lease is certainly held.
    pub fn set_lease(&self, lease: LeaseBound) {
        self.lease.set(lease);
    }

    /// Closes the gate while too much waits for the store.
    pub fn set_blocked(&self, is_blocked: bool) {
        self.is_blocked.set(is_blocked);
    }

    /// True while a call with an effect may begin.
    pub(super) fn is_open(&self) -> bool {
        !self.is_blocked.get() && self.has_lease()
    }

    /// True while no other process can have taken over what runs here.
    pub fn has_lease(&self) -> bool {
        match self.lease.get() {
            LeaseBound::Never => true,
            // The monotonic clock: a wall clock that is set back would keep the gate open past the
            // term.
            LeaseBound::At(end) => Instant::now() < end,
            LeaseBound::Now => false,
        }
    }
}
