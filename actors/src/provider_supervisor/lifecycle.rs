//! The life of a provider: built, initialized, checked, replaced, stopped.

use std::{panic::AssertUnwindSafe, rc::Rc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{error::TaskError, event::EventData, provider::Provider};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{ProviderState, ProviderStatus, ProviderSupervisor};
use crate::guard::{discard, guarded, panic_text};

/// Returns the provider's status, at once unless the thread is blocked.
#[derive(Debug, Message)]
#[rtype(result = "ProviderStatus")]
pub struct GetStatus;

/// Builds a new instance now, with a fresh budget. Calls in flight stay with the old instance, which
/// is shut down after the last of them.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Restart;

/// Refuses further calls, lets those in flight end within `deadline`, then shuts the provider down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// The longest time for calls in flight.
    pub deadline: Duration,
}

/// Sent by the supervisor to itself: the pause before a new instance is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Begin {
    generation: u64,
}

/// An instance is initialized, or could not be.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Initialized {
    generation: u64,
    outcome: Result<(), String>,
}

/// The kind of failure for which an instance is replaced; decides how often that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The instance could not be built or initialized, or its checks fail. The peer may return at any
    /// time, so restarts never end. A panic there counts the same: no call is served by such an
    /// instance, and the longest pause bounds the cost.
    Peer,
    /// The instance panicked in a call: the budget bounds how often other calls are hit.
    Own,
}

/// The deadline of [`Stop`] has passed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct StopNow;

impl ProviderSupervisor {
    /// Builds an instance and begins to initialize it.
    pub(super) fn begin(&mut self, ctx: &mut Context<Self>) {
        self.generation += 1;
        self.health.reset();
        self.set_state(ProviderState::Starting);
        let generation = self.generation;
        let factory = &self.spec.factory;
        // Foreign code on this thread: an unwinding panic would end the supervisor.
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| factory()));
        match built {
            Ok(Ok(provider)) => {
                self.instance = Some(Rc::clone(&provider));
                let limit = self.spec.supervision.lifecycle_timeout;
                let supervisor = ctx.address();
                self.background_task = Some(actix_rt::spawn(async move {
                    let outcome = match guarded(limit, async { provider.initialize().await }).await
                    {
                        Ok(outcome) => {
                            outcome.map_err(|error: TaskError| error.message.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    };
                    supervisor.do_send(Initialized { generation, outcome });
                }));
            }
            Ok(Err(error)) => {
                self.back_off(format!("could not be built: {}", error.message), Trouble::Peer, ctx);
            }
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                let reason = format!("panicked while it was built: {text}");
                self.back_off(reason, Trouble::Peer, ctx);
            }
        }
    }

    /// Replaces the instance; calls in flight keep the old one alive.
    pub(super) fn replace(&mut self, reason: String, trouble: Trouble, ctx: &mut Context<Self>) {
        // In any other state a replacement is under way, or none is wanted: a second panic of the
        // same batch must not spend the budget twice.
        if matches!(self.state, ProviderState::Starting | ProviderState::Serving) {
            self.back_off(reason, trouble, ctx);
        }
    }

    /// Removes the instance; it is shut down after the last of its calls.
    pub(super) fn retire(&mut self) {
        self.health.reset();
        let background_task = self.background_task.take();
        let Some(old) = self.instance.take() else { return };
        // Shut down now, an instance would break the calls that it still runs.
        if self.has_calls(self.generation) {
            if let Some(background_task) = background_task {
                background_task.abort();
            }
            self.retired.insert(self.generation, old);
        } else {
            self.shut_down(old, background_task, None);
        }
    }

    /// Shuts a replaced instance down once it has no calls.
    pub(super) fn shut_down_retired(&mut self, generation: u64) {
        if !self.retired.is_empty()
            && !self.has_calls(generation)
            && let Some(old) = self.retired.remove(&generation)
        {
            self.shut_down(old, None, None);
        }
    }

    fn has_calls(&self, generation: u64) -> bool {
        self.running.values().any(|call| call.generation == generation)
    }

    /// Ends the check or initialization of an instance, then shuts it down and answers `done`.
    fn shut_down(
        &self,
        provider: Rc<dyn Provider>,
        background_task: Option<JoinHandle<()>>,
        done: Option<oneshot::Sender<()>>,
    ) {
        let limit = self.spec.supervision.lifecycle_timeout;
        let id = self.id().clone();
        actix_rt::spawn(async move {
            if let Some(background_task) = background_task {
                background_task.abort();
                // Awaited: `shutdown` must not run beside a check of the same instance.
                let _ = background_task.await;
            }
            if let Err(error) = guarded(limit, async { provider.shutdown().await }).await {
                tracing::warn!(provider = %id, %error, "provider shutdown failed");
            }
            if let Some(text) = discard(provider) {
                tracing::warn!(provider = %id, text, "provider panicked while it was dropped");
            }
            if let Some(done) = done {
                let _ = done.send(());
            }
        });
    }

    /// Removes the instance and builds the next one after a pause.
    pub(super) fn back_off(&mut self, reason: String, trouble: Trouble, ctx: &mut Context<Self>) {
        self.retire();
        let pause = match trouble {
            Trouble::Peer => self.backoff.failed(),
            Trouble::Own => match self.budget.spend(self.started_at.elapsed()) {
                Some(pause) => pause,
                None => return self.fail(reason),
            },
        };
        self.log_down(&reason, trouble, pause);
        self.restarts += 1;
        self.publish_restart(&reason);
        self.detail = reason;
        self.set_state(ProviderState::BackingOff);
        ctx.notify_later(Begin { generation: self.generation }, pause);
    }

    fn fail(&mut self, reason: String) {
        let (provider_id, generation) = (self.id().clone(), self.generation);
        tracing::error!(provider = %provider_id, generation, reason, "provider failed");
        self.detail.clone_from(&reason);
        let reason = reason.into();
        self.publish(EventData::ProviderFailed { provider_id, generation, reason });
        self.set_state(ProviderState::Failed);
    }

    /// Logs an outage when it begins and when its cause changes. A line per restart would be 8,640 a
    /// day at the longest pause.
    fn log_down(&mut self, reason: &str, trouble: Trouble, pause: Duration) {
        let (provider, generation) = (self.id().clone(), self.generation);
        if matches!(trouble, Trouble::Own) {
            tracing::warn!(%provider, generation, reason, ?pause, "provider restarts");
        } else if self.logged.as_deref() == Some(reason) {
            tracing::debug!(%provider, generation, reason, ?pause, "provider is still down");
        } else {
            tracing::warn!(
                %provider, generation, reason, "provider is down; restarted until it serves"
            );
            self.logged = Some(reason.to_owned());
        }
    }

    pub(super) fn publish_restart(&self, reason: &str) {
        self.publish(EventData::ProviderRestarted {
            provider_id: self.id().clone(),
            generation: self.generation,
            reason: reason.into(),
        });
    }

    /// Completes a stop once no call is left.
    pub(super) fn finish_stopping(&mut self) {
        if !self.running.is_empty() {
            return;
        }
        let Some(stopped) = self.stopping.take() else { return };
        let background_task = self.background_task.take();
        match self.instance.take() {
            Some(provider) => self.shut_down(provider, background_task, Some(stopped)),
            None => {
                let _ = stopped.send(());
            }
        }
    }

    /// Completes a stop without waiting for calls in flight.
    pub(super) fn stop_now(&mut self) {
        self.drop_calls();
        self.finish_stopping();
    }
}

impl Handler<Begin> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, Begin { generation }: Begin, ctx: &mut Self::Context) {
        // A `Restart` during the pause has built an instance already.
        if generation == self.generation && self.state == ProviderState::BackingOff {
            self.begin(ctx);
        }
    }
}

impl Handler<Initialized> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, message: Initialized, ctx: &mut Self::Context) {
        let Initialized { generation, outcome } = message;
        if generation != self.generation || self.state != ProviderState::Starting {
            return;
        }
        match outcome {
            Ok(()) => {
                tracing::info!(provider = %self.id(), generation, "provider serves");
                self.logged = None;
                self.detail.clear();
                self.set_state(ProviderState::Serving);
                // At once: until the first answer the health is unknown, and the balancer prefers
                // every healthy provider.
                self.check_health(generation, ctx);
            }
            Err(error) => {
                self.back_off(format!("could not be made ready: {error}"), Trouble::Peer, ctx);
            }
        }
    }
}

impl Handler<Restart> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, _: Restart, ctx: &mut Self::Context) {
        if self.stopping.is_some() || self.state == ProviderState::Stopped {
            return;
        }
        self.budget.reset();
        self.backoff.reset();
        self.logged = None;
        self.retire();
        self.restarts += 1;
        self.publish_restart("asked for");
        self.begin(ctx);
    }
}

impl Handler<Stop> for ProviderSupervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Stop { deadline }: Stop, ctx: &mut Self::Context) -> Self::Result {
        self.set_state(ProviderState::Stopped);
        let (stopped, done) = oneshot::channel();
        // A second stop replaces the first, whose caller is answered then: its channel closes.
        self.stopping = Some(stopped);
        ctx.notify_later(StopNow, deadline);
        self.finish_stopping();
        Box::pin(async {
            let _ = done.await;
        })
    }
}

impl Handler<StopNow> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, _: StopNow, _: &mut Self::Context) {
        self.stop_now();
    }
}

impl Handler<GetStatus> for ProviderSupervisor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.status())
    }
}
