//! Advice: probable mistakes of a workflow that is accepted all the same.
//!
//! `gleitzeit check` prints it; a submission is never rejected for it.

use std::collections::HashSet;

use super::{check::nearest, draft::Draft, pointer::at};
use crate::{
    error::ErrorCode,
    problem::{Problem, push_pointer},
    protocol::{MethodRef, catalog::ProtocolCatalog},
    reference::{Reference, Root},
    workflow::{TaskSpec, WorkflowSpec},
};

/// The probable mistakes of a workflow: references that are pasted into code, fields that a method
/// does not declare, inputs that no task reads. Tasks with unknown methods are skipped.
pub fn advice(spec: &WorkflowSpec, catalog: &ProtocolCatalog) -> Vec<Problem> {
    let (draft, _) = Draft::read(spec.clone());
    let method = |index: usize| {
        let task = &draft.spec.tasks[index];
        catalog.resolve(task.protocol.as_deref(), &task.method).ok()
    };
    let methods: Vec<Option<MethodRef>> = (0..draft.tasks.len()).map(method).collect();
    let mut advice = Vec::new();
    for (index, task) in draft.tasks.iter().enumerate() {
        for reference in task.template.references() {
            if methods[index].as_ref().is_some_and(|method| is_code(method, reference)) {
                advice.push(pasted(index, reference));
            }
            advice.extend(undeclared(index, reference, &methods));
        }
    }
    unread(&draft, &mut advice);
    advice
}

/// True for a reference within the text of a program.
fn is_code(method: &MethodRef, reference: &Reference) -> bool {
    let is_fixed = matches!(reference.root(), Root::WorkflowId | Root::Metadata(..));
    method.capability.protocol.name() == "python" && reference.pointer() == "/code" && !is_fixed
}

fn pasted(index: usize, reference: &Reference) -> Problem {
    let text = reference.text();
    Problem::new(
        ErrorCode::TaskParameterError,
        at(index, "parameters/code"),
        format!(
            "`{text}` is pasted into the code as text: a value with a quote in it becomes code"
        ),
    )
    .help(format!("use `context: {{ value: \"{text}\" }}`, and `context[\"value\"]` in the code"))
}

/// A field that the method does not say it gives.
fn undeclared(
    index: usize,
    reference: &Reference,
    methods: &[Option<MethodRef>],
) -> Option<Problem> {
    if reference.fallback().is_some() || !matches!(reference.root(), Root::Result(_)) {
        return None;
    }
    let method = methods.get(reference.task()? as usize)?.as_ref()?;
    let returns = method.returns.as_ref()?;
    let path = reference.path_keys(|key| returns.declares(&[key]).is_ok());
    // A path that the schema excludes is a problem, and reported as one.
    let known = returns.declares(&path).err().filter(|_| returns.admits(&path).is_ok())?;
    let message = format!(
        "`{}` probably has no value: {} does not say that its result has this field",
        reference.text(),
        method.capability
    );
    let pointer = at(index, "parameters") + reference.pointer();
    let problem = Problem::new(ErrorCode::TaskParameterError, pointer, message);
    let near = path.iter().find_map(|key| nearest(key, known.iter().map(String::as_str)));
    Some(problem.help(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", known.join(", ")),
    }))
}

/// Inputs that no task reads.
fn unread(draft: &Draft, advice: &mut Vec<Problem>) {
    let mut read = HashSet::new();
    for reference in draft.tasks.iter().flat_map(|task| task.template.references()) {
        if reference.root() == Root::Inputs {
            match reference.path().next() {
                Some(name) => _ = read.insert(name),
                // All of them are.
                None => return,
            }
        }
    }
    let expressions: Vec<&str> = draft.spec.tasks.iter().flat_map(TaskSpec::expressions).collect();
    // By their text: to call a name unread that an expression builds would be wrong.
    let is_read =
        |name: &str| read.contains(name) || expressions.iter().any(|source| source.contains(name));
    for name in draft.spec.inputs.keys().filter(|name| !is_read(name)) {
        let mut pointer = "/inputs".to_owned();
        push_pointer(&mut pointer, name);
        let message = format!("input `{name}` is read by no task");
        let problem = Problem::new(ErrorCode::WorkflowValidationFailed, pointer, message);
        advice.push(problem.help(format!("read it with `${{inputs.{name}}}`, or leave it out")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointed(spec: &WorkflowSpec) -> Vec<(String, String)> {
        let advice = advice(spec, &ProtocolCatalog::builtin());
        advice.into_iter().map(|it| (it.pointer.clone(), it.to_string())).collect()
    }

    /// A result that holds a quote would become code; a context never does.
    #[test]
    fn a_reference_within_code_is_reported() {
        let ask = TaskSpec::new("ask", "echo/echo").params(json!({"text": "x"}));
        let pasted = TaskSpec::new("run", "python/execute")
            .params(json!({"code": "x = '${ask.text}'", "context": {"x": "${ask.text}"}}));
        let advice = pointed(&WorkflowSpec::new("w").task(ask).task(pasted));
        let [(pointer, text)] = advice.as_slice() else { panic!("{advice:?}") };
        assert_eq!(pointer, "/tasks/1/parameters/code");
        assert!(text.contains("`${ask.text}`") && text.contains("context"), "{text}");
    }

    /// The declared fields of a method's result are most probably all there are.
    #[test]
    fn a_field_that_is_not_declared_is_reported_with_the_nearest() {
        let ask = TaskSpec::new("ask", "llm/chat")
            .params(json!({"messages": [{"role": "user", "content": "x"}]}));
        let numbers = TaskSpec::new("numbers", "python/execute").params(json!({"code": "1"}));
        let use_it = |text: &str| TaskSpec::new("use", "echo/echo").params(json!({"text": text}));
        let of = |text: &str| {
            let spec = WorkflowSpec::new("w").task(ask.clone()).task(numbers.clone());
            pointed(&spec.task(use_it(text)))
        };
        let wrong = of("${ask.respnse}");
        assert!(wrong[0].1.contains("did you mean `response`"), "{wrong:?}");
        for text in [
            "${ask.response}",
            "${ask.content}",
            "${ask.result.response}",
            "${ask.metadata.x}",
            "${ask.respnse:-none}",
            "${ask.$.status}",
            "${ask}",
            "${numbers.result.a.b[0]}",
            "${numbers.stdout}",
        ] {
            assert_eq!(of(text), [], "{text}");
        }
        assert_eq!(of("${numbers.reslt}").len(), 1);
    }

    /// An input that nobody reads is most probably spelled otherwise where it is read.
    #[test]
    fn unread_inputs_are_reported() {
        let task = |text: &str| TaskSpec::new("a", "echo/echo").params(json!({"text": text}));
        let spec = WorkflowSpec::new("w").input("city", "Rome").input("days/week", 3);
        let one = pointed(&spec.clone().task(task("${inputs.city}")));
        assert_eq!(one.len(), 1, "{one:?}");
        assert_eq!(one[0].0, "/inputs/days~1week");
        assert_eq!(pointed(&spec.task(task("${inputs}"))), []);
    }
}
