//! The text of a workflow file, and where in it each part of the workflow stands.
//!
//! Used by checks of a workflow after it was read. Their problems have a JSON pointer into the
//! workflow, and [`Source::diagnostics`] finds it in the file, under the key that the file uses for
//! it (`params` for `parameters`, a batch's template for its tasks).

use std::{collections::HashSet, sync::Arc};

use gleitzeit_domain::problem::Problem;

use super::{
    batch::file as batch,
    diagnostic::{ColumnCursor, Diagnostic, Diagnostics},
    findings::{Finding, Findings},
    keys,
    node::{Entry, Kind, Node},
    span::{Lines, Span},
};

/// The text of a file, and where each of its values stands.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    root: Node,
}

impl Source {
    /// A text that was read into a tree.
    pub(super) fn new(name: &str, text: &str, root: Node) -> Self {
        Self { name: name.into(), text: text.into(), root }
    }

    /// The file, as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Places problems of later checks in the file, in the order of the file. A problem about
    /// something that the file does not say is placed at what stands nearest above it.
    pub fn diagnostics(&self, problems: &[Problem]) -> Diagnostics {
        let findings = problems.iter().map(|problem| Finding {
            span: self.find(&problem.pointer),
            code: problem.code,
            message: problem.message.clone(),
            help: problem.help.clone(),
        });
        locate(&self.name, &self.text, findings.collect())
    }

    /// Adds problems of later checks to the findings of the shape. Consequences of those findings
    /// are left out: problems of the workflow as a whole, and problems of a task that has a finding
    /// itself.
    pub(super) fn add(&self, problems: &[Problem], findings: &mut Findings) {
        let broken = self.broken_tasks(findings);
        let is_valid = findings.is_empty();
        for problem in problems {
            let mut segments = problem.pointer.split('/').skip(1);
            let task = match (segments.next(), segments.next()) {
                (Some("tasks"), Some(index)) => index.parse().ok(),
                _ => None,
            };
            // Dependencies and methods are the author's own words, and not a consequence of another
            // finding.
            let is_own_fault = match segments.next() {
                None | Some("dependencies") => true,
                Some("method") => self.says_method(task),
                Some(_) => false,
            };
            let follows = match task {
                Some(index) => !is_own_fault && broken.contains(&index),
                None => !is_valid,
            };
            if !follows {
                findings.push(Finding {
                    span: self.find(&problem.pointer),
                    code: problem.code,
                    message: problem.message.clone(),
                    help: problem.help.clone(),
                });
            }
        }
    }

    fn says_method(&self, task: Option<usize>) -> bool {
        let tasks = self.root.entry("tasks").map(|entry| &entry.value.kind);
        let Some(Kind::Array(items)) = tasks else { return false };
        task.and_then(|index| items.get(index)).is_some_and(|it| it.entry("method").is_some())
    }

    /// Tasks in which something was found.
    fn broken_tasks(&self, findings: &Findings) -> HashSet<usize> {
        let tasks = self.root.entry("tasks").map(|entry| &entry.value.kind);
        let Some(Kind::Array(items)) = tasks else { return HashSet::new() };
        let is_in = |task: &Node, at: usize| task.span.start <= at && at < task.span.end;
        let mut starts = findings.starts();
        starts.sort_unstable();
        let broken = |task: &Node| {
            let first = starts.partition_point(|start| *start < task.span.start);
            starts.get(first).is_some_and(|start| is_in(task, *start))
        };
        (0..).zip(items).filter(|(_, task)| broken(task)).map(|(index, _)| index).collect()
    }

    /// The byte range of the value that a pointer names.
    fn find(&self, pointer: &str) -> Span {
        let mut segments: Vec<String> = pointer.split('/').skip(1).map(unescape).collect();
        if batch::is_batch(&self.root) {
            batch::redirect(&self.root, &mut segments);
        }
        let mut node = &self.root;
        let mut span = first_line(node);
        for (depth, segment) in segments.iter().enumerate() {
            match step(node, segment, depth) {
                Some(TreeStep::Entry(entry)) => {
                    node = &entry.value;
                    span = entry.location();
                }
                Some(TreeStep::Item(item)) => {
                    node = item;
                    span = first_line(node);
                }
                None => break,
            }
        }
        span
    }
}

enum TreeStep<'n> {
    Entry(&'n Entry),
    Item(&'n Node),
}

/// One segment down, under the spelling that the file uses.
fn step<'n>(node: &'n Node, segment: &str, depth: usize) -> Option<TreeStep<'n>> {
    match &node.kind {
        Kind::Array(items) => items.get(segment.parse::<usize>().ok()?).map(TreeStep::Item),
        Kind::Object(_) => node
            .entry(segment)
            .or_else(|| keys::spellings(segment, depth).find_map(|key| node.entry(key)))
            .map(TreeStep::Entry),
        _ => None,
    }
}

/// The span to report for a value without a key: its first key, or the value itself.
fn first_line(node: &Node) -> Span {
    match &node.kind {
        Kind::Object(entries) => entries.first().map_or(node.span, |entry| entry.key_span),
        _ => node.span,
    }
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// The bound on the findings of one file. No person reads more, and each one searches its line.
const FINDINGS_MAX: usize = 1_000;

/// Findings with their lines, in the order of the file.
pub(super) fn locate(name: &Arc<str>, text: &str, mut findings: Vec<Finding>) -> Diagnostics {
    let lines = Lines::new(text);
    findings.sort_by_key(|finding| finding.span.start);
    if findings.len() > FINDINGS_MAX {
        let more = findings.len() - FINDINGS_MAX;
        findings.truncate(FINDINGS_MAX + 1);
        findings[FINDINGS_MAX].message = format!("{more} more problems from here on, not shown");
        findings[FINDINGS_MAX].help = None;
    }
    let mut cursor = ColumnCursor::default();
    let located = findings
        .into_iter()
        .map(|finding| Diagnostic::new(finding, name, text, &lines, &mut cursor));
    Diagnostics::new(located.collect())
}

/// The same for what a reader of the file found.
pub(super) fn locate_all(name: &str, text: &str, findings: Findings) -> Diagnostics {
    locate(&name.into(), text, findings.into_vec())
}
