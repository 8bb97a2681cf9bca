//! The command line of `gleitzeit-bench`.

use std::{
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
};

use clap::{Args, Parser, ValueEnum, ValueHint};
use gleitzeit::settings::StoreUrl;
use serde::Serialize;

use crate::work::CallEffect;

/// Measures the engine on this machine; in memory unless `--store` names a database.
#[derive(Debug, Parser)]
#[command(name = "gleitzeit-bench", version, max_term_width = 100)]
#[command(after_help = "Exit status: 0 success, 2 usage or invalid settings, 3 all else.")]
pub(crate) struct Options {
    /// The measurement.
    #[command(flatten)]
    pub(crate) args: BenchArgs,
    /// Settings file, instead of the one that `GLEITZEIT_ENV` names.
    #[arg(long, value_name = "FILE", env = "GLEITZEIT_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The store under load: `sqlite:PATH`, `postgres://…` or `memory`.
    #[arg(long, value_name = "URL", env = "GLEITZEIT_STORE", hide_env_values = true)]
    pub(crate) store: Option<StoreUrl>,
    /// Print one JSON document on standard output, and nothing else there.
    #[arg(long)]
    pub(crate) json: bool,
    /// Accepted, as by every command of `gleitzeit`; no progress is shown.
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Log more: once for what happens, twice for details.
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The measurement.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// The load that drives the engine.
    #[arg(long, value_enum, default_value = "burn-down")]
    pub(crate) workload: Workload,
    /// Tasks, N.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) tasks: u64,
    /// Repetitions; the figures are medians.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) rounds: NonZeroU32,
    /// Workflows of `workflows` and `sustained` that are under way at once.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) in_flight: u64,
    /// Seconds after which `sustained` deletes a settled workflow.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) keep: f64,
    /// Effect of the calls of tasks outside.
    #[arg(long, value_enum, default_value = "pure")]
    pub(crate) effect: CallEffect,
    /// A commit survives the loss of power, or that of the process.
    #[arg(long, default_value = "full", value_parser = ["full", "normal"])]
    pub(crate) durability: String,
    /// Tasks executing at once.
    #[arg(long, value_name = "N", default_value = "1024")]
    pub(crate) max_concurrent_tasks: NonZeroU64,
    /// The level that the tasks of `python` run at; if absent, that of the settings.
    #[arg(long, value_name = "LEVEL", value_parser = ["process", "docker"])]
    pub(crate) sandbox: Option<String>,
    /// With `--sandbox docker`: the image, in place of that of the settings.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) docker_image: Option<String>,
    /// Submits, and waits to be killed.
    #[arg(long, hide = true)]
    pub(crate) hold: bool,
}

/// The load that drives the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// One workflow of N independent tasks.
    BurnDown,
    /// N workflows of one task.
    Workflows,
    /// One workflow of N tasks, each after the one before.
    Chain,
    /// One task, then N, then one that waits for all of them.
    FanOut,
    /// N workflows of one task, one at a time.
    Latency,
    /// N workflows of one Python task, one at a time.
    Python,
    /// N workflows of one task, left by a process that is killed, and recovered.
    Recovery,
    /// The same with one workflow of N tasks.
    RecoveryOne,
    /// N workflows of one task; by tenths, while settled ones are deleted.
    Sustained,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use clap::CommandFactory as _;

    use super::*;

    /// clap finds contradictions in the declarations only when asked.
    #[test]
    fn the_declarations_agree_with_each_other() {
        Options::command().debug_assert();
    }

    /// An option that the page lacks is found by nobody; one that is gone leads into an error.
    #[test]
    fn the_page_of_the_command_line_has_every_option() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
        let page = fs::read_to_string(page).unwrap();
        let (_, part) = page.split_once("\n### `gleitzeit-bench`\n").expect("a heading");
        let part = part.split("\n#").next().unwrap();
        let named = part.lines().filter_map(|line| line.strip_prefix("| `--"));
        let named: BTreeSet<&str> =
            named.map(|line| line.split(['`', ' ']).next().unwrap()).collect();
        let command = BenchArgs::augment_args(clap::Command::new("bench"));
        let options = command.get_arguments().filter(|it| !it.is_hide_set());
        let options: BTreeSet<&str> = options.filter_map(clap::Arg::get_long).collect();
        assert_eq!(named, options);
    }
}
