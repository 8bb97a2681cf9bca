//! A job: code, its input, and its limits.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use serde_json::{Map, Value};

use crate::{SandboxError, policy::Policy};

/// The code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The text as bytes: UTF-8, or for a file the encoding of its coding comment.
    pub bytes: Vec<u8>,
    /// The name that tracebacks show.
    pub filename: String,
    /// True for a script: `__file__` is set, and a coding comment counts.
    pub is_file: bool,
    /// Modules beside a script, by their paths below its directory: `helper.py`,
    /// `package/__init__.py`. They are imported before all others. Only for a script.
    pub modules: BTreeMap<String, Vec<u8>>,
}

impl Source {
    /// The name that tracebacks show for code that is in no file.
    pub const TEXT: &'static str = "<task>";

    /// Code that is in no file. A byte order mark before it is left out, as Python leaves it out of
    /// a file.
    pub fn text(code: impl Into<String>) -> Self {
        let code = code.into();
        let bytes = match code.strip_prefix('\u{feff}') {
            Some(rest) => rest.as_bytes().to_vec(),
            None => code.into_bytes(),
        };
        let filename = Self::TEXT.to_owned();
        Self { bytes, filename, is_file: false, modules: BTreeMap::new() }
    }
}

/// The action on the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Run it.
    #[default]
    Execute,
    /// Compile it and hold it against the policy, without running it.
    Validate,
}

/// How far a job may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock from the start of the process to its end.
    pub timeout: Duration,
    /// Address space in bytes, the interpreter's own included.
    pub memory_bytes: u64,
    /// A file that the job writes may not grow beyond this.
    pub file_bytes: u64,
    /// Files open at once.
    pub open_files: u64,
    /// Bytes kept of each of the two output streams.
    pub output_kept_bytes: usize,
    /// Bytes of both output streams together above which the job is killed.
    pub output_max_bytes: u64,
    /// A result may not be longer than this as JSON.
    pub result_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            memory_bytes: 512 << 20,
            file_bytes: 256 << 20,
            open_files: 64,
            output_kept_bytes: 64 << 10,
            output_max_bytes: 8 << 20,
            result_max_bytes: 1 << 20,
        }
    }
}

/// Asked for once: the answer takes the reading of several files.
static CORES: LazyLock<u64> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64));

impl Limits {
    /// The interpreter cannot start in less address space.
    pub const MEMORY_MIN_BYTES: u64 = 32 << 20;

    /// The limits that the process sets for itself before it runs the code, by Python's names.
    pub(crate) fn resource_limits(&self) -> BTreeMap<&'static str, u64> {
        // Processor time is summed over all threads. A job that computes on every core must not
        // reach this limit before its wall clock limit: it is a backstop only.
        let cores = *CORES;
        let cpu_seconds = (self.timeout.as_secs().saturating_add(2)).saturating_mul(cores);
        BTreeMap::from([
            ("RLIMIT_AS", self.memory_bytes.max(Self::MEMORY_MIN_BYTES)),
            ("RLIMIT_FSIZE", self.file_bytes),
            ("RLIMIT_NOFILE", self.open_files),
            ("RLIMIT_CORE", 0),
            ("RLIMIT_CPU", cpu_seconds.min(1 << 31)),
        ])
    }
}

/// One piece of code to be run or validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The code.
    pub source: Source,
    /// The action on the code.
    pub mode: Mode,
    /// The standard input.
    pub stdin: String,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Modules imported for it before it runs, each a dotted name.
    pub imports: Vec<String>,
    /// Globals that it finds: `context`, `attempt`.
    pub globals: Map<String, Value>,
    /// True gives the `repr` of the result as text, whatever it is. Without it, a result that JSON
    /// has no form for is an error with its place.
    pub result_as_repr: bool,
    /// The imports and calls that are allowed.
    pub policy: Policy,
    /// True allows network access, if the sandbox has it.
    pub network: bool,
    /// How far it may go.
    pub limits: Limits,
}

impl Job {
    /// Runs `code`, with nothing given and the default limits.
    pub fn execute(code: impl Into<String>) -> Self {
        Self {
            source: Source::text(code),
            mode: Mode::Execute,
            stdin: String::new(),
            environment: BTreeMap::new(),
            imports: Vec::new(),
            globals: Map::new(),
            result_as_repr: false,
            policy: Policy::default(),
            network: false,
            limits: Limits::default(),
        }
    }

    /// Validates `code`.
    pub fn validate(code: impl Into<String>) -> Self {
        Self { mode: Mode::Validate, ..Self::execute(code) }
    }

    /// Sets the wall clock limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// Adds a global.
    #[must_use]
    pub fn global(mut self, name: impl Into<String>, value: Value) -> Self {
        self.globals.insert(name.into(), value);
        self
    }

    /// Everything about it that can be wrong before a process is started.
    ///
    /// # Errors
    /// [`SandboxError::Environment`] and [`SandboxError::Import`], the first of them.
    pub fn check(&self) -> Result<(), SandboxError> {
        for (name, value) in &self.environment {
            if let Some(reason) = refused_variable(name, value) {
                return Err(SandboxError::Environment { name: name.clone(), reason });
            }
        }
        match self.imports.iter().find(|name| !is_module_name(name)) {
            Some(name) => Err(SandboxError::Import { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// The reason to reject a variable: its name is invalid, or it would change the process itself.
fn refused_variable(name: &str, value: &str) -> Option<&'static str> {
    if !is_identifier(name) || !name.is_ascii() {
        return Some("a name is made of the letters A to Z, digits and `_`");
    }
    if value.contains('\0') {
        return Some("its value contains a NUL character");
    }
    let name = name.to_ascii_uppercase();
    if name.starts_with("LD_") || name.starts_with("PYTHON") || name == "GLIBC_TUNABLES" {
        return Some("names that begin with `LD_` or `PYTHON` change the interpreter itself");
    }
    None
}

fn is_module_name(name: &str) -> bool {
    name.split('.').all(is_identifier)
}

fn is_identifier(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_numeric())
        && !name.is_empty()
        && name.chars().all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A variable that the loader or the interpreter obeys would undo the isolation.
    #[test]
    fn variables_that_steer_the_process_are_refused() {
        for name in
            ["LD_PRELOAD", "ld_library_path", "PYTHONPATH", "", "A=B", "1A", "A B", "Ä", "A\0B"]
        {
            let mut job = Job::execute("1");
            job.environment.insert(name.to_owned(), "x".to_owned());
            let refused = job.check().unwrap_err();
            assert!(matches!(refused, SandboxError::Environment { .. }), "{name}: {refused}");
        }
        let mut job = Job::execute("1");
        job.environment.insert("GREETING".to_owned(), "hello".to_owned());
        assert!(job.check().is_ok());
        job.environment.insert("GREETING".to_owned(), "he\0llo".to_owned());
        assert!(job.check().is_err());
    }

    /// Imports are names, never text that is run.
    #[test]
    fn imports_are_dotted_names_only() {
        for name in ["json; import os", "os as o", "", ".json", "json.", "a..b", "1a", "a-b"] {
            let mut job = Job::execute("1");
            job.imports.push(name.to_owned());
            assert!(matches!(job.check(), Err(SandboxError::Import { .. })), "{name}");
        }
        let mut job = Job::execute("1");
        job.imports = ["json", "os.path", "_thread", "größe"].map(str::to_owned).into();
        assert!(job.check().is_ok());
    }
}
