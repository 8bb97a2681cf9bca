//! A provider that does what the parameters of a call say, and writes down what was asked of it.
//!
//! | parameter | meaning |
//! |---|---|
//! | `value` | the result; without it, the parameters |
//! | `sleep` | seconds before anything else |
//! | `gate` | then waits until the test opens the gate of this name |
//! | `fail` | fails with this code; `times`: only in so many first attempts |
//! | `text`, `retry_after`, `retryable` | go into that error |
//! | `panic` | panics: `"now"` at its first poll, `"once"` so in its first attempt, `"later"` after sleep and gate |

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    provider::{Call, ProviderSpec},
    workflow::WorkflowRecord,
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It runs.
    Running,
    /// It returned a result or an error, or panicked.
    Done,
    /// Its future was dropped before.
    Dropped,
}

/// One call as its provider saw it.
#[derive(Debug, Clone)]
pub(crate) struct CallLog {
    pub(crate) provider: String,
    pub(crate) workflow: String,
    pub(crate) task: String,
    pub(crate) attempt: u32,
    pub(crate) params: Arc<Value>,
    /// Since the harness opened.
    pub(crate) began: Duration,
    pub(crate) ended: Option<Duration>,
    pub(crate) ending: Ending,
}

#[derive(Debug)]
struct Notes {
    calls: Vec<CallLog>,
    gates: HashMap<String, Arc<Semaphore>>,
    opened_at: Instant,
    /// Most calls at once, by provider; `""` for all together.
    peaks: BTreeMap<String, usize>,
    /// How many calls run, by provider.
    running: BTreeMap<String, usize>,
    /// Memory leased by the calls that run, in MiB, and the most it ever was.
    memory: u64,
    memory_peak: u64,
    escapes_expected: bool,
}

/// The calls that scripted providers noted, and the gates that hold them.
#[derive(Debug, Clone)]
pub(crate) struct Script(Arc<Mutex<Notes>>);

impl Default for Script {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Notes {
            calls: Vec::new(),
            gates: HashMap::new(),
            opened_at: Instant::now(),
            peaks: BTreeMap::new(),
            running: BTreeMap::new(),
            memory: 0,
            memory_peak: 0,
            escapes_expected: false,
        })))
    }
}

impl Script {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap()
    }

    pub(crate) fn restart_clock(&self) {
        self.notes().opened_at = Instant::now();
    }

    /// Time since the harness opened.
    pub(crate) fn now(&self) -> Duration {
        self.notes().opened_at.elapsed()
    }

    /// A provider that follows the script.
    pub(crate) fn provider(&self, id: &str, protocol: &str) -> ProviderSpec {
        let (script, name) = (self.clone(), id.to_owned());
        ProviderSpec::from_fn(id, protocol, move |call| script.clone().play(name.clone(), call))
            .unwrap()
    }

    /// A provider that never becomes ready.
    pub(crate) fn broken_provider(&self, id: &str, protocol: &str) -> ProviderSpec {
        let mut spec = self.provider(id, protocol);
        spec.factory = Arc::new(|| Err(TaskError::failed("as the script says")));
        spec
    }

    /// Lets pass all calls that wait at a gate, and all later ones.
    pub(crate) fn open(&self, gate: &str) {
        self.gate(gate).add_permits(Semaphore::MAX_PERMITS >> 4);
    }

    /// Lets one call pass.
    pub(crate) fn let_one_pass(&self, gate: &str) {
        self.gate(gate).add_permits(1);
    }

    fn gate(&self, name: &str) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(0));
        Arc::clone(self.notes().gates.entry(name.to_owned()).or_insert_with(new))
    }

    async fn play(self, provider: String, call: Call) -> Result<Value, TaskError> {
        let params = Arc::clone(&call.params);
        let mut entry = self.begin(provider, &call);
        let once = params["panic"] == "once" && call.attempt == 1;
        assert!(params["panic"] != "now" && !once, "as the script says");
        if let Some(seconds) = params["sleep"].as_f64() {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        if let Some(gate) = params["gate"].as_str() {
            self.gate(gate).acquire().await.unwrap().forget();
        }
        entry.done = true;
        assert!(params["panic"] != "later", "as the script says");
        match params["fail"].as_str() {
            Some(code) if params["times"].as_u64().is_none_or(|n| u64::from(call.attempt) <= n) => {
                Err(error(code, &params))
            }
            _ => Ok(params.get("value").cloned().unwrap_or_else(|| Value::clone(&params))),
        }
    }

    fn begin(&self, provider: String, call: &Call) -> Entry {
        let mut notes = self.notes();
        let began = notes.opened_at.elapsed();
        for key in [provider.as_str(), ""] {
            let count = notes.running.entry(key.to_owned()).or_default();
            *count += 1;
            let count = *count;
            let peak = notes.peaks.entry(key.to_owned()).or_default();
            *peak = count.max(*peak);
        }
        let memory = call.resources.memory_mib;
        notes.memory += memory;
        notes.memory_peak = notes.memory_peak.max(notes.memory);
        let at = notes.calls.len();
        notes.calls.push(CallLog {
            provider: provider.clone(),
            workflow: call.workflow_id.to_string(),
            task: call.task_id.to_string(),
            attempt: call.attempt,
            params: Arc::clone(&call.params),
            began,
            ended: None,
            ending: Ending::Running,
        });
        Entry { script: self.clone(), provider, at, memory, done: false }
    }

    /// Every call so far, in order.
    pub(crate) fn calls(&self) -> Vec<CallLog> {
        self.notes().calls.clone()
    }

    /// The calls of one task, in order.
    pub(crate) fn calls_of(&self, task: &str) -> Vec<CallLog> {
        self.notes().calls.iter().filter(|call| call.task == task).cloned().collect()
    }

    /// The tasks in the order of their calls.
    pub(crate) fn order(&self) -> Vec<String> {
        self.notes().calls.iter().map(|call| call.task.clone()).collect()
    }

    /// How many calls run now.
    pub(crate) fn running(&self) -> usize {
        self.notes().running.get("").copied().unwrap_or_default()
    }

    /// The most calls that ran at once: at one provider, or with `""` at all together.
    pub(crate) fn peak(&self, provider: &str) -> usize {
        self.notes().peaks.get(provider).copied().unwrap_or_default()
    }

    /// The most memory, in MiB, that was leased to running calls at once.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.notes().memory_peak
    }

    /// A provider will see the text `${`: it was written as `$${`.
    pub(crate) fn expect_escapes(&self) {
        self.notes().escapes_expected = true;
    }

    /// A literal reference never reaches a provider.
    pub(crate) fn check(&self) {
        let notes = self.notes();
        for call in &notes.calls {
            let text = call.params.to_string();
            assert!(notes.escapes_expected || !text.contains("${"), "{}: {text}", call.task);
        }
    }

    /// Each attempt was called at most once, and no attempt that the record does not know of.
    pub(crate) fn check_attempts(&self, record: &WorkflowRecord) {
        let calls = self.calls();
        for task in &record.tasks {
            let of_task = |call: &&CallLog| {
                call.workflow == record.id.as_str() && call.task == task.id.as_str()
            };
            let mut attempts: Vec<u32> =
                calls.iter().filter(of_task).map(|call| call.attempt).collect();
            let count = attempts.len();
            attempts.dedup();
            assert_eq!(attempts.len(), count, "{}: an attempt was called twice", task.id);
            assert!(attempts.is_sorted(), "{}: {attempts:?}", task.id);
        }
    }
}

fn error(code: &str, params: &Value) -> TaskError {
    let code = ErrorCode::from_name(code).unwrap();
    let text = params["text"].as_str().unwrap_or("as the script says");
    let mut error = TaskError::new(code, text.to_owned());
    if let Some(seconds) = params["retry_after"].as_f64() {
        error = error.retry_after(Duration::from_secs_f64(seconds));
    }
    if let Some(retryable) = params["retryable"].as_bool() {
        error = error.retryable(retryable);
    }
    error
}

/// Notes the end of a call, however it ends.
struct Entry {
    script: Script,
    provider: String,
    at: usize,
    memory: u64,
    done: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut notes = self.script.notes();
        for key in [self.provider.as_str(), ""] {
            *notes.running.get_mut(key).unwrap() -= 1;
        }
        notes.memory -= self.memory;
        let now = notes.opened_at.elapsed();
        let call = &mut notes.calls[self.at];
        call.ended = Some(now);
        let done = self.done || std::thread::panicking();
        call.ending = if done { Ending::Done } else { Ending::Dropped };
    }
}
