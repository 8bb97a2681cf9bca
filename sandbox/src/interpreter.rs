//! Finds out once what a Python interpreter is, so that no job has to.
//!
//! The path in the settings may be a shim that looks for the real interpreter each time it is
//! started. The probe asks for the real path and for what the search path of modules would be, and
//! has the harness compiled; the answer is kept in a cache for the next start. Jobs then start the
//! real interpreter.
//!
//! Invariant: no code of an installed package runs outside of a jail. The interpreter is asked with
//! `-I -S`, and gets nothing of the service's environment but what a shim needs; lines of code in
//! `.pth` files are read as text, and run by a task that needs them.

mod cache;
mod editable;
pub(crate) mod version;

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use cache::CacheKey;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::SandboxError;

pub use version::{NEWEST, OLDEST, PythonVersion};

/// The harness: one module in several files. `wire.py` documents their order.
pub(crate) const HARNESS: &str = concat!(
    include_str!("harness/wire.py"),
    include_str!("harness/process.py"),
    include_str!("harness/source.py"),
    include_str!("harness/errors.py"),
    include_str!("harness/task.py"),
    include_str!("harness/zygote.py"),
);
/// That of a container: the same, and the supervisor.
#[cfg(feature = "docker")]
pub(crate) const DOCKER_HARNESS: &str = concat!(
    include_str!("harness/wire.py"),
    include_str!("harness/process.py"),
    include_str!("harness/source.py"),
    include_str!("harness/errors.py"),
    include_str!("harness/task.py"),
    include_str!("harness/zygote.py"),
    include_str!("harness/supervisor.py"),
);
pub(crate) const PROBE: &str = include_str!("probe.py");
/// No user's or package's code runs in the interpreter that is asked.
pub(crate) const PROBE_SWITCHES: [&str; 5] = ["-I", "-S", "-B", "-X", "utf8"];
/// A cold start of a slow machine is within it.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// A Python interpreter that was found fit.
#[derive(Debug, Clone)]
pub struct Interpreter {
    path: PathBuf,
    version: PythonVersion,
    search_path: Arc<[String]>,
    hooks: Arc<[Hook]>,
    harness: Arc<[u8]>,
    needs: Arc<InterpreterFiles>,
}

/// A line of code of a `.pth` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hook {
    file: String,
    line: String,
}

/// What it needs of the machine in a jail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct InterpreterFiles {
    /// The interpreter itself, behind every link and environment.
    pub(crate) program: PathBuf,
    /// The program that loads it.
    pub(crate) loader: Option<PathBuf>,
    /// Directories of the libraries that it and its extensions link to.
    pub(crate) libraries: Vec<PathBuf>,
    /// Directories of its own modules and of installed packages.
    pub(crate) packages: Vec<PathBuf>,
    /// Importable files of projects that are installed in editable form. They belong to a user, and
    /// other users may be unable to read them.
    pub(crate) editable: Vec<PathBuf>,
    /// The directories of these projects, as the search path names them.
    pub(crate) projects: Vec<PathBuf>,
    /// False if the interpreter was built without `ctypes`, which makes system calls.
    pub(crate) has_ctypes: bool,
}

#[derive(Deserialize)]
struct InterpreterInfo {
    executable: PathBuf,
    implementation: String,
    version: (u32, u32, u32),
    search_path: Vec<String>,
    /// Entries of `search_path` that belong to the interpreter or its environment.
    own: Vec<PathBuf>,
    /// Files and directories elsewhere that `.pth` files name.
    named: Vec<PathBuf>,
    hooks: Vec<(String, String)>,
    /// Files and directories that the answer depends on.
    depends: Vec<PathBuf>,
    real_executable: PathBuf,
    loader: Option<PathBuf>,
    libraries: Vec<PathBuf>,
    has_ctypes: bool,
    /// The harness, compiled.
    #[serde(skip)]
    harness: Vec<u8>,
}

impl Interpreter {
    /// Asks the interpreter at `path`: a path, or a name looked up in `PATH`. That of a virtual
    /// environment brings its packages.
    ///
    /// # Errors
    /// [`SandboxError::Interpreter`] when it does not start or is not `CPython`,
    /// [`SandboxError::Version`] when its version is not supported.
    pub async fn probe(path: &Path) -> Result<Self, SandboxError> {
        let question = CacheKey::new(path);
        if let Some(answer) = question.as_ref().and_then(CacheKey::answer)
            && let Ok(info) = InterpreterInfo::read(path, &answer)
            && let Ok(interpreter) = info.accept(path, true)
        {
            return Ok(interpreter);
        }
        let unusable = |reason: String| SandboxError::Interpreter { path: path.to_owned(), reason };
        let output = tokio::time::timeout(PROBE_TIMEOUT, ask(path))
            .await
            .map_err(|_| unusable(format!("no answer within {PROBE_TIMEOUT:?}")))?
            .map_err(|error| unusable(error.to_string()))?;
        let info = InterpreterInfo::of(path, &output)?;
        let depends = info.depends.clone();
        let interpreter = info.accept(path, true)?;
        if let Some(question) = question {
            question.keep(&output.stdout, &depends);
        }
        Ok(interpreter)
    }

    /// Reads the answer to the question of the probe, asked in another root.
    pub(crate) fn read(path: &Path, output: &std::process::Output) -> Result<Self, SandboxError> {
        InterpreterInfo::of(path, output)?.accept(path, false)
    }

    /// The real path of the interpreter.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the interpreter.
    pub fn version(&self) -> PythonVersion {
        self.version
    }

    /// The search path of modules, including the packages of its environment.
    pub(crate) fn search_path(&self) -> &[String] {
        &self.search_path
    }

    /// Code that packages want to be run before they can be imported.
    pub(crate) fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// The files of the machine that it needs in a jail.
    pub(crate) fn needs(&self) -> &InterpreterFiles {
        &self.needs
    }

    /// The harness, compiled for it.
    pub(crate) fn harness(&self) -> &[u8] {
        &self.harness
    }
}

impl InterpreterInfo {
    /// Reads what the probe printed, if it came to its end.
    fn of(path: &Path, output: &std::process::Output) -> Result<Self, SandboxError> {
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().last().unwrap_or("it printed nothing").to_owned();
            let reason = format!("it ended with {}: {last}", output.status);
            return Err(SandboxError::Interpreter { path: path.to_owned(), reason });
        }
        Self::read(path, &output.stdout)
    }

    fn read(path: &Path, answer: &[u8]) -> Result<Self, SandboxError> {
        let line = answer.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let (head, code) = answer.split_at(line);
        let info: Self = serde_json::from_slice(head).map_err(|error| {
            let reason = format!("its answer is invalid: {error}");
            SandboxError::Interpreter { path: path.to_owned(), reason }
        })?;
        Ok(Self { harness: code.get(1..).unwrap_or_default().into(), ..info })
    }

    /// Checks that the interpreter is supported. `is_here` is false if its paths belong to another
    /// root.
    fn accept(self, path: &Path, is_here: bool) -> Result<Interpreter, SandboxError> {
        if self.implementation != "cpython" {
            let reason = format!("it is {}, not CPython", self.implementation);
            return Err(SandboxError::Interpreter { path: path.to_owned(), reason });
        }
        let (major, minor, micro) = self.version;
        let version = PythonVersion { major, minor, micro };
        if version < OLDEST || (major, minor) > (NEWEST.major, NEWEST.minor) {
            return Err(SandboxError::Version { path: path.to_owned(), found: version });
        }
        let editable = if is_here { self.editable() } else { Vec::new() };
        Ok(Interpreter {
            path: self.executable,
            version,
            search_path: self.search_path.into(),
            hooks: self.hooks.into_iter().map(|(file, line)| Hook { file, line }).collect(),
            harness: self.harness.into(),
            needs: Arc::new(InterpreterFiles {
                program: self.real_executable,
                loader: self.loader,
                libraries: self.libraries,
                packages: self.own,
                projects: if editable.is_empty() { Vec::new() } else { self.named },
                editable,
                has_ctypes: self.has_ctypes,
            }),
        })
    }

    /// The importable files that `.pth` files name outside of the interpreter's own directories.
    fn editable(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for named in &self.named {
            if self.own.iter().any(|own| named.starts_with(own)) {
                continue;
            }
            let (found, is_cut) = editable::importable(named);
            if is_cut {
                tracing::warn!(
                    path = %named.display(),
                    "editable install too large to be exposed to tasks whole; install it \
                     without `-e`, or add its packages to `read_only_paths`"
                );
            }
            paths.extend(found);
        }
        paths
    }
}

/// Starts it with the probe, and with no more of the service's environment than a shim needs: it may
/// be anybody's program.
async fn ask(path: &Path) -> io::Result<std::process::Output> {
    let mut command = Command::new(path);
    command.args(PROBE_SWITCHES).args(["-c", PROBE]).env_clear().envs(cache::environment());
    converse(command, HARNESS.as_bytes()).await
}

/// Runs a command to its end with `input` to read.
pub(crate) async fn converse(
    mut command: Command,
    input: &[u8],
) -> io::Result<std::process::Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A write error is ignored: the exit status of a program that reads nothing says more.
        let _ = stdin.write_all(input).await;
    }
    child.wait_with_output().await
}
