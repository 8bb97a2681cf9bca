//! Every order in which three processes may go about three workflows: no state breaks the rules of
//! ownership by leases, and each rule is needed. One of them may be a stranger: it does not know what
//! a workflow calls.
//!
//! The model is of the protocol, not of the code: the tests of stores and engines show that the
//! code keeps to it. What one transaction does at once is one step here, and what a process decides
//! is apart from the transaction that writes it. A process may crash, come back with nothing, stop
//! for any time and go on, at any moment and without bound.

#![expect(
    clippy::print_stdout,
    reason = "how many states there were is what a reader wants to know"
)]

#[path = "lease_model/progress.rs"]
mod progress;
#[path = "lease_model/properties.rs"]
mod properties;
#[path = "lease_model/protocol.rs"]
mod protocol;
#[path = "lease_model/state.rs"]
mod state;
#[path = "lease_model/token_properties.rs"]
mod token_properties;
#[path = "lease_model/token_state.rs"]
mod token_state;
#[path = "lease_model/tokens.rs"]
mod tokens;

use std::time::Instant;

use progress::Reached;
use properties::{KEPT, KNOWN, LATE, NOT_STUCK, ONE_CALL, ONE_END, ONE_OWNER, OWNED, STORED};
use protocol::{Flaw, Holding, Protocol};
use state::{PROCESSES, WORKFLOWS};
use stateright::{Checker as _, HasDiscoveries, Model as _};
use tokens::Tokens;

/// Three workflows, one of which must not be called twice.
const THREE: [Option<bool>; WORKFLOWS] = [Some(true), Some(false), Some(false)];
/// Two, one of which must not be called twice.
const TWO: [Option<bool>; WORKFLOWS] = [Some(true), Some(false), None];

fn protocol(holding: Holding) -> Protocol {
    Protocol {
        holding,
        flaw: None,
        once: THREE,
        has_clock: true,
        laggards_max: PROCESSES,
        answers_get_lost: true,
        inherits: false,
        has_stranger: false,
        reached: Reached::default(),
    }
}

/// Looks at every state, and prints how many there were.
fn check_all(what: &str, protocol: Protocol, states_min: usize) {
    let begun = Instant::now();
    let checker = protocol.checker().spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!(
        "{what}: {states} states, {} steps, at most {} deep, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64(),
    );
    assert!(states >= states_min, "{states} states: the model has lost something");
}

/// Looks for a state that breaks a rule, and prints the shortest way to it.
fn check_flaw(holding: Holding, flaw: Flaw, broken: &[&'static str]) {
    let flawed = Protocol {
        flaw: Some(flaw),
        once: TWO,
        has_stranger: matches!(flaw, Flaw::ClaimsAll | Flaw::KeepsAll),
        inherits: flaw == Flaw::KeepsAll,
        ..protocol(holding)
    };
    let finish = HasDiscoveries::AllOf(broken.iter().copied().collect());
    let checker = flawed.checker().finish_when(finish).spawn_bfs().join();
    for rule in broken {
        let way = checker.discovery(rule);
        let way = way.unwrap_or_else(|| panic!("{flaw:?} was not found to break `{rule}`"));
        println!("{flaw:?} breaks `{rule}`: {:?}", way.into_actions());
    }
}

/// On a server, where a lease ends by time: one process at a time is stopped or late, the others
/// crash and come back as they like.
#[test]
fn three_processes_share_three_workflows_by_timed_leases() {
    let one_late =
        Protocol { laggards_max: 1, answers_get_lost: false, ..protocol(Holding::Timed) };
    check_all("3 processes, 3 workflows, timed leases", one_late, 200_000);
}

/// The same with any number of late processes, and with answers to commits that get lost.
#[test]
fn three_late_processes_share_two_workflows_by_timed_leases() {
    let two = Protocol { once: TWO, ..protocol(Holding::Timed) };
    check_all("3 processes, 2 workflows, all may be late, lost answers", two, 200_000);
}

/// Whoever is alone inherits what a dead one owned, at once, and shares what it has not begun with.
#[test]
fn successors_of_two_workflows_by_timed_leases() {
    let one_late = Protocol {
        once: TWO,
        inherits: true,
        laggards_max: 1,
        answers_get_lost: false,
        ..protocol(Holding::Timed)
    };
    check_all("3 processes, 2 workflows, timed leases, successors", one_late, 20_000);
}

/// The same in a file.
#[test]
fn successors_of_two_workflows_by_locked_leases() {
    let successors = Protocol { once: TWO, inherits: true, ..protocol(Holding::Locked) };
    check_all("3 processes, 2 workflows, locked leases, successors", successors, 1_000);
}

/// One process does not know one of the workflows: it never works on it, and keeps nobody from it.
#[test]
fn strangers_leave_what_they_do_not_know() {
    let stranger = |holding| Protocol {
        once: TWO,
        inherits: true,
        has_stranger: true,
        laggards_max: 1,
        answers_get_lost: false,
        ..protocol(holding)
    };
    let timed = "3 processes, one a stranger, 2 workflows, timed leases, successors";
    check_all(timed, stranger(Holding::Timed), 20_000);
    let locked = "3 processes, one a stranger, 2 workflows, locked leases, successors";
    check_all(locked, stranger(Holding::Locked), 1_000);
}

/// A claim that does not ask what a workflow needs gives it to a process that cannot run it.
#[test]
fn a_claim_on_whatever_is_free_is_caught() {
    check_flaw(Holding::Locked, Flaw::ClaimsAll, &[KNOWN]);
}

/// A successor that keeps what it cannot run keeps it from everybody.
#[test]
fn a_successor_that_keeps_what_it_does_not_know_is_caught() {
    check_flaw(Holding::Locked, Flaw::KeepsAll, &[NOT_STUCK]);
}

/// In a file, where a lease ends with its process: there are no late processes.
#[test]
fn three_processes_share_three_workflows_by_locked_leases() {
    let name = "3 processes, 3 workflows, locked leases, lost answers";
    check_all(name, protocol(Holding::Locked), 10_000);
}

/// Without the fence, a stopped process that goes on writes over what its successor wrote.
#[test]
fn writes_without_an_epoch_are_caught() {
    check_flaw(Holding::Timed, Flaw::NoFence, &[LATE, KEPT, ONE_END]);
}

/// A fence that is looked at before the transaction leaves a gap, in which the lease can go.
#[test]
fn a_fence_outside_of_the_transaction_is_caught() {
    check_flaw(Holding::Timed, Flaw::CheckedBefore, &[LATE, KEPT, ONE_END]);
}

/// Who takes workflows over and leaves the lease leaves its owner able to write.
#[test]
fn a_takeover_that_leaves_the_lease_is_caught() {
    check_flaw(Holding::Timed, Flaw::LeaseKept, &[ONE_OWNER, LATE, KEPT]);
}

/// Who deletes the lease and leaves the workflows to it leaves them to nobody who could go on.
#[test]
fn a_takeover_that_leaves_the_workflows_is_caught() {
    check_flaw(Holding::Timed, Flaw::OwnerKept, &[OWNED, NOT_STUCK]);
}

/// An epoch that comes again lets the late write of its first owner pass.
#[test]
fn an_epoch_that_is_used_again_is_caught() {
    check_flaw(Holding::Timed, Flaw::EpochReused, &[ONE_OWNER, LATE, KEPT]);
}

/// A call that does not wait for its start to be stored is made again after a crash.
#[test]
fn a_call_before_its_start_is_stored_is_caught() {
    for holding in [Holding::Timed, Holding::Locked] {
        check_flaw(holding, Flaw::CallFirst, &[STORED, ONE_CALL]);
    }
}

/// Where processes look at their locks only, nobody may take a lease that is locked.
#[test]
fn a_takeover_that_ignores_the_lock_is_caught() {
    check_flaw(Holding::Locked, Flaw::LockIgnored, &[ONE_OWNER, LATE, KEPT]);
}

fn tokens(holding: Holding) -> Tokens {
    Tokens { holding, once: TWO, laggards_max: 1, answers_get_lost: false, skips_check: false }
}

/// A lease of two numbers keeps the same rules: a taker holds several leases, and a process that was
/// stopped writes nothing under a lease whose token was raised.
#[test]
fn leases_of_two_numbers_keep_the_rules() {
    for once in [true, false] {
        let timed = Tokens { once: [Some(once), None, None], ..tokens(Holding::Timed) };
        token_properties::check_all("3 processes, timed leases of two numbers", timed, 1_000);
    }
    let locked = Tokens { answers_get_lost: true, ..tokens(Holding::Locked) };
    token_properties::check_all(
        "3 processes, 2 workflows, locked leases of two numbers",
        locked,
        500,
    );
}

/// Without the token, a stopped process writes under the lease that another one took over: both name
/// it by the same id.
#[test]
fn a_takeover_without_a_token_is_caught() {
    let flawed = Tokens { skips_check: true, ..tokens(Holding::Timed) };
    token_properties::check_flaw(flawed, &[LATE, KEPT]);
}
