//! Questions to a jail that runs no tasks: whether it can be built, and which interpreter it has.

use std::path::{Path, PathBuf};

use super::{
    config::{launcher, layout, plain_spec},
    launcher::INIT_COMMAND,
    settings::JailSettings,
    spec::{ProgramKind, Spec},
    zygote,
};
use crate::{
    Interpreter, SandboxError, frames,
    interpreter::{HARNESS, PROBE, PROBE_SWITCHES, PROBE_TIMEOUT},
};

/// Builds a jail with nothing in it, to see that it can be had with these settings here. Takes
/// milliseconds.
///
/// # Errors
/// [`SandboxError::Unavailable`] with what is missing.
pub async fn available(settings: &JailSettings) -> Result<(), SandboxError> {
    let launcher = launcher(settings)?;
    let layout = layout(None, settings)?;
    let asked = ask(settings, plain_spec(settings, layout, ProgramKind::Check), &[]);
    let output = tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .map_err(|_| SandboxError::unavailable(format!("no answer within {PROBE_TIMEOUT:?}")))?
        .map_err(|error| zygote::no_launcher(&launcher, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.lines().last().unwrap_or("it ended without output");
    Err(SandboxError::unavailable(format!("the launcher failed: {stderr}")))
}

/// Asks the interpreter that is at `path` of the root file system in the settings.
pub(crate) async fn probe(
    path: &Path,
    settings: &JailSettings,
) -> Result<Interpreter, SandboxError> {
    let root = settings.root.as_deref().unwrap_or(Path::new("/"));
    let program = named_in(root, path).ok_or_else(|| SandboxError::Interpreter {
        path: path.to_owned(),
        reason: format!("there is none in the root `{}`", root.display()),
    })?;
    let unusable = |reason: String| SandboxError::Interpreter { path: path.to_owned(), reason };
    let arguments = PROBE_SWITCHES.iter().chain(&["-c", PROBE]).map(ToString::to_string).collect();
    let plain = plain_spec(settings, layout(None, settings)?, ProgramKind::Probe);
    let asked = ask(settings, Spec { program, arguments, ..plain }, HARNESS.as_bytes());
    let output = tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .map_err(|_| unusable(format!("no answer within {PROBE_TIMEOUT:?}")))?
        .map_err(|error| unusable(error.to_string()))?;
    Interpreter::read(path, &output)
}

/// Runs a launcher to its end; `input` is for its program to read.
async fn ask(
    settings: &JailSettings,
    spec: Spec,
    input: &[u8],
) -> std::io::Result<std::process::Output> {
    let launcher = launcher(settings).map_err(std::io::Error::other)?;
    let mut text = Vec::new();
    frames::put(&mut text, &serde_json::to_vec(&spec)?);
    text.extend_from_slice(input);
    let mut command = tokio::process::Command::new(launcher);
    command.arg(INIT_COMMAND).env_clear().current_dir("/").process_group(0);
    crate::interpreter::converse(command, &text).await
}

/// The path below `root` of `path`, or of a name in the usual directories of programs.
fn named_in(root: &Path, path: &Path) -> Option<PathBuf> {
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    // A link of that root resolves within it and not here, so only its presence is checked.
    let is_there = |path: &Path| below(path).symlink_metadata().is_ok();
    if path.is_absolute() {
        return is_there(path).then(|| path.to_owned());
    }
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(path))
        .find(|candidate| is_there(candidate))
}
