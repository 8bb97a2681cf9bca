//! Random workflows, and how each must end.

use std::{sync::Arc, time::Duration};

use gleitzeit::{
    Backoff, Call, Effect, MethodSpec, OnDependencyFailure, ProtocolSpec, ProviderSpec,
    ResourceRequirements, RetryPolicy, Store, Supervision, TaskError, TaskSpec, TaskStatus,
    WorkflowSpec,
};
use proptest::prelude::*;
use serde_json::json;

use super::audit::{Audit, MEMORY_MIB};

/// How the calls of a task go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Well,
    Badly,
    /// Fails in its first attempt.
    WellInTheEnd,
    /// Takes its provider down in the first attempt.
    Panics,
    /// Well, and must not run twice.
    Once,
}

#[derive(Debug, Clone)]
struct RandomTask {
    behaviour: Behaviour,
    /// Whether it depends on each of the tasks before it.
    depends: Vec<bool>,
    runs_anyway: bool,
    memory: u64,
}

/// One workflow.
#[derive(Debug, Clone)]
pub(crate) struct Scenario(Vec<RandomTask>);

fn random_task() -> impl Strategy<Value = RandomTask> {
    let behaviour = prop_oneof![
        6 => Just(Behaviour::Well),
        1 => Just(Behaviour::Badly),
        2 => Just(Behaviour::WellInTheEnd),
        1 => Just(Behaviour::Panics),
        2 => Just(Behaviour::Once),
    ];
    let depends = prop::collection::vec(prop::bool::weighted(0.3), 8);
    (behaviour, depends, any::<bool>(), 0..=MEMORY_MIB / 2).prop_map(
        |(behaviour, depends, runs_anyway, memory)| RandomTask {
            behaviour,
            depends,
            runs_anyway,
            memory,
        },
    )
}

/// Some workflows of some tasks each.
pub(crate) fn scenarios() -> impl Strategy<Value = Vec<Scenario>> {
    let tasks = prop::collection::vec(random_task(), 1..8);
    prop::collection::vec(tasks.prop_map(Scenario), 10..25)
}

impl RandomTask {
    /// `method` is that of a call that may be made twice.
    fn spec(&self, index: usize, method: &str) -> TaskSpec {
        let method = if self.behaviour == Behaviour::Once { "trial/once" } else { method };
        let before: Vec<String> = self
            .depends
            .iter()
            .take(index)
            .enumerate()
            .filter(|(_, depends)| **depends)
            .map(|(at, _)| format!("t{at}"))
            .collect();
        // Refers to what it needs, where that has a result for certain.
        let references: Vec<String> = before
            .iter()
            .filter(|_| !self.runs_anyway)
            .map(|task| format!("${{{task}.index}}"))
            .collect();
        let params =
            json!({ "goes": format!("{:?}", self.behaviour), "index": index, "heard": references });
        let policy =
            if self.runs_anyway { OnDependencyFailure::Run } else { OnDependencyFailure::Skip };
        let retry = RetryPolicy {
            max_attempts: if self.behaviour == Behaviour::Badly { 1 } else { 3 },
            backoff: Backoff::Fixed,
            base_delay: Duration::from_millis(10),
            jitter: false,
            ..RetryPolicy::default()
        };
        let memory = ResourceRequirements { memory_mb: Some(self.memory), ..Default::default() };
        let spec = TaskSpec::new(format!("t{index}"), method)
            .params(params)
            .retry(retry)
            .resources(memory)
            .on_dependency_failure(policy);
        before.into_iter().fold(spec, TaskSpec::after)
    }

    fn end(&self, index: usize, before: &[TaskStatus]) -> TaskStatus {
        let mut needed = self.depends.iter().take(index).zip(before).filter(|(needs, _)| **needs);
        if !self.runs_anyway && needed.any(|(_, status)| *status != TaskStatus::Completed) {
            return TaskStatus::UpstreamFailed;
        }
        if self.behaviour == Behaviour::Badly { TaskStatus::Failed } else { TaskStatus::Completed }
    }
}

impl Scenario {
    /// The workflow of this number. Every other one is given no id, and calls without an effect:
    /// its first tasks may run before it is stored.
    pub(crate) fn spec(&self, number: usize) -> WorkflowSpec {
        let (spec, method) = if number.is_multiple_of(2) {
            (WorkflowSpec::new("trial").id(format!("w{number}")), "trial/run")
        } else {
            (WorkflowSpec::new("trial"), "trial/pure")
        };
        let tasks = self.0.iter().enumerate().map(|(index, task)| task.spec(index, method));
        tasks.fold(spec, WorkflowSpec::task)
    }

    /// How each task must end.
    pub(crate) fn ends(&self) -> Vec<TaskStatus> {
        self.0.iter().enumerate().fold(Vec::new(), |mut ends, (index, task)| {
            ends.push(task.end(index, &ends));
            ends
        })
    }
}

/// `trial/v1.0`.
pub(crate) fn protocol() -> ProtocolSpec {
    let method = |name: &str, effect| MethodSpec {
        effect,
        additional_params: true,
        ..MethodSpec::new(name)
    };
    ProtocolSpec::new("trial", "v1.0".parse().expect("a version"))
        .method(method("run", Effect::AtLeastOnce))
        .method(method("pure", Effect::Pure))
        .method(method("once", Effect::AtMostOnce))
}

/// A provider whose calls are looked at as they begin, by what `store` holds at that moment.
pub(crate) fn provider(audit: Arc<Audit>, store: Arc<dyn Store>) -> ProviderSpec {
    let run = move |call: Call| {
        let (audit, store) = (Arc::clone(&audit), Arc::clone(&store));
        async move {
            let _running = audit.begin(&*store, &call).await;
            let behaviour =
                call.param("goes").and_then(|it| it.as_str()).unwrap_or_default().to_owned();
            if behaviour == "Panics" && call.attempt == 1 {
                // A panic of which nobody needs to read.
                std::panic::resume_unwind(Box::new("as the test wants it"));
            }
            match behaviour.as_str() {
                "Badly" => Err(TaskError::failed("as the test wants it")),
                "WellInTheEnd" if call.attempt == 1 => Err(TaskError::new(
                    gleitzeit::ErrorCode::ConnectionLost,
                    "as the test wants it",
                )),
                _ => Ok(serde_json::Value::clone(&call.params)),
            }
        }
    };
    let pause = Duration::from_millis(5);
    let supervision = Supervision {
        restarts_max: 10_000,
        backoff_min: pause,
        backoff_max: pause,
        ..Supervision::default()
    };
    ProviderSpec::from_fn("trial", "trial/v1.0", run)
        .expect("a protocol id")
        .supervision(supervision)
}
