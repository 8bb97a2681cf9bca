//! Finds out once what a Python interpreter is, so that no job has to.
//!
//! The path in the settings may be a shim that looks for the real interpreter each time it is
//! started, and a plain start imports `site`, which takes longer than most jobs. The probe does both
//! once: it asks for the real path and for the module search path that `site` makes, and has the
//! harness compiled. Jobs then start the real interpreter without `site`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::SandboxError;

/// The oldest supported version.
pub const OLDEST: Version = Version { major: 3, minor: 9, micro: 0 };
/// The newest supported minor version.
pub const NEWEST: Version = Version { major: 3, minor: 14, micro: 0 };

/// One module in parts; each is a text of its own, and their order is told in the first.
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
/// A cold start of a slow machine is within it.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// A version of Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3.
    pub major: u32,
    /// 11 of 3.11.
    pub minor: u32,
    /// 7 of 3.11.7.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A Python interpreter that was found fit.
#[derive(Debug, Clone)]
pub struct Interpreter {
    path: PathBuf,
    version: Version,
    search_path: Arc<[String]>,
    harness: Arc<[u8]>,
    needs: Arc<Needs>,
}

/// What it needs of the machine in a jail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    /// The interpreter itself, behind every link and environment.
    pub(crate) program: PathBuf,
    /// The program that loads it.
    pub(crate) loader: Option<PathBuf>,
    /// Directories of the libraries that it and its extensions link to.
    pub(crate) libraries: Vec<PathBuf>,
    /// False where it was built without the module that reaches the kernel.
    pub(crate) has_ctypes: bool,
}

#[derive(Deserialize)]
struct Told {
    executable: PathBuf,
    implementation: String,
    version: (u32, u32, u32),
    search_path: Vec<String>,
    real_executable: PathBuf,
    loader: Option<PathBuf>,
    libraries: Vec<PathBuf>,
    has_ctypes: bool,
}

impl Interpreter {
    /// Asks the interpreter at `path`: a path, or a name looked up in `PATH`. That of a virtual
    /// environment brings its packages.
    ///
    /// # Errors
    /// [`SandboxError::Interpreter`] when it does not start or is not `CPython`,
    /// [`SandboxError::Version`] when its version is not supported.
    pub async fn probe(path: &Path) -> Result<Self, SandboxError> {
        let unusable = |reason: String| SandboxError::Interpreter { path: path.to_owned(), reason };
        let output = tokio::time::timeout(PROBE_TIMEOUT, ask(path))
            .await
            .map_err(|_| unusable(format!("no answer within {PROBE_TIMEOUT:?}")))?
            .map_err(|error| unusable(error.to_string()))?;
        Self::read(path, &output)
    }

    /// Reads the answer to the question of the probe.
    pub(crate) fn read(path: &Path, output: &std::process::Output) -> Result<Self, SandboxError> {
        let unusable = |reason: String| SandboxError::Interpreter { path: path.to_owned(), reason };
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().last().unwrap_or("it printed nothing").to_owned();
            return Err(unusable(format!("it ended with {}: {last}", output.status)));
        }
        let line = output.stdout.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let (head, code) = output.stdout.split_at(line);
        let told: Told = serde_json::from_slice(head)
            .map_err(|error| unusable(format!("its answer is none: {error}")))?;
        if told.implementation != "cpython" {
            return Err(unusable(format!("it is {}, not CPython", told.implementation)));
        }
        let (major, minor, micro) = told.version;
        let version = Version { major, minor, micro };
        if version < OLDEST || (major, minor) > (NEWEST.major, NEWEST.minor) {
            return Err(SandboxError::Version { path: path.to_owned(), found: version });
        }
        Ok(Self {
            path: told.executable,
            version,
            search_path: told.search_path.into(),
            harness: code.get(1..).unwrap_or_default().into(),
            needs: Arc::new(Needs {
                program: told.real_executable,
                loader: told.loader,
                libraries: told.libraries,
                has_ctypes: told.has_ctypes,
            }),
        })
    }

    /// The real path of the interpreter.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it looks for modules, the packages of its environment included.
    pub(crate) fn search_path(&self) -> &[String] {
        &self.search_path
    }

    /// What it needs of the machine in a jail.
    pub(crate) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The harness, compiled for it.
    pub(crate) fn harness(&self) -> &[u8] {
        &self.harness
    }
}

/// Starts it with the probe. Its environment stays the service's: a shim needs it, and the probe
/// is our own code.
async fn ask(path: &Path) -> io::Result<std::process::Output> {
    let mut command = Command::new(path);
    command.args(["-I", "-B", "-X", "utf8", "-c", PROBE]);
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
        // A program that reads nothing tells more by how it ends.
        let _ = stdin.write_all(input).await;
    }
    child.wait_with_output().await
}
