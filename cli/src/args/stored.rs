//! Commands about workflows that are stored.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use gleitzeit::files::Input;
use gleitzeit_domain::{
    id::{TaskId, WorkflowId},
    workflow::WorkflowStatus,
};
use serde_json::Value;

use super::{
    super::{complete, when},
    ShowLogs, values,
};

/// `gleitzeit resolve`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("verdict").required(true).args(["completed", "failed", "retry"]))]
pub(crate) struct Resolve {
    /// Id of the workflow, at least 4 characters of its beginning, or `@last`.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: WorkflowId,
    /// Id of the task.
    pub(crate) task: TaskId,
    /// It completed, with this result.
    #[arg(long, value_name = "JSON", value_parser = values::json)]
    pub(crate) completed: Option<Value>,
    /// It failed, for this reason.
    #[arg(long, value_name = "MESSAGE")]
    pub(crate) failed: Option<String>,
    /// Run it again.
    #[arg(long)]
    pub(crate) retry: bool,
}

/// `gleitzeit list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only workflows of this status.
    #[arg(long, value_parser = values::status())]
    pub(crate) status: Option<WorkflowStatus>,
    /// Only workflows of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only those submitted since: `2h` or `3d` ago, a day (`2026-11-30`, UTC) or an RFC 3339 time.
    #[arg(long, value_name = "TIME", value_parser = when::since)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Only those submitted before; a day is covered to its end.
    #[arg(long, value_name = "TIME", value_parser = when::until)]
    pub(crate) until: Option<DateTime<Utc>>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    /// Skip so many of the newest.
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: usize,
}

/// `gleitzeit show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Id of the workflow, at least 4 characters of its beginning, or `@last`.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: WorkflowId,
    /// Show this task alone: its parameters, times, result or error.
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<TaskId>,
}

/// `gleitzeit logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Id of the workflow, at least 4 characters of its beginning, or `@last`.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: WorkflowId,
    /// Only this task; its lines are printed as they are.
    pub(crate) task: Option<TaskId>,
}

/// `gleitzeit retry`.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// Id of the workflow, at least 4 characters of its beginning, or `@last`.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: WorkflowId,
    /// Set inputs from a file, as of `run`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) input_file: Option<PathBuf>,
    /// Retry with another `${inputs.NAME}`; refused if a task that completed has read the old one.
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = values::input)]
    pub(crate) inputs: Vec<(String, Input)>,
    /// Whether output is shown.
    #[command(flatten)]
    pub(crate) logs: ShowLogs,
}

/// `gleitzeit events`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Events {
    /// Id of the workflow, at least 4 characters of its beginning, or `@last`.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: WorkflowId,
    /// Go on until the workflow has settled.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events after this number.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub(crate) after: u64,
    /// At most so many.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// `gleitzeit cancel`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Id of the workflow, at least 4 characters of its beginning, or `@last`.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: WorkflowId,
    /// Only this task and what waits for it.
    #[arg(long)]
    pub(crate) task: Option<TaskId>,
    /// Why; kept with the workflow.
    #[arg(long, default_value = "cancelled at the command line")]
    pub(crate) reason: String,
}

/// `gleitzeit resume`.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Id as of `show`; without it, every workflow that is not settled.
    #[arg(add = ArgValueCompleter::new(complete::ids))]
    pub(crate) id: Option<WorkflowId>,
    /// Whether output is shown.
    #[command(flatten)]
    pub(crate) logs: ShowLogs,
}
