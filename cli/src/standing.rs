//! Who runs a workflow, for people: where it runs and since when, or what it waits for.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use gleitzeit_actors::follower::Follower;
use gleitzeit_domain::{
    error::ErrorCode,
    id::WorkflowId,
    store::{
        Store,
        lease::{Owner, Standing},
    },
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowSummary},
};
use serde_json::{Value, json};

use super::{
    output::{self, Failure},
    session::Session,
};

/// An engine that is there takes up what is free within this.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

/// Time between two polls of the owner of a workflow.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Workflows that are named of those that wait for the same.
const NAMED_MAX: usize = 3;

/// The owner of a workflow; `None` if the store keeps no leases.
pub(crate) async fn of(store: &dyn Store, id: &WorkflowId) -> Result<Option<Standing>, Failure> {
    let Some(leases) = store.leases() else { return Ok(None) };
    Ok(leases.standings(std::slice::from_ref(id)).await?.pop().flatten())
}

/// The same of each workflow of a list that is not settled.
pub(crate) async fn of_all(
    store: &dyn Store,
    workflows: &[WorkflowSummary],
) -> Result<Vec<Option<Standing>>, Failure> {
    let mut standings = vec![None; workflows.len()];
    let Some(leases) = store.leases() else { return Ok(standings) };
    let (indexes, ids): (Vec<usize>, Vec<WorkflowId>) = workflows
        .iter()
        .enumerate()
        .filter(|(_, it)| !it.status.is_settled())
        .map(|(at, it)| (at, it.id.clone()))
        .unzip();
    if ids.is_empty() {
        return Ok(standings);
    }
    for (at, standing) in indexes.into_iter().zip(leases.standings(&ids).await?) {
        standings[at] = standing;
    }
    Ok(standings)
}

/// Waits for a workflow to settle; `None` if it has not within `limit`.
///
/// # Errors
/// If the store has no such workflow, or cannot be read.
pub(crate) async fn settled_within(
    limit: Duration,
    follower: &Follower,
    session: &Session,
    id: &WorkflowId,
) -> Result<Option<WorkflowRecord>, Failure> {
    match tokio::time::timeout(limit, follower.settled(id, false)).await {
        Err(_) => Ok(None),
        Ok(Ok(record)) => Ok(Some(Arc::unwrap_or_clone(record))),
        Ok(Err(error)) if error.code == ErrorCode::WorkflowNotFound => Err(session.no_workflow(id)),
        Ok(Err(error)) => Err(error.into()),
    }
}

/// Why nobody runs it; `None` where somebody does.
fn unserved(standing: &Standing) -> Option<String> {
    match &standing.owner {
        Some(owner) if owner.is_alive => None,
        Some(owner) => Some(match owner.process_id {
            Some(process) => format!("its process {process} is gone"),
            None => "its process is gone".into(),
        }),
        None if standing.needs.is_unknown() => Some("it is free".into()),
        None => Some(format!("it waits for a process that knows {}", standing.needs)),
    }
}

/// In one line what `show` says of a workflow that is not settled.
pub(crate) fn line(record: &WorkflowRecord, standing: &Standing) -> String {
    let id = &record.id;
    if let Some(why) = unserved(standing) {
        return format!(
            "nobody runs it: {why}; `gleitzeit resume {id}` or an engine on this store goes on \
             with it"
        );
    }
    let mut text = standing.owner.as_ref().map_or_else(String::new, location);
    for task in record.tasks.iter().filter(|task| task.status == TaskStatus::Executing) {
        if let Some(since) = task.started_at {
            let _ = write!(text, "; task {} since {}", task.id, since.format("%F %T UTC"));
        }
    }
    text
}

fn location(owner: &Owner) -> String {
    let process = owner.process_id.map_or_else(String::new, |id| format!("process {id}, "));
    format!("runs in {} ({process}lease {})", owner.name, owner.epoch)
}

/// What a program reads of it.
pub(crate) fn fields(standing: Option<&Standing>) -> Vec<(&'static str, Value)> {
    let Some(standing) = standing else { return Vec::new() };
    let waits = standing.owner.is_none() && !standing.needs.is_unknown();
    vec![
        ("owner", json!(standing.owner)),
        ("waits_for", json!(waits.then(|| standing.needs.to_string()))),
    ]
}

/// Since when each task runs, for a program.
pub(crate) fn running(record: &WorkflowRecord) -> Value {
    let executing = record.tasks.iter().filter(|task| task.status == TaskStatus::Executing);
    executing.map(|task| (task.id.to_string(), json!(task.started_at))).collect()
}

/// A line for each kind of process that workflows of a list wait for.
pub(crate) fn waiting(workflows: &[WorkflowSummary], standings: &[Option<Standing>]) -> String {
    let mut groups: BTreeMap<String, Vec<&WorkflowId>> = BTreeMap::new();
    for (workflow, standing) in workflows.iter().zip(standings) {
        let Some(standing) = standing else { continue };
        if standing.owner.is_none() && !standing.needs.is_unknown() {
            groups.entry(standing.needs.to_string()).or_default().push(&workflow.id);
        }
    }
    let mut text = String::new();
    for (needs, ids) in groups {
        let mut named: Vec<&str> = ids.iter().take(NAMED_MAX).map(|id| id.as_str()).collect();
        if ids.len() > NAMED_MAX {
            named.push("…");
        }
        let verb = if ids.len() == 1 { "waits" } else { "wait" };
        let _ = write!(text, "\n{} {verb} for a process that knows {needs}", named.join(", "));
    }
    text
}

/// Reports to a waiting user that nobody runs the workflow, once for each reason.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    checked_at: Option<Instant>,
    /// Why nobody runs it, and since when that is so.
    unserved: Option<(String, Instant)>,
    reported: Option<String>,
}

impl Watch {
    /// Reads the owner, if the last check is [`POLL_INTERVAL`] ago.
    pub(crate) async fn check(
        &mut self,
        store: &dyn Store,
        id: &WorkflowId,
    ) -> Result<(), Failure> {
        if self.checked_at.is_some_and(|at| at.elapsed() < POLL_INTERVAL) {
            return Ok(());
        }
        self.checked_at = Some(Instant::now());
        let why = of(store, id).await?.as_ref().and_then(unserved);
        let Some(why) = why else {
            (self.unserved, self.reported) = (None, None);
            return Ok(());
        };
        let since = match &self.unserved {
            Some((before, since)) if *before == why => *since,
            _ => Instant::now(),
        };
        let is_time = since.elapsed() >= SERVED_WITHIN && self.reported.as_ref() != Some(&why);
        if is_time {
            output::note(format_args!(
                "nobody runs workflow {id}: {why}; start `gleitzeit serve` on this store, or \
                 `gleitzeit resume {id}`; waiting, Ctrl-C stops"
            ));
            self.reported = Some(why.clone());
        }
        self.unserved = Some((why, since));
        Ok(())
    }
}
