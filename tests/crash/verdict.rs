//! Compares what processes did with what the database says of it, once all of them have ended.
//!
//! The rules, for every task:
//! - no call begins after the end of the one whose outcome is stored, unless its process was taken
//!   for dead and has not heard of it yet, and the call may be repeated;
//! - a call is repeated only where the process that ran it was killed, cut it off when it stopped, or
//!   was taken for dead, where a policy says so after a failure, or where a person does; what must
//!   not run twice only where a person does;
//! - it begins after the stored end of every task that it needs.
//!
//! What was accepted is there; all of it has settled, as its shape says; its events are numbered
//! through. What is not there has left no trace but calls without an effect, of a process that was
//! killed before the submission was stored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    ops::AddAssign,
    path::Path,
    time::Duration,
};

use gleitzeit::{
    Event, EventData, ListFilter, Store as _, TaskStatus, WorkflowRecord, WorkflowStatus,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore},
};

use crate::journal::{self, Line};

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.workflows += other.workflows;
        self.calls += other.calls;
        self.repeated += other.repeated;
        self.words += other.words;
    }
}

/// What a test can tell of its processes when nothing was wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verdict {
    pub(crate) workflows: usize,
    /// Calls that began.
    pub(crate) calls: usize,
    /// Calls that began once more, because their process was killed.
    pub(crate) repeated: usize,
    /// Tasks that needed a person's word.
    pub(crate) words: usize,
}

/// Judges a database and a folder; `killed` are the processes that did not end by themselves.
pub(crate) fn judge(
    store: &str,
    folder: &Path,
    killed: &BTreeSet<String>,
) -> Result<Verdict, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stored = runtime.block_on(read_all(store));
    let lines = journal::read(folder);
    let lost = lines.iter().filter_map(|line| match line {
        Line::Lost { process, .. } => Some(process.clone()),
        _ => None,
    });
    let mut case = Case {
        killed,
        lost: lost.collect(),
        calls: by_task(&lines),
        wrong: String::new(),
        verdict: Verdict::default(),
    };
    case.accepted(&lines, &stored);
    for (record, events) in &stored {
        case.workflow(record, events);
    }
    case.not_stored();
    if case.wrong.is_empty() { Ok(case.verdict) } else { Err(case.wrong) }
}

type Stored = (WorkflowRecord, Vec<Event>);

async fn read_all(url: &str) -> Vec<Stored> {
    let url: StoreUrl = url.parse().unwrap();
    let store = SqlStore::connect(&url, SqlOptions::default()).await.unwrap();
    let all = ListFilter { limit: 1_000_000, ..ListFilter::default() };
    let mut stored = Vec::new();
    for summary in store.list(all).await.unwrap() {
        let record = store.workflow(&summary.id).await.unwrap().unwrap();
        let events = store.events(&summary.id, 0, 1_000_000).await.unwrap();
        stored.push((record, events));
    }
    store.close(Duration::from_secs(30)).await.unwrap();
    stored
}

/// What the journal says of one task, in order; each with its place in the journal.
#[derive(Debug, Default)]
struct Calls {
    begun: Vec<Begun>,
    /// Where a person gave word.
    words: Vec<usize>,
    /// Processes that cut a call off, because they stopped.
    cut_by: BTreeSet<String>,
}

#[derive(Debug)]
struct Begun {
    at: usize,
    process: String,
    attempt: u32,
    key: String,
    /// Where it ended, and whether well.
    end: Option<(usize, bool)>,
}

fn by_task(lines: &[Line]) -> HashMap<String, Calls> {
    let mut tasks: HashMap<String, Calls> = HashMap::new();
    for (at, line) in lines.iter().cloned().enumerate() {
        match line {
            Line::Accepted { .. } | Line::Lost { .. } => {}
            Line::Begins { process, task, attempt, key, .. } => {
                let begun = Begun { at, process, attempt, key, end: None };
                tasks.entry(task).or_default().begun.push(begun);
            }
            Line::Ends { process, task, attempt, well } => {
                let calls = tasks.entry(task).or_default();
                let is_it = |call: &&mut Begun| call.process == process && call.attempt == attempt;
                let call = calls.begun.iter_mut().rev().find(is_it).expect("it had begun");
                call.end = Some((at, well));
            }
            Line::Cut { process, task } => {
                tasks.entry(task).or_default().cut_by.insert(process);
            }
            Line::Word { task } => tasks.entry(task).or_default().words.push(at),
        }
    }
    tasks
}

struct Case<'a> {
    killed: &'a BTreeSet<String>,
    /// Processes that were taken for dead, and went on.
    lost: BTreeSet<String>,
    calls: HashMap<String, Calls>,
    wrong: String,
    verdict: Verdict,
}

/// `wrong!(case, "…")`: notes something that must not be.
macro_rules! wrong {
    ($case:expr, $($text:tt)*) => {
        writeln!($case.wrong, $($text)*).unwrap()
    };
}

impl Case<'_> {
    fn accepted(&mut self, lines: &[Line], stored: &[Stored]) {
        let there: BTreeSet<&str> = stored.iter().map(|(record, _)| record.id.as_str()).collect();
        for line in lines {
            if let Line::Accepted { workflow } = line
                && !there.contains(workflow.as_str())
                && !workflow.starts_with("old-")
            {
                wrong!(self, "{workflow} was accepted, and is not there");
            }
        }
    }

    /// Calls of what is not there: the first tasks of workflows whose ids were made up.
    fn not_stored(&mut self) {
        for (task, Calls { begun, .. }) in std::mem::take(&mut self.calls) {
            let (workflow, task) = task.rsplit_once('/').unwrap_or_default();
            if workflow.starts_with("old-") {
                continue;
            }
            let is_first = task == "t1" && uuid::Uuid::parse_str(workflow).is_ok();
            if !is_first || begun.iter().any(|call| !self.killed.contains(&call.process)) {
                wrong!(self, "{workflow} is not there, and {task} of it was run: {begun:?}");
            }
        }
    }

    fn workflow(&mut self, record: &WorkflowRecord, events: &[Event]) {
        self.verdict.workflows += 1;
        self.events(record, events);
        self.shape(record);
        let ends = self.stored_ends(record, events);
        for task in &record.tasks {
            self.calls_of(record, task.index as usize, &ends, events);
        }
    }

    /// Numbered from 1 without a gap, from the submission to an end.
    fn events(&mut self, record: &WorkflowRecord, events: &[Event]) {
        let id = &record.id;
        let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        let whole: Vec<u64> = (1..=record.last_sequence).collect();
        if numbers != whole {
            wrong!(self, "{id}: events {numbers:?}, the last of {}", record.last_sequence);
        }
        let is_submission =
            |event: &Event| matches!(event.data, EventData::WorkflowSubmitted { .. });
        let is_end = |event: &Event| {
            matches!(
                event.data,
                EventData::WorkflowCompleted { .. }
                    | EventData::WorkflowFailed { .. }
                    | EventData::WorkflowCancelled { .. }
            )
        };
        if !events.first().is_some_and(is_submission) || !events.last().is_some_and(is_end) {
            wrong!(self, "{id}: events do not go from the submission to the end: {events:?}");
        }
    }

    /// What must have become of a workflow of its shape.
    fn shape(&mut self, record: &WorkflowRecord) {
        use TaskStatus::{Cancelled, Completed, Failed, UpstreamFailed};

        let name = record.id.as_str().rsplit_once('-').map_or("", |(_, shape)| shape);
        let statuses: Vec<TaskStatus> = record.tasks.iter().map(|task| task.status).collect();
        let is_unconfirmed = record.tasks.iter().any(|task| {
            let calls = self.calls.get(&format!("{}/{}", record.id, task.id));
            calls.is_some_and(|calls| !calls.words.is_empty())
        });
        let is_right = match name {
            _ if is_unconfirmed => record.status.is_settled(),
            "broken" => {
                record.status == WorkflowStatus::Failed
                    && statuses == [Completed, Failed, UpstreamFailed, Completed, Failed]
            }
            "limited" => record.status == WorkflowStatus::Failed && statuses == [Failed],
            "late" => record.status == WorkflowStatus::TimedOut && statuses == [Cancelled],
            "settled" => record.status.is_settled(),
            "cancelled" | "asked" => record.status == WorkflowStatus::Cancelled,
            "part" => record.status == WorkflowStatus::Failed && statuses[1] == Cancelled,
            _ => {
                record.status == WorkflowStatus::Completed
                    && statuses.iter().all(|status| *status == Completed)
            }
        };
        if !is_right {
            wrong!(self, "{}: {} with {statuses:?}", record.id, record.status);
        }
    }

    /// Where the call ended whose outcome is stored, of each completed task.
    fn stored_ends(
        &mut self,
        record: &WorkflowRecord,
        events: &[Event],
    ) -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        let mut reported: BTreeMap<String, String> = BTreeMap::new();
        for event in events {
            if let EventData::TaskCompleted { task_id, provider_id, .. } = &event.data {
                let by = provider_id.as_ref().map_or("", |id| id.as_str());
                let by = by.strip_prefix("journal-").unwrap_or(by).to_owned();
                if reported.insert(task_id.to_string(), by).is_some() {
                    wrong!(self, "{}/{task_id} is told as completed twice", record.id);
                }
            }
        }
        for task in record.tasks.iter().filter(|task| task.status == TaskStatus::Completed) {
            let name = format!("{}/{}", record.id, task.id);
            let by = reported.remove(task.id.as_str()).unwrap_or_default();
            let result = task
                .result
                .as_ref()
                .and_then(|result| Some((result["by"].as_str()?, result["attempt"].as_u64()?)));
            if task.result.as_ref().is_some_and(|result| result["by"] == "person") {
                continue;
            }
            if result != Some((&by, u64::from(task.attempts))) {
                wrong!(
                    self,
                    "{name}: completed by {by}, attempt {}, with the result of {result:?}",
                    task.attempts
                );
            }
            let calls = self.calls.get(&name).map_or(&[][..], |calls| &calls.begun);
            let it = calls.iter().rev().find(|call| {
                call.process == by
                    && call.attempt == task.attempts
                    && call.end.is_some_and(|(_, well)| well)
            });
            match it.and_then(|call| call.end) {
                Some((at, _)) => drop(ends.insert(task.id.to_string(), at)),
                None => wrong!(
                    self,
                    "{name} is stored as completed by {by}, and was not run there: {calls:?}"
                ),
            }
        }
        if !reported.is_empty() {
            wrong!(self, "{}: told as completed, and not stored so: {reported:?}", record.id);
        }
        ends
    }

    fn calls_of(
        &mut self,
        record: &WorkflowRecord,
        index: usize,
        ends: &BTreeMap<String, usize>,
        events: &[Event],
    ) {
        let spec = &record.spec.tasks[index];
        // An engine whose lease was not renewed in time ends its calls, and says so.
        let was_interrupted = |attempt: u32| {
            events.iter().any(|event| {
                matches!(&event.data, EventData::TaskInterrupted { task_id, attempt_count, .. }
                    if task_id.as_str() == spec.id && *attempt_count == attempt)
            })
        };
        let name = format!("{}/{}", record.id, spec.id);
        let Some(Calls { begun, words, cut_by }) = self.calls.remove(&name) else { return };
        self.verdict.calls += begun.len();
        self.verdict.words += usize::from(!words.is_empty());
        let is_once = spec.method.ends_with("/once");
        for call in &begun {
            // Whoever was stopped past its lease may begin a call before it hears of that.
            let is_stale = self.lost.contains(&call.process) && !is_once;
            if !is_stale && ends.get(&spec.id).is_some_and(|end| call.at > *end) {
                wrong!(self, "{name} is run after its outcome was stored: {call:?}");
            }
            if call.key != name {
                wrong!(self, "{name} has the key {}", call.key);
            }
            for needed in &spec.dependencies {
                if ends.get(needed).is_some_and(|end| call.at < *end) {
                    wrong!(
                        self,
                        "{name} is run before the outcome of {needed} was stored: {call:?}"
                    );
                }
            }
        }
        for pair in begun.windows(2) {
            let [before, after] = pair else { continue };
            let is_resolved = words.iter().any(|word| (before.at..after.at).contains(word));
            let is_repeated = was_interrupted(before.attempt)
                || cut_by.contains(&before.process)
                || self.lost.contains(&before.process)
                || self.lost.contains(&after.process)
                || self.killed.contains(&before.process) && after.process != before.process;
            let is_retry =
                before.end.is_some_and(|(_, well)| !well) && after.attempt == before.attempt + 1;
            self.verdict.repeated += usize::from(is_repeated);
            if !is_resolved && (is_once || !(is_repeated || is_retry)) {
                wrong!(self, "{name} is run twice: {before:?}, then {after:?}");
            }
        }
    }
}
