//! `check` and `graph`: a workflow file is judged and drawn without being run.

use gleitzeit::files::{self, WorkflowFile};
use serde_json::json;

use super::{
    Outcome,
    args::{Drawing, FileAndInputs, Graph},
    drive::STOPPING,
    output::{self, Exit, Failure},
    run::{invalid, read},
    session::Session,
};

/// Says everything that is wrong with a workflow file.
pub(crate) async fn check(session: &Session, workflow: &FileAndInputs) -> Outcome {
    let file = read(session, workflow)?;
    let edges = edges(session, &file).await?;
    let (name, tasks) = (&file.spec.name, file.spec.tasks.len());
    if session.json {
        output::document(&json!({
            "valid": true, "name": name, "tasks": tasks, "dependencies": edges.len(),
        }));
    } else {
        let file = workflow.file.display();
        output::text(format_args!(
            "{file}: valid; workflow `{name}`, tasks: {tasks}, dependencies: {}",
            edges.len()
        ));
    }
    Ok(Exit::Success)
}

/// Draws a workflow file.
pub(crate) async fn graph(session: &Session, graph: &Graph) -> Outcome {
    let file = read(session, &graph.workflow)?;
    let edges = edges(session, &file).await?;
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

/// What waits for what, as `(dependency, task)` by index, once everything else is right.
///
/// Asked of a runtime without providers and without a store: whether a provider is there is a
/// question of the moment, not of the file.
async fn edges(session: &Session, file: &WorkflowFile) -> Result<Vec<(usize, usize)>, Failure> {
    let runtime = session.in_memory().start_without_providers().await?;
    let checked = runtime.handle().check(file.spec.clone()).await;
    runtime.stop(STOPPING).await;
    let checked = checked.map_err(|error| invalid(file, error))?;
    let edges = checked.edges();
    Ok(edges.into_iter().map(|(task, needed)| (needed as usize, task as usize)).collect())
}
