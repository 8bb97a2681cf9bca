//! The differences between two workflows of one id.
//!
//! Asked wherever an id is submitted that a workflow has already: the same workflow again is the
//! same submission, another one is a mistake that must not be answered with an old result.

use serde_json::Value;

use crate::workflow::{TaskSpec, WorkflowSpec};

/// Differences that are named; the others are counted.
const NAMED_MAX: usize = 3;

/// Characters of a value that are repeated.
const VALUE_MAX: usize = 40;

/// The difference of `after` from `before`; `None` if both are the same workflow. Task ids that are
/// left out count as the ids that they will get. The directory of the submission and descriptions
/// do not matter.
pub fn difference(before: &WorkflowSpec, after: &WorkflowSpec) -> Option<String> {
    let mut found = Vec::new();
    if before.name != after.name {
        found.push(changed("the name", &before.name.as_str().into(), &after.name.as_str().into()));
    }
    inputs(before, after, &mut found);
    if seconds(before.timeout) != seconds(after.timeout) {
        found.push("`timeout` differs".to_owned());
    }
    if before.max_parallel_tasks != after.max_parallel_tasks {
        found.push("`max_parallel_tasks` differs".to_owned());
    }
    if before.tasks.len() == after.tasks.len() {
        for (index, pair) in before.tasks.iter().zip(&after.tasks).enumerate() {
            task(index, pair, &mut found);
        }
    } else {
        let (was, is) = (before.tasks.len(), after.tasks.len());
        found.push(format!("it has {is} tasks, and had {was}"));
    }
    if found.is_empty() {
        return None;
    }
    let more = found.len().saturating_sub(NAMED_MAX);
    found.truncate(NAMED_MAX);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    Some(found.join("; "))
}

/// Durations are stored as seconds and compared as seconds: a value that was read back may differ
/// by less than that form can express.
fn seconds(span: Option<std::time::Duration>) -> Option<f64> {
    span.map(|span| span.as_secs_f64())
}

fn inputs(before: &WorkflowSpec, after: &WorkflowSpec, found: &mut Vec<String>) {
    for (name, value) in &after.inputs {
        match before.inputs.get(name) {
            Some(old) if old == value => {}
            Some(old) => found.push(changed(&format!("input `{name}`"), old, value)),
            None => found.push(format!("input `{name}` is new")),
        }
    }
    let gone = before.inputs.keys().filter(|name| !after.inputs.contains_key(*name));
    found.extend(gone.map(|name| format!("input `{name}` is missing")));
    if before.spellings != after.spellings && before.inputs == after.inputs {
        found.push("a number of the inputs is written otherwise".to_owned());
    }
}

fn task(index: usize, (before, after): (&TaskSpec, &TaskSpec), found: &mut Vec<String>) {
    if before == after {
        return;
    }
    let (old, new) = (id_of(index, before), id_of(index, after));
    if old != new {
        found.push(format!("task {} is `{new}`, and was `{old}`", index + 1));
        return;
    }
    let name = format!("task `{new}`");
    let (Ok(Value::Object(was)), Ok(Value::Object(is))) =
        (serde_json::to_value(before), serde_json::to_value(after))
    else {
        found.push(format!("{name} differs"));
        return;
    };
    let mut keys: Vec<&String> = was.keys().chain(is.keys()).filter(|key| *key != "id").collect();
    keys.sort_unstable();
    keys.dedup();
    let differs = |key: &&String| was.get(*key) != is.get(*key);
    for key in keys.into_iter().filter(differs) {
        let null = Value::Null;
        let (old, new) = (was.get(key).unwrap_or(&null), is.get(key).unwrap_or(&null));
        found.push(match key.as_str() {
            "parameters" => format!("{name} has other parameters"),
            key => changed(&format!("`{key}` of {name}"), old, new),
        });
    }
}

fn id_of(index: usize, task: &TaskSpec) -> String {
    if task.id.is_empty() { format!("task-{}", index + 1) } else { task.id.clone() }
}

fn changed(what: &str, before: &Value, after: &Value) -> String {
    format!("{what} is {}, and was {}", short(after), short(before))
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use serde_json::json;

    use crate::file_access::FileAccess;

    use super::*;

    fn spec() -> WorkflowSpec {
        WorkflowSpec::new("w")
            .input("day", "mon")
            .timeout(Duration::new(9_000_000, 123_456_789))
            .task(TaskSpec::new("a", "echo/echo").params(json!({"d": "${inputs.day}", "x": 0.1})))
            .task(TaskSpec::new("", "echo/echo"))
    }

    /// The same workflow, from another directory, with its ids filled in and read back from a
    /// store, is the same workflow.
    #[test]
    fn what_was_stored_is_the_same_workflow() {
        let mut stored = spec();
        stored.tasks[1].id = "task-2".into();
        stored.file_access =
            Some(Arc::new(FileAccess { output: Some("/o".into()), ..FileAccess::default() }));
        let stored: WorkflowSpec =
            serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
        assert_eq!(difference(&stored, &spec()), None);
        let described = WorkflowSpec { description: Some("for a person".into()), ..spec() };
        assert_eq!(difference(&described, &spec()), None);
    }

    /// A difference is named, with both values if they are short.
    #[test]
    fn what_differs_is_named() {
        let text = |after: WorkflowSpec| difference(&spec(), &after).unwrap();
        assert_eq!(text(spec().input("day", "tue")), "input `day` is \"tue\", and was \"mon\"");
        assert_eq!(text(spec().input("night", 1)), "input `night` is new");
        assert_eq!(
            text(WorkflowSpec { inputs: serde_json::Map::new(), ..spec() }),
            "input `day` is missing"
        );
        let mut other = spec();
        other.tasks[0].method = "echo/fail".into();
        other.tasks[0].parameters = Arc::new(json!({}));
        assert_eq!(
            text(other),
            "`method` of task `a` is \"echo/fail\", and was \"echo/echo\"; task `a` has other parameters"
        );
        assert_eq!(text(spec().task(TaskSpec::new("c", "echo/echo"))), "it has 3 tasks, and had 2");
        let mut renamed = spec();
        renamed.tasks[0].id = "z".into();
        assert_eq!(text(renamed), "task 1 is `z`, and was `a`");
        assert!(text(spec().timeout(Duration::from_secs(1))).contains("timeout"));
        let mut many = spec();
        for n in 0..5 {
            many = many.input(format!("n{n}"), n);
        }
        assert!(text(many).ends_with("; and 2 more"));
    }
}
