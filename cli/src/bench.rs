//! `bench`: becomes `gleitzeit-bench`, the program of the package `loadgen`.

use std::{
    env, ffi::OsString, io, os::unix::process::CommandExt as _, path::PathBuf, process::Command,
};

use super::{global::Global, output::Failure};

const PROGRAM: &str = "gleitzeit-bench";

/// Replaces this process by the program beside this one, else by the one in `PATH`, with the same
/// arguments; returns if that fails.
pub(crate) fn become_bench(global: &Global, arguments: &[OsString]) -> Failure {
    let beside = beside();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for program in beside.iter().cloned().chain([PROGRAM.into()]) {
        last = command(program, global, arguments).exec();
        if last.kind() != io::ErrorKind::NotFound {
            break;
        }
    }
    let folder = beside.as_deref().and_then(|it| it.parent()).map(|it| it.display().to_string());
    let folder = folder.unwrap_or_else(|| "its folder".to_owned());
    Failure::infrastructure(format!(
        "`{PROGRAM}` cannot be started from {folder} or from PATH: {last}; install it by `cargo \
         install --path loadgen`, or build it beside this program by `cargo build --release -p \
         gleitzeit-loadgen`"
    ))
}

/// The program in the folder of this one.
fn beside() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.with_file_name(PROGRAM))
}

fn command(program: PathBuf, global: &Global, arguments: &[OsString]) -> Command {
    let Global { config, store, json, no_progress, verbose } = global;
    let mut command = Command::new(program);
    // By variables: others see the arguments of a process, and a URL may hold a password.
    if let Some(config) = config {
        command.env("GLEITZEIT_CONFIG", config);
    }
    if let Some(store) = store {
        command.env("GLEITZEIT_STORE", store.expose());
    }
    command.args(json.then_some("--json")).args(no_progress.then_some("--no-progress"));
    command.args((0..*verbose).map(|_| "--verbose"));
    command.args(arguments);
    command
}
