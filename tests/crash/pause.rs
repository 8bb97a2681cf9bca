//! A process that is stopped past its lease, and continued: what it still writes is refused.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    database::{Kind, TestDatabase},
    journal::{self, Line},
    process::{Orders, Process, Role},
    verdict::judge,
    workload,
};

const TEST: &str = "pause::a_process_that_is_stopped_past_its_lease_is_fenced";

/// The stopped process is about to store outcomes, so that its write comes after the takeover.
const FAILPOINT: &str = "engine.write.before:4:stop";

/// Each workflow ends once, though two processes ran it; the one that was taken for dead goes on
/// with other work.
#[test]
fn a_process_that_is_stopped_past_its_lease_is_fenced() {
    if let Some(orders) = Orders::from_env() {
        return crate::program::live(orders);
    }
    let database = match TestDatabase::new(Kind::Postgres, "pause") {
        Ok(database) => database,
        Err(why) => return println!("SKIPPED: {TEST}: {why}"),
    };
    let start = |name: &str, failpoint| {
        let orders = Orders {
            store: database.url.clone(),
            folder: database.folder(),
            name: name.into(),
            role: Role::Helper,
            shares: vec![name.into()],
            neighbour: None,
        };
        Process::start(TEST, &orders, failpoint)
    };
    let mut live = start("live", None);
    live.says("started").unwrap();
    let mut stopped = start("stopped", Some(FAILPOINT));
    stopped.stops().unwrap();
    let begun = Instant::now();
    let took = await_takeover(&database, begun);
    println!("a lease of {} s was taken over after {took:.2?}", workload::LEASE_SECONDS);
    live.finish(&["live", "stopped"]);
    live.ends().unwrap();

    stopped.signal(Signal::SIGCONT);
    stopped.finish(&["stopped", "later"]);
    stopped.ends().unwrap();
    let lines = journal::read(&database.folder());
    let lost = lines.iter().find_map(|line| match line {
        Line::Lost { process, leases, refused } if process == "stopped" => {
            Some((*leases, *refused))
        }
        _ => None,
    });
    assert!(
        lost.is_some_and(|(leases, refused)| leases >= 1 && refused >= 1),
        "(leases lost, writes refused): {lost:?}"
    );
    let serves_again = |line: &Line| {
        matches!(line, Line::Begins { process, task, .. }
            if process == "stopped" && task.starts_with("later-"))
    };
    assert!(lines.iter().any(serves_again));
    let verdict = judge(&database.url, &database.folder(), &BTreeSet::new()).unwrap();
    println!("lost leases and refused writes: {lost:?}; {verdict:?}");
}

/// How long until another process runs what the stopped one had taken.
fn await_takeover(database: &TestDatabase, begun: Instant) -> Duration {
    let is_taken = |line: &Line| {
        matches!(line, Line::Begins { process, task, .. }
            if process == "live"
                && task.starts_with("stopped-")
                // Nobody's, and for whoever comes first.
                && !task.starts_with("stopped-enqueued"))
    };
    while !journal::read(&database.folder()).iter().any(is_taken) {
        assert!(begun.elapsed() < Duration::from_mins(1), "nobody took it over");
        thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}
