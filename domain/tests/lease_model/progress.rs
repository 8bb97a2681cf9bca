//! Whether every workflow still gets to its end, from a state and with no more accidents.
//!
//! One process is let live on, and takes what it finds in a fixed order: that is a schedule as fair
//! as any, and it must get everything settled within a bounded number of steps. Another process
//! that lives is let do its part only where nobody could take its lease.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use stateright::Model as _;

use crate::{
    protocol::{Action, Holding, Protocol},
    state::{EPOCHS, Life, PROCESSES, State, Status},
};

/// More steps than it takes to take over every lease and to run every workflow.
const STEPS_MAX: usize = 100;

/// The states from which everything settles, as far as was looked; with the process that does it.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<HashSet<(State, usize)>>);

impl Reached {
    /// Whether from `state` each process that knows all workflows alone gets everything settled.
    pub(crate) fn settles(&self, protocol: &Protocol, state: &State) -> bool {
        let knows_all = |at: &usize| state.processes[*at].knows.iter().all(|knows| *knows);
        (0..PROCESSES).filter(knows_all).all(|it| self.settles_by(protocol, *state, it))
    }

    fn settles_by(&self, protocol: &Protocol, mut state: State, survivor: usize) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut way = Vec::new();
        while !known.contains(&(state, survivor)) {
            way.push((state, survivor));
            if state.rows.iter().all(|row| row.status == Status::Settled) {
                break;
            }
            match next(protocol, &state, survivor) {
                Some(action) if way.len() < STEPS_MAX => state = protocol.apply(&state, action),
                _ => return false,
            }
        }
        known.extend(way);
        true
    }
}

/// What is done next so that everything settles.
fn next(protocol: &Protocol, state: &State, survivor: usize) -> Option<Action> {
    let mut actions = Vec::new();
    protocol.actions(state, &mut actions);
    let own = state.processes[survivor].epoch;
    if protocol.holding == Holding::Timed && state.processes[survivor].life == Life::Up {
        // Whatever the others do, the time of their leases passes.
        let others = (1..).take(EPOCHS - 1).filter(|epoch| *epoch != own && state.stands(*epoch));
        actions.extend(others.map(|epoch| Action::TakeOver(survivor, epoch)));
    }
    let others_go = protocol.holding == Holding::Locked;
    let helps = |action: &&Action| match **action {
        Action::Submit(_) => true,
        Action::Continue(at) => {
            at == survivor || (others_go && state.processes[at].life == Life::Paused)
        }
        Action::TakeOver(at, epoch) => at == survivor && epoch != own,
        Action::Restart(at) | Action::Open(at) | Action::Renew(at) => at == survivor,
        // What another one inherited is its own to begin with.
        Action::Claim(at, workflow) => {
            let is_its_own = state.rows[workflow].epoch == state.processes[at].epoch;
            at == survivor || (others_go && is_its_own)
        }
        Action::Go(at, _) | Action::Settle(at, _) => at == survivor || others_go,
        Action::SubmitOwned(..)
        | Action::Expire(_)
        | Action::Close(_)
        | Action::Crash(_)
        | Action::Pause(_)
        | Action::Inherit(..)
        | Action::Share(..)
        | Action::LoseAnswer(..) => false,
    };
    actions.iter().find(helps).copied()
}
