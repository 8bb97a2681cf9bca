//! A job as it goes over a line to the harness: frames of a length and as many bytes.
//!
//! One that is alone in its process gets the harness, the header and the source; a zygote's child
//! has the harness already.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Interpreter, Job, Mode, Policy, interpreter::Hook};

#[derive(Serialize)]
struct Header<'a> {
    mode: &'static str,
    filename: &'a str,
    is_file: bool,
    network: bool,
    stdin: &'a str,
    environment: &'a std::collections::BTreeMap<String, String>,
    imports: &'a [String],
    globals: &'a Map<String, Value>,
    policy: &'a Policy,
    limits: std::collections::BTreeMap<&'static str, u64>,
    result_max_bytes: usize,
    search_path: &'a [String],
    hooks: &'a [Hook],
}

/// All that a fresh interpreter is told, which has the bootstrap only.
pub(crate) fn with_harness(interpreter: &Interpreter, job: &Job) -> Vec<u8> {
    let mut frames = Vec::new();
    put(&mut frames, interpreter.harness());
    put_job(&mut frames, interpreter, job, &job.stdin);
    frames
}

/// All that a child of a zygote is told. What it reads from standard input is given to it as a
/// descriptor.
pub(crate) fn of_job(interpreter: &Interpreter, job: &Job) -> Vec<u8> {
    let mut frames = Vec::new();
    put_job(&mut frames, interpreter, job, "");
    frames
}

/// All that a supervisor is told of a task: its time limit in milliseconds, and the job.
#[cfg(feature = "docker")]
pub(crate) fn with_limit(interpreter: &Interpreter, job: &Job) -> Vec<u8> {
    let mut frames = Vec::new();
    let limit = u64::try_from(job.limits.timeout.as_millis()).unwrap_or(u64::MAX);
    put(&mut frames, &limit.min(1 << 40).to_be_bytes());
    put_job(&mut frames, interpreter, job, &job.stdin);
    frames
}

fn put_job(out: &mut Vec<u8>, interpreter: &Interpreter, job: &Job, stdin: &str) {
    let header = Header {
        mode: match job.mode {
            Mode::Execute => "execute",
            Mode::Validate => "validate",
        },
        filename: &job.source.filename,
        is_file: job.source.is_file,
        network: job.network,
        stdin,
        environment: &job.environment,
        imports: &job.imports,
        globals: &job.globals,
        policy: &job.policy,
        limits: job.limits.resource_limits(),
        result_max_bytes: job.limits.result_max_bytes,
        search_path: interpreter.search_path(),
        hooks: interpreter.hooks(),
    };
    // Maps with text keys only: there is nothing in it that cannot be written.
    put(out, &serde_json::to_vec(&header).unwrap_or_default());
    put(out, &job.source.bytes);
}

/// Adds a frame to `out`.
pub(crate) fn put(out: &mut Vec<u8>, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(frame);
}
