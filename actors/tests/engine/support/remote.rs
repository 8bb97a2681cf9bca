//! A store that several engines share, over a connection that may stall, refuse, or lose answers.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::TimeDelta;
use gleitzeit_actors::memory_store::MemoryStore;
use gleitzeit_domain::store::StoreError;
use tokio::sync::watch;

use super::hooked_store::{Decision, Hook, HookedStore, Operation};

/// The state of the connection to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It arrives and is answered.
    Whole,
    /// It stays on its way until the state changes.
    Stalled,
    /// It does not arrive, and the caller is answered so.
    Refusing,
    /// It is done, and its answer is lost: the caller knows nothing.
    AnswerLost,
    /// It is not done, and the caller knows nothing either.
    Lost,
}

/// Changes its state when the test says so; single calls may have a state of their own.
#[derive(Debug)]
pub(crate) struct Remote {
    /// How far the server's clock is ahead of this machine's.
    ahead: Option<TimeDelta>,
    state: watch::Sender<LinkState>,
    /// The states of the next submissions, in order.
    submits: Mutex<Vec<LinkState>>,
}

pub(crate) type RemoteStore = HookedStore<Remote>;

impl RemoteStore {
    pub(crate) fn to(memory: &Arc<MemoryStore>) -> Arc<Self> {
        Self::new(memory, None)
    }

    /// A store on a server whose clock differs from this machine's.
    pub(crate) fn to_server_ahead(memory: &Arc<MemoryStore>, ahead: TimeDelta) -> Arc<Self> {
        Self::new(memory, Some(ahead))
    }

    fn new(memory: &Arc<MemoryStore>, ahead: Option<TimeDelta>) -> Arc<Self> {
        let state = watch::Sender::new(LinkState::Whole);
        Self::over(Arc::clone(memory), Remote { ahead, state, submits: Mutex::default() })
    }
}

impl Remote {
    pub(crate) fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    /// The next submissions meet these states, the rest the state of the connection.
    pub(crate) fn spoil_submits(&self, mut states: Vec<LinkState>) {
        states.reverse();
        *self.submits.lock().unwrap() = states;
    }
}

#[async_trait]
impl Hook for Remote {
    async fn on(&self, operation: Operation<'_>) -> Decision {
        let mut states = self.state.subscribe();
        let own = match operation {
            Operation::Submit(_) => self.submits.lock().unwrap().pop(),
            // A store hands what was claimed in doubt to the next claim; this one does not claim it.
            Operation::Claim if *self.state.borrow() == LinkState::AnswerLost => {
                Some(LinkState::Lost)
            }
            _ => None,
        };
        let state = match own {
            Some(state) => state,
            None => *states.wait_for(|state| *state != LinkState::Stalled).await.unwrap(),
        };
        let unknown = StoreError::Unknown { detail: "no answer".into() };
        match state {
            LinkState::Whole | LinkState::Stalled => Decision::Pass,
            LinkState::Refusing => {
                Decision::Refuse(StoreError::Unavailable { detail: "refused".into() })
            }
            LinkState::AnswerLost => Decision::PassThenFail(unknown),
            LinkState::Lost => Decision::Refuse(unknown),
        }
    }

    fn has_leases(&self) -> bool {
        true
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        self.ahead
    }
}
