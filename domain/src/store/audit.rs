//! The rules of one stored workflow, in any store.
//!
//! The check of a database and an import use them.
//!
//! An unsettled workflow whose tasks are all settled is valid: it is between two writes, and the next
//! engine that runs it settles it.

use crate::{
    plan::Draft,
    task::{TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowRecord, WorkflowStatus},
};

/// Upper limit of the tasks of a workflow that a finding names; it counts the others.
const NAMED_MAX: usize = 5;

/// The contradictions in a record; none in a valid one. It checks that a task has a result, not
/// which.
pub fn contradictions(record: &WorkflowRecord) -> Vec<String> {
    let mut found = shape(record);
    tasks(record, &mut found);
    outcome(record, &mut found);
    found
}

/// Checks the spec, and compares it with the record.
fn shape(record: &WorkflowRecord) -> Vec<String> {
    let (draft, problems) = Draft::read((*record.spec).clone());
    let mut found: Vec<String> = problems
        .iter()
        .chain(&draft.circle())
        .map(|problem| format!("its spec: {problem}"))
        .collect();
    let (rows, specs) = (record.tasks.len(), record.spec.tasks.len());
    if rows != specs {
        found.push(format!("it has {rows} tasks, and its spec has {specs}"));
    }
    found
}

/// Checks each task, and compares it with its spec.
fn tasks(record: &WorkflowRecord, found: &mut Vec<String>) {
    let mut wrong = Named::default();
    for (at, task) in record.tasks.iter().enumerate() {
        if task.index as usize != at {
            wrong.add(|| format!("task {} stands where task {at} belongs", task.index));
        }
        if let Some(spec) = record.spec.tasks.get(at) {
            let (id, name) = called(at, spec);
            if task.id.as_str() != id || *task.name != *name {
                let (is, named) = (&task.id, &task.name);
                wrong.add(|| {
                    format!("task {at} is `{is}` ({named}), and `{id}` ({name}) in its spec")
                });
            }
        }
        if let Some(what) = missing(task) {
            wrong.add(|| format!("task `{}` is {} and has no {what}", task.id, task.status));
        }
    }
    wrong.report("tasks", found);
}

/// The field that a task of this status must have, and lacks.
fn missing(task: &TaskRecord) -> Option<&'static str> {
    match task.status {
        status if status.is_settled() && task.completed_at.is_none() => Some("time of its end"),
        TaskStatus::Completed if task.result.is_none() => Some("result"),
        TaskStatus::Failed
        | TaskStatus::Skipped
        | TaskStatus::UpstreamFailed
        | TaskStatus::Cancelled
            if task.error.is_none() =>
        {
            Some("error")
        }
        _ => None,
    }
}

/// Compares the workflow's status with those of its tasks.
fn outcome(record: &WorkflowRecord, found: &mut Vec<String>) {
    let status = record.status;
    if status.is_settled() != record.completed_at.is_some() {
        let has = if record.completed_at.is_some() { "a" } else { "no" };
        found.push(format!("it is {status} and has {has} time of its end"));
    }
    if !status.is_settled() {
        return;
    }
    let mut open = Named::default();
    for task in record.tasks.iter().filter(|task| !task.status.is_settled()) {
        open.add(|| format!("it is {status}, and its task `{}` is {}", task.id, task.status));
    }
    open.report("open tasks", found);
    let is_harmless = |it: TaskStatus| matches!(it, TaskStatus::Completed | TaskStatus::Skipped);
    let completed = record.tasks.iter().all(|task| is_harmless(task.status));
    match status {
        WorkflowStatus::Completed if open.count == 0 && !completed => {
            found.push("it is completed, and not all of its tasks are".into());
        }
        WorkflowStatus::Failed if completed => {
            found.push("it is failed, and all of its tasks are completed".into());
        }
        _ => {}
    }
}

/// The id and the name of a task by its spec.
fn called(at: usize, spec: &TaskSpec) -> (String, String) {
    let id = if spec.id.is_empty() { format!("task-{}", at + 1) } else { spec.id.clone() };
    let name = spec.name.clone().unwrap_or_else(|| id.clone());
    (id, name)
}

/// The first few of a kind, and their number.
#[derive(Default)]
struct Named {
    first: Vec<String>,
    count: usize,
}

impl Named {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.first.len() < NAMED_MAX {
            self.first.push(text());
        }
        self.count += 1;
    }

    fn report(&self, what: &str, found: &mut Vec<String>) {
        found.extend_from_slice(&self.first);
        if self.count > self.first.len() {
            found.push(format!("so are {} more {what}", self.count - self.first.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::conformance::sample;

    /// Three tasks that completed, in a workflow of `status`.
    fn record(status: WorkflowStatus) -> WorkflowRecord {
        let mut record = sample::workflow("w", 3).record;
        record.tasks = record.tasks.iter().map(|task| sample::completed(task, json!(1))).collect();
        record.status = status;
        record.completed_at = status.is_settled().then(|| sample::at(9));
        record
    }

    #[test]
    fn valid_records_have_no_contradiction() {
        // The last one lies between two writes.
        for status in
            [WorkflowStatus::Completed, WorkflowStatus::Cancelled, WorkflowStatus::Running]
        {
            assert_eq!(contradictions(&record(status)), [""; 0], "{status}");
        }
        assert_eq!(contradictions(&sample::workflow("w", 2).record), [""; 0]);
    }

    /// Each by itself, so that no finding hides another one.
    #[test]
    fn each_contradiction_is_found() {
        type Break = fn(&mut WorkflowRecord);
        let breaks: [(&str, Break); 9] = [
            ("`t1` is executing", |it| it.tasks[1].status = TaskStatus::Executing),
            ("not all of its tasks are", |it| {
                it.tasks[1].status = TaskStatus::UpstreamFailed;
                it.tasks[1].error = Some(std::sync::Arc::new(sample::failure()));
            }),
            ("all of its tasks are completed", |it| it.status = WorkflowStatus::Failed),
            ("no time of its end", |it| it.completed_at = None),
            ("has no result", |it| it.tasks[0].result = None),
            ("`t0` is completed and has no time", |it| it.tasks[0].completed_at = None),
            ("its spec has 3", |it| drop(it.tasks.pop())),
            ("is `x` (t0), and `t0` (t0) in its spec", |it| it.tasks[0].id = "x".into()),
            ("no task has the id or name `gone`", |it| {
                let mut spec = (*it.spec).clone();
                spec.tasks[0].dependencies.push("gone".into());
                it.spec = std::sync::Arc::new(spec);
            }),
        ];
        for (text, alter) in breaks {
            let mut broken = record(WorkflowStatus::Completed);
            alter(&mut broken);
            let found = contradictions(&broken);
            assert!(matches!(&*found, [one] if one.contains(text)), "{text}: {found:?}");
        }
        let mut circle = record(WorkflowStatus::Completed);
        let mut spec = (*circle.spec).clone();
        spec.tasks[0].dependencies.push("t1".into());
        spec.tasks[1].dependencies.push("t0".into());
        circle.spec = std::sync::Arc::new(spec);
        let found = contradictions(&circle);
        assert!(matches!(&*found, [one] if one.contains("circle")), "{found:?}");
    }

    /// A workflow of a million open tasks must not be a million lines.
    #[test]
    fn many_of_a_kind_are_counted() {
        let mut record = sample::workflow("w", 50).record;
        record.status = WorkflowStatus::Cancelled;
        record.completed_at = Some(sample::at(9));
        let found = contradictions(&record);
        assert_eq!(found.len(), NAMED_MAX + 1);
        assert_eq!(found[NAMED_MAX], "so are 45 more open tasks");
    }
}
