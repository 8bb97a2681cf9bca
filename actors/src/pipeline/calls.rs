//! The calls: the last checks before them, their starts, their outcomes.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use gleitzeit_domain::{
    engine::{TaskEnd, TaskStart},
    error::{ErrorCode, TaskError},
    protocol::Effect,
    provider::{Call, GRACE_MAX, Outcome},
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    AssignedTask, FinishedBatch, Route, StillScheduled, TaskWithResources, TasksStarted,
    ValidatedTask, acquire, cancelled, pick,
};
use crate::provider_supervisor::{CancelCalls, Execute, Execution, Finished, KeyedCall};

/// A provider's thread that is blocked answers nothing, not even a timeout; so much later than
/// the call's own limit and any grace, the pipeline gives the call up.
const BLOCKED_GRACE: Duration = GRACE_MAX.saturating_add(Duration::from_secs(5));

/// Drops what was cancelled on the way. Behind it nothing is, until the next await.
async fn drop_cancelled(
    route: &Rc<Route>,
    mut picked: Vec<AssignedTask>,
    ends: &mut FinishedBatch,
) -> Vec<AssignedTask> {
    // More may be cancelled while the engine answers.
    while picked.iter().any(|it| it.leased.checked.attempt.of.cancel_requested()) {
        let mut asked = Vec::with_capacity(picked.len());
        for it in &mut picked {
            let attempt = &mut it.leased.checked.attempt;
            // Before the question, so that a cancellation while it is answered is seen by the
            // loop.
            attempt.of.epoch = attempt.of.signal.epoch();
            asked.push((attempt.of.task, attempt.of.attempt));
        }
        let answers = route.scheduled.send(StillScheduled(asked)).await.unwrap_or_default();
        let mut answers = answers.into_iter();
        let mut wanted = Vec::with_capacity(picked.len());
        for it in picked {
            if answers.next() == Some(true) {
                wanted.push(it);
            } else {
                ends.push(it.leased.checked.attempt.fail(cancelled()));
            }
        }
        picked = wanted;
    }
    picked
}

/// Sends back what must not begin now: nobody may be sure any more that it runs here only, or too
/// many outcomes wait for the store. Lease and ticket are released.
fn pass_gate(picked: Vec<AssignedTask>, ends: &mut FinishedBatch) -> Vec<AssignedTask> {
    if picked.iter().all(|it| it.leased.checked.attempt.may_begin()) {
        return picked;
    }
    let mut passed = Vec::with_capacity(picked.len());
    for it in picked {
        if it.leased.checked.attempt.may_begin() {
            passed.push(it);
        } else {
            ends.held.push(it.leased.checked.attempt.hold());
        }
    }
    passed
}

/// Tells the engine who starts where; waits for the commit where a method must not run twice, or
/// the attempt must count even if it ends this process.
async fn announce(
    route: &Rc<Route>,
    mut picked: Vec<AssignedTask>,
    ends: &mut FinishedBatch,
) -> Vec<AssignedTask> {
    for it in &mut picked {
        // From here on only the end of the lease holds it back: its start may be stored.
        it.leased.checked.attempt.is_announced = true;
    }
    let once = |it: &AssignedTask| {
        let ValidatedTask { attempt, method, .. } = &it.leased.checked;
        attempt.of.saves_start || method.spec.effect == Effect::AtMostOnce
    };
    let start = |it: &AssignedTask| TaskStart {
        task: it.leased.checked.attempt.of.task,
        provider_id: it.ticket.provider_id().clone(),
        save: once(it),
    };
    let starts: Vec<TaskStart> = picked.iter().map(start).collect();
    if !picked.iter().any(once) {
        route.started.do_send(TasksStarted { starts, saved: None });
        return picked;
    }
    gleitzeit_failpoint::failpoint!("pipeline.start.saving");
    let (saved, committed) = oneshot::channel();
    route.started.do_send(TasksStarted { starts, saved: Some(saved) });
    // A method that must not run twice begins only after this: a crash before leaves no start.
    if committed.await.is_ok() {
        gleitzeit_failpoint::failpoint!("pipeline.start.saved");
        return picked;
    }
    let error = TaskError::new(ErrorCode::PersistenceWriteFailed, "its start could not be stored");
    for it in picked {
        ends.push(it.leased.checked.attempt.fail(error.clone()));
    }
    Vec::new()
}

/// The calls, grouped by provider.
pub(super) async fn execute(
    route: &Rc<Route>,
    picked: Vec<AssignedTask>,
    ends: &mut FinishedBatch,
) {
    let picked = drop_cancelled(route, picked, ends).await;
    let picked = pass_gate(picked, ends);
    if picked.is_empty() {
        return;
    }
    let picked = announce(route, picked, ends).await;
    gleitzeit_failpoint::failpoint!("pipeline.start.announced");
    // Something may have been cancelled, or the lease have run out, between the commit and here.
    let picked = drop_cancelled(route, picked, ends).await;
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
            execute_group(route, group, ends).await;
        }
        return;
    }
    // Several providers: each group goes on alone, so that none waits for another's thread.
    for group in groups {
        let route = Rc::clone(route);
        actix_rt::spawn(async move {
            let mut ends = FinishedBatch::new(&route);
            execute_group(&route, group, &mut ends).await;
        });
    }
}

async fn execute_group(route: &Rc<Route>, group: Vec<AssignedTask>, ends: &mut FinishedBatch) {
    let supervisor = group[0].ticket.supervisor().clone();
    let call = |it: &AssignedTask| {
        let TaskWithResources { checked: ValidatedTask { attempt, method, filled }, lease } =
            &it.leased;
        let call = Call {
            workflow_id: attempt.of.plan.id.clone(),
            task_id: attempt.of.planned().id.clone(),
            attempt: attempt.of.attempt,
            method: Arc::clone(method),
            params: Arc::clone(&filled.params),
            defaulted: Arc::clone(&filled.defaulted),
            timeout: attempt.of.planned().timeout,
            resources: lease.held(),
            file_access: attempt.of.plan.spec.file_access.clone(),
        };
        KeyedCall { task: attempt.of.task, call, span: attempt.of.span.clone() }
    };
    gleitzeit_failpoint::failpoint!("pipeline.call.before");
    let calls = group.iter().map(call).collect();
    let longest = group.iter().map(|it| it.leased.checked.attempt.of.planned().timeout).max();
    // The longest of the group: the provider enforces the limit of each call itself.
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
            Some(Execution::Ended(finished)) => ends.push(finish_call(it, finished)),
            Some(Execution::Running(answer)) => {
                actix_rt::spawn(await_call(Rc::clone(route), it, answer));
            }
            Some(Execution::Refused) => {
                actix_rt::spawn(reassign(Rc::clone(route), it));
            }
            None => ends.push(abandon(
                it,
                "did not answer: its thread is blocked, or it is being restarted",
            )),
        }
    }
}

/// A call that its provider has not begun, because it broke down before, is none of its failures:
/// the same attempt goes to another provider, or waits until this one is back.
async fn reassign(route: Rc<Route>, it: AssignedTask) {
    let AssignedTask { leased: TaskWithResources { mut checked, lease }, ticket } = it;
    checked.attempt.of.avoid = Some(ticket.provider_id().clone());
    drop((lease, ticket));
    let mut ends = FinishedBatch::new(&route);
    let leased = acquire(&route, vec![checked], &mut ends).await;
    let picked = pick(&route, leased, &mut ends).await;
    // Boxed, for it is on this way that it came here.
    let executed: Pin<Box<dyn Future<Output = ()> + '_>> =
        Box::pin(execute(&route, picked, &mut ends));
    executed.await;
}

async fn await_call(route: Rc<Route>, it: AssignedTask, answer: oneshot::Receiver<Finished>) {
    let limit = it.leased.checked.attempt.of.planned().timeout.saturating_add(BLOCKED_GRACE);
    let answered = tokio::select! {
        biased;
        answered = tokio::time::timeout(limit, answer) => Some(answered),
        () = it.ticket.abandoned() => None,
    };
    gleitzeit_failpoint::failpoint!("pipeline.call.ended");
    let mut ends = FinishedBatch::new(&route);
    ends.push(match answered {
        Some(Ok(Ok(finished))) => finish_call(it, finished),
        Some(Ok(Err(_))) => abandon(it, "ended the call before it was done"),
        Some(Err(_)) => abandon(it, "blocks its thread: it did not even answer that time was up"),
        None => abandon(it, "was given up: its thread is blocked, or it was removed"),
    });
}

fn abandon(mut it: AssignedTask, what: &str) -> TaskEnd {
    // Counts as a failure, or the balancer would prefer a provider that is blocked.
    it.ticket.finished(Duration::ZERO, false);
    // Should its thread wake up: the call is not to go on beside the next attempt.
    it.ticket.supervisor().do_send(CancelCalls(vec![it.leased.checked.attempt.of.task]));
    let message = format!("provider `{}` {what}", it.ticket.provider_id());
    it.leased.checked.attempt.fail(TaskError::new(ErrorCode::ProviderUnhealthy, message))
}

/// True for what the provider is to blame for, and not the task that it ran.
const fn is_provider_failure(code: ErrorCode) -> bool {
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
fn finish_call(mut it: AssignedTask, Finished { outcome, duration }: Finished) -> TaskEnd {
    it.ticket.finished(
        duration,
        outcome.as_ref().err().is_none_or(|error| !is_provider_failure(error.code)),
    );
    let TaskWithResources { checked: ValidatedTask { attempt, method, .. }, lease } = it.leased;
    // Before the result is checked: the next task need not wait for that.
    drop(lease);
    let checked = |outcome: Outcome| method.check_result(&outcome.value).map(|()| outcome);
    let outcome = outcome.and_then(checked).map(|mut outcome| {
        if attempt.of.plan.spec.tasks[attempt.of.task.index as usize].profile {
            add_profile(&mut outcome, duration);
        }
        outcome
    });
    attempt.end(outcome, Some(duration))
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
