//! The keys of a task that is decided without a call: `when`, `in`, `value`, `switch`.

use gleitzeit_domain::workflow::{Branch, TaskSpec};

use super::{
    decode,
    findings::Findings,
    keys::{self, Fields},
    node::{Entry, Kind, Node},
    shared_fields::missing,
};

/// True with a key that a task may have in the place of `method`.
pub(super) fn stands_for_method(fields: &Fields<'_>) -> bool {
    ["value", "switch"].iter().any(|key| fields.entry(key).is_some())
}

/// Reads them into the task.
pub(super) fn read(fields: &Fields<'_>, task: &mut TaskSpec, findings: &mut Findings) {
    task.when = fields.get("when").and_then(|entry| expression(entry, findings));
    task.value = fields.get("value").and_then(|entry| expression(entry, findings));
    if let Some(entry) = fields.get("in") {
        task.branches = branches_in(entry, findings);
    }
    if let Some(entry) = fields.get("switch") {
        task.switch = switch(entry, findings);
    }
}

/// A text, as it is written: `true`, `1` and `a > 1` are expressions.
fn expression(entry: &Entry, findings: &mut Findings) -> Option<String> {
    let text = decode::written(&entry.value).filter(|text| !text.trim().is_empty());
    if text.is_none() {
        let help =
            "YAML reads `!x`, `{…}`, `[…]` and `a: b` in its own way: put the expression in quotes";
        decode::refuse_with(entry, "an expression", help, findings);
    }
    text
}

fn branches_in(entry: &Entry, findings: &mut Findings) -> Vec<String> {
    let items: &[Node] = match &entry.value.kind {
        Kind::Array(items) => items,
        _ => std::slice::from_ref(&entry.value),
    };
    let texts: Option<Vec<String>> = items
        .iter()
        .map(|item| match &item.kind {
            Kind::String(text) if text.contains('.') => Some(text.clone()),
            _ => None,
        })
        .collect();
    let texts = texts.filter(|texts| !texts.is_empty());
    if texts.is_none() {
        decode::refuse(entry, "`switch.branch`, or a list of them", findings);
    }
    texts.unwrap_or_default()
}

fn switch(entry: &Entry, findings: &mut Findings) -> Vec<Branch> {
    let expected = "a list of branches, each with `to` and `when`";
    let Some(items) = decode::items(entry, expected, findings) else { return Vec::new() };
    if items.is_empty() {
        decode::refuse(entry, expected, findings);
    }
    items.iter().filter_map(|item| branch(item, findings)).collect()
}

fn branch(item: &Node, findings: &mut Findings) -> Option<Branch> {
    let fields = Fields::of(item, decode::item_location(item), &keys::BRANCH, findings)?;
    let Some(to) = fields.entry("to") else {
        missing(&fields, "a branch", "to", "to: <name>", findings);
        return None;
    };
    let to = decode::text(to, findings)?;
    let when = fields.get("when").and_then(|entry| expression(entry, findings));
    let is_else = fields.get("else").and_then(|entry| decode::flag(entry, findings)) == Some(true);
    if when.is_some() == is_else {
        let found = "a branch has either `when` or `else: true`";
        findings.error_with_help(fields.location, found, "the last branch may be `else: true`");
    }
    Some(Branch { to, when })
}
