//! The way of a task from its dispatch to its outcome, top to bottom.
//!
//! ```text
//! DependencyResolver  parameters, references resolved
//! ProtocolRegistry    parameters checked, defaults filled in
//! ResourceManager     a lease
//! LoadBalancer        a provider
//! ExecutionEngine     <- TasksStarted
//! ProviderSupervisor  the call
//! ExecutionEngine     <- TasksFinished
//! ```
//!
//! Tasks that become ready together travel together: one message a station for all of them, so
//! that the price of a message is shared under load. Whoever must wait leaves the group and goes
//! on alone. Nobody holds a lease while it waits for a provider, so that tasks without a provider
//! block none that have one.
//!
//! Invariant: every [`Item`] ends in exactly one [`TaskEnd`], or goes back into the line before its
//! call has begun; one that is dropped on the way says so itself.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::ProviderId,
    plan::Plan,
    protocol::{Effect, MethodRef, validate::Filled},
    provider::{Call, GRACE_MAX, Outcome},
    run::{CancelSignal, TaskKey},
    task::Priority,
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    CallerSpan, StillScheduled, TaskEnd, TaskStart, TasksFinished, TasksStarted, WaitingGuard,
    away::{Away, TaskWaits},
    effect_gate::{EffectGate, TasksHeld},
};
use crate::{
    addresses::ActorAddresses,
    dependency_resolver::ResolveParameters,
    load_balancer::{CancelTasks, PickProviders, PickRequest, Picked, ProviderTicket, Waiting},
    protocol_registry::{CallCheck, ValidateCalls},
    provider_supervisor::{CancelCalls, Execute, Execution, Finished, KeyedCall},
    resource_manager::{Acquire, CancelWaiting, Grant, Lease, Need},
};

/// A provider's thread that is blocked answers nothing, not even a timeout; so much later than
/// the call's own limit and any grace, the pipeline gives the call up.
const BLOCKED_GRACE: Duration = GRACE_MAX.saturating_add(Duration::from_secs(5));

/// A dispatched task on its way.
pub(super) struct Item {
    pub(super) task: TaskKey,
    pub(super) attempt: u32,
    pub(super) plan: Arc<Plan>,
    pub(super) signal: Arc<CancelSignal>,
    pub(super) epoch: u32,
    pub(super) addresses: Rc<ActorAddresses>,
    /// Read before its call.
    pub(super) gate: Rc<EffectGate>,
    /// The engine knows that it starts.
    pub(super) is_announced: bool,
    /// Where the last attempt failed.
    pub(super) avoid: Option<ProviderId>,
    /// Its start is stored before its call, whatever its method: it may be what killed a process.
    pub(super) saves_start: bool,
    pub(super) span: CallerSpan,
    pub(super) ended: bool,
}

impl Item {
    fn planned(&self) -> &gleitzeit_domain::plan::PlannedTask {
        &self.plan.tasks[self.task.index as usize]
    }

    /// True unless its call changes nothing outside.
    pub(super) fn has_effect(&self) -> bool {
        self.planned().has_effect()
    }

    /// True unless its call must wait. An announced attempt counts, so that only the end of the lease
    /// sends it back.
    fn may_begin(&self) -> bool {
        let is_open = if self.is_announced { self.gate.has_lease() } else { self.gate.is_open() };
        is_open || !self.has_effect()
    }

    /// Its call has not begun; the engine puts it back in line.
    fn hold(mut self) -> (TaskKey, u32) {
        self.ended = true;
        (self.task, self.attempt)
    }

    /// True when something of its workflow was cancelled since it was last asked about.
    fn is_touched(&self) -> bool {
        self.signal.epoch() != self.epoch
    }

    fn priority(&self) -> Priority {
        self.plan.spec.tasks[self.task.index as usize].priority
    }

    fn end(mut self, outcome: Result<Outcome, TaskError>, duration: Option<Duration>) -> TaskEnd {
        self.ended = true;
        TaskEnd {
            task: self.task,
            attempt: self.attempt,
            method: self.planned().method.as_ref().ok().cloned(),
            outcome,
            duration,
        }
    }

    fn fail(self, error: TaskError) -> TaskEnd {
        self.end(Err(error), None)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if !self.ended {
            let lost = TaskEnd {
                task: self.task,
                attempt: self.attempt,
                method: None,
                outcome: Err(TaskError::new(
                    ErrorCode::InternalError,
                    "the task was lost on its way to a provider",
                )
                .retryable(true)),
                duration: None,
            };
            self.addresses.engine.do_send(TasksFinished(vec![lost]));
        }
    }
}

/// Ends of attempts, told to the engine when they are dropped: together, and on every way out.
struct Ends {
    addresses: Rc<ActorAddresses>,
    finished: Vec<TaskEnd>,
    /// Attempts that did not begin their call, and are to begin later.
    held: Vec<(TaskKey, u32)>,
}

impl Ends {
    fn new(addresses: &Rc<ActorAddresses>) -> Self {
        Self { addresses: Rc::clone(addresses), finished: Vec::new(), held: Vec::new() }
    }

    fn push(&mut self, end: TaskEnd) {
        self.finished.push(end);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.finished.is_empty() {
            gleitzeit_failpoint::failpoint!("pipeline.end.telling");
            self.addresses.engine.do_send(TasksFinished(std::mem::take(&mut self.finished)));
        }
        if !self.held.is_empty() {
            self.addresses.engine.do_send(TasksHeld(std::mem::take(&mut self.held)));
        }
    }
}

/// An item whose parameters are ready.
struct ValidatedTask {
    item: Item,
    method: MethodRef,
    filled: Filled,
}

/// An item that may run once it has a provider.
struct TaskWithResources {
    checked: ValidatedTask,
    lease: Lease,
}

/// An item that has all it needs.
struct AssignedTask {
    leased: TaskWithResources,
    ticket: ProviderTicket,
}

/// Runs a group of dispatched tasks.
pub(super) async fn run(addresses: Rc<ActorAddresses>, batch: Vec<Item>) {
    let mut ends = Ends::new(&addresses);
    gleitzeit_failpoint::failpoint!("pipeline.begun");
    let resolved = resolve(&addresses, batch, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.resolved");
    let checked = check(&addresses, resolved, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.checked");
    let leased = acquire(&addresses, checked, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.leased");
    let picked = pick(&addresses, leased, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.picked");
    execute(&addresses, picked, &mut ends).await;
}

fn silent(who: &'static str) -> TaskError {
    TaskError::new(ErrorCode::InternalError, format!("{who} did not answer; it is being restarted"))
        .retryable(true)
}

/// Parameters with every reference resolved. A template without references is its own result.
async fn resolve(
    addresses: &Rc<ActorAddresses>,
    batch: Vec<Item>,
    ends: &mut Ends,
) -> Vec<(Item, Arc<Value>)> {
    let literal = |item: &Item| item.planned().template.is_literal();
    let open: Vec<TaskKey> =
        batch.iter().filter(|item| !literal(item)).map(|item| item.task).collect();
    let mut answers = if open.is_empty() {
        Vec::new().into_iter()
    } else {
        let asked = open.len();
        let refused = |_| (0..asked).map(|_| Err(silent("the resolver"))).collect();
        addresses.resolver.send(ResolveParameters(open)).await.unwrap_or_else(refused).into_iter()
    };
    let mut resolved = Vec::with_capacity(batch.len());
    for item in batch {
        let params = if literal(&item) {
            Ok(Arc::clone(item.planned().template.parameters()))
        } else {
            answers.next().unwrap_or_else(|| Err(silent("the resolver")))
        };
        match params {
            Ok(params) => resolved.push((item, params)),
            Err(error) => ends.push(item.fail(error)),
        }
    }
    resolved
}

/// Parameters checked against the method's schema.
async fn check(
    addresses: &Rc<ActorAddresses>,
    resolved: Vec<(Item, Arc<Value>)>,
    ends: &mut Ends,
) -> Vec<ValidatedTask> {
    let mut known = Vec::with_capacity(resolved.len());
    let mut calls = Vec::with_capacity(resolved.len());
    for (item, params) in resolved {
        match item.planned().method.clone() {
            Ok(method) => {
                calls.push(CallCheck { method: Arc::clone(&method), params });
                known.push((item, method));
            }
            Err(error) => ends.push(item.fail(TaskError::clone(&error))),
        }
    }
    if known.is_empty() {
        return Vec::new();
    }
    let mut answers =
        addresses.registry.send(ValidateCalls(calls)).await.unwrap_or_default().into_iter();
    let mut checked = Vec::with_capacity(known.len());
    for (item, method) in known {
        match answers.next().unwrap_or_else(|| Err(silent("the protocol registry"))) {
            Ok(filled) => checked.push(ValidatedTask { item, method, filled }),
            Err(error) => ends.push(item.fail(error)),
        }
    }
    checked
}

fn need(checked: &ValidatedTask) -> Need {
    Need {
        task: checked.item.task,
        need: checked.item.planned().need,
        priority: checked.item.priority(),
    }
}

fn refused(refusal: &gleitzeit_domain::lease_queue::ExceedsTotal) -> TaskError {
    TaskError::new(ErrorCode::ResourceExhausted, refusal.to_string()).retryable(false)
}

fn cancelled() -> TaskError {
    TaskError::new(ErrorCode::TaskCancelled, "the task was cancelled while it waited")
}

/// Leases; whoever must wait for one goes on alone.
async fn acquire(
    addresses: &Rc<ActorAddresses>,
    checked: Vec<ValidatedTask>,
    ends: &mut Ends,
) -> Vec<TaskWithResources> {
    if checked.is_empty() {
        return Vec::new();
    }
    let needs = checked.iter().map(need).collect();
    let mut grants = addresses.resources.send(Acquire(needs)).await.unwrap_or_default().into_iter();
    let mut leased = Vec::with_capacity(checked.len());
    for checked in checked {
        match grants.next() {
            Some(Grant::Leased(lease)) => leased.push(TaskWithResources { checked, lease }),
            Some(Grant::Waiting(lease)) => {
                actix_rt::spawn(wait_for_lease(Rc::clone(addresses), checked, lease));
            }
            Some(Grant::Refused(refusal)) => ends.push(checked.item.fail(refused(&refusal))),
            None => ends.push(checked.item.fail(silent("the resource manager"))),
        }
    }
    leased
}

async fn wait_for_lease(
    addresses: Rc<ActorAddresses>,
    mut checked: ValidatedTask,
    lease: oneshot::Receiver<Lease>,
) {
    let mut ends = Ends::new(&addresses);
    let parked = WaitingGuard::new(&addresses);
    gleitzeit_failpoint::failpoint!("pipeline.lease.waits");
    let lease =
        if is_wanted(&addresses, &mut checked.item).await { lease.await.ok() } else { None };
    drop(parked);
    match lease {
        Some(lease) => {
            gleitzeit_failpoint::failpoint!("pipeline.lease.granted");
            let picked =
                pick(&addresses, vec![TaskWithResources { checked, lease }], &mut ends).await;
            execute(&addresses, picked, &mut ends).await;
        }
        None => ends.push(checked.item.fail(cancelled())),
    }
}

/// Providers; whoever must wait for one gives its lease back and goes on alone.
async fn pick(
    addresses: &Rc<ActorAddresses>,
    leased: Vec<TaskWithResources>,
    ends: &mut Ends,
) -> Vec<AssignedTask> {
    if leased.is_empty() {
        return Vec::new();
    }
    let requests = leased
        .iter()
        .map(|leased| PickRequest {
            task: leased.checked.item.task,
            method: Arc::clone(&leased.checked.method),
            priority: leased.checked.item.priority(),
            avoid: leased.checked.item.avoid.clone(),
        })
        .collect();
    let mut answers =
        addresses.balancer.send(PickProviders(requests)).await.unwrap_or_default().into_iter();
    let mut picked = Vec::with_capacity(leased.len());
    for leased in leased {
        match answers.next() {
            Some(Picked::Now(ticket)) => picked.push(AssignedTask { leased, ticket }),
            Some(Picked::Waiting(waiting)) => {
                let TaskWithResources { checked, lease } = leased;
                drop(lease);
                actix_rt::spawn(wait_for_provider(Rc::clone(addresses), checked, waiting));
            }
            Some(Picked::Refused(error)) => ends.push(leased.checked.item.fail(error)),
            None => ends.push(leased.checked.item.fail(silent("the load balancer"))),
        }
    }
    picked
}

async fn wait_for_provider(
    addresses: Rc<ActorAddresses>,
    mut checked: ValidatedTask,
    waiting: Waiting,
) {
    let mut ends = Ends::new(&addresses);
    let parked = WaitingGuard::new(&addresses);
    gleitzeit_failpoint::failpoint!("pipeline.provider.waits");
    if !is_wanted(&addresses, &mut checked.item).await {
        return ends.push(checked.item.fail(cancelled()));
    }
    let Waiting { mut ticket, cause } = waiting;
    let answer = tokio::select! {
        biased;
        answer = &mut ticket => answer.unwrap_or_else(|_| Err(cancelled())),
        Ok(reason) = cause => {
            return wait_while_down(addresses, checked.item, ticket, parked, reason).await;
        }
    };
    let placed = match answer {
        Ok(ticket) => reacquire(&addresses, &checked).await.map(|lease| (ticket, lease)),
        Err(error) => Err(error),
    };
    drop(parked);
    finish_wait(&addresses, checked, placed, &mut ends).await;
}

type AwaitedTicket = oneshot::Receiver<Result<ProviderTicket, TaskError>>;

/// Waits for providers that are all down, which may take days. So the wait is written down for
/// others to see, counts among none of those that dispatch waits for, and holds no parameters,
/// which references may have made large.
async fn wait_while_down(
    addresses: Rc<ActorAddresses>,
    item: Item,
    ticket: AwaitedTicket,
    parked: WaitingGuard,
    reason: Arc<str>,
) {
    let mut ends = Ends::new(&addresses);
    let away = Away::instead_of(parked);
    addresses.engine.do_send(TaskWaits { task: item.task, attempt: item.attempt, reason });
    let ticket = match ticket.await.unwrap_or_else(|_| Err(cancelled())) {
        Ok(ticket) => ticket,
        Err(error) => return ends.push(item.fail(error)),
    };
    let parked = WaitingGuard::new(&addresses);
    drop(away);
    let resolved = resolve(&addresses, vec![item], &mut ends).await;
    let Some(checked) = check(&addresses, resolved, &mut ends).await.pop() else { return };
    let placed = reacquire(&addresses, &checked).await.map(|lease| (ticket, lease));
    drop(parked);
    finish_wait(&addresses, checked, placed, &mut ends).await;
}

async fn finish_wait(
    addresses: &Rc<ActorAddresses>,
    checked: ValidatedTask,
    placed: Result<(ProviderTicket, Lease), TaskError>,
    ends: &mut Ends,
) {
    match placed {
        Ok((ticket, lease)) => {
            gleitzeit_failpoint::failpoint!("pipeline.provider.granted");
            let ready = AssignedTask { leased: TaskWithResources { checked, lease }, ticket };
            execute(addresses, vec![ready], ends).await;
        }
        Err(error) => ends.push(checked.item.fail(error)),
    }
}

async fn reacquire(
    addresses: &Rc<ActorAddresses>,
    checked: &ValidatedTask,
) -> Result<Lease, TaskError> {
    let grants = addresses.resources.send(Acquire(vec![need(checked)])).await.unwrap_or_default();
    match grants.into_iter().next() {
        Some(Grant::Leased(lease)) => Ok(lease),
        Some(Grant::Waiting(lease)) => lease.await.map_err(|_| cancelled()),
        Some(Grant::Refused(refusal)) => Err(refused(&refusal)),
        None => Err(silent("the resource manager")),
    }
}

/// False for a task that was cancelled before it began to wait, so that nobody ends its wait. Its
/// place in the line is given up.
async fn is_wanted(addresses: &Rc<ActorAddresses>, item: &mut Item) -> bool {
    while item.is_touched() {
        let epoch = item.signal.epoch();
        let asked = StillScheduled(vec![(item.task, item.attempt)]);
        if !addresses.engine.send(asked).await.is_ok_and(|answers| answers == [true]) {
            let tasks = Arc::new(vec![item.task]);
            addresses.resources.do_send(CancelWaiting(Arc::clone(&tasks)));
            addresses.balancer.do_send(CancelTasks(tasks));
            return false;
        }
        item.epoch = epoch;
    }
    true
}

/// Drops what was cancelled on the way. Behind it nothing is, until the next await.
async fn still_wanted(
    addresses: &Rc<ActorAddresses>,
    mut picked: Vec<AssignedTask>,
    ends: &mut Ends,
) -> Vec<AssignedTask> {
    // More may be cancelled while the engine answers.
    while picked.iter().any(|it| it.leased.checked.item.is_touched()) {
        let mut asked = Vec::with_capacity(picked.len());
        for it in &mut picked {
            let item = &mut it.leased.checked.item;
            item.epoch = item.signal.epoch();
            asked.push((item.task, item.attempt));
        }
        let answers = addresses.engine.send(StillScheduled(asked)).await.unwrap_or_default();
        let mut answers = answers.into_iter();
        let mut wanted = Vec::with_capacity(picked.len());
        for it in picked {
            if answers.next() == Some(true) {
                wanted.push(it);
            } else {
                ends.push(it.leased.checked.item.fail(cancelled()));
            }
        }
        picked = wanted;
    }
    picked
}

/// Sends back what must not begin now: nobody may be sure any more that it runs here only, or too
/// many outcomes wait for the store. Lease and ticket are given back.
fn pass_gate(picked: Vec<AssignedTask>, ends: &mut Ends) -> Vec<AssignedTask> {
    if picked.iter().all(|it| it.leased.checked.item.may_begin()) {
        return picked;
    }
    let mut passed = Vec::with_capacity(picked.len());
    for it in picked {
        if it.leased.checked.item.may_begin() {
            passed.push(it);
        } else {
            ends.held.push(it.leased.checked.item.hold());
        }
    }
    passed
}

/// Tells the engine who starts where; waits for the commit where a method must not run twice, or
/// the attempt must count even if it ends this process.
async fn announce(
    addresses: &Rc<ActorAddresses>,
    mut picked: Vec<AssignedTask>,
    ends: &mut Ends,
) -> Vec<AssignedTask> {
    for it in &mut picked {
        it.leased.checked.item.is_announced = true;
    }
    let once = |it: &AssignedTask| {
        let ValidatedTask { item, method, .. } = &it.leased.checked;
        item.saves_start || method.spec.effect == Effect::AtMostOnce
    };
    let start = |it: &AssignedTask| TaskStart {
        task: it.leased.checked.item.task,
        provider_id: it.ticket.provider_id().clone(),
        save: once(it),
    };
    let starts: Vec<TaskStart> = picked.iter().map(start).collect();
    if !picked.iter().any(once) {
        addresses.engine.do_send(TasksStarted { starts, saved: None });
        return picked;
    }
    gleitzeit_failpoint::failpoint!("pipeline.start.saving");
    let (saved, committed) = oneshot::channel();
    addresses.engine.do_send(TasksStarted { starts, saved: Some(saved) });
    if committed.await.is_ok() {
        gleitzeit_failpoint::failpoint!("pipeline.start.saved");
        return picked;
    }
    let error = TaskError::new(ErrorCode::PersistenceWriteFailed, "its start could not be stored");
    for it in picked {
        ends.push(it.leased.checked.item.fail(error.clone()));
    }
    Vec::new()
}

/// The calls, grouped by provider.
async fn execute(addresses: &Rc<ActorAddresses>, picked: Vec<AssignedTask>, ends: &mut Ends) {
    let picked = still_wanted(addresses, picked, ends).await;
    let picked = pass_gate(picked, ends);
    if picked.is_empty() {
        return;
    }
    let picked = announce(addresses, picked, ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.start.announced");
    // Something may have been cancelled, or the lease have run out, between the commit and here.
    let picked = still_wanted(addresses, picked, ends).await;
    let picked = pass_gate(picked, ends);
    gleitzeit_failpoint::failpoint!("pipeline.start.wanted");
    let mut groups: Vec<Vec<AssignedTask>> = Vec::new();
    for it in picked {
        let same = |group: &&mut Vec<AssignedTask>| group[0].ticket.same_provider(&it.ticket);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(it),
            None => groups.push(vec![it]),
        }
    }
    if let [_] = groups.as_slice() {
        for group in groups {
            execute_group(addresses, group, ends).await;
        }
        return;
    }
    // Several providers: each group goes on alone, so that none waits for another's thread.
    for group in groups {
        let addresses = Rc::clone(addresses);
        actix_rt::spawn(async move {
            let mut ends = Ends::new(&addresses);
            execute_group(&addresses, group, &mut ends).await;
        });
    }
}

async fn execute_group(addresses: &Rc<ActorAddresses>, group: Vec<AssignedTask>, ends: &mut Ends) {
    let supervisor = group[0].ticket.supervisor().clone();
    let call = |it: &AssignedTask| {
        let TaskWithResources { checked: ValidatedTask { item, method, filled }, lease } =
            &it.leased;
        let call = Call {
            workflow_id: item.plan.id.clone(),
            task_id: item.planned().id.clone(),
            attempt: item.attempt,
            method: Arc::clone(method),
            params: Arc::clone(&filled.params),
            defaulted: Arc::clone(&filled.defaulted),
            timeout: item.planned().timeout,
            resources: lease.held(),
            file_access: item.plan.spec.file_access.clone(),
        };
        KeyedCall { task: item.task, call, span: item.span.clone() }
    };
    gleitzeit_failpoint::failpoint!("pipeline.call.before");
    let calls = group.iter().map(call).collect();
    let longest = group.iter().map(|it| it.leased.checked.item.planned().timeout).max();
    let limit = longest.unwrap_or_default().saturating_add(BLOCKED_GRACE);
    let asked = tokio::time::timeout(limit, supervisor.send(Execute(calls)));
    let answers = tokio::select! {
        biased;
        answered = asked => answered.ok().and_then(Result::ok).unwrap_or_default(),
        () = group[0].ticket.abandoned() => Vec::new(),
    };
    // Where answers are missing, the thread is blocked or the supervisor died with the message:
    // nobody knows what became of the call.
    gleitzeit_failpoint::failpoint!("pipeline.call.asked");
    let mut answers = answers.into_iter();
    for it in group {
        match answers.next() {
            Some(Execution::Ended(finished)) => ends.push(conclude(it, finished)),
            Some(Execution::Running(answer)) => {
                actix_rt::spawn(await_call(Rc::clone(addresses), it, answer));
            }
            Some(Execution::Refused) => {
                actix_rt::spawn(reassign(Rc::clone(addresses), it));
            }
            None => ends.push(give_up(
                it,
                "did not answer: its thread is blocked, or it is being restarted",
            )),
        }
    }
}

/// A call that its provider has not begun, because it broke down before, is none of its failures:
/// the same attempt goes to another provider, or waits until this one is back.
async fn reassign(addresses: Rc<ActorAddresses>, it: AssignedTask) {
    let AssignedTask { leased: TaskWithResources { mut checked, lease }, ticket } = it;
    checked.item.avoid = Some(ticket.provider_id().clone());
    drop((lease, ticket));
    let mut ends = Ends::new(&addresses);
    let leased = acquire(&addresses, vec![checked], &mut ends).await;
    let picked = pick(&addresses, leased, &mut ends).await;
    // Boxed, for it is on this way that it came here.
    let executed: Pin<Box<dyn Future<Output = ()> + '_>> =
        Box::pin(execute(&addresses, picked, &mut ends));
    executed.await;
}

async fn await_call(
    addresses: Rc<ActorAddresses>,
    it: AssignedTask,
    answer: oneshot::Receiver<Finished>,
) {
    let limit = it.leased.checked.item.planned().timeout.saturating_add(BLOCKED_GRACE);
    let answered = tokio::select! {
        biased;
        answered = tokio::time::timeout(limit, answer) => Some(answered),
        () = it.ticket.abandoned() => None,
    };
    gleitzeit_failpoint::failpoint!("pipeline.call.ended");
    let mut ends = Ends::new(&addresses);
    ends.push(match answered {
        Some(Ok(Ok(finished))) => conclude(it, finished),
        Some(Ok(Err(_))) => give_up(it, "ended the call before it was done"),
        Some(Err(_)) => give_up(it, "blocks its thread: it did not even answer that time was up"),
        None => give_up(it, "was given up: its thread is blocked, or it was removed"),
    });
}

fn give_up(mut it: AssignedTask, what: &str) -> TaskEnd {
    it.ticket.finished(Duration::ZERO, false);
    // Should its thread wake up: the call is not to go on beside the next attempt.
    it.ticket.supervisor().do_send(CancelCalls(vec![it.leased.checked.item.task]));
    let message = format!("provider `{}` {what}", it.ticket.provider_id());
    it.leased.checked.item.fail(TaskError::new(ErrorCode::ProviderUnhealthy, message))
}

/// True for what the provider is to blame for, and not the task that it ran.
const fn blames(code: ErrorCode) -> bool {
    use ErrorCode as Code;
    matches!(
        code,
        Code::ProviderUnhealthy
            | Code::ProviderTimeout
            | Code::ProviderOverloaded
            | Code::ProviderNotAvailable
            | Code::ProviderInitializationFailed
            | Code::RateLimitExceeded
            | Code::TaskTimeout
            | Code::NetworkUnreachable
            | Code::ConnectionRefused
            | Code::ConnectionTimeout
            | Code::ConnectionLost
            | Code::AuthenticationFailed
            | Code::AuthorizationFailed
    )
}

/// Checks the result, and lets go of lease and ticket.
fn conclude(mut it: AssignedTask, Finished { outcome, duration }: Finished) -> TaskEnd {
    it.ticket.finished(duration, outcome.as_ref().err().is_none_or(|error| !blames(error.code)));
    let TaskWithResources { checked: ValidatedTask { item, method, .. }, lease } = it.leased;
    drop(lease);
    let checked = |outcome: Outcome| method.check_result(&outcome.value).map(|()| outcome);
    let outcome = outcome.and_then(checked).map(|mut outcome| {
        if item.plan.spec.tasks[item.task.index as usize].profile {
            add_profile(&mut outcome, duration);
        }
        outcome
    });
    item.end(outcome, Some(duration))
}

fn add_profile(outcome: &mut Outcome, duration: Duration) {
    if let Value::Object(fields) = Arc::make_mut(&mut outcome.value) {
        let mut profile = serde_json::Map::new();
        profile.insert("execution_time".into(), duration.as_secs_f64().into());
        if let Some(bytes) = outcome.memory_bytes {
            profile.insert("peak_memory_bytes".into(), bytes.into());
        }
        if let Some(bytes) = outcome.memory_delta_bytes {
            profile.insert("memory_delta_bytes".into(), bytes.into());
        }
        fields.insert("_profiling".into(), profile.into());
    }
}
