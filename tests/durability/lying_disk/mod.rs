//! The power goes, and with it whatever was written and not flushed: with durability `full` nothing
//! that was acknowledged is lost, with `normal` only the last moments, and never in between.
//!
//! A process runs workflows one after the other and prints the answers it got. `strace` writes down, in
//! one order, what it says and what it does to its files. From that, the files are made anew as a
//! disk holds them that took every flush seriously and nothing else, at many moments; the store is
//! opened on them, and what it has is held against what the process had said by then.
#![expect(clippy::print_stdout, reason = "what was looked at is what a reader wants to know")]

mod disk;
mod trace;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use gleitzeit::{
    ListFilter, Settings, Store as _, TaskSpec, TaskStatus, WorkflowId, WorkflowSpec,
    WorkflowStatus,
    settings::Durability,
    storage::{SqlOptions, SqlStore},
};
use serde_json::json;

use crate::support::{
    child::{self, arguments, say},
    fewer_if_quick,
    whole::echo_builder,
};
use disk::{Disk, Lost};
use trace::Done;

/// Workflows that run, one after the other.
const WORKFLOWS: usize = 150;
/// Bytes of text in each: enough for the log to be written back several times over.
const TEXT: usize = 50_000;
/// Moments at which the power goes.
const POINTS: usize = 220;

fn id(number: usize) -> String {
    format!("w{number:04}")
}

/// The life of the process that is watched.
#[tokio::main]
async fn watched(store: &str, durability: Durability) {
    let text = format!("storage.url = \"{store}\"\nstorage.durability = \"{durability}\"");
    let settings = Settings::from_toml(&text).expect("sound settings");
    let runtime = echo_builder(settings).start().await.expect("it starts");
    let handle = runtime.handle();
    say("open");
    for number in 0..WORKFLOWS {
        // Differs from page to page and from workflow to workflow.
        let text: Vec<String> =
            (0..TEXT / 8).map(|at| format!("{:08}", at * 7_919 + number)).collect();
        let task = TaskSpec::new("only", "echo/echo").params(json!({ "text": text.concat() }));
        let workflow = WorkflowSpec::new("w").id(id(number)).task(task);
        let id = handle.submit(workflow).await.expect("it is taken");
        say("submitted");
        let ended = handle.wait(&id).await.expect("it ends");
        assert_eq!(ended.status, WorkflowStatus::Completed);
        say("completed");
    }
    say("over");
    // No orderly end: it would flush everything.
    std::process::exit(0);
}

/// Runs the test `name` again under the eyes of `strace`; what it did, or why that cannot be.
fn watch(name: &str, folder: &Path) -> Result<Vec<Done>, String> {
    let log = folder.join("trace");
    let traced = format!("trace={}", trace::CALLS);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "1000000", "-e", &traced, "-o"]).arg(&log);
    strace.arg(std::env::current_exe().expect("its own path"));
    strace.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    child::pass_arguments(&mut strace, &database(folder), folder);
    let output = strace.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("no strace ({error})"))?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    if !output.status.success() && !text.contains("pwrite64") {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("strace may not look: {}", why.trim()));
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let of_database = |file: &str| file.contains("g.db") && !file.ends_with("-shm");
    Ok(trace::read(&text, of_database))
}

fn database(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("g.db").display())
}

/// How many steps a store has of those that the process took: submitted, completed, submitted …
async fn steps_kept(folder: &Path, durability: Durability) -> usize {
    let url = database(folder).parse().expect("an address");
    let store = SqlStore::connect(&url, SqlOptions { durability, ..SqlOptions::default() })
        .await
        .expect("a sound file");
    let filter = ListFilter { limit: WORKFLOWS + 1, ..ListFilter::default() };
    let mut listed = store.list(filter).await.expect("a sound file");
    listed.sort_by(|one, other| one.id.cmp(&other.id));
    let completed = listed.iter().filter(|it| it.status == WorkflowStatus::Completed).count();
    for (number, workflow) in listed.iter().enumerate() {
        assert_eq!(workflow.id.as_str(), id(number), "one in the middle is missing");
        let is_completed = workflow.status == WorkflowStatus::Completed;
        assert_eq!(is_completed, number < completed, "{}: {}", workflow.id, workflow.status);
    }
    assert!(listed.len() - completed <= 1, "{} of {} completed", completed, listed.len());
    // The last ones whole: with their tasks, results and events.
    for workflow in listed.iter().rev().take(2) {
        check_whole(&store, &workflow.id).await;
    }
    store.close(Duration::from_mins(1)).await.expect("it closes");
    listed.len() + completed
}

async fn check_whole(store: &SqlStore, id: &WorkflowId) {
    let record = store.workflow(id).await.expect("a sound file").expect("it is listed");
    let events = store.events(id, 0, 100).await.expect("a sound file");
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=record.last_sequence).collect::<Vec<u64>>(), "{id}");
    let sent = &record.spec.tasks[0].parameters["text"];
    assert_eq!(sent.as_str().map(str::len), Some(TEXT), "{id}");
    if record.status == WorkflowStatus::Completed {
        let task = &record.tasks[0];
        assert_eq!(task.status, TaskStatus::Completed, "{id}");
        let result = task.result.as_ref().expect("a result");
        assert_eq!(&result["text"], sent, "{id}");
    }
}

/// What was seen at all points together.
#[derive(Debug, Default)]
struct Seen {
    points: usize,
    /// Points at which something was not flushed.
    unflushed: usize,
    /// Steps that were acknowledged and lost, at one point at most.
    lost_max: usize,
    write_backs: usize,
}

/// Lets the power go at many points, and looks at what the store has then.
async fn power_off_at_many(done: &[Done], durability: Durability) -> Seen {
    let open = done.iter().position(|it| *it == Done::Printed("@open".into())).expect("it opened");
    let stride = ((done.len() - open) / fewer_if_quick(POINTS)).max(1);
    let mut disk = Disk::default();
    let (mut seen, mut acknowledged, mut kept_before) = (Seen::default(), 0, 0);
    for (at, step) in done.iter().enumerate() {
        disk.apply(step);
        match step {
            Done::Printed(line) if line == "@submitted" || line == "@completed" => {
                acknowledged += 1;
            }
            Done::Flush { file } if file.ends_with("/g.db") && at > open => seen.write_backs += 1,
            _ => {}
        }
        if at < open || (at - open) % stride != 0 {
            continue;
        }
        seen.points += 1;
        seen.unflushed += usize::from(disk.pending() > 0);
        let mut least = usize::MAX;
        for lost in [Lost::Everything, Lost::SomeSectors(at as u64)] {
            let folder = tempfile::tempdir().expect("a folder");
            disk.power_off(folder.path(), lost);
            let kept = steps_kept(folder.path(), durability).await;
            // One may be stored and not acknowledged yet.
            assert!(kept <= acknowledged + 1, "{kept} of {acknowledged} at {at}, {lost:?}");
            let is_enough = durability == Durability::Normal || kept >= acknowledged;
            assert!(is_enough, "{kept} of {acknowledged} are left at {at}, {lost:?}");
            seen.lost_max = seen.lost_max.max(acknowledged.saturating_sub(kept));
            least = least.min(kept);
        }
        // What a flush has once made certain stays.
        assert!(least >= kept_before, "{least} at {at}, and {kept_before} before");
        kept_before = least;
    }
    assert_eq!(acknowledged, 2 * WORKFLOWS);
    seen
}

fn survives(name: &str, durability: Durability) -> Option<Seen> {
    if let Some((store, _)) = arguments() {
        watched(&store, durability);
        return None;
    }
    let begun = Instant::now();
    let folder = tempfile::tempdir().expect("a folder");
    let done = match watch(name, folder.path()) {
        Ok(done) => done,
        Err(why) => {
            println!("SKIPPED: {name}: {why}");
            return None;
        }
    };
    let waiter = tokio::runtime::Runtime::new().expect("a runtime");
    let seen = waiter.block_on(power_off_at_many(&done, durability));
    let flushes = done.iter().filter(|it| matches!(it, Done::Flush { .. })).count();
    println!(
        "{durability}: the power went at {} points, at {} of them amid writes, each with all and \
         with some of those lost; {flushes} flushes, {} of them of the database; at most {} of {} \
         acknowledged steps lost; {:.0} s",
        seen.points,
        seen.unflushed,
        seen.write_backs,
        seen.lost_max,
        2 * WORKFLOWS,
        begun.elapsed().as_secs_f64(),
    );
    assert!(seen.points >= fewer_if_quick(200) && seen.write_backs > 0, "{seen:?}");
    Some(seen)
}

/// What a flush costs is paid for this.
#[test]
fn nothing_acknowledged_is_lost_with_full_durability() {
    let name = "lying_disk::nothing_acknowledged_is_lost_with_full_durability";
    if let Some(seen) = survives(name, Durability::Full) {
        assert_eq!(seen.lost_max, 0);
        assert!(seen.unflushed > 0, "{seen:?}");
    }
}

/// What is saved costs the last moments, and leaves no holes.
#[test]
fn only_the_last_moments_are_lost_with_normal_durability() {
    let name = "lying_disk::only_the_last_moments_are_lost_with_normal_durability";
    if let Some(seen) = survives(name, Durability::Normal) {
        // Else the harness drops nothing.
        assert!(seen.lost_max > 0, "{seen:?}");
    }
}
