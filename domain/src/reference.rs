//! References: the `${task.path}` in a task's parameters, found once and rendered per attempt.
//!
//! Asked by validation (what does a task refer to, does it exist) and by the pipeline (what are
//! the parameters now). [`Template::parse`] finds every reference of a parameter tree,
//! [`Template::bind`] turns task names into indexes, [`Template::render`] puts values in.
//!
//! | form | value |
//! |---|---|
//! | a string that is one reference and nothing else | the value itself, its type kept |
//! | references inside other text | strings as they are, numbers of the inputs as they were written, anything else as compact JSON |
//! | `${task}` | the whole result of the task, by id or name |
//! | `${task.a.b}`, `${task.items[0].name}`, `${task.items.0}`, `${task["odd key"]}` | a part of it |
//! | `${task.result.a}` | `result` is skipped where the result has no such key |
//! | `${task.response}`, `${task.content}` | that key, else `response` or `message` |
//! | `${task.$.status}`, `.$.error`, `.$.duration`, `.$.provider_id` | metadata of the task |
//! | `${inputs.x}`, `${workflow.id}`, `${workflow.name}`, `${env.X}` | as named |
//! | `${a.b:-fallback}` | the JSON or text behind `:-` where the path is missing or null |
//! | `$${x}` | the literal text `${x}` |
//!
//! Rules where forms could be read in two ways:
//! - `inputs`, `workflow` and `env` are never tasks. A quoted first segment always is one:
//!   `${["inputs"].x}`.
//! - A task's name may contain dots and spaces. The longest run of segments that names a task, as
//!   written, is the task; the rest is the path. With tasks `a` and `a.b`, `${a.b}` is the whole
//!   of `a.b`, and `${a["b"]}` a part of `a`.
//! - An unquoted `$` after the task introduces metadata; a result's own key of that name is written
//!   `["$"]`.
//! - Digits are an index into a list, and a key of an object.
//! - Braces in the text of a fallback must balance, and a fallback cannot hold a reference.
//!
//! Invariant: a rendered value is never rendered again. A result that contains `${x}` is passed on
//! unchanged; a reference written by the author never is.

mod error;
mod grammar;
mod render;
mod template;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

pub use error::{Found, ReferenceError, ReferenceFault, RenderError, RenderFault};
pub use render::{EnvValue, Scope, TaskView};
pub use template::Template;

use grammar::{Parsed, Segment};

/// True if a string needs rendering: it contains a reference or an escaped one. One substring
/// search.
pub fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// The text that renders to `text`: every `${` in it escaped as `$${`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if has_reference(text) { text.replace("${", "$${").into() } else { text.into() }
}

/// The root of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// A task, not yet looked up by [`Template::bind`].
    Unbound,
    /// The result of the task of this index.
    Result(u32),
    /// Metadata of the task of this index.
    Metadata(u32, Metadata),
    /// The workflow's inputs.
    Inputs,
    /// The workflow's id.
    WorkflowId,
    /// The workflow's name.
    WorkflowName,
    /// A variable of the environment: [`Reference::env_name`].
    Env,
}

/// The fields of `${task.$.…}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// The status of the task: a string.
    Status,
    /// Why it failed, as `{"code", "name", "message", "data"}`, or null.
    Error,
    /// Seconds that the call took, or null.
    Duration,
    /// The provider that ran it, or null.
    ProviderId,
}

impl Metadata {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "status" => Some(Self::Status),
            "error" => Some(Self::Error),
            "duration" => Some(Self::Duration),
            "provider_id" => Some(Self::ProviderId),
            _ => None,
        }
    }
}

/// One `${…}` of a parameter tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Shared by all references of one string.
    pointer: Arc<str>,
    text: Box<str>,
    /// The offset of the first segment in `text`.
    begin: usize,
    segments: Box<[Segment]>,
    /// The segments before this one are the root's.
    path_from: usize,
    root: Root,
    fallback: Option<Value>,
}

impl Reference {
    /// The JSON pointer, into the parameters, of the string that it stands in.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// As written, with `${` and `}`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The root.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The segments after the root, as written, without quotes and brackets. The optional `result`
    /// is included; [`path_keys`](Self::path_keys) decides on it.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.segments[self.path_from..].iter().map(|segment| &*segment.key)
    }

    /// The keys that lead to the value, from the outermost object or list inward.
    ///
    /// For a task's result, `has_key` returns whether the result has a key at its top level, from
    /// the returns schema before the run, or from the result after it. It decides the two rules of
    /// the format: a first segment `result` is left out if the result has no such key, and then an
    /// absent `content` or `response` becomes its `response` or `message`.
    pub fn path_keys(&self, has_key: impl Fn(&str) -> bool) -> Vec<&str> {
        let path = &self.segments[self.path_from..];
        if !matches!(self.root, Root::Result(_)) {
            return path.iter().map(|segment| &*segment.key).collect();
        }
        let Head { skip, alias } = head(path, has_key);
        let first = alias.into_iter();
        let rest = path[skip + usize::from(alias.is_some())..].iter().map(|segment| &*segment.key);
        first.chain(rest).collect()
    }

    /// The value if the path is missing or null.
    pub fn fallback(&self) -> Option<&Value> {
        self.fallback.as_ref()
    }

    /// The variable, for [`Root::Env`].
    pub fn env_name(&self) -> Option<&str> {
        (self.root == Root::Env).then(|| &*self.segments[self.path_from].key)
    }

    /// The task that it waits for, once bound.
    pub fn task(&self) -> Option<u32> {
        match self.root {
            Root::Result(task) | Root::Metadata(task, _) => Some(task),
            _ => None,
        }
    }

    fn new(pointer: Arc<str>, text: &str, parsed: Parsed) -> Result<Self, ReferenceFault> {
        let (root, path_from) = fixed_root(&parsed.segments)?;
        Ok(Self {
            pointer,
            text: text.into(),
            begin: parsed.begin,
            segments: parsed.segments,
            path_from,
            root,
            fallback: parsed.fallback,
        })
    }

    /// The first `count` segments as written.
    fn prefix(&self, count: usize) -> &str {
        match count.checked_sub(1) {
            Some(last) => &self.text[self.begin..self.segments[last].end],
            None => "",
        }
    }

    fn is_task(&self) -> bool {
        matches!(self.root, Root::Unbound | Root::Result(_) | Root::Metadata(..))
    }

    /// Looks up the task; the longest name wins.
    fn bind(
        &mut self,
        find: &mut dyn FnMut(&str) -> Option<u32>,
    ) -> Result<(), Option<ReferenceFault>> {
        let first = &self.segments[0];
        let (task, count) = if first.bare {
            (1..=self.segments.len())
                .rev()
                .find_map(|count| Some((find(self.prefix(count))?, count)))
                .ok_or(None)?
        } else {
            (find(&first.key).ok_or(None)?, 1)
        };
        let path = &self.segments[count..];
        if path.first().is_some_and(|segment| segment.bare && &*segment.key == "$") {
            let field = path.get(1).and_then(|segment| Metadata::from_name(&segment.key));
            let field = match (field, path.len()) {
                (Some(Metadata::Error), _) => Metadata::Error,
                (Some(field), 2) => field,
                _ => return Err(Some(ReferenceFault::Metadata)),
            };
            (self.root, self.path_from) = (Root::Metadata(task, field), count + 2);
        } else {
            (self.root, self.path_from) = (Root::Result(task), count);
        }
        Ok(())
    }
}

/// How a path into a result begins.
struct Head {
    /// Segments to leave out: 1 for a `result` that the result does not have.
    skip: usize,
    /// The key that replaces the next segment.
    alias: Option<&'static str>,
}

fn head(path: &[Segment], has_key: impl Fn(&str) -> bool) -> Head {
    let bare = |at: usize| path.get(at).filter(|segment| segment.bare).map(|segment| &*segment.key);
    let skip = usize::from(bare(0) == Some("result") && !has_key("result"));
    let reply = bare(skip).filter(|key| matches!(*key, "content" | "response"));
    // The fields of replies of language models and of `echo`.
    let replies = ["response", "message"];
    let alias = reply
        .filter(|key| !has_key(key))
        .and_then(|_| replies.into_iter().find(|known| has_key(known)));
    Head { skip, alias }
}

/// The root, if it needs no tasks of the workflow, and the index of the first path segment.
fn fixed_root(segments: &[Segment]) -> Result<(Root, usize), ReferenceFault> {
    match segments {
        [first, ..] if !first.bare => Ok((Root::Unbound, 1)),
        [first, rest @ ..] => match (&*first.key, rest) {
            ("inputs", _) => Ok((Root::Inputs, 1)),
            ("env", [_]) => Ok((Root::Env, 1)),
            ("env", _) => Err(ReferenceFault::Env),
            ("workflow", [field]) if &*field.key == "id" => Ok((Root::WorkflowId, 2)),
            ("workflow", [field]) if &*field.key == "name" => Ok((Root::WorkflowName, 2)),
            ("workflow", _) => Err(ReferenceFault::Workflow),
            _ => Ok((Root::Unbound, 1)),
        },
        [] => Err(ReferenceFault::Empty),
    }
}
