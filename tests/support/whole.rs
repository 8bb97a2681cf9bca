//! What tests of a whole runtime share: settings that write nothing, a provider whose calls wait
//! until they are let through, and the law of event sequences.

use std::{fmt::Display, future::Future, sync::Arc, time::Duration};

use gleitzeit::{
    Delivery, Effect, Event, Handle, MethodSpec, ParameterSpec, ProtocolSpec, ProviderSpec,
    ProviderState, ProviderStatus, Runtime, RuntimeBuilder, Settings, Subscription, TaskSpec,
    WorkflowSpec, providers::echo,
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

/// Nothing that a test waits for takes this long, on the slowest machine.
const TIMEOUT: Duration = Duration::from_mins(2);

/// What the future gives, unless it hangs.
pub(crate) async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(TIMEOUT, future).await;
    waited.unwrap_or_else(|_| panic!("{what}: not after {TIMEOUT:?}"))
}

/// Settings with a store in memory, and `text` besides.
pub(crate) fn settings(text: &str) -> Settings {
    Settings::from_toml(&format!("storage.url = \"memory\"\n{text}")).expect("sound settings")
}

/// Settings with a store in the SQLite file at `path`, and `text` besides.
pub(crate) fn sqlite_settings(path: &std::path::Path, text: &str) -> Settings {
    let url = format!("storage.url = \"sqlite:{}\"\n{text}", path.display());
    Settings::from_toml(&url).expect("sound settings")
}

/// A runtime with the echo provider and nothing else.
pub(crate) fn echo_builder(settings: Settings) -> RuntimeBuilder {
    Runtime::builder(settings).without_settings_providers().provider(echo::spec("echo"))
}

/// The same, started, with a store in memory.
pub(crate) async fn echo_runtime() -> Runtime {
    echo_builder(settings("")).start().await.expect("it starts")
}

/// Waits until every provider takes calls.
pub(crate) async fn all_serve(handle: &Handle) {
    let serving = |it: &ProviderStatus| it.state == ProviderState::Serving;
    within("the providers to serve", async {
        while !handle.providers().await.expect("it runs").iter().all(serving) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A task that echoes its own id.
pub(crate) fn echo_task(id: &str) -> TaskSpec {
    TaskSpec::new(id, "echo/echo").params(json!({ "text": id }))
}

/// A workflow of one such task.
pub(crate) fn echo_workflow(name: &str) -> WorkflowSpec {
    WorkflowSpec::new(name).task(echo_task("only"))
}

/// The test's end of a provider of `gate/v1.0`, whose calls of `pass` wait.
pub(crate) struct Gate {
    /// The task of each call that began.
    pub(crate) started: mpsc::UnboundedReceiver<String>,
    /// One permit lets one call through.
    pub(crate) open: Arc<Semaphore>,
    /// The task of each call that was cut off.
    pub(crate) dropped: mpsc::UnboundedReceiver<String>,
}

impl Gate {
    /// The task of the next call that begins.
    pub(crate) async fn entered(&mut self) -> String {
        within("a call at the gate", self.started.recv()).await.expect("the provider lives")
    }

    /// Lets so many calls through.
    pub(crate) fn let_through(&self, calls: usize) {
        self.open.add_permits(calls);
    }

    /// The task of the next call that is cut off.
    pub(crate) async fn cut_off(&mut self) -> String {
        within("a call to be cut off", self.dropped.recv()).await.expect("the provider lives")
    }
}

/// Reports a call that is dropped before its end.
struct DropReport(Option<(String, mpsc::UnboundedSender<String>)>);

impl DropReport {
    fn not_needed(&mut self) {
        self.0 = None;
    }
}

impl Drop for DropReport {
    fn drop(&mut self) {
        if let Some((task, sender)) = self.0.take() {
            let _ = sender.send(task);
        }
    }
}

/// `gate/v1.0`, which has one method, `pass`.
pub(crate) fn gate_protocol() -> ProtocolSpec {
    let pass = MethodSpec { effect: Effect::Idempotent, ..MethodSpec::new("pass") }
        .param("note", ParameterSpec::string().optional());
    ProtocolSpec::new("gate", "v1.0".parse().expect("a version")).method(pass)
}

/// A provider of it, and the test's end.
pub(crate) fn gate(id: &str) -> (ProviderSpec, Gate) {
    let (started_sender, started) = mpsc::unbounded_channel();
    let (dropped_sender, dropped) = mpsc::unbounded_channel();
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let spec = ProviderSpec::from_fn(id, "gate/v1.0", move |call| {
        let task = call.task_id.to_string();
        let mut report = DropReport(Some((task.clone(), dropped_sender.clone())));
        let (started_sender, gate) = (started_sender.clone(), Arc::clone(&gate));
        async move {
            let _ = started_sender.send(task);
            gate.acquire().await.expect("never closed").forget();
            report.not_needed();
            Ok(json!("through"))
        }
    });
    (spec.expect("a protocol id"), Gate { started, open, dropped })
}

/// A task that waits at the gate.
pub(crate) fn gate_task(id: &str) -> TaskSpec {
    TaskSpec::new(id, "gate/pass")
}

/// The events of a workflow are numbered 1, 2, 3 …, begin with its submission and end with its end.
pub(crate) fn check_events(events: &[Event]) {
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    let whole: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(sequences, whole, "of {:?}", events.first().map(|event| &event.workflow_id));
    let types = event_types(events);
    assert_eq!(types.first(), Some(&"workflow:submitted"), "{types:?}");
    let ends = ["workflow:completed", "workflow:failed", "workflow:cancelled"];
    assert!(types.last().is_some_and(|last| ends.contains(last)), "{types:?}");
}

/// Their types, in order.
pub(crate) fn event_types(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.data.event_type()).collect()
}

/// The next event of a listener that keeps up.
pub(crate) async fn next_event(listener: &mut Subscription) -> Arc<Event> {
    match within("an event", listener.next()).await {
        Some(Delivery::Event(event)) => event,
        other => panic!("{other:?} in place of an event"),
    }
}
