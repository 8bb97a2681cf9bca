//! The calls of a provider: started, guarded, cancelled.
//!
//! A call that is done at its first poll is answered at once and costs no task. Any other call runs
//! in a task of its own, so that no call waits for another.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, task};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::ProviderId,
    provider::{Call, GRACE_MAX, Outcome, Provider},
    run::TaskKey,
};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tracing::Instrument as _;

use super::{Answer, KeyedCall, ProviderState, ProviderSupervisor, lifecycle::Trouble};
use crate::{
    guard::{CallError, discard, guarded},
    stall::Watched,
};

/// Runs calls. Each is answered at once, or when it ends.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Execution>")]
pub struct Execute(pub Vec<KeyedCall>);

/// The answer to one call of [`Execute`], in the same order.
#[derive(Debug)]
pub enum Execution {
    /// The call has ended.
    Ended(Finished),
    /// The call runs; the channel closes without an answer if the call is cancelled.
    Running(oneshot::Receiver<Finished>),
    /// The call was not started: no instance serves. The balancer has been notified.
    Refused,
}

/// The end of a call.
#[derive(Debug)]
pub struct Finished {
    /// The result, or the error.
    pub outcome: Result<Outcome, TaskError>,
    /// From its start to its end.
    pub duration: std::time::Duration,
}

impl From<Answer> for Finished {
    fn from((outcome, duration): Answer) -> Self {
        Self { outcome, duration }
    }
}

/// Drops the calls of these tasks; tasks that run at other providers are ignored.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CancelCalls(pub Vec<TaskKey>);

/// Names a call: its task and a number, because an attempt may begin before the last one is over.
pub(super) type CallKey = (TaskKey, u64);

/// A call that runs in its own task.
#[derive(Debug)]
pub(super) struct RunningCall {
    /// The generation of the instance that runs it.
    pub(super) generation: u64,
    handle: JoinHandle<()>,
}

/// A call in its own task has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct CallEnded {
    call: CallKey,
    failed: bool,
    panicked: Option<String>,
}

/// Reports the end of a call, however it ends: by an answer, because it is dropped, or by a panic
/// while it is dropped.
struct Ending {
    supervisor: Addr<ProviderSupervisor>,
    ended: Option<CallEnded>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            self.supervisor.do_send(ended);
        }
    }
}

type CallFuture = Pin<Box<dyn Future<Output = (Answer, Option<String>)>>>;

/// Runs one call to its end; returns the answer, and the text of a panic.
fn call_future(
    provider: Rc<dyn Provider>,
    id: ProviderId,
    call: Call,
    caller: Option<&tracing::Span>,
) -> CallFuture {
    let label = Arc::clone(&call.method.capability);
    let span = tracing::info_span!(
        parent: caller.and_then(tracing::Span::id),
        "task",
        workflow = %call.workflow_id,
        task = %call.task_id,
        protocol = %label.protocol,
        method = %label.method,
        attempt = call.attempt,
        provider = %id,
    );
    let run = async move {
        let limit = call.timeout;
        let begun = Instant::now();
        gleitzeit_failpoint::failpoint!("provider.call.begins");
        // In a block of its own: a provider may panic before it returns a future, and that panic
        // would otherwise unwind through the supervisor.
        let limit_with_grace = limit.saturating_add(provider.grace().min(GRACE_MAX));
        let ended = guarded(limit_with_grace, async { provider.execute(call).await }).await;
        gleitzeit_failpoint::failpoint!("provider.call.ended");
        let duration = begun.elapsed();
        // The last call of a replaced instance runs its destructor, which is foreign code: a panic
        // there would replace the answer.
        if let Some(text) = discard(provider) {
            tracing::warn!(provider = %id, text, "provider panicked while it was dropped");
        }
        let (outcome, panic) = match ended {
            Ok(outcome) => (outcome, None),
            Err(CallError::TimedOut { .. }) => {
                let message = format!(
                    "provider `{id}` did not answer {label} within {limit:?}; raise the task's \
                     `timeout` or check the provider"
                );
                (Err(TaskError::new(ErrorCode::TaskTimeout, message)), None)
            }
            Err(CallError::Panicked { text }) => {
                let message = format!("provider `{id}` panicked during {label}: {text}");
                (Err(TaskError::new(ErrorCode::ProviderUnhealthy, message)), Some(text))
            }
        };
        ((outcome, duration), panic)
    };
    Box::pin(run.instrument(span))
}

impl ProviderSupervisor {
    fn run_call(
        &mut self,
        provider: &Rc<dyn Provider>,
        KeyedCall { task, call, span }: KeyedCall,
        ctx: &mut Context<Self>,
    ) -> Execution {
        self.calls_total += 1;
        let future = call_future(Rc::clone(provider), self.id().clone(), call, span.as_deref());
        let mut future = Watched::new(self.id().shared(), future);
        // Polled here once: most in-process calls are done by then, and a spawn costs more than
        // they do. A call that is not done is polled again by its task, with a real waker.
        let mut context = task::Context::from_waker(task::Waker::noop());
        if let task::Poll::Ready((answer, panic)) = Pin::new(&mut future).poll(&mut context) {
            self.calls_failed += u64::from(answer.0.is_err());
            if let Some(text) = panic {
                self.replace(format!("panicked: {text}"), Trouble::Own, ctx);
            }
            return Execution::Ended(answer.into());
        }
        let (answer, answered) = oneshot::channel();
        self.next_call += 1;
        let call = (task, self.next_call);
        let ended = Some(CallEnded { call, failed: false, panicked: None });
        let mut ending = Ending { supervisor: ctx.address(), ended };
        let handle = actix_rt::spawn(async move {
            let (ended, panicked) = future.await;
            ending.ended = Some(CallEnded { call, failed: ended.0.is_err(), panicked });
            // Before the answer: a caller that reads the status next must not find its own call
            // still in flight.
            drop(ending);
            gleitzeit_failpoint::failpoint!("provider.call.counted");
            let _ = answer.send(ended.into());
            gleitzeit_failpoint::failpoint!("provider.call.answered");
        });
        self.running.insert(call, RunningCall { generation: self.generation, handle });
        Execution::Running(answered)
    }

    /// Drops every call in flight; each reports its end when it is gone.
    pub(super) fn drop_calls(&self) {
        for call in self.running.values() {
            call.handle.abort();
        }
    }
}

impl Handler<Execute> for ProviderSupervisor {
    type Result = MessageResult<Execute>;

    fn handle(&mut self, Execute(calls): Execute, ctx: &mut Self::Context) -> Self::Result {
        let mut executions = Vec::with_capacity(calls.len());
        for call in calls {
            // For each call again: the call before may have panicked and ended the instance.
            let serving = self.instance.clone().filter(|_| self.state == ProviderState::Serving);
            executions.push(match serving {
                Some(provider) => self.run_call(&provider, call, ctx),
                None => Execution::Refused,
            });
        }
        MessageResult(executions)
    }
}

impl Handler<CancelCalls> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, CancelCalls(tasks): CancelCalls, _: &mut Self::Context) {
        for task in tasks {
            for (_, call) in self.running.range((task, 0)..=(task, u64::MAX)) {
                gleitzeit_failpoint::failpoint!("provider.call.cancelled");
                // Not removed here: `Ending` reports it once its destructors have run, and until
                // then the instance must live.
                call.handle.abort();
            }
        }
    }
}

impl Handler<CallEnded> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, message: CallEnded, ctx: &mut Self::Context) {
        let CallEnded { call, failed, panicked } = message;
        let Some(RunningCall { generation, .. }) = self.running.remove(&call) else { return };
        self.calls_failed += u64::from(failed);
        // A panic of an older instance says nothing of the one that serves now.
        if let Some(text) = panicked
            && generation == self.generation
        {
            self.replace(format!("panicked: {text}"), Trouble::Own, ctx);
        }
        self.shut_down_retired(generation);
        self.finish_stopping();
    }
}
