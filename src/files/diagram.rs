//! Draws a workflow as a graph: Mermaid for Markdown, DOT for Graphviz.
//!
//! Asked by the command line. The edges come from the caller, who knows the references between
//! tasks as well as the dependencies that are written down.

use std::fmt::Write as _;

use gleitzeit_domain::workflow::{TaskSpec, WorkflowSpec};

/// The workflow as a Mermaid flowchart. An edge `(a, b)` means that task `b` waits for task `a`;
/// both are indices into `spec.tasks`.
pub fn mermaid(spec: &WorkflowSpec, edges: &[(usize, usize)]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "---\ntitle: {}\n---", yaml_text(&spec.name));
    text.push_str("flowchart TD\n");
    for (index, task) in spec.tasks.iter().enumerate() {
        let name = mermaid_text(title(task));
        let _ = writeln!(text, "    t{index}[\"{name}<br/>{}\"]", mermaid_text(&call(task)));
    }
    for (from, to) in edges {
        let label = edge_label(spec, *from, *to);
        let label = label.map(|it| format!("|\"{}\"|", mermaid_text(&it))).unwrap_or_default();
        let _ = writeln!(text, "    t{from} -->{label} t{to}");
    }
    text
}

/// The workflow in the language of Graphviz. Edges as for [`mermaid`].
pub fn dot(spec: &WorkflowSpec, edges: &[(usize, usize)]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "digraph \"{}\" {{", dot_text(&spec.name));
    text.push_str("    node [shape=box];\n");
    for (index, task) in spec.tasks.iter().enumerate() {
        let (name, call) = (dot_text(title(task)), dot_text(&call(task)));
        let _ = writeln!(text, "    t{index} [label=\"{name}\\n{call}\"];");
    }
    for (from, to) in edges {
        let label = edge_label(spec, *from, *to);
        let label = label.map(|it| format!(" [label=\"{}\"]", dot_text(&it))).unwrap_or_default();
        let _ = writeln!(text, "    t{from} -> t{to}{label};");
    }
    text.push_str("}\n");
    text
}

fn title(task: &TaskSpec) -> &str {
    task.name.as_deref().unwrap_or(&task.id)
}

/// The branches of a switch that lead to a task.
fn edge_label(spec: &WorkflowSpec, from: usize, to: usize) -> Option<String> {
    let switch = spec.tasks.get(from)?;
    let names: Vec<&str> = spec
        .tasks
        .get(to)?
        .branches
        .iter()
        .filter_map(|branch| branch.rsplit_once('.'))
        .filter(|(of, _)| *of == switch.id || Some(*of) == switch.name.as_deref())
        .map(|(_, name)| name)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn call(task: &TaskSpec) -> String {
    if let Some(value) = &task.value {
        return format!("= {value}");
    }
    if !task.switch.is_empty() {
        return "switch".to_owned();
    }
    match &task.protocol {
        Some(protocol) => {
            let bare = task.method.rsplit('/').next().unwrap_or(&task.method);
            format!("{protocol}:{bare}")
        }
        None => task.method.clone(),
    }
}

/// Letters, digits and harmless marks as they are, the rest as numbered entities of Mermaid.
fn mermaid_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("<br/>"),
            c if c.is_control() => escaped.push(' '),
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | ';' => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

fn dot_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A quoted text of YAML; JSON's quoting is valid there.
fn yaml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
