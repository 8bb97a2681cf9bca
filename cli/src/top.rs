//! `top`: what runs now, on a terminal again and again, elsewhere once.

use std::{fmt::Write as _, io::IsTerminal as _, time::Duration};

use clap::{Args, ValueEnum};
use gleitzeit::storage::admin::{self, Activity};
use gleitzeit_domain::{
    duration,
    store::{ListFilter, Store, lease::Standing},
    workflow::{WorkflowStatus, WorkflowSummary},
};
use serde_json::json;

use super::{
    Outcome,
    interrupt::Interrupts,
    output::{self, Exit, Failure},
    report,
    session::{Session, close},
    standing,
};

/// Rates are those of this span.
const SPAN: Duration = Duration::from_mins(1);

/// `gleitzeit top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print one table and end, also on a terminal.
    #[arg(long)]
    once: bool,
    /// Between two refreshes, in seconds or with a unit.
    #[arg(long, value_name = "SPAN", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// Workflows that have a line.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Form of the output; `json` prints once, as `--json` does.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For a person.
    #[default]
    Table,
    /// For a program.
    Json,
}

fn interval(text: &str) -> Result<Duration, String> {
    let span =
        duration::parse(text).map_err(|why| format!("{why}; expected {}", duration::EXPECTED))?;
    if span < Duration::from_millis(100) {
        return Err("expected at least 0.1 s".to_owned());
    }
    Ok(span)
}

/// What is seen at one moment.
struct Sample {
    activity: Activity,
    workflows: Vec<WorkflowSummary>,
    standings: Vec<Option<Standing>>,
}

/// Shows what runs.
pub(crate) async fn top(session: &Session, top: &Top) -> Outcome {
    if session.settings.storage.url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is seen by no other process; name one with --store".to_owned(),
        ));
    }
    let is_json = session.json || top.format == Format::Json;
    if is_json || top.once || !std::io::stdout().is_terminal() {
        let sample = sample(session, top.limit).await?;
        if is_json {
            output::document(&json!({
                "workflows": sample.workflows,
                "activity": sample.activity,
            }));
        } else {
            output::painted(&text(session, &sample));
        }
        return Ok(Exit::Success);
    }
    let mut interrupts = Interrupts::listen()?;
    let terminal = console::Term::stdout();
    loop {
        let sample = sample(session, top.limit).await?;
        // The program's own writer lets no sequence pass that moves the cursor.
        let _ = terminal.clear_screen();
        output::painted(&text(session, &sample));
        if output::is_broken() {
            return Ok(Exit::Success);
        }
        tokio::select! {
            () = tokio::time::sleep(top.interval) => {}
            () = interrupts.next() => return Ok(Exit::Success),
        }
    }
}

/// Running workflows are above those that have not begun.
async fn sample(session: &Session, limit: usize) -> Result<Sample, Failure> {
    let empty =
        || Sample { activity: Activity::default(), workflows: Vec::new(), standings: Vec::new() };
    let Some(store) = session.store().await? else { return Ok(empty()) };
    let listed = list(&*store, limit).await;
    let now = store.shared_time().await.ok().flatten();
    close(store).await?;
    let (workflows, standings) = listed?;
    let now = now.unwrap_or_else(gleitzeit_actors::clock::utc_now);
    let activity = admin::activity(&session.settings.storage.url, now, SPAN).await?;
    Ok(Sample { activity, workflows, standings })
}

async fn list(
    store: &dyn Store,
    limit: usize,
) -> Result<(Vec<WorkflowSummary>, Vec<Option<Standing>>), Failure> {
    let of = |status, limit| ListFilter { status: Some(status), limit, ..ListFilter::default() };
    let mut workflows = store.list(of(WorkflowStatus::Running, limit)).await?;
    let left = limit - workflows.len();
    workflows.extend(store.list(of(WorkflowStatus::Pending, left)).await?);
    let standings = standing::of_all(store, &workflows).await?;
    Ok((workflows, standings))
}

fn text(session: &Session, sample: &Sample) -> String {
    let Sample { activity, workflows, standings } = sample;
    let view = session.view();
    let Activity { tasks, settled, providers, .. } = activity;
    let mut text = format!(
        "{}  {}\nworkflows: {} open\ntasks: {} executing, {} waiting, {} to be retried, {} settled",
        session.store_location(),
        report::moment(view.now),
        activity.workflows,
        tasks.executing,
        tasks.waiting,
        tasks.retry_pending,
        tasks.settled,
    );
    if tasks.outcome_unknown > 0 {
        let _ = write!(text, ", {} of unknown outcome", tasks.outcome_unknown);
    }
    let _ = write!(
        text,
        "\nlast {} s: {} workflows completed, {} ended otherwise, {} tasks",
        settled.seconds, settled.completed, settled.failed, settled.tasks
    );
    let mut text = gleitzeit_domain::printable::block(&text).into_owned();
    if !providers.is_empty() {
        let mut table = output::Lines::new(["provider", "executing", "to be retried"]);
        for it in providers {
            table.add([
                it.provider_id.as_str().into(),
                it.executing.to_string().into(),
                it.retry_pending.to_string().into(),
            ]);
        }
        let _ = write!(text, "\n\n{}", table.render(view.width, view.is_coloured));
    }
    if !workflows.is_empty() {
        let _ = write!(text, "\n\n{}", report::list_text(workflows, view));
        text.push_str(&standing::waiting(workflows, standings));
    }
    text
}
