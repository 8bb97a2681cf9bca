//! `list`, `events`, `logs` and `providers`: commands that only read.

use std::{sync::Arc, time::Duration};

use gleitzeit::{EventFilter, ProviderState, ProviderStatus};
use gleitzeit_actors::follower::{self, Change, Follower};
use gleitzeit_domain::{
    error::TaskError,
    event::Event,
    health::HealthStatus,
    id::WorkflowId,
    printable,
    store::{ListFilter, Store, StoreError, lease::Standing},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Outcome,
    args::{Events, List, Logs},
    find::{find_whole, refuse_unknown},
    interrupt::Interrupts,
    output::{self, Exit, Failure},
    report,
    run_session::STOPPING,
    session::{Session, close},
    standing::{self, POLL_INTERVAL, Watch},
};

/// Events asked for at once.
const PAGE: usize = 1000;

/// After so many events that cannot be read, one after the other, the rest is not searched.
const MISSED_MAX: u32 = 1_000;

/// Providers have this long to be checked for the first time.
const FIRST_CHECKS: Duration = Duration::from_secs(10);

/// Lists workflows, the newest first.
pub(crate) async fn list(session: &Session, list: List) -> Outcome {
    let List { status, name, since, until, limit, offset } = list;
    let is_narrowed = status.is_some()
        || name.is_some()
        || since.is_some()
        || until.is_some()
        || offset > 0
        || limit == 0;
    let filter = ListFilter { status, name, since, until, limit, offset };
    let (found, standings) = match session.store().await? {
        None => (Vec::new(), Vec::new()),
        Some(store) => {
            let found = async {
                let found = store.list(filter).await?;
                let standings = standing::of_all(&*store, &found).await?;
                Ok::<_, Failure>((found, standings))
            };
            let found = found.await;
            close(store).await?;
            found?
        }
    };
    if session.json {
        let all = found.iter().zip(&standings);
        output::document(&all.map(|(it, at)| with(it, at.as_ref())).collect::<Vec<_>>());
    } else if found.is_empty() {
        let what = if is_narrowed { "no such workflows" } else { "no workflows" };
        output::text(format_args!("{what} in {}", session.store_location()));
    } else {
        output::painted(&report::list_text(&found, session.view()));
        let waiting = standing::waiting(&found, &standings);
        if !waiting.is_empty() {
            output::text(waiting.trim_start());
        }
    }
    Ok(Exit::Success)
}

/// A document with who runs the workflow that it is about.
fn with(document: &impl Serialize, standing: Option<&Standing>) -> Value {
    let mut value = serde_json::to_value(document).unwrap_or_default();
    if let Value::Object(all) = &mut value {
        all.extend(standing::fields(standing).into_iter().map(|(key, it)| (key.to_owned(), it)));
    }
    value
}

/// Prints the events of a workflow, and the later ones with `--follow`.
pub(crate) async fn events(session: &Session, asked: &Events) -> Outcome {
    let store = session.store_of(&asked.id).await?;
    let record = store.workflow(&asked.id).await;
    if matches!(record, Ok(None)) {
        close(store).await?;
        return Err(session.no_workflow(&asked.id));
    }
    let mut out = EventWriter::new(session.json);
    let result = if record.as_ref().is_err_and(is_damage) {
        readable(&*store, asked, u64::MAX, &mut out)
            .await
            .and(record.map(drop).map_err(Failure::from))
    } else if asked.follow {
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            result = pages(&store, asked, &mut out) => result,
            () = interrupts.next() => Ok(()),
        }
    } else {
        pages(&store, asked, &mut out).await
    };
    if result.is_ok() || out.written > 0 {
        out.end();
    }
    if out.written == 0 && result.is_ok() && !session.json {
        output::note(format_args!("workflow {} has no events after {}", asked.id, asked.after));
    }
    close(store).await?;
    match result {
        Ok(()) => Ok(Exit::Success),
        // Standard output holds its one document already.
        Err(failure) if out.written > 0 => Ok(failure.print(false)),
        Err(failure) => Err(failure),
    }
}

/// Writes page after page; with `follow` until the workflow has settled and all its events are
/// written.
async fn pages(
    store: &Arc<dyn Store>,
    asked: &Events,
    out: &mut EventWriter,
) -> Result<(), Failure> {
    let mut watch = Watch::default();
    // Before the first read: what is stored after it is then among the changes.
    let mut changes =
        asked.follow.then(|| Follower::new(Arc::clone(store)).watch(&asked.id, false));
    let mut after = asked.after;
    let mut left = asked.limit.unwrap_or(usize::MAX);
    while left > 0 {
        // Read before the events: the next round writes the events of a later end.
        let record = store.workflow(&asked.id).await?;
        let over = record.as_ref().is_none_or(|record| record.status.is_settled());
        let page = match store.events(&asked.id, after, left.min(PAGE)).await {
            Err(error) if is_damage(&error) => {
                let rest = Events { after, limit: Some(left), ..asked.clone() };
                let last = record.map_or(u64::MAX, |record| record.last_sequence);
                readable(&**store, &rest, last, out).await?;
                return Err(error.into());
            }
            page => page?,
        };
        for event in &page {
            // Nobody reads on, or it cannot be written; the program says so when it ends.
            if output::is_broken() {
                return Ok(());
            }
            out.write(event);
            after = event.sequence;
            left -= 1;
        }
        if page.len() < PAGE {
            if over || !asked.follow || output::is_broken() {
                break;
            }
            if let Some(changes) = &mut changes {
                changed(changes, after, &mut watch, &**store, &asked.id).await?;
            }
        }
    }
    Ok(())
}

/// Waits until the store may have events after `after`, or the workflow has settled.
async fn changed(
    changes: &mut follower::Watch,
    after: u64,
    watch: &mut Watch,
    store: &dyn Store,
    id: &WorkflowId,
) -> Result<(), Failure> {
    loop {
        watch.check(store, id).await?;
        match tokio::time::timeout(POLL_INTERVAL, changes.next()).await {
            Err(_) => {}
            Ok(Some(Change::Failed(error))) => return Err(error.into()),
            Ok(Some(Change::State { record: Some(record), .. }))
                if record.last_sequence <= after && !record.status.is_settled() => {}
            Ok(Some(Change::Events(events)))
                if events.last().is_none_or(|event| event.sequence <= after) => {}
            Ok(_) => return Ok(()),
        }
    }
}

/// True where what is stored cannot be read, and other rows may be.
fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Integrity { .. } | StoreError::Read { .. })
}

/// Writes the events of a damaged workflow up to `end`, without those that cannot be read.
async fn readable(
    store: &dyn Store,
    asked: &Events,
    end: u64,
    out: &mut EventWriter,
) -> Result<(), Failure> {
    let (mut after, mut missed, mut size) = (asked.after, 0, PAGE);
    let mut left = asked.limit.unwrap_or(usize::MAX);
    while left > 0 && after < end && missed < MISSED_MAX && !output::is_broken() {
        match store.events(&asked.id, after, left.min(size)).await {
            Ok(page) => {
                let Some(last) = page.last() else { break };
                for event in &page {
                    out.write(event);
                }
                left -= page.len();
                (after, missed, size) = (last.sequence, 0, PAGE);
            }
            // What is before the damage can be read alone.
            Err(error) if is_damage(&error) && size > 1 => size = 1,
            // The events of one write share a row: the next row is some numbers away.
            Err(error) if is_damage(&error) => (after, missed) = (after + 1, missed + 1),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes events one by one: lines, or the items of one JSON array.
struct EventWriter {
    json: bool,
    written: usize,
}

impl EventWriter {
    fn new(json: bool) -> Self {
        Self { json, written: 0 }
    }

    fn write(&mut self, event: &Event) {
        if self.json {
            let before = if self.written == 0 { "[\n" } else { ",\n" };
            let text = serde_json::to_string(event).unwrap_or_default();
            output::raw(&format!("{before}  {}", printable::json(&text)));
        } else {
            output::text(report::event_text(event));
        }
        self.written += 1;
    }

    fn end(&self) {
        if self.json {
            output::raw(if self.written == 0 { "[]\n" } else { "\n]\n" });
        }
    }
}

/// Prints what the code of a workflow's tasks wrote, as far as it is stored: a task's output is
/// stored with its outcome, that of an attempt which was retried is gone.
pub(crate) async fn logs(session: &Session, Logs { id, task }: &Logs) -> Outcome {
    let record = find_whole(session, id).await?;
    if let Some(task) = task {
        refuse_unknown(&record, task)?;
    }
    let tasks: Vec<_> =
        record.tasks.iter().filter(|it| task.as_ref().is_none_or(|task| it.id == *task)).collect();
    if session.json {
        output::document(&report::logs_json(&tasks));
        return Ok(Exit::Success);
    }
    output::raw(&report::logs_text(&tasks, task.is_some()));
    if tasks.iter().all(|task| report::Written::of(task).is_empty()) {
        match tasks.as_slice() {
            [task] => output::note(format_args!("task {} {}", task.id, report::why_nothing(task))),
            _ => output::note(format_args!("no task of workflow {id} has written anything yet")),
        }
    }
    Ok(Exit::Success)
}

/// Starts the providers and says how they are, once each has had its first check.
pub(crate) async fn providers(session: &Session) -> Outcome {
    let runtime = session.in_memory().start().await?;
    let handle = runtime.handle();
    let mut events = handle.subscribe(provider_events()).await?;
    let checked = tokio::time::timeout(FIRST_CHECKS, async {
        loop {
            let all = handle.providers().await?;
            if all.iter().all(is_known) || events.next().await.is_none() {
                return Ok::<_, TaskError>(all);
            }
        }
    });
    let all = match checked.await {
        Ok(all) => all?,
        // A provider without an answer by now is printed as it stands.
        Err(_) => handle.providers().await?,
    };
    runtime.stop(STOPPING).await;
    let exit = if all.iter().any(is_down) { Exit::Failed } else { Exit::Success };
    if session.json {
        output::document(&all);
        return Ok(exit);
    }
    let mut table = output::table(["provider", "kind", "state", "health", "detail"]);
    for it in &all {
        table.add_row([
            it.provider_id.to_string(),
            it.kind.to_string(),
            name_of(it.state),
            it.health.to_string(),
            it.detail.clone(),
        ]);
    }
    output::text(table.trim_fmt());
    Ok(exit)
}

fn provider_events() -> EventFilter {
    EventFilter { workflow_id: None, types: vec!["provider:*".to_owned()] }
}

/// True when it has been checked, or has failed before it could be.
fn is_known(provider: &ProviderStatus) -> bool {
    let on_its_way = matches!(provider.state, ProviderState::Starting | ProviderState::Serving);
    provider.health != HealthStatus::Unknown || !on_its_way
}

/// True for one that would get no call.
fn is_down(provider: &ProviderStatus) -> bool {
    provider.state != ProviderState::Serving || provider.health == HealthStatus::Unhealthy
}

fn name_of(state: ProviderState) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(name)) => name,
        _ => format!("{state:?}").to_lowercase(),
    }
}
