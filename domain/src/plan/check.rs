//! Checks the parameters and references of a draft against the methods of its tasks.

use std::collections::HashSet;

use super::{draft::Draft, pointer::at};
use crate::{
    error::ErrorCode,
    problem::Problem,
    protocol::{MethodRef, builtin},
    reference::{Root, has_reference},
};

impl Draft {
    pub(super) fn check_parameters(
        &self,
        index: usize,
        method: &MethodRef,
        problems: &mut Vec<Problem>,
    ) {
        let template = &self.tasks[index].template;
        let parameters = template.parameters();
        let violations = if template.is_literal() {
            method.params.validate(parameters).err().unwrap_or_default()
        } else {
            method.params.check_open(parameters, &has_reference)
        };
        let is_valid = violations.is_empty();
        problems.extend(violations.into_iter().map(|violation| {
            let pointer = at(index, "parameters") + &violation.pointer;
            Problem::new(ErrorCode::InvalidParams, pointer, violation.message)
        }));
        let choice = builtin::choice(&method.capability);
        if let Some(message) = choice.filter(|_| is_valid).and_then(|it| it.violation(parameters)) {
            problems.push(Problem::new(ErrorCode::InvalidParams, at(index, "parameters"), message));
        }
    }

    /// A variable that the settings do not list can never be read.
    pub(super) fn check_env(&self, allowed: &HashSet<String>, problems: &mut Vec<Problem>) {
        for (index, task) in self.tasks.iter().enumerate() {
            for reference in task.template.references() {
                let Some(name) = reference.env_name().filter(|name| !allowed.contains(*name))
                else {
                    continue;
                };
                let pointer = at(index, "parameters") + reference.pointer();
                let message = format!(
                    "`{}` cannot be read: variable `{name}` is not on the settings' list",
                    reference.text()
                );
                problems.push(
                    Problem::new(ErrorCode::TaskParameterError, pointer, message)
                        .help(format!("add `{name}` to `engine.env_allowed`")),
                );
            }
        }
    }

    /// A missing input without a fallback fails its task whenever it runs.
    pub(super) fn check_inputs(&self, problems: &mut Vec<Problem>) {
        for (index, task) in self.tasks.iter().enumerate() {
            for reference in task.template.references() {
                if reference.root() != Root::Inputs || reference.fallback().is_some() {
                    continue;
                }
                let Some(name) = reference.path().next() else { continue };
                if self.spec.inputs.contains_key(name) {
                    continue;
                }
                let pointer = at(index, "parameters") + reference.pointer();
                let message = format!("`{}`: no input is named `{name}`", reference.text());
                let problem = Problem::new(ErrorCode::TaskParameterError, pointer, message);
                let known = self.spec.inputs.keys().map(String::as_str);
                problems.push(problem.help(match nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "add `{name}` to `inputs`, give it with the submission, or write a \
                         fallback: `${{inputs.{name}:-…}}`"
                    ),
                }));
            }
        }
    }

    /// A path that the returns schema rules out can never have a value.
    pub(super) fn check_references(
        &self,
        methods: &[Option<MethodRef>],
        problems: &mut Vec<Problem>,
    ) {
        for (index, task) in self.tasks.iter().enumerate() {
            for reference in task.template.references() {
                let Some(target) = reference.task() else { continue };
                let Some(method) = methods.get(target as usize).and_then(Option::as_ref) else {
                    continue;
                };
                let Some(returns) = &method.returns else { continue };
                if reference.fallback().is_some() || !matches!(reference.root(), Root::Result(_)) {
                    continue;
                }
                let path = reference.path_keys(|key| returns.admits(&[key]).is_ok());
                let Err(known) = returns.admits(&path) else { continue };
                let problem = Problem::new(
                    ErrorCode::TaskParameterError,
                    at(index, "parameters") + reference.pointer(),
                    format!(
                        "`{}` has no value: the result of {} has no such path",
                        reference.text(),
                        method.capability
                    ),
                );
                problems.push(if known.is_empty() {
                    problem
                } else {
                    problem.help(format!("it has {}", known.join(", ")))
                });
            }
        }
    }
}

/// The known name that was probably meant.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let tolerance = (name.chars().count() / 3).max(1);
    known
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
