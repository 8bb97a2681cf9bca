//! `show`: a stored workflow with its tasks, or one task with all that is known of it.

use std::fmt::Write as _;

use gleitzeit::results;
use gleitzeit_domain::{
    id::TaskId,
    printable,
    task::TaskRecord,
    workflow::{TaskSpec, WorkflowRecord},
};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    args::Show,
    find::{find, refuse_unknown},
    finish::print_workflow,
    output::{self, Exit},
    report,
    session::{Session, close},
    standing,
    stored::StoredResults,
};

/// The most tasks whose times and parameters are printed with their workflow.
const TASKS_MAX: usize = 50;

/// Characters of parameters that a line shows.
const PARAMETERS_CHARS_MAX: usize = 200;

/// Shows a workflow and its tasks, whatever its status.
pub(crate) async fn show(session: &Session, Show { id, task }: &Show) -> Outcome {
    let record = find(session, id).await?;
    if let Some(task) = task {
        return show_task(session, &record, task).await;
    }
    let standing = match session.store().await? {
        Some(store) if !record.status.is_settled() => {
            let standing = standing::of(&*store, id).await;
            close(store).await?;
            standing?
        }
        Some(store) => {
            close(store).await?;
            None
        }
        None => None,
    };
    if session.json {
        let fields = standing::fields(standing.as_ref()).into_iter();
        let mut more: Map<String, Value> = fields.map(|(key, it)| (key.to_owned(), it)).collect();
        if standing.is_some() {
            more.insert("running".to_owned(), standing::running(&record));
        }
        let results = StoredResults::of(session, [&record]).await?;
        results.print_document(&record, &more).await?;
        results.close().await?;
        return Ok(Exit::Success);
    }
    print_workflow(session, &record).await?;
    output::text(report::times(&record));
    // The record is what was stored last: a task that is `executing` may be one that a process had
    // begun before it died.
    if let Some(standing) = standing {
        output::text(standing::line(&record, &standing));
    }
    if record.tasks.len() <= TASKS_MAX {
        let details: String = record.tasks.iter().map(|task| details(&record, task)).collect();
        output::raw(&format!("\n{details}"));
    }
    Ok(Exit::Success)
}

fn spec_of<'r>(record: &'r WorkflowRecord, task: &TaskRecord) -> Option<&'r TaskSpec> {
    record.spec.tasks.get(task.index as usize)
}

/// `python/v1.0:execute`, or the method alone if it names its protocol.
fn method(spec: &TaskSpec) -> String {
    if let Some(value) = &spec.value {
        return format!("= {value}");
    }
    if !spec.switch.is_empty() {
        return "switch".to_owned();
    }
    match &spec.protocol {
        Some(protocol) => format!("{protocol}:{}", spec.method),
        None => spec.method.clone(),
    }
}

/// The times of a task in one line; empty if it has not begun.
fn times(task: &TaskRecord) -> String {
    let mut parts = Vec::new();
    for (what, at) in
        [("started", task.started_at), ("ended", task.completed_at), ("due", task.due_at)]
    {
        parts.extend(at.map(|at| format!("{what} {}", report::moment(at))));
    }
    parts.extend(task.duration.map(|spent| format!("took {}", report::seconds(spent))));
    parts.extend(task.provider_id.as_ref().map(|provider| format!("by {provider}")));
    parts.join(", ")
}

/// The times and the parameters of a task, a line each.
fn details(record: &WorkflowRecord, task: &TaskRecord) -> String {
    let Some(spec) = spec_of(record, task) else { return String::new() };
    let mut text = format!("{}  {}", task.id, method(spec));
    let times = times(task);
    if !times.is_empty() {
        let _ = write!(text, "  {times}");
    }
    let mut text = printable::line(&text).into_owned() + "\n";
    if !is_empty(&spec.parameters) {
        let parameters = report::shortened(&spec.parameters.to_string(), PARAMETERS_CHARS_MAX);
        let _ = writeln!(text, "    {}", printable::line(&parameters));
    }
    text
}

fn is_empty(parameters: &Value) -> bool {
    match parameters {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// One task: what was asked for, when it ran, what came of it.
async fn show_task(session: &Session, record: &WorkflowRecord, id: &TaskId) -> Outcome {
    refuse_unknown(record, id)?;
    let Some(task) = record.tasks.iter().find(|task| task.id == *id) else {
        return Ok(Exit::Usage);
    };
    let results = StoredResults::of(session, [record]).await?;
    let whole = results.with_result(&record.id, task).await.map(std::borrow::Cow::into_owned);
    results.close().await?;
    let task = whole?;
    let spec = spec_of(record, &task);
    if session.json {
        output::document(&document(record, &task, spec));
        return Ok(Exit::Success);
    }
    let mut text = format!("task {} of workflow {}: {}", task.id, record.id, task.status);
    if let Some(spec) = spec {
        let _ = write!(text, "\nmethod: {}", method(spec));
        if !spec.dependencies.is_empty() {
            let _ = write!(text, "\nneeds: {}", spec.dependencies.join(", "));
        }
    }
    let _ = write!(text, "\nattempts: {}", task.attempts);
    let times = times(&task);
    if !times.is_empty() {
        let _ = write!(text, "\n{times}");
    }
    output::text(printable::block(&text));
    if let Some(spec) = spec.filter(|spec| !is_empty(&spec.parameters)) {
        output::text("parameters:");
        output::document(&*spec.parameters);
    }
    if let Some(error) = &task.error {
        output::text(format_args!("error: {}", printable::block(&error.to_string())));
    }
    if let Some(result) = &task.result {
        output::text("result:");
        output::document(&**result);
    }
    Ok(Exit::Success)
}

/// The fields of the workflow's document for the task, and all that was stored besides.
fn document(record: &WorkflowRecord, task: &TaskRecord, spec: Option<&TaskSpec>) -> Value {
    let alone = WorkflowRecord { tasks: vec![task.clone()], ..record.clone() };
    let mut fields = results::document(&alone)["tasks"][task.id.as_str()].take();
    let more = json!({
        "workflow_id": record.id,
        "id": task.id,
        "protocol": spec.and_then(|spec| spec.protocol.as_ref()),
        "method": spec.map(|spec| &spec.method).filter(|method| !method.is_empty()),
        "when": spec.and_then(|spec| spec.when.as_ref()),
        "in": spec.map(|spec| &spec.branches).filter(|branches| !branches.is_empty()),
        "value": spec.and_then(|spec| spec.value.as_ref()),
        "switch": spec.map(|spec| &spec.switch).filter(|switch| !switch.is_empty()),
        "dependencies": spec.map(|spec| &spec.dependencies),
        "parameters": spec.map(|spec| &*spec.parameters),
        "started_at": task.started_at,
        "completed_at": task.completed_at,
        "due_at": task.due_at,
    });
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        let is_rare = |key: &str| matches!(key, "when" | "in" | "value" | "switch");
        fields.extend(more.into_iter().filter(|(key, value)| !(is_rare(key) && value.is_null())));
    }
    fields
}
