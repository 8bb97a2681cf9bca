//! `check` and `graph`: a workflow file is judged and drawn without being run.

mod known;
#[cfg(feature = "python")]
mod python;

use gleitzeit::{
    files::{self, WorkflowFile},
    runtime::WorkflowChecker,
};
use gleitzeit_domain::plan;
use serde_json::json;

use super::{
    Outcome,
    args::{Check, Drawing, Graph},
    output::{self, Exit, Failure},
    session::Session,
    source::{diagnostics_failure, invalid, read},
};

/// Says everything that is wrong with a workflow file, and what probably is.
#[cfg_attr(
    not(feature = "python"),
    expect(clippy::unused_async, reason = "only the check of Python code waits")
)]
pub(crate) async fn check(session: &Session, Check { workflow, strict }: &Check) -> Outcome {
    let file = read(session, workflow)?;
    let checker = WorkflowChecker::new(&session.settings)?;
    let edges = edges(&checker, &file)?;
    let catalog = checker.catalog();
    let mut errors = known::above_the_total(&file.spec, &session.settings);
    let mut warnings = plan::advice(&file.spec, catalog);
    known::missing_files(&file.spec, catalog, &mut errors, &mut warnings);
    #[cfg(feature = "python")]
    errors.extend(python::problems(session, &file.spec, catalog).await?);
    if *strict {
        errors.append(&mut warnings);
    }
    if !errors.is_empty() {
        errors.append(&mut warnings);
        return Err(diagnostics_failure(&file.source.diagnostics(&errors)));
    }
    let warnings = file.source.diagnostics(&warnings).as_warnings();
    let (name, tasks) = (&file.spec.name, file.spec.tasks.len());
    if session.json {
        output::document(&json!({
            "valid": true, "name": name, "tasks": tasks, "dependencies": edges.len(),
            "warnings": warnings,
        }));
    } else {
        if !warnings.is_empty() {
            output::note(warnings.render(output::errors_are_coloured()));
        }
        let file = workflow.file.display();
        output::text(format_args!(
            "{file}: valid; workflow `{name}`, tasks: {tasks}, dependencies: {}{}",
            edges.len(),
            match warnings.len() {
                0 => String::new(),
                count => format!(", warnings: {count}"),
            }
        ));
    }
    Ok(Exit::Success)
}

/// Draws a workflow file.
pub(crate) fn graph(session: &Session, graph: &Graph) -> Outcome {
    let file = read(session, &graph.workflow)?;
    let edges = edges(&WorkflowChecker::new(&session.settings)?, &file)?;
    let drawing = match graph.format {
        Drawing::Mermaid => files::mermaid(&file.spec, &edges),
        Drawing::Dot => files::dot(&file.spec, &edges),
    };
    if session.json {
        let pairs: Vec<_> = edges
            .iter()
            .map(|(from, to)| json!([file.spec.tasks[*from].id, file.spec.tasks[*to].id]))
            .collect();
        output::document(&json!({ "drawing": drawing, "edges": pairs }));
    } else {
        output::raw(&drawing);
    }
    Ok(Exit::Success)
}

/// The dependencies of a valid workflow, as `(dependency, task)` by index.
fn edges(checker: &WorkflowChecker, file: &WorkflowFile) -> Result<Vec<(usize, usize)>, Failure> {
    let plan = checker.check(file.spec.clone()).map_err(|error| invalid(file, error))?;
    let edges = plan.edges();
    Ok(edges.into_iter().map(|(task, needed)| (needed as usize, task as usize)).collect())
}
