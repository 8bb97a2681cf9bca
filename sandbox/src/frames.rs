//! A job as it goes over a line to the harness: frames of a length and as many bytes.
//!
//! One that is alone in its process gets the harness, the header and the source; a zygote's child
//! has the harness already.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Interpreter, Job, Mode, Policy, interpreter::Hook};

#[derive(Serialize)]
struct JobHeader<'a> {
    mode: &'static str,
    filename: &'a str,
    is_file: bool,
    network: bool,
    stdin: &'a str,
    environment: Cow<'a, BTreeMap<String, String>>,
    imports: &'a [String],
    globals: &'a Map<String, Value>,
    policy: &'a Policy,
    limits: BTreeMap<&'static str, u64>,
    result_max_bytes: usize,
    result_as_repr: bool,
    /// Names and lengths of what follows the source in its frame.
    modules: Vec<(&'a str, usize)>,
    search_path: &'a [String],
    hooks: &'a [Hook],
}

/// The input of a fresh interpreter, which has only the bootstrap: the harness and the job.
pub(crate) fn with_harness(interpreter: &Interpreter, job: &Job) -> Vec<u8> {
    let mut frames = Vec::new();
    put(&mut frames, interpreter.harness());
    put_job(&mut frames, interpreter, job, &job.stdin, Cow::Borrowed(&job.environment));
    frames
}

/// The input of a child of a zygote. Its standard input is a descriptor of its own.
pub(crate) fn of_job(interpreter: &Interpreter, job: &Job) -> Vec<u8> {
    let mut frames = Vec::new();
    put_job(&mut frames, interpreter, job, "", Cow::Owned(at_home(&job.environment)));
    frames
}

/// The input of a supervisor for one task: the time limit in milliseconds, and the job.
#[cfg(feature = "docker")]
pub(crate) fn with_limit(interpreter: &Interpreter, job: &Job) -> Vec<u8> {
    let mut frames = Vec::new();
    let limit = u64::try_from(job.limits.timeout.as_millis()).unwrap_or(u64::MAX);
    put(&mut frames, &limit.min(1 << 40).to_be_bytes());
    put_job(&mut frames, interpreter, job, &job.stdin, Cow::Owned(at_home(&job.environment)));
    frames
}

fn put_job(
    out: &mut Vec<u8>,
    interpreter: &Interpreter,
    job: &Job,
    stdin: &str,
    environment: Cow<'_, BTreeMap<String, String>>,
) {
    let header = JobHeader {
        mode: match job.mode {
            Mode::Execute => "execute",
            Mode::Validate => "validate",
        },
        filename: &job.source.filename,
        is_file: job.source.is_file,
        network: job.network,
        stdin,
        environment,
        imports: &job.imports,
        globals: &job.globals,
        policy: &job.policy,
        limits: job.limits.resource_limits(),
        result_max_bytes: job.limits.result_max_bytes,
        result_as_repr: job.result_as_repr,
        modules: job.source.modules.iter().map(|(name, text)| (&**name, text.len())).collect(),
        search_path: interpreter.search_path(),
        hooks: interpreter.hooks(),
    };
    // Maps with text keys only: there is nothing in it that cannot be written.
    put(out, &serde_json::to_vec(&header).unwrap_or_default());
    let modules = job.source.modules.values();
    put_parts(out, std::iter::once(&job.source.bytes).chain(modules));
}

/// Adds a user name and a home directory, unless the job sets them. A task has neither on the
/// machine, and many libraries read them on import and fail without them.
pub(crate) fn at_home(own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut environment = own.clone();
    for (name, value) in [("HOME", "/task"), ("USER", "task"), ("LOGNAME", "task")] {
        environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    environment
}

/// Adds a frame to `out`.
pub(crate) fn put(out: &mut Vec<u8>, frame: &[u8]) {
    put_parts(out, std::iter::once(frame));
}

/// Adds one frame of several parts.
fn put_parts<P: AsRef<[u8]>>(out: &mut Vec<u8>, parts: impl Iterator<Item = P> + Clone) {
    let length: usize = parts.clone().map(|part| part.as_ref().len()).sum();
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part.as_ref());
    }
}
