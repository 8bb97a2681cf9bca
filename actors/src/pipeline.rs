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
//! that the price of a message is shared under load. A task that must wait leaves the group and goes
//! on alone. No task holds a lease while it waits for a provider, so that tasks without a provider
//! block none that have one.
//!
//! Knows the engine as recipients of its own messages only. Invariant: every [`Attempt`] ends in
//! exactly one [`TaskEnd`](gleitzeit_domain::engine::TaskEnd), or is sent back before its call has
//! begun; one that is dropped on the way reports that itself.

mod attempt;
mod calls;
mod effect_gate;
mod messages;
mod route;
mod waits;

use std::{rc::Rc, sync::Arc};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    run::TaskKey,
};
use serde_json::Value;

use self::{
    attempt::{AssignedTask, FinishedBatch, TaskWithResources, ValidatedTask, WaitingGuard},
    calls::execute,
    waits::{wait_for_lease, wait_for_provider},
};
use crate::{
    dependency_resolver::ResolveParameters,
    load_balancer::{PickProviders, PickRequest, Picked},
    protocol_registry::{CallCheck, ValidateCalls},
    resource_manager::{Acquire, Grant, Need},
};

pub use self::{
    attempt::Attempt,
    effect_gate::{EffectGate, LeaseBound},
    messages::{
        StillScheduled, TaskWaits, TasksFinished, TasksHeld, TasksStarted, WaitingCountChanged,
    },
    route::Route,
};

/// Runs a group of dispatched tasks.
pub async fn run(route: Rc<Route>, batch: Vec<Attempt>) {
    // Reports on every way out, so that a panic in the middle leaves no task behind.
    let mut ends = FinishedBatch::new(&route);
    gleitzeit_failpoint::failpoint!("pipeline.begun");
    let resolved = resolve(&route, batch, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.resolved");
    let checked = check(&route, resolved, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.checked");
    let leased = acquire(&route, checked, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.leased");
    let picked = pick(&route, leased, &mut ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.picked");
    execute(&route, picked, &mut ends).await;
}

fn no_reply(who: &'static str) -> TaskError {
    TaskError::new(ErrorCode::InternalError, format!("{who} did not answer; it is being restarted"))
        .retryable(true)
}

/// Parameters with every reference resolved. A template without references is its own result.
async fn resolve(
    route: &Rc<Route>,
    batch: Vec<Attempt>,
    ends: &mut FinishedBatch,
) -> Vec<(Attempt, Arc<Value>)> {
    let literal = |attempt: &Attempt| attempt.of.planned().template.is_literal();
    let open: Vec<TaskKey> =
        batch.iter().filter(|attempt| !literal(attempt)).map(|attempt| attempt.of.task).collect();
    // Most templates have no references: the resolver is not asked for nothing.
    let mut answers = if open.is_empty() {
        Vec::new().into_iter()
    } else {
        let asked = open.len();
        let refused = |_| (0..asked).map(|_| Err(no_reply("the resolver"))).collect();
        route.resolve.send(ResolveParameters(open)).await.unwrap_or_else(refused).into_iter()
    };
    let mut resolved = Vec::with_capacity(batch.len());
    for attempt in batch {
        let params = if literal(&attempt) {
            Ok(Arc::clone(attempt.of.planned().template.parameters()))
        } else {
            answers.next().unwrap_or_else(|| Err(no_reply("the resolver")))
        };
        match params {
            Ok(params) => resolved.push((attempt, params)),
            Err(error) => ends.push(attempt.fail(error)),
        }
    }
    resolved
}

/// Parameters checked against the method's schema.
async fn check(
    route: &Rc<Route>,
    resolved: Vec<(Attempt, Arc<Value>)>,
    ends: &mut FinishedBatch,
) -> Vec<ValidatedTask> {
    let mut known = Vec::with_capacity(resolved.len());
    let mut calls = Vec::with_capacity(resolved.len());
    for (attempt, params) in resolved {
        match attempt.of.planned().method.clone() {
            Ok(method) => {
                calls.push(CallCheck { method: Arc::clone(&method), params });
                known.push((attempt, method));
            }
            Err(error) => ends.push(attempt.fail(TaskError::clone(&error))),
        }
    }
    // An empty message would cost a round trip.
    if known.is_empty() {
        return Vec::new();
    }
    let mut answers =
        route.validate.send(ValidateCalls(calls)).await.unwrap_or_default().into_iter();
    let mut checked = Vec::with_capacity(known.len());
    for (attempt, method) in known {
        match answers.next().unwrap_or_else(|| Err(no_reply("the protocol registry"))) {
            Ok(filled) => checked.push(ValidatedTask { attempt, method, filled }),
            Err(error) => ends.push(attempt.fail(error)),
        }
    }
    checked
}

fn need(checked: &ValidatedTask) -> Need {
    Need {
        task: checked.attempt.of.task,
        need: checked.attempt.of.planned().need,
        priority: checked.attempt.of.priority(),
    }
}

fn refused(refusal: &gleitzeit_domain::lease_queue::ExceedsTotal) -> TaskError {
    TaskError::new(ErrorCode::ResourceExhausted, refusal.to_string()).retryable(false)
}

fn cancelled() -> TaskError {
    TaskError::new(ErrorCode::TaskCancelled, "the task was cancelled while it waited")
}

/// Acquires a lease for each task. A task that must wait for its lease continues on its own.
async fn acquire(
    route: &Rc<Route>,
    checked: Vec<ValidatedTask>,
    ends: &mut FinishedBatch,
) -> Vec<TaskWithResources> {
    if checked.is_empty() {
        return Vec::new();
    }
    // All needs in one message: the answer has a grant for each, in the same order.
    let needs = checked.iter().map(need).collect();
    let mut grants = route.acquire.send(Acquire(needs)).await.unwrap_or_default().into_iter();
    let mut leased = Vec::with_capacity(checked.len());
    for checked in checked {
        match grants.next() {
            Some(Grant::Leased(lease)) => leased.push(TaskWithResources { checked, lease }),
            Some(Grant::Waiting(lease)) => {
                // On its own: the others of the group must not wait with it.
                actix_rt::spawn(wait_for_lease(Rc::clone(route), checked, lease));
            }
            Some(Grant::Refused(refusal)) => ends.push(checked.attempt.fail(refused(&refusal))),
            None => ends.push(checked.attempt.fail(no_reply("the resource manager"))),
        }
    }
    leased
}

/// Picks a provider for each task. A task that must wait for one releases its lease, and continues
/// on its own.
async fn pick(
    route: &Rc<Route>,
    leased: Vec<TaskWithResources>,
    ends: &mut FinishedBatch,
) -> Vec<AssignedTask> {
    if leased.is_empty() {
        return Vec::new();
    }
    let requests = leased
        .iter()
        .map(|leased| PickRequest {
            task: leased.checked.attempt.of.task,
            method: Arc::clone(&leased.checked.method),
            priority: leased.checked.attempt.of.priority(),
            // After a failure another provider is preferred, so that a broken one does not use up
            // all attempts.
            avoid: leased.checked.attempt.of.avoid.clone(),
        })
        .collect();
    let mut answers =
        route.pick.send(PickProviders(requests)).await.unwrap_or_default().into_iter();
    let mut picked = Vec::with_capacity(leased.len());
    for leased in leased {
        match answers.next() {
            Some(Picked::Now(ticket)) => picked.push(AssignedTask { leased, ticket }),
            Some(Picked::Waiting(waiting)) => {
                let TaskWithResources { checked, lease } = leased;
                // Given back before the wait: a task without a provider must not keep resources
                // from one that has.
                drop(lease);
                actix_rt::spawn(wait_for_provider(Rc::clone(route), checked, waiting));
            }
            Some(Picked::Refused(error)) => ends.push(leased.checked.attempt.fail(error)),
            None => ends.push(leased.checked.attempt.fail(no_reply("the load balancer"))),
        }
    }
    picked
}
