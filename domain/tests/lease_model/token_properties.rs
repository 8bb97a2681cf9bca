//! The rules of the protocol of two numbers: those of one number, but that everything settles.

use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _, Property};

use crate::{
    properties::{KEPT, LATE, ONE_CALL, ONE_END, ONE_OWNER, OWNED, STORED},
    protocol::Holding,
    state::{NOBODY, PROCESSES, Row, Status, Step, WORKFLOWS},
    token_state::{Fence, Process, State},
    tokens::Tokens,
};

fn one_owner(state: &State) -> bool {
    let works = |at: usize, workflow: usize| {
        let process = &state.processes[at];
        let (step, fence) = (process.steps[workflow], process.fences[workflow]);
        let counts = !matches!(step, Step::Idle | Step::Recorded);
        counts && fence.is_current && state.stands(fence.id)
    };
    (0..WORKFLOWS).all(|workflow| {
        let mut owners = (0..PROCESSES).filter(|at| works(*at, workflow));
        let first = owners.next();
        let names_it =
            |at: usize| state.processes[at].fences[workflow].id == state.rows[workflow].epoch;
        first.is_none_or(names_it) && owners.next().is_none()
    })
}

/// All rules, and what must be seen in some state, so that the rest means something.
pub(crate) fn all(holding: Holding) -> Vec<Property<Tokens>> {
    let mut all = vec![
        Property::always(ONE_OWNER, |_, state: &State| one_owner(state)),
        Property::always(OWNED, |_, state: &State| {
            let mut unsettled = state.rows.iter().filter(|row| row.is_unsettled());
            unsettled.all(|row| row.epoch == NOBODY || state.stands(row.epoch))
        }),
        Property::always(LATE, |_, state: &State| !state.late_write_landed),
        Property::always(KEPT, |_, state: &State| !state.overwritten),
        Property::always(ONE_END, |_, state: &State| {
            let is_one = |row: &Row| row.outcomes == u8::from(row.status == Status::Settled);
            state.rows.iter().all(is_one)
        }),
        Property::always(ONE_CALL, |_, state: &State| state.rows.iter().all(|row| row.calls <= 1)),
        Property::always(STORED, |_, state: &State| {
            let is_stored = |it| matches!(it, Status::Begun | Status::Unknown | Status::Settled);
            state.rows.iter().all(|row| row.calls == 0 || is_stored(row.status))
        }),
        Property::sometimes("every workflow has settled", |_, state: &State| {
            state.rows.iter().all(|row| row.status == Status::Settled)
        }),
        Property::sometimes(
            "a process works under a lease that it took over",
            |_, state: &State| {
                state.processes.iter().any(|process| {
                    let is_other = |fence: &Fence| fence.id != process.own && fence.is_current;
                    process.is_working() && process.fences.iter().any(is_other)
                })
            },
        ),
    ];
    if holding == Holding::Timed {
        all.push(Property::sometimes("a taker was taken over itself", |_, state: &State| {
            let lost = |it: &Process| {
                it.fences
                    .iter()
                    .any(|fence| fence.id != NOBODY && fence.id != it.own && !fence.is_current)
            };
            state.processes.iter().any(lost)
        }));
    }
    all
}

/// Looks at every state, and prints how many there were.
pub(crate) fn check_all(what: &str, tokens: Tokens, states_min: usize) {
    let begun = Instant::now();
    let checker = tokens.checker().spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{what}: {states} states, {:.1} s", begun.elapsed().as_secs_f64());
    assert!(states >= states_min, "{states} states: the model has lost something");
}

/// Looks for states that break rules, and prints the shortest way to each.
pub(crate) fn check_flaw(tokens: Tokens, broken: &[&'static str]) {
    let finish = HasDiscoveries::AllOf(broken.iter().copied().collect());
    let checker = tokens.checker().finish_when(finish).spawn_bfs().join();
    for rule in broken {
        let way = checker.discovery(rule);
        let way = way.unwrap_or_else(|| panic!("the flaw was not found to break `{rule}`"));
        println!("writes without a token break `{rule}`: {:?}", way.into_actions());
    }
}
