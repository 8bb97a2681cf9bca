//! Takes up what a store remembers: after a crash, after a stop, or by a person's word.
//!
//! What was settled stays as it was and is not run again. What was executing runs again, unless
//! its method must not run twice and its start was stored: then a person has to say. What this
//! process cannot run, for it does not know a method or has another schema of it, is given back.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use actix::prelude::*;
use futures_util::future::join;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    graph::Settlement,
    id::WorkflowId,
    needs::Needs,
    plan::{Draft, Plan, Replanned},
    problem::{Problem, SubmitError},
    protocol::Effect,
    run::{Run, RunKey, TaskKey},
    store::{
        Epoch, Store,
        lease::{ClaimedOne, ClaimedWorkflow, Release},
    },
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus},
};
use serde::Serialize;

mod claims;

pub(super) use self::claims::claim_all;
use super::{
    ActiveRun, ExecutionEngine, Held, Phase,
    giving_up::{hold_for_a_while, release, wait_for},
    ownership::{Looked, NeedLease},
};
use crate::{
    addresses::ActorAddresses,
    dependency_resolver::{RemoveWorkflows, RestoreWorkflows, StoredRun},
    protocol_registry::{ReplanWorkflows, StoredDraft},
};

/// Goes on with stored workflows.
///
/// # Errors
/// What the store says; `WORKFLOW_NOT_FOUND`, or `WORKFLOW_INVALID_STATE` when it is settled,
/// where one was named.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovered, TaskError>")]
pub struct Recover {
    /// This one, or all that are not settled.
    pub id: Option<WorkflowId>,
    /// Loads without running anything, as for a cancellation; no effect in an engine that runs
    /// whatever nobody runs.
    pub hold: bool,
}

/// Runs again what did not complete in a settled workflow.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is not settled or all of it completed.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovered, TaskError>")]
pub struct Reopen(pub WorkflowId);

/// What was taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Recovered {
    /// Workflows that go on.
    pub workflows: u64,
    /// Tasks of them that are not settled.
    pub tasks: u64,
    /// Stored workflows that could not be read; the log says why.
    pub unreadable: u64,
    /// Those asked for by name that another process runs.
    pub held: u64,
    /// Those that this process cannot run, and left to others.
    pub unfit: u64,
}

/// Recoveries under way, and the workflows that settled here meanwhile: what was read of one of
/// those before that is not to be run.
#[derive(Debug, Default)]
pub(super) struct Recoveries {
    under_way: usize,
    /// When each settled, in settlements.
    settled: HashMap<WorkflowId, u64>,
    count: u64,
}

impl Recoveries {
    /// Notes a workflow that settled here.
    pub(super) fn note(&mut self, id: &WorkflowId) {
        if self.under_way > 0 {
            self.count += 1;
            self.settled.insert(id.clone(), self.count);
        }
    }

    /// True when a workflow settled after a recovery of that time began.
    fn has_settled_since(&self, id: &WorkflowId, begun: u64) -> bool {
        self.settled.get(id).is_some_and(|at| *at > begun)
    }
}

/// Counts one recovery as under way while it lives.
pub(super) struct Recovery {
    addresses: Rc<ActorAddresses>,
    begun: u64,
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.addresses.engine.do_send(RecoveryEnded);
    }
}

/// Sent by a dropped [`Recovery`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct RecoveryEnded;

/// Stored workflows, planned anew; answered for each, with the graph that is to be restored.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<StoredRun, ResumeError>>")]
struct Adopt {
    found: Vec<Found>,
    /// The lease that they were claimed for.
    epoch: Option<Epoch>,
    wish: Wish,
    /// When the recovery began that read them.
    begun: u64,
}

/// A stored workflow, planned anew.
#[derive(Debug)]
struct Found {
    plan: Arc<Plan>,
    record: WorkflowRecord,
    /// The dead lease that left it behind.
    left_by: Option<Epoch>,
    /// False where this process cannot run it.
    is_fit: bool,
}

/// Why a stored workflow was not taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ResumeError {
    #[error("it runs here, or did a moment ago")]
    Runs,
    #[error("every task of it completed")]
    Complete,
    #[error("the runtime stops")]
    Stopping,
    #[error("another process may run it by now")]
    Lost,
}

/// Graphs that stand again, or never will.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Restored {
    graphs: Vec<(RunKey, Result<Settlement, SubmitError>)>,
}

fn refused(code: ErrorCode, message: String) -> TaskError {
    TaskError::new(code, message)
}

/// One workflow as it is stored, claimed where the store has leases; `None` where a live process
/// runs it.
async fn load_one(
    addresses: &ActorAddresses,
    store: &dyn Store,
    id: &WorkflowId,
    reopens: bool,
) -> Result<Option<(ClaimedWorkflow, Option<Epoch>)>, TaskError> {
    let unknown = || refused(ErrorCode::WorkflowNotFound, format!("no workflow has the id `{id}`"));
    let epoch = addresses.engine.send(NeedLease).await.map_err(gone)??;
    let (Some(leases), Some(mine)) = (store.leases(), epoch) else {
        let record = store.workflow(id).await?.ok_or_else(unknown)?;
        return Ok(Some((unclaimed(record), None)));
    };
    gleitzeit_failpoint::failpoint!("engine.claim_one.before");
    match leases.claim_one(mine, id, reopens).await? {
        ClaimedOne::Taken(claimed) => Ok(Some((*claimed, epoch))),
        ClaimedOne::Held => Ok(None),
        ClaimedOne::Unknown => Err(unknown()),
    }
}

/// As a store without leases has it.
pub(super) fn unclaimed(record: WorkflowRecord) -> ClaimedWorkflow {
    ClaimedWorkflow { record, needs: Needs::default(), left_by: None }
}

fn check_settled(record: &WorkflowRecord, wish: Wish) -> Result<(), TaskError> {
    if record.status.is_settled() == wish.reopen {
        return Ok(());
    }
    let hint = match record.status {
        _ if wish.reopen => "it is running or can be resumed",
        _ if wish.hold => "there is nothing to stop or to settle",
        WorkflowStatus::Completed => "there is nothing left to run",
        _ => "`gleitzeit retry` runs again what did not complete",
    };
    let message = format!("workflow `{}` is {} already; {hint}", record.id, record.status);
    let message = if wish.reopen { message.replace(" already", "") } else { message };
    Err(refused(ErrorCode::WorkflowInvalidState, message))
}

fn gone<E>(_: E) -> TaskError {
    refused(ErrorCode::SystemShutdown, "the runtime has stopped".into())
}

/// What is asked of a recovery of one workflow.
#[derive(Debug, Clone, Copy)]
struct Wish {
    reopen: bool,
    hold: bool,
}

/// What became of a recovery; why the last workflow that was not taken up was not.
type RecoverySummary = Result<(Recovered, Option<ResumeError>), TaskError>;

async fn take_up_one(
    recovery: Recovery,
    store: Arc<dyn Store>,
    id: WorkflowId,
    wish: Wish,
) -> RecoverySummary {
    let Some((claimed, epoch)) = load_one(&recovery.addresses, &*store, &id, wish.reopen).await?
    else {
        return Ok((Recovered { held: 1, ..Recovered::default() }, None));
    };
    gleitzeit_failpoint::failpoint!("engine.claim_one.after");
    check_settled(&claimed.record, wish)?;
    let mut taken = Taken::default();
    adopt_all(&recovery, &store, vec![claimed], epoch, wish, &mut taken).await?;
    match taken.unfit {
        Some((_, why)) => Err(not_for_this_process(&id, &why)),
        None => Ok((taken.recovered, taken.refusal)),
    }
}

fn not_for_this_process(id: &WorkflowId, why: &Problem) -> TaskError {
    let message = format!(
        "workflow `{id}` cannot be run by this process: {}; it is left as it was, for a process \
         that can",
        why.message
    );
    refused(why.code, message)
}

/// What was taken up so far.
#[derive(Default)]
struct Taken {
    recovered: Recovered,
    refusal: Option<ResumeError>,
    /// The first that this process cannot run, and why.
    unfit: Option<(WorkflowId, Problem)>,
}

impl Taken {
    /// What was taken up; the log tells what was not.
    fn end(self) -> Recovered {
        if let Some((id, why)) = self.unfit {
            tracing::warn!(workflows = self.recovered.unfit, first = %id, why = %why.message, "workflows cannot be run by this process; they are left to others");
        }
        self.recovered
    }
}

/// Takes up what can be run here, and gives the rest back.
async fn adopt_all(
    recovery: &Recovery,
    store: &Arc<dyn Store>,
    claimed: Vec<ClaimedWorkflow>,
    epoch: Option<Epoch>,
    wish: Wish,
    taken: &mut Taken,
) -> Result<(), TaskError> {
    if claimed.is_empty() {
        return Ok(());
    }
    let addresses = &recovery.addresses;
    let (drafts, mut sound) = read(claimed);
    let mut unfit = std::mem::take(&mut sound.unreadable);
    taken.recovered.unreadable += unfit.len() as u64;
    let plans = addresses.registry.send(ReplanWorkflows(drafts)).await.map_err(gone)?;
    gleitzeit_failpoint::failpoint!("engine.recover.planned");
    let mut found = Vec::with_capacity(plans.len());
    for (Replanned { plan, mut problems }, (record, left_by)) in plans.into_iter().zip(sound.found)
    {
        let is_fit = problems.is_empty();
        if is_fit || wish.hold {
            found.push(Found { plan: Arc::new(plan), record, left_by, is_fit });
            continue;
        }
        taken.recovered.unfit += 1;
        taken.unfit.get_or_insert_with(|| (record.id.clone(), problems.swap_remove(0)));
        unfit.push(record.id);
    }
    let (adopted, ()) =
        join(adopt(recovery, found, epoch, wish, taken), give_back(store, epoch, unfit)).await;
    adopted
}

/// Leaves workflows to processes that can run them.
async fn give_back(store: &Arc<dyn Store>, epoch: Option<Epoch>, unfit: Vec<WorkflowId>) {
    if let Some(epoch) = epoch.filter(|_| !unfit.is_empty()) {
        release(&**store, epoch, &unfit, Release::ForOthers).await;
    }
}

async fn adopt(
    recovery: &Recovery,
    found: Vec<Found>,
    epoch: Option<Epoch>,
    wish: Wish,
    taken: &mut Taken,
) -> Result<(), TaskError> {
    if found.is_empty() {
        return Ok(());
    }
    let addresses = &recovery.addresses;
    let adopt = Adopt { found, epoch, wish, begun: recovery.begun };
    let mut remembered = Vec::new();
    let mut runs = Vec::new();
    for adopted in addresses.engine.send(adopt).await.map_err(gone)? {
        match adopted {
            Ok(adopted) => {
                let open = adopted.tasks.iter().filter(|task| !task.status.is_settled()).count();
                runs.push((adopted.run, open as u64));
                remembered.push(adopted);
            }
            Err(why) => taken.refusal = Some(why),
        }
    }
    gleitzeit_failpoint::failpoint!("engine.recover.adopted");
    let settlements = addresses.resolver.send(RestoreWorkflows(remembered)).await.map_err(gone)?;
    gleitzeit_failpoint::failpoint!("engine.recover.restored");
    let mut graphs = Vec::with_capacity(runs.len());
    for ((run, open), settlement) in runs.into_iter().zip(settlements) {
        if settlement.is_ok() {
            taken.recovered.workflows += 1;
            taken.recovered.tasks += open;
        } else {
            taken.recovered.unreadable += 1;
        }
        graphs.push((run, settlement));
    }
    addresses.engine.do_send(Restored { graphs });
    Ok(())
}

/// Stored workflows that make sense.
struct PlannedWorkflow {
    /// Each with the dead lease that left it behind.
    found: Vec<(WorkflowRecord, Option<Epoch>)>,
    unreadable: Vec<WorkflowId>,
}

fn read(claimed: Vec<ClaimedWorkflow>) -> (Vec<StoredDraft>, PlannedWorkflow) {
    let mut drafts = Vec::with_capacity(claimed.len());
    let mut sound =
        PlannedWorkflow { found: Vec::with_capacity(claimed.len()), unreadable: Vec::new() };
    let taken = Arc::new(WorkflowSpec::new(""));
    for ClaimedWorkflow { mut record, needs, left_by } in claimed {
        // Both are to hold the same one: with many workflows, two of each would fill the memory.
        let spec = std::mem::replace(&mut record.spec, Arc::clone(&taken));
        let mut spec = Arc::unwrap_or_clone(spec);
        spec.id.get_or_insert_with(|| record.id.clone());
        match Draft::new(spec) {
            Ok(draft) if is_complete(&draft, &record) => {
                record.spec = Arc::clone(&draft.spec);
                let settled = record.tasks.iter().map(|task| task.status.is_settled()).collect();
                drafts.push(StoredDraft { draft, needs, settled });
                sound.found.push((record, left_by));
                continue;
            }
            Ok(_) => tracing::error!(workflow = %record.id, "a stored workflow lacks tasks"),
            Err(error) => {
                tracing::error!(workflow = %record.id, %error, "a stored workflow cannot be read");
            }
        }
        sound.unreadable.push(record.id);
    }
    (drafts, sound)
}

/// True when every task of the spec has its record, at its place.
fn is_complete(draft: &Draft, record: &WorkflowRecord) -> bool {
    let placed = |(index, task): (u32, &TaskRecord)| task.index == index;
    draft.tasks.len() == record.tasks.len() && (0..).zip(&record.tasks).all(placed)
}

impl ExecutionEngine {
    pub(super) fn begin_recovery(&mut self) -> Recovery {
        self.recoveries.under_way += 1;
        Recovery { addresses: Rc::clone(self.addresses()), begun: self.recoveries.count }
    }

    fn adopt(
        &mut self,
        found: Found,
        epoch: Option<Epoch>,
        wish: Wish,
        begun: u64,
        ctx: &mut Context<Self>,
    ) -> Result<RunKey, ResumeError> {
        let Found { plan, mut record, left_by, is_fit } = found;
        if !matches!(self.phase, Phase::Running) {
            return Err(ResumeError::Stopping);
        }
        if self.is_lost(epoch) {
            return Err(ResumeError::Lost);
        }
        if let Some(&key) = self.ids.get(&record.id) {
            self.admission.note_claimed(key);
            return Err(ResumeError::Runs);
        }
        if self.recoveries.has_settled_since(&record.id, begun) {
            return Err(ResumeError::Runs);
        }
        let now = self.clock.now();
        let mut unknown = Vec::new();
        let mut cut_off = Vec::new();
        for task in &mut record.tasks {
            match task.status {
                TaskStatus::Executing if must_not_repeat(&plan, task.index) => {
                    unknown.push(task.index);
                }
                // It begins anew; what it began was not stored, or may run again.
                TaskStatus::Executing => {
                    task.status = TaskStatus::Pending;
                    cut_off.push(task.index);
                }
                TaskStatus::Queued => task.status = TaskStatus::Pending,
                _ => {}
            }
        }
        let mut run = Box::new(Run::resume(plan, self.subscribers.clone(), record));
        run.belongs_to(epoch);
        self.bound_memory(&mut run);
        let left_by = left_by.filter(|_| is_fit && !wish.reopen);
        if let (Some(left_by), Some(epoch)) = (left_by, epoch) {
            run.recovered(&self.settings.owner, epoch, left_by, now);
        }
        for index in unknown {
            run.outcome_unknown(index, now);
            gleitzeit_failpoint::failpoint!("engine.recover.in_doubt");
        }
        for index in cut_off.into_iter().filter(|_| is_fit) {
            run.interrupted(index, now);
        }
        if wish.reopen && !run.reopen() {
            return Err(ResumeError::Complete);
        }
        let key = self.new_key();
        self.ids.insert(run.id().clone(), key);
        self.load += run.record().tasks.len() as u64;
        let mut active = ActiveRun::new(run);
        active.was_left_behind = left_by.is_some();
        if wish.reopen {
            active.born = now;
            gleitzeit_failpoint::failpoint!("engine.reopen");
        }
        // An engine that runs whatever nobody runs would have taken it up by itself a moment later,
        // where it can.
        if wish.hold && !(self.settings.takes_over && is_fit) {
            active.held = Some(Held::default());
            hold_for_a_while(key, ctx);
        }
        self.runs.insert(key, Box::new(active));
        self.touch(key);
        Ok(key)
    }

    fn restored(
        &mut self,
        key: RunKey,
        settlement: Result<Settlement, SubmitError>,
        ctx: &mut Context<Self>,
    ) {
        let settlement = match settlement {
            Ok(settlement) => settlement,
            Err(error) => {
                tracing::error!(%error, "a stored workflow cannot be restored");
                self.give_up(key, &error.into());
                return;
            }
        };
        let now = self.clock.now();
        self.time_resumed(key, ctx);
        // The resolver has what dependents need of them.
        if let Some(active) = self.runs.get_mut(&key) {
            active.run.shed_stored_results();
        }
        let Some(active) = self.runs.get_mut(&key) else {
            // Cancelled meanwhile, before the resolver knew of it.
            self.addresses().resolver.do_send(RemoveWorkflows(vec![key]));
            return;
        };
        // Decided before the crash, but perhaps not stored with what decided it.
        for (index, because) in settlement.skipped {
            active.run.skip(index, because, now);
        }
        for (index, because) in settlement.failed {
            active.run.fail_dependency(index, because, now);
        }
        active.run.conclude(now);
        gleitzeit_failpoint::failpoint!("engine.recover.concluded");
        if active.was_left_behind {
            // Any of them may have been under way as the process died.
            active.saves_start.extend(&settlement.ready);
        }
        for index in settlement.ready {
            self.take_up_task(TaskKey { run: key, index }, ctx);
        }
        self.touch(key);
    }

    fn take_up_task(&mut self, task: TaskKey, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let limit = active.run.plan().spec.tasks[task.index as usize].total_timeout;
        // Nobody wrote down when its first attempt was queued, so its time begins anew.
        if active.run.task(task.index).attempts > 0
            && let Some(limit) = limit
        {
            self.time_task(task, limit, ctx);
        }
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let record = active.run.task(task.index);
        match (record.status, record.due_at) {
            (TaskStatus::RetryPending, Some(due)) => {
                let retry = &active.run.plan().tasks[task.index as usize].retry;
                let error = record.error.as_deref();
                let pause = retry.pause_left(record.attempts, error, due, now);
                self.time_retry(task, pause, ctx);
                gleitzeit_failpoint::failpoint!("engine.recover.timed");
            }
            (TaskStatus::Pending | TaskStatus::RetryPending, _)
                if active.run.queue(task.index, now).is_ok() =>
            {
                self.enqueue(task.run, task.index, ctx);
            }
            _ => {}
        }
    }

    /// A workflow's limit counts from when it was accepted, also over a restart; one that was
    /// opened again gets its time anew.
    fn time_resumed(&mut self, key: RunKey, ctx: &mut Context<Self>) {
        let Some(active) = self.runs.get(&key) else { return };
        let record = active.run.record();
        let Some(limit) = record.spec.timeout else { return };
        let spent = (self.clock.now() - active.born).to_std().unwrap_or_default();
        self.time_workflow(key, limit, spent, ctx);
    }
}

fn must_not_repeat(plan: &Plan, index: u32) -> bool {
    let method = plan.tasks[index as usize].method.as_ref();
    // One that is not known here is not decided about: nothing of its workflow is run here.
    method.is_ok_and(|method| method.spec.effect == Effect::AtMostOnce)
}

impl Handler<Recover> for ExecutionEngine {
    type Result = ResponseFuture<Result<Recovered, TaskError>>;

    fn handle(&mut self, Recover { id, hold }: Recover, _: &mut Self::Context) -> Self::Result {
        let given_up = id.as_ref().and_then(|id| self.given_up(id));
        let recovery = self.begin_recovery();
        let store = Arc::clone(&self.store);
        let Some(id) = id else {
            self.begin_looking();
            return Box::pin(async move {
                let recovered = claim_all(&recovery, store).await;
                recovery.addresses.engine.do_send(Looked);
                recovered
            });
        };
        Box::pin(async move {
            wait_for(given_up).await;
            Ok(take_up_one(recovery, store, id, Wish { reopen: false, hold }).await?.0)
        })
    }
}

impl Handler<Reopen> for ExecutionEngine {
    type Result = ResponseFuture<Result<Recovered, TaskError>>;

    fn handle(&mut self, Reopen(id): Reopen, _: &mut Self::Context) -> Self::Result {
        let name = id.clone();
        let wish = Wish { reopen: true, hold: false };
        let given_up = self.given_up(&id);
        let found = take_up_one(self.begin_recovery(), Arc::clone(&self.store), id, wish);
        Box::pin(async move {
            wait_for(given_up).await;
            match found.await? {
                (_, Some(why)) => {
                    let message = format!("workflow `{name}` cannot be run again: {why}");
                    Err(refused(ErrorCode::WorkflowInvalidState, message))
                }
                (Recovered { held: 1, .. }, None) => {
                    let message = format!(
                        "workflow `{name}` cannot be run again: another process runs it now"
                    );
                    Err(refused(ErrorCode::WorkflowInvalidState, message))
                }
                (Recovered { workflows: 0, .. }, None) => {
                    let message = format!("workflow `{name}` cannot be read; the log says why");
                    Err(refused(ErrorCode::PersistenceIntegrityError, message))
                }
                (recovered, None) => Ok(recovered),
            }
        })
    }
}

impl Handler<RecoveryEnded> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: RecoveryEnded, _: &mut Self::Context) {
        self.recoveries.under_way = self.recoveries.under_way.saturating_sub(1);
        if self.recoveries.under_way == 0 {
            self.recoveries.settled = HashMap::new();
        }
    }
}

impl Handler<Adopt> for ExecutionEngine {
    type Result = MessageResult<Adopt>;

    fn handle(&mut self, message: Adopt, ctx: &mut Self::Context) -> Self::Result {
        let Adopt { found, epoch, wish, begun } = message;
        let adopt = |found: Found| {
            let plan = Arc::clone(&found.plan);
            let run = self.adopt(found, epoch, wish, begun, ctx)?;
            Ok(StoredRun { run, plan, tasks: self.runs[&run].run.record().tasks.clone() })
        };
        MessageResult(found.into_iter().map(adopt).collect())
    }
}

impl Handler<Restored> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Restored { graphs }: Restored, ctx: &mut Self::Context) {
        let mut runs = Vec::with_capacity(graphs.len());
        for (run, settlement) in graphs {
            self.restored(run, settlement, ctx);
            runs.push(run);
        }
        self.write_changes(ctx);
        for run in runs {
            self.release(run);
        }
        self.pump_soon(ctx);
    }
}
