//! What can be said at the command line.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use gleitzeit::files::{self, Input};
use gleitzeit_domain::{
    duration,
    id::{ProviderId, TaskId, WorkflowId},
    workflow::WorkflowStatus,
};
use serde_json::Value;

use super::{global::Global, init::Init, version};

/// Runs workflows of typed tasks: durable, supervised, without a server.
#[derive(Debug, Parser)]
#[command(name = "gleitzeit", version, long_version = version::long(), max_term_width = 100, propagate_version = true)]
#[command(after_help = "Exit status: 0 success, 1 the workflow failed, 2 usage or invalid file, \
                        3 infrastructure, 130 interrupted.")]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a directory a project: settings, and a workflow that runs at once.
    Init(Init),
    /// Run a workflow file to its end.
    Run(Run),
    /// Store a workflow file for a process that serves; say its id.
    Submit(Submit),
    /// Run what is in the store, and what comes into it, until stopped.
    Serve(Serve),
    /// Say everything that is wrong with a workflow file, without running it.
    Check(Check),
    /// Draw a workflow file's tasks and what they wait for.
    Graph(Graph),
    /// Run Python code as one task.
    Exec(Exec),
    /// Run one task for each file of a directory.
    Batch(Batch),
    /// List workflows, the newest first.
    List(List),
    /// Show a workflow and its tasks.
    Show(Id),
    /// Show what happened in a workflow.
    Events(Events),
    /// Print what the code of a workflow's tasks wrote.
    Logs(Logs),
    /// Stop a workflow, or one task and what waits for it.
    Cancel(Cancel),
    /// Say what became of a task whose outcome is unknown.
    #[command(alias = "settle")]
    Resolve(Resolve),
    /// Continue workflows that a stopped or killed process left behind.
    Resume(Resume),
    /// Run the failed, skipped and cancelled tasks of a workflow again.
    Retry(Retry),
    /// Look into the database itself, and care for it.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[command(subcommand)]
    Db(Db),
    /// What can be called.
    #[command(subcommand)]
    Protocols(Protocols),
    /// Start the providers and say how they are; exit status 1 where one is down.
    Providers {
        /// Instead of that.
        #[command(subcommand)]
        action: Option<ProviderAction>,
    },
    /// Say what this machine offers for keeping Python code apart, and what is missing.
    #[cfg(feature = "python")]
    Doctor,
    /// Print the settings in force, secrets hidden.
    Config,
    /// Measure the engine on this machine; in memory unless `--store` says otherwise.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Bench {
        /// Options of `gleitzeit-bench`, the program that measures; `--help` lists them.
        #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print a script that completes commands in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What to do with a provider.
#[derive(Debug, Subcommand)]
pub(crate) enum ProviderAction {
    /// Give a provider a new instance and a fresh budget of restarts, in every process that serves the
    /// store.
    Restart {
        /// Its id, as `providers` lists it.
        id: ProviderId,
    },
}

impl Command {
    /// True for what brings new work to a database, and so makes it ready for that.
    pub(crate) const fn may_migrate(&self) -> bool {
        match self {
            Self::Run(_) | Self::Submit(_) | Self::Serve(_) | Self::Exec(_) | Self::Batch(_) => {
                true
            }
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(Db::Import { .. }) => true,
            _ => false,
        }
    }
}

/// A workflow file and its inputs.
#[derive(Debug, Args)]
pub(crate) struct FileAndInputs {
    /// Workflow in YAML, JSON or TOML; `-` for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Set inputs from a file in YAML, JSON or TOML, `-` for standard input; `--input` is above it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) input_file: Option<PathBuf>,
    /// Set `${inputs.NAME}`; the value is JSON where it is some, else text.
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = input)]
    pub(crate) inputs: Vec<(String, Input)>,
}

/// `gleitzeit check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The file and its inputs.
    #[command(flatten)]
    pub(crate) workflow: FileAndInputs,
    /// Take warnings for errors.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `gleitzeit run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The file and its inputs.
    #[command(flatten)]
    pub(crate) workflow: FileAndInputs,
    /// Id of the workflow, instead of the file's own or a new one.
    #[arg(long, value_parser = id)]
    pub(crate) id: Option<WorkflowId>,
    /// Whether output is shown.
    #[command(flatten)]
    pub(crate) logs: ShowLogs,
}

/// `gleitzeit submit`.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The file and its inputs.
    #[command(flatten)]
    pub(crate) workflow: FileAndInputs,
    /// Id of the workflow, instead of the file's own or a new one.
    #[arg(long, value_parser = id)]
    pub(crate) id: Option<WorkflowId>,
    /// Wait for its end, as `run` does.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `gleitzeit serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Run workflows; the only thing that can be served.
    #[arg(long, required = true)]
    pub(crate) engine: bool,
    /// Answer `GET /healthz` at this address: 200 while engine, store and lease are well, else 503.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub(crate) health: Option<SocketAddr>,
}

/// `gleitzeit resolve`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("verdict").required(true).args(["completed", "failed", "retry"]))]
pub(crate) struct Resolve {
    /// Id of the workflow.
    pub(crate) id: WorkflowId,
    /// Id of the task.
    pub(crate) task: TaskId,
    /// It completed, with this result.
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(crate) completed: Option<Value>,
    /// It failed, for this reason.
    #[arg(long, value_name = "MESSAGE")]
    pub(crate) failed: Option<String>,
    /// Run it again.
    #[arg(long)]
    pub(crate) retry: bool,
}

/// `gleitzeit graph`.
#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// The file and its inputs.
    #[command(flatten)]
    pub(crate) workflow: FileAndInputs,
    /// Language of the drawing.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Drawing,
}

/// Language of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Drawing {
    /// Mermaid, as Markdown files show it.
    #[default]
    Mermaid,
    /// DOT, for Graphviz.
    Dot,
}

/// `gleitzeit exec`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["file", "code"]))]
pub(crate) struct Exec {
    /// Python file; `-` for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Python code.
    #[arg(short, long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) code: Option<String>,
    /// JSON object that the code sees as `context`.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub(crate) context: Option<Value>,
    /// Time that the code may take, in seconds or with a unit: `90`, `5m`.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<f64>,
}

/// `gleitzeit batch`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["prompt", "script"]))]
pub(crate) struct Batch {
    /// Directory of the files.
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
    /// Which files, as a glob; `**` crosses directories.
    #[arg(long, default_value = "*")]
    pub(crate) pattern: String,
    /// Ask a language model this about each file; one with eyes where it is an image.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Run this Python file on each file; it sees `context["file_path"]`.
    #[arg(long = "file", id = "script", value_name = "SCRIPT", value_hint = ValueHint::FilePath)]
    pub(crate) script: Option<PathBuf>,
    /// Model for `--prompt`.
    #[arg(long, requires = "prompt")]
    pub(crate) model: Option<String>,
    /// Calls at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_parallel: Option<u32>,
    /// Directory for the results in JSON and Markdown.
    #[arg(long, value_name = "DIR", default_value = "gleitzeit-results", value_hint = ValueHint::DirPath)]
    pub(crate) output: PathBuf,
}

/// `gleitzeit list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only workflows of this status.
    #[arg(long, value_parser = status)]
    pub(crate) status: Option<WorkflowStatus>,
    /// Only workflows of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    /// Skip so many of the newest.
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: usize,
}

/// `gleitzeit logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Id of the workflow.
    pub(crate) id: WorkflowId,
    /// Only this task; its lines are printed as they are.
    pub(crate) task: Option<TaskId>,
}

/// `gleitzeit retry`.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// Id of the workflow.
    pub(crate) id: WorkflowId,
    /// Whether output is shown.
    #[command(flatten)]
    pub(crate) logs: ShowLogs,
}

/// Whether the output of tasks is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ShowLogs {
    /// Print what each task wrote, on standard error, when the task ends.
    #[arg(long)]
    pub(crate) logs: bool,
}

/// A workflow's id.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Id of the workflow.
    pub(crate) id: WorkflowId,
}

/// `gleitzeit events`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Events {
    /// Id of the workflow.
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
    /// Id of the workflow.
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
    /// Id of the workflow; without it, every workflow that is not settled.
    pub(crate) id: Option<WorkflowId>,
    /// Whether output is shown.
    #[command(flatten)]
    pub(crate) logs: ShowLogs,
}

/// `gleitzeit db`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Say what is in it: its schema, how many of what, its size, which processes work on it.
    Status,
    /// Say everything in it that contradicts itself; exit status 1 where there is something.
    Check,
    /// Make the database where there is none, and bring its schema up to date.
    Migrate {
        /// Only say what would be done.
        #[arg(long)]
        plan: bool,
    },
    /// Give back the space of what was forgotten.
    Vacuum,
    /// Write all workflows to a file, one a line, as JSON.
    Export {
        /// The file, which must not exist; `-` for standard output.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Take in the workflows of such a file; those that are there already stay as they are.
    Import {
        /// The file; `-` for standard input.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// `gleitzeit protocols`.
#[derive(Debug, Subcommand)]
pub(crate) enum Protocols {
    /// List protocols and their methods.
    List(ProtocolFile),
    /// Show a protocol; with `--json` as JSON Schema.
    Show {
        /// `name/version`, or a name for its newest version.
        protocol: String,
        /// More protocols.
        #[command(flatten)]
        more: ProtocolFile,
    },
    /// Check parameters against a method.
    Validate {
        /// `name/version`, or a name for its newest version.
        protocol: String,
        /// Name of the method.
        method: String,
        /// JSON file of the parameters; `-` for standard input.
        #[arg(value_hint = ValueHint::FilePath)]
        params: PathBuf,
        /// More protocols.
        #[command(flatten)]
        more: ProtocolFile,
    },
}

/// Protocols besides those built in and those of the settings' directory.
#[derive(Debug, Args)]
pub(crate) struct ProtocolFile {
    /// File of a protocol, in TOML.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) protocol_file: Vec<PathBuf>,
}

fn input(text: &str) -> Result<(String, Input), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if name.is_empty() {
        return Err(format!("`{text}` has no name before the `=`"));
    }
    Ok((name.to_owned(), files::input(value)?))
}

fn id(text: &str) -> Result<WorkflowId, String> {
    if text.is_empty() {
        return Err("an id has at least one character".to_owned());
    }
    Ok(WorkflowId::from(text))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:8080".to_owned())
}

fn json(text: &str) -> Result<Value, String> {
    files::json_value(text)
}

fn object(text: &str) -> Result<Value, String> {
    match files::json_value(text)? {
        value @ Value::Object(_) => Ok(value),
        _ => Err("it is JSON, but no object".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match duration::parse(text) {
        Ok(span) if !span.is_zero() => Ok(span.as_secs_f64()),
        Ok(_) => Err("expected a number of seconds above 0".to_owned()),
        Err(why) => Err(format!("{why}; expected {}", duration::EXPECTED)),
    }
}

fn status(text: &str) -> Result<WorkflowStatus, String> {
    WorkflowStatus::from_name(text).ok_or_else(|| {
        let known = WorkflowStatus::ALL.map(WorkflowStatus::as_str).join(", ");
        format!("expected one of {known}")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use serde_json::json;

    use super::*;

    /// clap finds contradictions in the declarations only when asked.
    #[test]
    fn the_declarations_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    /// `--input n=3` gives a number, `--input city=Berlin` a text.
    #[test]
    fn inputs_are_json_where_they_can_be() {
        let value = |text: &str| input(text).unwrap().1.value;
        assert_eq!(input("n=3").unwrap().0, "n");
        assert_eq!(value("n=3"), json!(3));
        assert_eq!(value("city=Berlin"), json!("Berlin"));
        assert_eq!(value("list=[1]"), json!([1]));
        assert_eq!(value("eq=a=b"), json!("a=b"));
        assert!(input("n=18446744073709551616").is_err());
        assert!(input("nothing").is_err());
        assert!(input("=x").is_err());
    }
}
