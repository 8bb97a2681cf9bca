//! Processes killed at any moment, under a load that does not end: one to three of them at a time on
//! one database, each killed one replaced.
//!
//! `GLEITZEIT_KILLS` says how many kills (50; 10 in a quick run), `GLEITZEIT_SEED` which (any; it is printed).

use std::{
    collections::BTreeSet,
    env, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gleitzeit::domain::random::Random;
use nix::sys::signal::Signal;

use crate::{
    database::{Kind, TestDatabase},
    is_quick,
    process::{Orders, Process, Role},
    verdict::{Verdict, judge},
};

/// At once.
const PROCESSES: usize = 3;

/// Then the processes are stopped, and all is judged.
const KILLS_A_ROUND: usize = 10;

/// The longest time between two kills.
const PAUSE_MS: usize = 500;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, and no number")))
}

fn random(test: &str, kind: Kind) {
    if let Some(orders) = Orders::from_env() {
        return crate::program::live(orders);
    }
    let default = if is_quick() { 10 } else { 50 };
    let kills = usize::try_from(number("GLEITZEIT_KILLS").unwrap_or(default)).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = number("GLEITZEIT_SEED").unwrap_or(now);
    println!("{test}: kills: {kills}, GLEITZEIT_SEED={seed}");
    let database = match TestDatabase::new(kind, "random") {
        Ok(database) => database,
        Err(why) => return println!("SKIPPED: {test}: {why}"),
    };
    let begun = Instant::now();
    let mut dice = Random::seeded(seed);
    let mut total = Verdict::default();
    let mut left = kills;
    while left > 0 {
        let some = left.min(KILLS_A_ROUND);
        database.clear();
        match round(test, &database, &mut dice, some) {
            Ok(verdict) => total += verdict,
            Err(wrong) => panic!(
                "after {} kills of GLEITZEIT_SEED={seed}, left in {}:\n{wrong}",
                kills - left,
                database.leave("random")
            ),
        }
        left -= some;
    }
    println!("{kind:?}: kills: {kills} in {:.1?}; {total:?}", begun.elapsed());
}

fn round(
    test: &str,
    database: &TestDatabase,
    dice: &mut Random,
    kills: usize,
) -> Result<Verdict, String> {
    let start = |name: String, role| {
        let orders = Orders {
            store: database.url.clone(),
            folder: database.folder(),
            name,
            role,
            shares: Vec::new(),
            neighbour: None,
        };
        Process::start(test, &orders, None)
    };
    let mut running: Vec<(String, Process)> = Vec::new();
    let mut killed = BTreeSet::new();
    let mut started = 0;
    for _ in 0..kills {
        let wanted = 1 + dice.below(PROCESSES);
        while running.len() < wanted {
            started += 1;
            let name = format!("p{started}");
            running.push((name.clone(), start(name, Role::Stream)));
        }
        thread::sleep(Duration::from_millis(dice.below(PAUSE_MS) as u64));
        let (name, mut process) = running.swap_remove(dice.below(running.len()));
        process.signal(Signal::SIGKILL);
        process.dies()?;
        killed.insert(name);
    }
    for (_, process) in &mut running {
        process.stop();
    }
    for (_, mut process) in running {
        process.ends()?;
    }
    start("last".into(), Role::Last).ends()?;
    judge(&database.url, &database.folder(), &killed)
}

/// Whenever they are killed, nothing is lost and nothing is run again that had ended.
#[test]
fn sqlite_killed_at_random() {
    random("random::sqlite_killed_at_random", Kind::Sqlite);
}

/// The same on a server.
#[cfg(feature = "postgres")]
#[test]
fn postgres_killed_at_random() {
    random("random::postgres_killed_at_random", Kind::Postgres);
}
