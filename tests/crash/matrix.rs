//! A process killed at every failpoint, on each database, alone and with two others beside it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gleitzeit_failpoint as failpoint;
use nix::sys::signal::Signal;

use crate::{
    database::{Kind, TestDatabase},
    is_quick,
    process::{ENDED_WELL, Orders, Process, Role},
    verdict::{Verdict, judge},
    workload,
};

/// Kills at once, on databases of their own.
const LANES: usize = 3;

/// Every name is that of one place in the code, and every place has a name.
#[test]
fn every_failpoint_is_in_the_code_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut failpoints = Vec::new();
    for folder in ["src", "actors/src", "storage/src"] {
        for entry in walkdir::WalkDir::new(root.join(folder)) {
            let entry = entry.unwrap();
            if entry.path().extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                failpoints.extend(code.filter_map(|line| {
                    let (_, rest) = line.split_once("failpoint!(\"")?;
                    Some(rest.split_once('"')?.0.to_owned())
                }));
            }
        }
    }
    failpoints.sort();
    let mut names: Vec<&str> = failpoint::NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(failpoints, names);
    assert!(names.len() >= 60, "{}", names.len());
}

/// What a kill begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A database that is not there yet.
    Empty,
    /// Work that another killed process left behind.
    LeftOver,
}

/// One process to be killed at one place.
#[derive(Debug, Clone)]
struct Kill {
    failpoint: &'static str,
    nth: u64,
    state: State,
}

/// A test of the matrix: a database, and how many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setup {
    test: &'static str,
    kind: Kind,
    processes: usize,
}

const SETUPS: &[Setup] = &[
    Setup { test: "matrix::sqlite_alone", kind: Kind::Sqlite, processes: 1 },
    Setup { test: "matrix::sqlite_three", kind: Kind::Sqlite, processes: 3 },
    #[cfg(feature = "postgres")]
    Setup { test: "matrix::postgres_alone", kind: Kind::Postgres, processes: 1 },
    #[cfg(feature = "postgres")]
    Setup { test: "matrix::postgres_three", kind: Kind::Postgres, processes: 3 },
];

/// Come to where another process has its lease by then: by chance here.
const SHARING: [&str; 2] = ["store.claim.shared", "store.takeover.freed"];

/// Why a place need not be come to in a setup.
fn absent(failpoint: &str, setup: Setup) -> Option<&'static str> {
    let (part, _) = failpoint.rsplit_once('.')?;
    match part {
        _ if setup.kind == Kind::Sqlite && failpoint.starts_with("store.lease.renew") => {
            Some("a lease on SQLite goes with its process, and is not renewed")
        }
        "store.request" | "engine.request" | "handle.request" if setup.processes == 1 => {
            Some("there is no other process to be asked")
        }
        _ if SHARING.contains(&failpoint) => Some("`tests/leases` has a process killed there"),
        _ => None,
    }
}

/// The setup that kills at a failpoint in a quick run: the setups that pass it take turns.
fn quick_setup(at: u64, failpoint: &str) -> Option<Setup> {
    let able: Vec<Setup> =
        SETUPS.iter().copied().filter(|setup| absent(failpoint, *setup).is_none()).collect();
    able.get(usize::try_from(at).unwrap() % able.len().max(1)).copied()
}

impl Setup {
    fn start(
        self,
        database: &TestDatabase,
        name: &str,
        role: Role,
        neighbour: Option<&str>,
        failpoint: Option<&str>,
    ) -> Process {
        let share = match role {
            Role::First => None,
            Role::Last => Some("a"),
            _ => Some(name),
        };
        let orders = Orders {
            store: database.url.clone(),
            folder: database.folder(),
            name: name.into(),
            role,
            shares: share.into_iter().map(str::to_owned).collect(),
            neighbour: neighbour.map(str::to_owned),
        };
        Process::start(self.test, &orders, failpoint)
    }

    /// A database with work that a killed process left behind.
    fn database(self, lane: usize) -> Result<TestDatabase, String> {
        let database = TestDatabase::new(self.kind, &format!("{}_{lane}", self.processes))?;
        let mut first = self.start(&database, workload::FIRST, Role::First, None, None);
        first.says("ready")?;
        first.signal(Signal::SIGKILL);
        first.dies()?;
        database.keep();
        Ok(database)
    }

    /// How often an undisturbed process comes to each place.
    fn passes(self, database: &TestDatabase) -> Result<Vec<(&'static str, u64)>, String> {
        database.restore();
        self.run(database, "count", Process::ends)?;
        judge(&database.url, &database.folder(), &BTreeSet::from([workload::FIRST.to_owned()]))?;
        let text = fs::read_to_string(database.folder().join("passes")).unwrap();
        let count = |name: &str| {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
            line.split(' ').nth(1)?.parse().ok()
        };
        Ok(failpoint::NAMES.iter().map(|name| (*name, count(name).unwrap())).collect())
    }

    /// Kills a process and has the others, or the next one, go on.
    fn kill(self, database: &TestDatabase, kill: &Kill) -> Result<Verdict, String> {
        match kill.state {
            State::Empty => database.clear(),
            State::LeftOver => database.restore(),
        }
        self.run(database, &format!("{}:{}", kill.failpoint, kill.nth), Process::dies)?;
        let killed = BTreeSet::from([workload::FIRST, "a"].map(str::to_owned));
        judge(&database.url, &database.folder(), &killed)
    }

    /// The same at the first time, where this run does not come to a place as often as the one that
    /// counted: how often leases are taken, and how writes are grouped, depends on the machine.
    fn kill_sooner_or_later(self, database: &TestDatabase, kill: &Kill) -> Result<Verdict, String> {
        match self.kill(database, kill) {
            Err(wrong) if kill.nth > 1 && wrong.contains(ENDED_WELL) => {
                self.kill(database, &Kill { nth: 1, ..kill.clone() })
            }
            other => other,
        }
    }

    /// Runs process `a`, and others beside it or after it until all is done.
    fn run(
        self,
        database: &TestDatabase,
        failpoint: &str,
        end: fn(&mut Process) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.processes == 1 {
            end(&mut self.start(database, "a", Role::Worker, None, Some(failpoint)))?;
            return self.start(database, "z", Role::Last, None, None).ends();
        }
        // Each stops something of the next one's.
        let mut a = self.start(database, "a", Role::Worker, Some("b"), Some(failpoint));
        // It is to find what was left over; unless it dies before.
        let _ = a.says("started");
        let mut b = self.start(database, "b", Role::Helper, Some("c"), None);
        let mut c = self.start(database, "c", Role::Helper, Some("a"), None);
        end(&mut a)?;
        b.finish(&["a", "b", "c"]);
        b.ends()?;
        c.stop();
        c.ends()
    }
}

/// All kills of a setup.
fn plan(setup: Setup, passes: &[(&'static str, u64)]) -> (Vec<Kill>, Vec<String>) {
    let mut kills = Vec::new();
    let mut unmet = Vec::new();
    for (at, (failpoint, count)) in (1..).zip(passes) {
        if *count == 0 {
            if absent(failpoint, setup).is_none() {
                unmet.push(format!("{failpoint} is never come to"));
            }
            continue;
        }
        if SHARING.contains(failpoint) {
            continue;
        }
        if is_quick() && quick_setup(at, failpoint) != Some(setup) {
            continue;
        }
        // At the first time, or at a later one that comes on every run.
        let nth = 1 + at % (count / 2).max(1);
        kills.push(Kill { failpoint, nth, state: State::LeftOver });
        if failpoint.starts_with("store.open.") || failpoint.starts_with("runtime.start.") {
            kills.push(Kill { failpoint, nth: 1, state: State::Empty });
        }
    }
    (kills, unmet)
}

fn matrix(setup: Setup) {
    if let Some(orders) = Orders::from_env() {
        return crate::program::live(orders);
    }
    let begun = Instant::now();
    let first = match setup.database(0) {
        Ok(database) => database,
        Err(why) if why.starts_with("no PostgreSQL") => {
            return println!("SKIPPED: {}: {why}", setup.test);
        }
        Err(why) => panic!("{why}"),
    };
    let passes = setup.passes(&first).unwrap();
    let (kills, unmet) = plan(setup, &passes);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (kills, next, results) = (&kills, &next, &results);
        let mut first = Some(first);
        for lane in 0..LANES {
            let database = first.take();
            scope.spawn(move || {
                let database = database.unwrap_or_else(|| setup.database(lane).unwrap());
                while let Some(kill) = kills.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let verdict = setup.kill_sooner_or_later(&database, kill).map_err(|wrong| {
                        let left = database.leave(&format!("{}-{}", kill.failpoint, kill.nth));
                        format!("{kill:?}, left in {left}:\n{wrong}")
                    });
                    if let Err(wrong) = &verdict {
                        println!("{wrong}");
                    }
                    results.lock().unwrap().push((begun.elapsed(), kill.failpoint, verdict));
                }
            });
        }
    });
    report(setup, passes.len(), begun.elapsed(), results.into_inner().unwrap(), unmet);
}

type Judged = (Duration, &'static str, Result<Verdict, String>);

fn report(
    setup: Setup,
    failpoints: usize,
    took: Duration,
    results: Vec<Judged>,
    unmet: Vec<String>,
) {
    let kills = results.len();
    let slowest = results
        .iter()
        .max_by_key(|(took, ..)| *took)
        .map(|(took, failpoint, _)| (*took, *failpoint));
    let mut total = Verdict::default();
    let mut wrong = unmet;
    for (_, _, verdict) in results {
        match verdict {
            Ok(verdict) => total += verdict,
            Err(text) => wrong.push(text),
        }
    }
    println!(
        "{:?}, processes: {}; places: {failpoints}; kills: {kills} in {took:.1?}, the slowest {slowest:?}; {total:?}",
        setup.kind, setup.processes
    );
    assert!(wrong.is_empty(), "{} of {kills} went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The four quick setups together kill at every failpoint that the full ones kill at.
#[test]
fn a_quick_run_leaves_no_failpoint_out() {
    for (at, failpoint) in (1..).zip(failpoint::NAMES) {
        if !SHARING.contains(failpoint) {
            assert!(quick_setup(at, failpoint).is_some(), "no setup kills at {failpoint}");
        }
    }
}

/// Whatever the place, the next process goes on.
#[test]
fn sqlite_alone() {
    matrix(SETUPS[0]);
}

/// The others take over what it ran, while they run their own.
#[test]
fn sqlite_three() {
    matrix(SETUPS[1]);
}

/// The same on a server, which goes on for a moment with what a dead process asked.
#[cfg(feature = "postgres")]
#[test]
fn postgres_alone() {
    matrix(SETUPS[2]);
}

/// The same where leases go by the clock of a server.
#[cfg(feature = "postgres")]
#[test]
fn postgres_three() {
    matrix(SETUPS[3]);
}
