//! What the actor does around the engine, as plain data: a store, a resolver, providers, a clock.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::json;

use super::super::*;
use crate::{
    error::{ErrorCode, TaskError},
    graph::{Graph, Settlement},
    plan::{Plan, PlanDefaults},
    protocol::{Effect as MethodEffect, MethodSpec, ProtocolSpec, catalog::ProtocolCatalog},
    retry::{Backoff, RetryPolicy},
    store::{NewWorkflow, StoreError, Submitted, WorkflowChange},
    task::TaskStatus,
    workflow::{TaskSpec, WorkflowRecord, WorkflowSpec, WorkflowStatus},
};

/// Tasks that run at once.
const CONCURRENT: usize = 3;

/// A workflow: for each task, bits that name the earlier tasks that it depends on.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) after: Vec<u8>,
    /// Its methods have no effect, so that its first tasks start before it is stored.
    pub(super) is_pure: bool,
    pub(super) parallel: u32,
}

/// What the store does with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Transient,
    Content,
}

/// Callers are numbers.
#[derive(Debug)]
pub(super) struct Numbers;

impl Callers for Numbers {
    type OnStored = usize;
    type OnState = usize;
    type OnEnd = usize;
    type OnAccepted = usize;
    type Span = ();
}

/// An answer on its way to the engine.
#[derive(Debug)]
enum Answer {
    Process,
    Planned(Vec<(RunKey, Result<PlannedWorkflow, crate::problem::SubmitError>)>),
    Submitted(SubmitOutcomes),
    Written(WriteOutcome),
    WriteAgain(Vec<WorkflowChange>),
    Followed(Vec<RunKey>, Vec<(RunKey, Settlement)>),
    Ended(TaskEnd),
}

#[derive(Debug)]
pub(super) struct World {
    engine: Engine<Numbers>,
    catalog: ProtocolCatalog,
    now: Duration,
    timer: Option<Duration>,
    answers: VecDeque<Answer>,
    graphs: HashMap<RunKey, Graph>,
    ids: HashMap<RunKey, WorkflowId>,
    stored: HashMap<WorkflowId, WorkflowRecord>,
    accepted: HashSet<usize>,
    ended: HashMap<usize, Option<WorkflowStatus>>,
    running: usize,
    submits: usize,
    writes: usize,
    submitted: usize,
    faults: Vec<Fault>,
    order: Vec<u16>,
    outcomes: Vec<u8>,
    turn: usize,
}

fn traits() -> StoreTraits {
    StoreTraits { has_leases: false, is_fallible: true }
}

impl World {
    pub(super) fn new(faults: Vec<Fault>, order: Vec<u16>, outcomes: Vec<u8>) -> Self {
        let config = EngineConfig {
            max_concurrent_tasks: CONCURRENT,
            max_queued_tasks: 1_000,
            max_result_bytes: 1_000,
            max_unstored_bytes: 1_000_000,
            max_parked_tasks: 10,
            seed: 0,
            owner: "world".into(),
            lease_term: Duration::from_secs(15),
            takes_over: false,
            sweep: Duration::from_mins(5),
            store: traits(),
            reports_steps: true,
        };
        let open = |name: &str| MethodSpec { additional_params: true, ..MethodSpec::new(name) };
        let test = ProtocolSpec::new("test", "v1.0".parse().unwrap())
            .method(open("run"))
            .method(MethodSpec { effect: MethodEffect::Pure, ..open("pure") });
        let mut catalog = ProtocolCatalog::new();
        catalog.register(test).unwrap();
        Self {
            engine: Engine::new(config, SubscriberCount::default()),
            catalog,
            now: Duration::from_secs(1),
            timer: None,
            answers: VecDeque::new(),
            graphs: HashMap::new(),
            ids: HashMap::new(),
            stored: HashMap::new(),
            accepted: HashSet::new(),
            ended: HashMap::new(),
            running: 0,
            submits: 0,
            writes: 0,
            submitted: 0,
            faults,
            order,
            outcomes,
            turn: 0,
        }
    }

    fn now(&self) -> Now {
        let wall = DateTime::<Utc>::from_timestamp(1_000, 0).unwrap() + self.now;
        Now { wall, moment: self.now }
    }

    fn draw<T: Copy>(turn: &mut usize, of: &[T]) -> T {
        *turn += 1;
        of[*turn % of.len()]
    }

    /// The store recovers in the end: one that fails for ever lets nothing come to an end.
    fn fault(&mut self) -> Fault {
        if self.turn > 600 { Fault::None } else { Self::draw(&mut self.turn, &self.faults) }
    }

    pub(super) fn submit(&mut self, shape: &Shape) {
        let method = if shape.is_pure { "test/pure" } else { "test/run" };
        let retry = RetryPolicy {
            max_attempts: 2,
            backoff: Backoff::Fixed,
            jitter: false,
            base_delay: Duration::from_secs(5),
            ..RetryPolicy::default()
        };
        let mut spec = WorkflowSpec::new("w").max_parallel_tasks(shape.parallel);
        if !shape.is_pure {
            spec = spec.id(format!("w{}", self.submitted));
        }
        for (index, after) in shape.after.iter().enumerate() {
            let mut task = TaskSpec::new(format!("t{index}"), method).retry(retry.clone());
            for before in (0..index).filter(|before| after & (1 << before) != 0) {
                task = task.after(format!("t{before}"));
            }
            spec = spec.task(task);
        }
        let caller = self.submitted;
        self.submitted += 1;
        let draft = Draft::new(spec).unwrap();
        let submission =
            Submission { draft, accepted: Some(caller), ended: Some(caller), span: () };
        self.engine.submit(submission);
        self.perform();
    }

    pub(super) fn cancel(&mut self, nth: usize) {
        let mut ids: Vec<WorkflowId> = self.ids.values().cloned().collect();
        ids.sort();
        if let Some(id) = ids.get(nth) {
            // What runs no more is rejected; both are right.
            let _ = self.engine.cancel(id, "enough".into(), 1_000 + nth, self.now());
            self.perform();
        }
    }

    /// One answer arrives, or time passes; false if nothing is left to happen.
    pub(super) fn step(&mut self) -> bool {
        if self.answers.is_empty() {
            let Some(at) = self.timer.take() else { return false };
            self.now = self.now.max(at);
            self.engine.timer_due(self.now());
            self.perform();
            return true;
        }
        // The resolver shares the engine's thread, and answers in order before any write is done.
        let followed = |it: &Answer| matches!(it, Answer::Followed(..));
        let drawn = usize::from(Self::draw(&mut self.turn, &self.order)) % self.answers.len();
        let at = self.answers.iter().position(followed).unwrap_or(drawn);
        let Some(answer) = self.answers.remove(at) else { return false };
        self.now += Duration::from_millis(1);
        let now = self.now();
        match answer {
            Answer::Process => self.engine.process(now),
            Answer::Planned(planned) => self.engine.submissions_planned(planned, now),
            Answer::Submitted(outcomes) => {
                self.submits -= 1;
                self.engine.submissions_stored(outcomes, now);
            }
            Answer::Written(outcome) => {
                self.writes -= 1;
                self.engine.written(outcome, now);
            }
            Answer::WriteAgain(changes) => self.write(changes),
            Answer::Followed(asked, settlements) => {
                self.engine.dependents_resolved(asked, settlements, now);
            }
            Answer::Ended(end) => {
                self.running -= 1;
                self.engine.tasks_finished(vec![end]);
            }
        }
        self.perform();
        true
    }

    fn perform(&mut self) {
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Wake => self.answers.push_back(Answer::Process),
                Effect::Plan(batch) => {
                    let planned = batch.into_iter().map(|(key, draft)| self.plan(key, draft));
                    let planned = Answer::Planned(planned.collect());
                    self.answers.push_back(planned);
                }
                Effect::Submit(new) => self.store_new(new),
                Effect::Record(changes) => self.write(changes),
                Effect::RecordAfter(_, changes) => {
                    self.answers.push_back(Answer::WriteAgain(changes));
                }
                Effect::Dispatch => self.dispatch(),
                Effect::StartEarly(keys) => self.engine.start_before_commit(keys, self.now()),
                Effect::Settle(settled) => self.settle(&settled),
                Effect::LoseResult(lost) => {
                    // As the resolver: a run whose graph is gone has no dependents left to decide.
                    let run = lost.task.run;
                    let graph = self.graphs.get_mut(&run);
                    let follows = graph.map(|it| (run, it.lose_result(lost.task.index)));
                    self.answers
                        .push_back(Answer::Followed(vec![run], follows.into_iter().collect()));
                }
                Effect::RemoveGraphs(keys) => {
                    for key in keys {
                        self.graphs.remove(&key);
                    }
                }
                Effect::ArmTimer(at) => self.timer = Some(at),
                Effect::Reply(reply) => self.reply(reply),
                _ => {}
            }
        }
    }

    fn plan(
        &mut self,
        key: RunKey,
        draft: Draft,
    ) -> (RunKey, Result<PlannedWorkflow, crate::problem::SubmitError>) {
        let plan = draft.plan(&self.catalog, &PlanDefaults::default()).unwrap();
        let graph = plan.graph().unwrap();
        let settlement = Settlement { ready: graph.ready(), ..Settlement::default() };
        self.graphs.insert(key, graph);
        self.ids.insert(key, plan.id.clone());
        let plan: Arc<Plan> = Arc::new(plan);
        (key, Ok((plan, settlement)))
    }

    fn store_new(&mut self, new: Vec<NewWorkflow>) {
        self.submits += 1;
        assert_eq!(self.submits, 1, "two writes of new workflows at once");
        let mut outcomes = Vec::new();
        for new in new {
            outcomes.push(match self.fault() {
                Fault::None => {
                    self.stored.insert(new.record.id.clone(), new.record);
                    Ok(Submitted::Created)
                }
                Fault::Transient => {
                    Err(NotStored::Store(StoreError::Write { detail: "full".into() }))
                }
                Fault::Content => Err(NotStored::Content(refused(), new.events)),
            });
        }
        self.answers.push_back(Answer::Submitted(outcomes));
    }

    fn write(&mut self, changes: Vec<WorkflowChange>) {
        self.writes += 1;
        assert_eq!(self.writes, 1, "two writes of changes at once");
        let answer = self.record(&changes);
        let outcome = match after_write(answer, changes) {
            AfterWrite::Known(outcome) => outcome,
            AfterWrite::Split(mut split) => {
                while let Some(change) = split.next_change() {
                    let answer = self.record(std::slice::from_ref(&change));
                    split.answered(change, answer);
                }
                split.finish()
            }
        };
        self.answers.push_back(Answer::Written(outcome));
    }

    /// All or nothing, as the port demands.
    fn record(&mut self, changes: &[WorkflowChange]) -> Result<(), StoreError> {
        match self.fault() {
            Fault::Transient => return Err(StoreError::Write { detail: "disk full".into() }),
            // Only an outcome can be too large.
            Fault::Content if changes.iter().any(|it| !it.tasks.is_empty()) => {
                return Err(refused());
            }
            _ => {}
        }
        for change in changes {
            let record = self.stored.get_mut(&change.id).expect("a change of what is stored");
            for task in &change.tasks {
                record.tasks[task.index as usize] = task.clone();
            }
            if let Some(state) = &change.workflow {
                record.status = state.status;
            }
        }
        Ok(())
    }

    fn settle(&mut self, settled: &[Settled]) {
        let asked = settled.iter().map(|it| it.task.run).collect();
        let follow = |Settled { task, outcome }: &Settled| {
            let graph = self.graphs.get_mut(&task.run)?;
            let completed = outcome.status == TaskStatus::Completed;
            Some((task.run, graph.settle(task.index, completed)))
        };
        let settlements = settled.iter().filter_map(follow).collect();
        self.answers.push_back(Answer::Followed(asked, settlements));
    }

    fn dispatch(&mut self) {
        let Some(mut budget) = self.engine.dispatch_budget(true) else { return };
        while let Some(task) = self.engine.next_dispatch(&mut budget) {
            self.running += 1;
            assert!(self.running <= CONCURRENT, "more tasks run than may");
            let stored = self.stored.get(&task.plan.id);
            for (_, before) in task.plan.edges.iter().filter(|(of, _)| *of == task.task.index) {
                let stored = stored.expect("a dependent of a workflow that is not stored");
                let status = stored.tasks[*before as usize].status;
                assert!(status.is_settled(), "began before its dependency was stored: {status}");
            }
            assert!(stored.is_some() || !task.has_effect(), "an effect before the commit");
            let start = TaskStart { task: task.task, provider_id: "p".into(), save: false };
            self.engine.tasks_started(vec![start], None, self.now());
            let lost = || TaskError::new(ErrorCode::ConnectionLost, "cut").retryable(true);
            let outcome = match Self::draw(&mut self.turn, &self.outcomes) {
                0 | 1 => Err(lost()),
                2 => Err(TaskError::new(ErrorCode::TaskExecutionFailed, "no").retryable(false)),
                _ => Ok(json!({"n": 1}).into()),
            };
            let duration = Some(Duration::from_millis(1));
            let (key, attempt) = (task.task, task.attempt);
            let end = TaskEnd { task: key, attempt, method: None, outcome, duration };
            self.answers.push_back(Answer::Ended(end));
        }
    }

    fn reply(&mut self, reply: Reply<Numbers>) {
        match reply {
            Reply::Accepted(caller, Ok(id)) => {
                assert!(self.stored.contains_key(&id), "accepted before it was stored");
                assert!(self.accepted.insert(caller), "accepted twice");
            }
            Reply::Accepted(caller, Err(_)) => {
                assert!(self.accepted.insert(caller), "rejected after an answer");
            }
            Reply::End(caller, end) => {
                let status = end.as_ref().ok().map(|record| record.status);
                if let Ok(record) = &end {
                    assert_eq!(self.stored[&record.id].status, record.status, "not stored yet");
                }
                assert!(self.ended.insert(caller, status).is_none(), "two ends");
            }
            Reply::EndElsewhere(waiter, _) => {
                assert!(self.ended.insert(waiter.answer, None).is_none(), "two ends");
            }
            Reply::Stored(_) | Reply::State(..) => {}
        }
    }

    /// Workflows that completed.
    pub(super) fn completed(&self) -> usize {
        let completed = Some(WorkflowStatus::Completed);
        self.ended.values().filter(|status| **status == completed).count()
    }

    pub(super) fn check_end(&self, submitted: usize) {
        assert!(self.answers.is_empty(), "did not come to an end: {:?}", self.engine.counts());
        assert_eq!(self.accepted.len(), submitted, "a caller was not answered");
        assert_eq!(self.ended.len(), submitted, "an end was not answered");
        assert_eq!(self.engine.counts(), EngineCounts::default());
        assert!(self.engine.is_idle());
    }
}

fn refused() -> StoreError {
    StoreError::Refused { detail: "too large".into() }
}
