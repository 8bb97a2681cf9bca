//! The calls of a provider: begun, guarded, cancelled.
//!
//! A call that is done at its first poll is answered at once and costs no task of its own; any
//! other runs in its own, so that no call waits for another.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, task};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::ProviderId,
    provider::{Call, Outcome, Provider},
    run::TaskKey,
};
use tokio::{sync::oneshot, time::Instant};
use tracing::Instrument as _;

use super::{Answer, KeyedCall, ProviderState, ProviderSupervisor};
use crate::guard::{CallError, guarded};

/// Runs calls; each is answered at once, or when it ends.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Execution>")]
pub struct Execute(pub Vec<KeyedCall>);

/// What became of one call of [`Execute`], in the same order.
#[derive(Debug)]
pub enum Execution {
    /// It has ended.
    Ended(Finished),
    /// It runs; the channel closes without an answer when it is cancelled.
    Running(oneshot::Receiver<Finished>),
}

/// The end of a call.
#[derive(Debug)]
pub struct Finished {
    /// What it gave.
    pub outcome: Result<Outcome, TaskError>,
    /// How long it took.
    pub duration: std::time::Duration,
}

impl From<Answer> for Finished {
    fn from((outcome, duration): Answer) -> Self {
        Self { outcome, duration }
    }
}

/// Drops the calls of these tasks, where they run here.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CancelCalls(pub Vec<TaskKey>);

/// A call in its own task has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct CallEnded {
    task: TaskKey,
    failed: bool,
    panicked: Option<(u64, String)>,
}

type CallFuture = Pin<Box<dyn Future<Output = (Answer, Option<String>)>>>;

/// Runs one call to its end; the text of a panic comes beside the answer.
fn call_future(provider: Rc<dyn Provider>, id: ProviderId, call: Call) -> CallFuture {
    let label = Arc::clone(&call.method.capability);
    let span = tracing::info_span!(
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
        let ended = guarded(limit, provider.execute(call)).await;
        let duration = begun.elapsed();
        let (outcome, panic) = match ended {
            Ok(outcome) => (outcome, None),
            Err(CallError::TimedOut { limit }) => {
                let message = format!(
                    "provider `{id}` did not answer {label} within {limit:?}; raise the task's \
                     `timeout` or look at the provider"
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
        (task, call): KeyedCall,
        ctx: &mut Context<Self>,
    ) -> Execution {
        self.calls_total += 1;
        let mut future = call_future(Rc::clone(provider), self.id().clone(), call);
        let mut unwoken = task::Context::from_waker(task::Waker::noop());
        if let task::Poll::Ready((answer, panic)) = future.as_mut().poll(&mut unwoken) {
            self.calls_failed += u64::from(answer.0.is_err());
            if let Some(text) = panic {
                self.replace(format!("panicked: {text}"), ctx);
            }
            return Execution::Ended(answer.into());
        }
        let (answer, answered) = oneshot::channel();
        let supervisor = ctx.address();
        let generation = self.generation;
        let running = actix_rt::spawn(async move {
            let (ended, panic) = future.await;
            let failed = ended.0.is_err();
            let panicked = panic.map(|text| (generation, text));
            // Before the answer, so that whoever has the answer finds the books in order.
            supervisor.do_send(CallEnded { task, failed, panicked });
            let _ = answer.send(ended.into());
        });
        self.running.insert(task, running);
        Execution::Running(answered)
    }

    fn refuse(&self) -> TaskError {
        let state = match self.state {
            ProviderState::Stopped => "has stopped",
            ProviderState::Failed => "has failed and waits for a restart by message",
            _ => "is being restarted",
        };
        let message = format!("provider `{}` {state}", self.id());
        TaskError::new(ErrorCode::ProviderUnhealthy, message)
    }

    /// Drops every call in flight.
    pub(super) fn drop_calls(&mut self) {
        for (_, running) in self.running.drain() {
            running.abort();
        }
    }
}

impl Handler<Execute> for ProviderSupervisor {
    type Result = MessageResult<Execute>;

    fn handle(&mut self, Execute(calls): Execute, ctx: &mut Self::Context) -> Self::Result {
        let mut executions = Vec::with_capacity(calls.len());
        for call in calls {
            // Looked up anew for each: the call before may have ended the instance.
            let serving = self.instance.clone().filter(|_| self.state == ProviderState::Serving);
            executions.push(match serving {
                Some(provider) => self.run_call(&provider, call, ctx),
                None => Execution::Ended(Finished {
                    outcome: Err(self.refuse()),
                    duration: std::time::Duration::ZERO,
                }),
            });
        }
        MessageResult(executions)
    }
}

impl Handler<CancelCalls> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, CancelCalls(tasks): CancelCalls, ctx: &mut Self::Context) {
        for task in tasks {
            if let Some(running) = self.running.remove(&task) {
                running.abort();
            }
        }
        self.finish_stopping(ctx);
    }
}

impl Handler<CallEnded> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, message: CallEnded, ctx: &mut Self::Context) {
        let CallEnded { task, failed, panicked } = message;
        self.running.remove(&task);
        self.calls_failed += u64::from(failed);
        if let Some((generation, text)) = panicked
            && generation == self.generation
        {
            self.replace(format!("panicked: {text}"), ctx);
        }
        self.finish_stopping(ctx);
    }
}
