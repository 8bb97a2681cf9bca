//! Ids and names of tasks.

use std::collections::HashMap;

use super::pointer::{at, invalid};
use crate::{problem::Problem, workflow::WorkflowSpec};

/// Task ids and names, to the index.
pub(super) struct Names<'a> {
    spec: &'a WorkflowSpec,
    by_id: Option<HashMap<&'a str, u32>>,
    by_name: HashMap<&'a str, Option<u32>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(spec: &'a WorkflowSpec, problems: &mut Vec<Problem>) -> Self {
        let mut by_name = HashMap::new();
        for (task, index) in spec.tasks.iter().zip(0_u32..) {
            if let Some(name) = &task.name {
                // Two tasks of one name: neither can be meant by it.
                by_name
                    .entry(name.as_str())
                    .and_modify(|found| *found = None)
                    .or_insert(Some(index));
            }
        }
        // A single task needs no index.
        let by_id = (spec.tasks.len() > 1).then(|| {
            let mut by_id = HashMap::with_capacity(spec.tasks.len());
            for (task, index) in spec.tasks.iter().zip(0_u32..) {
                if let Some(first) = by_id.insert(task.id.as_str(), index) {
                    let message = format!("id `{}` is used by task {} already", task.id, first + 1);
                    problems.push(invalid(at(index as usize, "id"), message));
                }
            }
            by_id
        });
        Self { spec, by_id, by_name }
    }

    /// The ids of all tasks.
    pub(super) fn ids(&self) -> impl Iterator<Item = &'a str> {
        self.spec.tasks.iter().map(|task| task.id.as_str())
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        let by_id = match &self.by_id {
            Some(by_id) => by_id.get(text).copied(),
            None => (self.spec.tasks.first().is_some_and(|task| task.id == text)).then_some(0),
        };
        by_id.or_else(|| self.by_name.get(text).copied().flatten())
    }

    /// The name of several tasks that a reference, as written, begins with.
    pub(super) fn ambiguous(&self, reference: &str) -> Option<&str> {
        let rest = reference.strip_prefix("${")?.trim_start();
        let is_meant = |name: &&&str| {
            let behind = rest.strip_prefix(**name).map(|rest| rest.trim_start().chars().next());
            behind.is_some_and(|next| matches!(next, None | Some('.' | '[' | '}' | ':' | '…')))
        };
        let several = self.by_name.iter().filter(|(_, index)| index.is_none());
        several.map(|(name, _)| name).filter(is_meant).max_by_key(|name| name.len()).copied()
    }

    /// Why a text names no task and, as a hint, what may have been meant.
    pub(super) fn complain(&self, text: &str, pointer: String, hint: bool) -> Problem {
        if self.by_name.get(text) == Some(&None) {
            let message = format!("`{text}` is ambiguous: several tasks have this name");
            return invalid(pointer, message).help("name the task by its id");
        }
        let problem = invalid(pointer, format!("no task has the id or name `{text}`"));
        if !hint {
            return problem;
        }
        let all = self
            .spec
            .tasks
            .iter()
            .flat_map(|task| std::iter::once(task.id.as_str()).chain(task.name.as_deref()));
        let nearest = all
            .map(|known| (strsim::damerau_levenshtein(known, text), known))
            .filter(|(distance, known)| *distance <= known.chars().count().max(3) / 2)
            .min();
        match nearest {
            Some((_, known)) => problem.help(format!("did you mean `{known}`?")),
            None => problem,
        }
    }
}
