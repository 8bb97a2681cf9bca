//! Tasks that wait on their way: for resources, for a busy provider, for one that is down.
//!
//! A task that waits has left its group, and counts as waiting while it does.

use std::{rc::Rc, sync::Arc};

use gleitzeit_domain::error::TaskError;
use tokio::sync::oneshot;

use super::{
    AssignedTask, Attempt, FinishedBatch, Route, StillScheduled, TaskWaits, TaskWithResources,
    ValidatedTask, WaitingGuard, cancelled, check, execute, need, no_reply, pick, refused, resolve,
};
use crate::{
    load_balancer::{CancelTasks, ProviderTicket, Waiting},
    resource_manager::{Acquire, CancelWaiting, Grant, ResourceLease},
};

pub(super) async fn wait_for_lease(
    route: Rc<Route>,
    mut checked: ValidatedTask,
    lease: oneshot::Receiver<ResourceLease>,
) {
    let mut ends = FinishedBatch::new(&route);
    // Counted before the first await, or dispatch would take the place for occupied by a running
    // call.
    let parked = WaitingGuard::parked(&route);
    gleitzeit_failpoint::failpoint!("pipeline.lease.waits");
    let lease = if is_still_scheduled(&route, &mut checked.attempt).await {
        lease.await.ok()
    } else {
        None
    };
    drop(parked);
    match lease {
        Some(lease) => {
            gleitzeit_failpoint::failpoint!("pipeline.lease.granted");
            let picked = pick(&route, vec![TaskWithResources { checked, lease }], &mut ends).await;
            execute(&route, picked, &mut ends).await;
        }
        None => ends.push(checked.attempt.fail(cancelled())),
    }
}

pub(super) async fn wait_for_provider(
    route: Rc<Route>,
    mut checked: ValidatedTask,
    waiting: Waiting,
) {
    let mut ends = FinishedBatch::new(&route);
    let parked = WaitingGuard::parked(&route);
    gleitzeit_failpoint::failpoint!("pipeline.provider.waits");
    if !is_still_scheduled(&route, &mut checked.attempt).await {
        return ends.push(checked.attempt.fail(cancelled()));
    }
    let Waiting { mut ticket, cause } = waiting;
    let answer = tokio::select! {
        // The ticket first: a task that has its provider must not be stored as waiting.
        biased;
        answer = &mut ticket => answer.unwrap_or_else(|_| Err(cancelled())),
        Ok(reason) = cause => {
            return wait_while_down(route, checked.attempt, ticket, parked, reason).await;
        }
    };
    let granted = match answer {
        Ok(ticket) => reacquire(&route, &checked).await.map(|lease| (ticket, lease)),
        Err(error) => Err(error),
    };
    drop(parked);
    finish_wait(&route, checked, granted, &mut ends).await;
}

type AwaitedTicket = oneshot::Receiver<Result<ProviderTicket, TaskError>>;

/// Waits for providers that are all down, which may take days. So the wait is written down for
/// others to see, counts among none of those that dispatch waits for, and holds no parameters,
/// which references may have made large.
async fn wait_while_down(
    route: Rc<Route>,
    attempt: Attempt,
    ticket: AwaitedTicket,
    parked: WaitingGuard,
    reason: Arc<str>,
) {
    let mut ends = FinishedBatch::new(&route);
    let away = parked.into_away();
    route.waits.do_send(TaskWaits { task: attempt.of.task, attempt: attempt.of.attempt, reason });
    let ticket = match ticket.await.unwrap_or_else(|_| Err(cancelled())) {
        Ok(ticket) => ticket,
        Err(error) => return ends.push(attempt.fail(error)),
    };
    // Counted again before it is counted off: the task never counts as running while it waits.
    let parked = WaitingGuard::parked(&route);
    drop(away);
    // Again, because the parameters were dropped for the wait; references give the same values.
    let resolved = resolve(&route, vec![attempt], &mut ends).await;
    let Some(checked) = check(&route, resolved, &mut ends).await.pop() else { return };
    let granted = reacquire(&route, &checked).await.map(|lease| (ticket, lease));
    drop(parked);
    finish_wait(&route, checked, granted, &mut ends).await;
}

async fn finish_wait(
    route: &Rc<Route>,
    checked: ValidatedTask,
    granted: Result<(ProviderTicket, ResourceLease), TaskError>,
    ends: &mut FinishedBatch,
) {
    match granted {
        Ok((ticket, lease)) => {
            gleitzeit_failpoint::failpoint!("pipeline.provider.granted");
            let ready = AssignedTask { leased: TaskWithResources { checked, lease }, ticket };
            execute(route, vec![ready], ends).await;
        }
        Err(error) => ends.push(checked.attempt.fail(error)),
    }
}

async fn reacquire(route: &Rc<Route>, checked: &ValidatedTask) -> Result<ResourceLease, TaskError> {
    let grants = route.acquire.send(Acquire(vec![need(checked)])).await.unwrap_or_default();
    match grants.into_iter().next() {
        Some(Grant::Leased(lease)) => Ok(lease),
        Some(Grant::Waiting(lease)) => lease.await.map_err(|_| cancelled()),
        Some(Grant::Refused(refusal)) => Err(refused(&refusal)),
        None => Err(no_reply("the resource manager")),
    }
}

/// False for a task that was cancelled before it began to wait, so that nobody ends its wait. Its
/// place in the line is given up.
async fn is_still_scheduled(route: &Rc<Route>, attempt: &mut Attempt) -> bool {
    while attempt.of.cancel_requested() {
        let epoch = attempt.of.signal.epoch();
        let asked = StillScheduled(vec![(attempt.of.task, attempt.of.attempt)]);
        if !route.scheduled.send(asked).await.is_ok_and(|answers| answers == [true]) {
            let tasks = Arc::new(vec![attempt.of.task]);
            route.cancel_acquire.do_send(CancelWaiting(Arc::clone(&tasks)));
            route.cancel_pick.do_send(CancelTasks(tasks));
            return false;
        }
        // The epoch of before the question: a cancellation during it is asked about once more.
        attempt.of.epoch = epoch;
    }
    true
}
