//! Random graphs under random trouble: what must hold, holds, and the engine ends idle.

use std::time::Duration;

use gleitzeit_domain::{
    resources::{ResourceRequirements, Resources},
    retry::Backoff::Fixed,
    store::StoreError,
    task::{
        OnDependencyFailure::{self, Fail, Run, Skip},
        Priority,
        TaskStatus::{self, Cancelled, Completed, Failed, UpstreamFailed},
    },
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{FlakyStore, Harness, Setup, of, retries, secs, task};

/// How the calls of a random task go.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Works,
    /// Fails in every attempt.
    Fails,
    /// Fails in so many first attempts.
    FailsFirst(u32),
    /// Takes its provider down in the first attempt.
    PanicsOnce,
}

#[derive(Debug, Clone)]
struct RandomTask {
    kind: Kind,
    /// Whether it depends on each of the tasks before it.
    depends: Vec<bool>,
    policy: OnDependencyFailure,
    attempts: u32,
    priority: Priority,
    millis: u64,
    memory: u64,
    at_most_once: bool,
}

/// Something that is done to the workflows while they run.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    CancelTask { after: u64, task: usize },
    CancelWorkflow { after: u64 },
}

#[derive(Debug, Clone)]
struct Scenario {
    workflows: Vec<Vec<RandomTask>>,
    max_parallel: Option<u32>,
    max_concurrent: usize,
    max_parked: usize,
    calls_at_once: [Option<u32>; 2],
}

const MEMORY: u64 = 100;

fn random_task() -> impl Strategy<Value = RandomTask> {
    let kind = prop_oneof![
        5 => Just(Kind::Works),
        1 => Just(Kind::Fails),
        2 => (1..4_u32).prop_map(Kind::FailsFirst),
        1 => Just(Kind::PanicsOnce),
    ];
    let policy = prop_oneof![3 => Just(Skip), 1 => Just(Fail), 2 => Just(Run)];
    let priority = (0..Priority::ALL.len()).prop_map(|rank| Priority::ALL[rank]);
    let depends = prop::collection::vec(prop::bool::weighted(0.25), 12);
    let often = prop::bool::weighted(0.1);
    (kind, depends, policy, 1..4_u32, priority, 0..300_u64, 0..=MEMORY, often).prop_map(
        |(kind, depends, policy, attempts, priority, millis, memory, at_most_once)| RandomTask {
            kind,
            depends,
            policy,
            attempts,
            priority,
            millis,
            memory,
            at_most_once,
        },
    )
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let workflow = prop::collection::vec(random_task(), 1..12);
    let limits = || prop::option::of(1..4_u32);
    (prop::collection::vec(workflow, 1..5), limits(), 1..6_usize, 1..4_usize, [limits(), limits()])
        .prop_map(|(workflows, max_parallel, max_concurrent, max_parked, calls_at_once)| Scenario {
            workflows,
            max_parallel,
            max_concurrent,
            max_parked,
            calls_at_once,
        })
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        3 => (0..800_u64, 0..12_usize)
            .prop_map(|(after, task)| Trouble::CancelTask { after, task }),
        1 => (0..800_u64).prop_map(|after| Trouble::CancelWorkflow { after }),
    ]
}

impl RandomTask {
    fn spec(&self, index: usize) -> TaskSpec {
        let mut script = json!({"sleep": Duration::from_millis(self.millis).as_secs_f64()});
        match self.kind {
            Kind::Works => {}
            Kind::PanicsOnce => script["panic"] = "once".into(),
            Kind::Fails => script["fail"] = "CONNECTION_LOST".into(),
            Kind::FailsFirst(times) => {
                script["fail"] = "CONNECTION_LOST".into();
                script["times"] = times.into();
            }
        }
        let memory = ResourceRequirements { memory_mb: Some(self.memory), ..Default::default() };
        let mut spec = task(&format!("t{index}"), script)
            .retry(retries(self.attempts, Fixed, Duration::from_millis(70)))
            .priority(self.priority)
            .resources(memory)
            .on_dependency_failure(self.policy);
        if self.at_most_once {
            spec.method = "test/once".to_owned();
        }
        let before = self.depends.iter().take(index).enumerate().filter(|(_, depends)| **depends);
        before.fold(spec, |spec, (at, _)| spec.after(format!("t{at}")))
    }

    /// How it ends, and after how many attempts, given how those before it ended.
    fn expected(&self, index: usize, before: &[(TaskStatus, u32)]) -> (TaskStatus, u32) {
        let mut needed =
            self.depends.iter().take(index).zip(before).filter(|(depends, _)| **depends);
        let unmet = needed.any(|(_, (status, _))| *status != Completed);
        match (self.kind, self.policy) {
            (_, Skip) if unmet => (UpstreamFailed, 0),
            (_, Fail) if unmet => (Failed, 0),
            (Kind::Works, _) => (Completed, 1),
            // The outcome behind a cut connection is unknown: such a call is not repeated.
            (Kind::Fails | Kind::FailsFirst(_) | Kind::PanicsOnce, _) if self.at_most_once => {
                (Failed, 1)
            }
            (Kind::FailsFirst(times), _) if times < self.attempts => (Completed, times + 1),
            (Kind::PanicsOnce, _) if self.attempts > 1 => (Completed, 2),
            (Kind::Fails | Kind::FailsFirst(_) | Kind::PanicsOnce, _) => (Failed, self.attempts),
        }
    }
}

impl Scenario {
    fn setup(&self) -> Setup {
        let [one, two] = self.calls_at_once;
        let mut setup = Setup {
            resources: Resources { memory_mib: MEMORY, ..Resources::UNLIMITED },
            providers: vec![("one", one), ("two", two)],
            restarts_max: 1_000,
            ..Setup::default()
        };
        setup.engine.max_concurrent_tasks = self.max_concurrent;
        setup.engine.max_parked_tasks = self.max_parked;
        setup
    }

    fn spec(&self, at: usize) -> WorkflowSpec {
        let tasks = self.workflows[at].iter().enumerate();
        let mut spec = tasks
            .map(|(index, task)| task.spec(index))
            .fold(WorkflowSpec::new(format!("w{at}")), WorkflowSpec::task);
        spec.max_parallel_tasks = self.max_parallel;
        spec
    }

    /// No limit was ever passed.
    fn check_limits(&self, harness: &Harness) {
        assert!(harness.script.peak("") <= self.max_concurrent);
        assert!(harness.script.memory_peak() <= MEMORY);
        for (name, limit) in ["one", "two"].into_iter().zip(self.calls_at_once) {
            let peak = u32::try_from(harness.script.peak(name)).unwrap();
            assert!(limit.is_none_or(|limit| peak <= limit), "{name}: {peak}");
        }
    }
}

/// Every task ends as its own calls and its dependencies say, after so many attempts; whatever the
/// store says of the first writes.
async fn ends_as_expected(scenario: Scenario, faults: Vec<bool>) {
    let detail = || "as the test says".to_owned();
    let fault = |unknown: bool| {
        if unknown {
            StoreError::Unknown { detail: detail() }
        } else {
            StoreError::Unavailable { detail: detail() }
        }
    };
    let store = FlakyStore::flaky(Vec::new(), faults.into_iter().map(fault).collect());
    let mut harness = Setup { store, ..scenario.setup() }.open().await;
    let sent: Vec<_> =
        (0..scenario.workflows.len()).map(|at| harness.send(scenario.spec(at))).collect();
    for (sent, tasks) in sent.into_iter().zip(&scenario.workflows) {
        let record = sent.end().await;
        let mut expected = Vec::new();
        for (index, task) in tasks.iter().enumerate() {
            expected.push(task.expected(index, &expected));
        }
        let actual: Vec<_> = record.tasks.iter().map(|it| (it.status, it.attempts)).collect();
        assert_eq!(actual, expected);
        let all_well = expected.iter().all(|(status, _)| *status == Completed);
        let status = if all_well { WorkflowStatus::Completed } else { WorkflowStatus::Failed };
        assert_eq!(record.status, status);
    }
    scenario.check_limits(&harness);
    harness.finish().await;
}

/// Whatever is cancelled and runs out of time, nothing is left behind and nothing contradicts
/// itself.
async fn survives(scenario: Scenario, troubles: Vec<(usize, Trouble)>, limit: Option<u64>) {
    let mut harness = scenario.setup().open().await;
    let mut sent = Vec::new();
    for at in 0..scenario.workflows.len() {
        let mut spec = scenario.spec(at);
        spec.timeout = limit.map(Duration::from_millis);
        sent.push(harness.send(spec));
    }
    for (at, trouble) in troubles {
        let sent = &sent[at % sent.len()];
        let after = match trouble {
            Trouble::CancelTask { after, .. } | Trouble::CancelWorkflow { after } => after,
        };
        tokio::time::sleep(Duration::from_millis(after)).await;
        // It may be over already; then it is refused, and that is all.
        let _ = match trouble {
            Trouble::CancelTask { task, .. } => {
                harness.cancel_task(&sent.id, &format!("t{task}")).await
            }
            Trouble::CancelWorkflow { .. } => harness.cancel(&sent.id).await,
        };
    }
    for sent in sent {
        let record = sent.end().await;
        assert!(record.status.is_settled());
        assert!(record.tasks.iter().all(|task| task.status.is_settled()));
        if record.status == WorkflowStatus::Cancelled {
            let at_the_end =
                |status| matches!(status, Cancelled | Completed | Failed | UpstreamFailed);
            assert!(record.tasks.iter().all(|task| at_the_end(task.status)));
        }
        assert_eq!(of(&record, "t0").index, 0);
    }
    scenario.check_limits(&harness);
    tokio::time::sleep(secs(10)).await;
    harness.finish().await;
}

fn in_a_system(run: impl Future<Output = ()>) {
    actix::System::new().block_on(run);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The order in which things happen may differ, how they end may not.
    #[test]
    fn random_workflows_end_as_their_tasks_say(
        scenario in scenario(),
        faults in prop::collection::vec(any::<bool>(), 0..8),
    ) {
        in_a_system(ends_as_expected(scenario, faults));
    }

    /// Cancellations and limits at any moment: every invariant holds, and the engine ends idle.
    #[test]
    fn random_trouble_leaves_nothing_behind(
        scenario in scenario(),
        troubles in prop::collection::vec((0..5_usize, trouble()), 0..6),
        limit in prop::option::weighted(0.3, 100..2000_u64),
    ) {
        in_a_system(survives(scenario, troubles, limit));
    }
}
