//! The options of every command: which settings and which store, how much is printed and logged.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use gleitzeit::settings::StoreUrl;

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Settings file, instead of the project's `gleitzeit.toml` and the one that `GLEITZEIT_ENV` names.
    #[arg(long, global = true, value_name = "FILE", env = "GLEITZEIT_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Where workflows are kept: `sqlite:PATH`, `postgres://…` or `memory`.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "GLEITZEIT_STORE",
        hide_env_values = true
    )]
    pub(crate) store: Option<StoreUrl>,
    /// Print one JSON document on standard output, and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress: neither a bar on a terminal nor a line for each task elsewhere.
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Log more: once for what happens, twice for details.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}
