//! The keys that a workflow file may have, each with its other spellings.
//!
//! Asked by the decoder, and by [`Source`](super::Source) to find a value under the spelling that
//! the file uses.

use super::{
    findings::Findings,
    node::{Entry, Kind, Node, shorten},
    span::Span,
};

/// A key of the format.
#[derive(Debug)]
pub(super) struct Key {
    /// The name, which is that of the field it is read into.
    pub(super) name: &'static str,
    /// Other names that mean the same.
    pub(super) aliases: &'static [&'static str],
}

const fn key(name: &'static str) -> Key {
    Key { name, aliases: &[] }
}

const fn also(name: &'static str, aliases: &'static [&'static str]) -> Key {
    Key { name, aliases }
}

/// Keys that older files carry and that say nothing here.
const IGNORED: [&str; 5] = ["version", "wait_for_completion", "metadata", "tags", "providers"];

/// The same for a task.
const IGNORED_OF_TASK: [&str; 6] =
    ["version", "wait_for_completion", "metadata", "tags", "providers", "description"];

/// A mapping of the format: what it is called in messages, and its keys.
#[derive(Debug)]
pub(super) struct KeySchema {
    /// The name of the object that has these keys, with its article.
    pub(super) what: &'static str,
    /// The keys.
    pub(super) keys: &'static [Key],
    /// Keys that are accepted and say nothing.
    pub(super) ignored: &'static [&'static str],
    /// True if all other keys are accepted, too.
    pub(super) open: bool,
}

/// The whole file.
pub(super) const WORKFLOW: KeySchema = KeySchema {
    what: "a workflow",
    keys: &[
        key("name"),
        key("id"),
        key("description"),
        key("type"),
        key("timeout"),
        key("max_parallel_tasks"),
        key("inputs"),
        key("tasks"),
        key("batch"),
        key("template"),
        key("protocol"),
    ],
    ignored: &IGNORED,
    open: false,
};

/// A task.
pub(super) const TASK: KeySchema = KeySchema {
    what: "a task",
    keys: &[
        key("id"),
        key("name"),
        key("protocol"),
        key("method"),
        also("parameters", &["params"]),
        also("dependencies", &["depends_on"]),
        key("priority"),
        key("timeout"),
        key("total_timeout"),
        also("retry", &["retry_config"]),
        key("resources"),
        key("on_dependency_failure"),
        key("profile"),
        key("when"),
        key("in"),
        key("value"),
        key("switch"),
    ],
    ignored: &IGNORED_OF_TASK,
    open: false,
};

/// A branch of a task's `switch`.
pub(super) const BRANCH: KeySchema = KeySchema {
    what: "a branch",
    keys: &[key("to"), key("when"), key("else")],
    ignored: &[],
    open: false,
};

/// A task's `retry`.
pub(super) const RETRY: KeySchema = KeySchema {
    what: "`retry`",
    keys: &[
        key("max_attempts"),
        also("backoff", &["backoff_strategy", "strategy"]),
        also("base_delay", &["initial_delay"]),
        key("max_delay"),
        key("jitter"),
        key("retry_on"),
    ],
    // Older files carry it, and it never changed anything: the exponent's base is 2.
    ignored: &["backoff_multiplier"],
    open: false,
};

/// A task's `resources`.
pub(super) const RESOURCES: KeySchema = KeySchema {
    what: "`resources`",
    keys: &[
        key("cpu_cores"),
        key("memory_mb"),
        key("gpu_memory_mb"),
        key("disk_space_mb"),
        key("network_bandwidth_mbps"),
        key("execution_timeout"),
    ],
    ignored: &[],
    open: false,
};

/// A batch file's `batch`.
pub(super) const BATCH: KeySchema = KeySchema {
    what: "`batch`",
    keys: &[key("directory"), key("pattern")],
    ignored: &[],
    open: false,
};

/// A batch file's `template`: keys of a task, and parameters.
pub(super) const TEMPLATE: KeySchema = KeySchema {
    what: "`template`",
    keys: &[
        key("method"),
        key("protocol"),
        key("priority"),
        also("retry", &["retry_config"]),
        also("parameters", &["params"]),
    ],
    ignored: &["metadata"],
    open: true,
};

/// The other spellings of a key that stands `depth` levels below the root: a task's keys are at 2
/// (`/tasks/0/parameters`), those of its `retry` at 3, those of a batch's `template` at 1.
pub(super) fn spellings(name: &str, depth: usize) -> impl Iterator<Item = &'static str> {
    let shape = match depth {
        1 => Some(&TEMPLATE),
        2 => Some(&TASK),
        3 => Some(&RETRY),
        _ => None,
    };
    let keys = shape.into_iter().flat_map(|shape| shape.keys);
    keys.filter(move |key| key.name == name).flat_map(|key| key.aliases.iter().copied())
}

/// The entries of a mapping by the names of its keys.
pub(super) struct Fields<'n> {
    /// The span to report for a missing key.
    pub(super) location: Span,
    known: Vec<(&'static str, &'n Entry)>,
    /// Entries with other keys, if the shape is open.
    pub(super) others: Vec<&'n Entry>,
    /// Keys that an unknown one was probably meant to be.
    meant: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Sorts the entries of `node` by the keys of `shape`; `place` is what to point at when it is
    /// no mapping. Unknown keys are findings.
    pub(super) fn of(
        node: &'n Node,
        location: Span,
        shape: &KeySchema,
        findings: &mut Findings,
    ) -> Option<Self> {
        let Kind::Object(entries) = &node.kind else {
            let found = format!("{} is {}; expected a mapping", shape.what, node.describe());
            findings.wrong(location, found);
            return None;
        };
        let mut fields =
            Self { location, known: Vec::new(), others: Vec::new(), meant: Vec::new() };
        for entry in entries {
            match shape.find(&entry.key) {
                Some(name) => fields.add(name, entry, findings),
                None if shape.ignored.contains(&entry.key.as_str()) => {}
                None if shape.open => fields.others.push(entry),
                None => fields.meant.extend(unknown(entry, shape, findings)),
            }
        }
        Some(fields)
    }

    fn add(&mut self, name: &'static str, entry: &'n Entry, findings: &mut Findings) {
        match self.known.iter().find(|(known, _)| *known == name) {
            Some((_, first)) => findings.error_with_help(
                entry.key_span,
                format!("`{}` repeats `{}`", entry.key, first.key),
                "keep one of them",
            ),
            None => self.known.push((name, entry)),
        }
    }

    /// True if an unknown key, which was reported, was probably meant to be this one.
    pub(super) fn is_meant(&self, name: &str) -> bool {
        self.meant.contains(&name)
    }

    /// The entry of a key, also where its value is empty.
    pub(super) fn entry(&self, name: &str) -> Option<&'n Entry> {
        self.known.iter().find(|(known, _)| *known == name).map(|(_, entry)| *entry)
    }

    /// The entry of a key that has a value.
    pub(super) fn get(&self, name: &str) -> Option<&'n Entry> {
        self.entry(name).filter(|entry| !matches!(entry.value.kind, Kind::Null))
    }
}

impl KeySchema {
    fn find(&self, text: &str) -> Option<&'static str> {
        let is_meant = |key: &&Key| key.name == text || key.aliases.contains(&text);
        self.keys.iter().find(is_meant).map(|key| key.name)
    }
}

/// Tells an unknown key, and answers with the name of the one it was probably meant to be.
fn unknown(entry: &Entry, shape: &KeySchema, findings: &mut Findings) -> Option<&'static str> {
    let names = shape.keys.iter().flat_map(|key| key.aliases.iter().copied().chain([key.name]));
    let near = nearest(&entry.key, names);
    let help = if let Some(name) = near {
        format!("did you mean `{name}`?")
    } else {
        let known: Vec<&str> = shape.keys.iter().map(|key| key.name).collect();
        format!("{} has {}", shape.what, known.join(", "))
    };
    findings.error_with_help(
        entry.key_span,
        format!("unknown key `{}`", shorten(&entry.key)),
        help,
    );
    near.and_then(|name| shape.find(name))
}

/// The word that `text` most probably stands for, if any is near enough.
pub(super) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // The distance takes time in the product of both lengths.
    if text.len() > 64 {
        return None;
    }
    let text = text.to_lowercase();
    words
        .map(|word| (strsim::damerau_levenshtein(&text, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len().min(text.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
