//! Forms of Python Gleitzeit 0.0.4 that are written differently today: several files in one task.
//!
//! The decoder calls it last. Texts, and everything with `batch_mode: true`, become one call a
//! file; several images without it become one call.
//!
//! Invariant: each task of the file stays at its place, so that later problems point at it; tasks
//! that are added stand behind all of them.

use std::sync::Arc;

use gleitzeit_domain::workflow::{TaskSpec, WorkflowSpec};
use serde_json::{Map, Value, json};

/// Parameters that list files.
const LISTS: [&str; 2] = ["files", "image_paths"];

/// Turns tasks of language models that name several files into tasks that name one each.
pub(super) fn expand(spec: &mut WorkflowSpec) {
    let mut added = Vec::new();
    for task in &mut spec.tasks {
        if names_files(task) {
            rewrite(task, &mut added);
        }
    }
    spec.tasks.append(&mut added);
}

fn names_files(task: &TaskSpec) -> bool {
    let owner = task.protocol.as_deref().unwrap_or(&task.method);
    owner.split(['/', ':']).next() == Some("llm")
        && LISTS.iter().any(|name| task.parameters.get(name).is_some_and(Value::is_array))
}

fn rewrite(task: &mut TaskSpec, added: &mut Vec<TaskSpec>) {
    let Value::Object(mut parameters) = Value::clone(&task.parameters) else { return };
    let listed = LISTS.iter().filter_map(|name| parameters.remove(*name));
    let files: Vec<Value> =
        listed.flat_map(|list| list.as_array().cloned().unwrap_or_default()).collect();
    let one_by_one = parameters.remove("batch_mode").and_then(|it| it.as_bool());
    let is_vision = task.method.rsplit(['/', ':']).next() == Some("vision");
    match files.as_slice() {
        [] => {}
        [only] => put_file(&mut parameters, is_vision, only),
        _ if is_vision && one_by_one != Some(true) => {
            parameters.insert("image_paths".to_owned(), Value::Array(files));
        }
        several => {
            let parts = parts(task, &parameters, several, is_vision);
            *task = joined(task, &parts);
            added.extend(parts);
            return;
        }
    }
    task.parameters = Arc::new(Value::Object(parameters));
}

fn put_file(parameters: &mut Map<String, Value>, is_vision: bool, file: &Value) {
    let name = if is_vision { "image_path" } else { "file_path" };
    parameters.insert(name.to_owned(), file.clone());
}

/// A task for each file.
fn parts(
    task: &TaskSpec,
    parameters: &Map<String, Value>,
    files: &[Value],
    is_vision: bool,
) -> Vec<TaskSpec> {
    let part = |(number, file): (usize, &Value)| {
        let mut parameters = parameters.clone();
        put_file(&mut parameters, is_vision, file);
        let name = task.name.as_deref().unwrap_or(&task.id);
        TaskSpec {
            id: format!("{}-{number}", task.id),
            name: Some(format!("{name} ({number})")),
            parameters: Arc::new(Value::Object(parameters)),
            ..task.clone()
        }
    };
    (1..).zip(files).map(part).collect()
}

/// The task that replaces the original one: it joins the answers of its parts, in the order of its
/// files.
fn joined(task: &TaskSpec, parts: &[TaskSpec]) -> TaskSpec {
    let answers: Vec<String> =
        parts.iter().map(|part| format!("${{[\"{}\"].response}}", part.id)).collect();
    let mut joined = TaskSpec::new(task.id.clone(), "echo/echo").params(json!({
        "response": answers.join("\n\n"),
        "responses": answers,
    }));
    joined.name.clone_from(&task.name);
    joined.on_dependency_failure = task.on_dependency_failure;
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(method: &str, parameters: Value) -> Vec<TaskSpec> {
        let mut spec = WorkflowSpec::new("w").task(TaskSpec::new("a", method).params(parameters));
        expand(&mut spec);
        spec.tasks
    }

    /// Texts are asked about one by one, and the task that named them gives all answers.
    #[test]
    fn several_texts_are_a_call_each() {
        let tasks = expanded("llm/chat", json!({"files": ["1.txt", "2.txt"], "model": "m"}));
        let ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["a", "a-1", "a-2"]);
        assert_eq!(tasks[0].method, "echo/echo");
        assert_eq!(tasks[0].parameters["responses"][1], "${[\"a-2\"].response}");
        assert_eq!(*tasks[2].parameters, json!({"file_path": "2.txt", "model": "m"}));
        let one = expanded("llm/chat", json!({"files": ["1.txt"], "batch_mode": true}));
        assert_eq!((one.len(), &*one[0].parameters), (1, &json!({"file_path": "1.txt"})));
    }

    /// Several images are one call, unless they are to be looked at one by one.
    #[test]
    fn several_images_are_one_call() {
        let images = json!({"image_paths": ["1.png", "2.png"], "prompt": "p"});
        let together = expanded("llm/vision", images.clone());
        assert_eq!(together.len(), 1);
        assert_eq!(*together[0].parameters, images);
        let mut alone = images;
        alone["batch_mode"] = json!(true);
        let tasks = expanded("llm/vision", alone);
        assert_eq!(tasks.len(), 3);
        assert_eq!(*tasks[1].parameters, json!({"image_path": "1.png", "prompt": "p"}));
    }

    /// A parameter that is no list of files of a language model is left as it is.
    #[test]
    fn other_parameters_of_that_name_stay() {
        for (method, parameters) in
            [("shop/pack", json!({"files": ["a"]})), ("llm/chat", json!({"files": "a.txt"}))]
        {
            let tasks = expanded(method, parameters.clone());
            assert_eq!((tasks.len(), &*tasks[0].parameters), (1, &parameters), "{method}");
        }
    }
}
