//! The commands and options of the command line.

mod stored;
mod values;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint, builder::NonEmptyStringValueParser};
use clap_complete::{ArgValueCompleter, Shell};
use gleitzeit::files::Input;
use gleitzeit_domain::id::{ProviderId, WorkflowId};
use serde_json::Value;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::top::Top;
use super::{complete, delete::Delete, global::Global, init::Init, version};

pub(crate) use stored::{Cancel, Events, List, Logs, Resolve, Resume, Retry, Show};

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
    Show(Show),
    /// Show what runs now; on a terminal again and again.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    Top(Top),
    /// Show what happened in a workflow.
    Events(Events),
    /// Print what the code of a workflow's tasks wrote.
    Logs(Logs),
    /// Stop a workflow, or one task and what waits for it.
    Cancel(Cancel),
    /// Say what became of a task whose outcome is unknown.
    #[command(alias = "settle")]
    Resolve(Resolve),
    /// Continue workflows that a stopped or killed process left.
    Resume(Resume),
    /// Run the failed and cancelled tasks, and those that wait for them, of a workflow again.
    Retry(Retry),
    /// Delete settled workflows with their tasks, results and events.
    Delete(Delete),
    /// Inspect and maintain the database.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[command(subcommand)]
    Db(Db),
    /// List, show and check protocols and their methods.
    #[command(subcommand)]
    Protocols(Protocols),
    /// Start the providers and report their health; exit status 1 if one is down.
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
    /// Print the JSON Schema of workflow files, for editors.
    Schema,
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
    /// The id of a stored workflow that it names, as it was written.
    pub(crate) fn stored_id_mut(&mut self) -> Option<&mut WorkflowId> {
        match self {
            Self::Show(it) => Some(&mut it.id),
            Self::Events(it) => Some(&mut it.id),
            Self::Logs(it) => Some(&mut it.id),
            Self::Cancel(it) => Some(&mut it.id),
            Self::Resolve(it) => Some(&mut it.id),
            Self::Resume(it) => it.id.as_mut(),
            Self::Retry(it) => Some(&mut it.id),
            _ => None,
        }
    }

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
    /// Set `${inputs.NAME}`; the value is JSON if it can be read as JSON, else text.
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = values::input)]
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
    #[arg(long, value_parser = values::id)]
    pub(crate) id: Option<WorkflowId>,
    /// Write how each task ended to a file in the XML of `JUnit`, for a build server.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
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
    #[arg(long, value_parser = values::id)]
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
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::address)]
    pub(crate) health: Option<SocketAddr>,
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
    #[arg(long, value_name = "JSON", value_parser = values::object)]
    pub(crate) context: Option<Value>,
    /// Time that the code may take, in seconds or with a unit: `90`, `5m`.
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
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
    /// Ask a language model this about each file; a vision model if it is an image.
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

/// Whether the output of tasks is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ShowLogs {
    /// Print what each task wrote, on standard error, when the task ends.
    #[arg(long)]
    pub(crate) logs: bool,
}

/// `gleitzeit db`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Say what is in it: its schema, how many of what, its size, which processes work on it.
    Status,
    /// Report rows that contradict each other; exit status 1 if there are any.
    Check,
    /// Make the database if there is none, and bring its schema up to date.
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
        #[arg(add = ArgValueCompleter::new(complete::protocols))]
        protocol: String,
        /// More protocols.
        #[command(flatten)]
        more: ProtocolFile,
    },
    /// Check parameters against a method.
    Validate {
        /// `name/version`, or a name for its newest version.
        #[arg(add = ArgValueCompleter::new(complete::protocols))]
        protocol: String,
        /// Name of the method.
        #[arg(add = ArgValueCompleter::new(complete::methods))]
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
        let value = |text: &str| values::input(text).unwrap().1.value;
        assert_eq!(values::input("n=3").unwrap().0, "n");
        assert_eq!(value("n=3"), json!(3));
        assert_eq!(value("city=Berlin"), json!("Berlin"));
        assert_eq!(value("list=[1]"), json!([1]));
        assert_eq!(value("eq=a=b"), json!("a=b"));
        assert!(values::input("n=18446744073709551616").is_err());
        assert!(values::input("nothing").is_err());
        assert!(values::input("=x").is_err());
    }
}
