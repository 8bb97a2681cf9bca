//! The life of a provider: built, made ready, checked, replaced, stopped.

use std::{panic::AssertUnwindSafe, rc::Rc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    error::TaskError,
    event::EventData,
    health::{HealthReport, HealthStatus},
    provider::Provider,
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{ProviderState, ProviderStatus, ProviderSupervisor};
use crate::guard::{discard, guarded, panic_text};

/// Asks how the provider is. Answered at once by a thread that is not blocked.
#[derive(Debug, Message)]
#[rtype(result = "ProviderStatus")]
pub struct GetStatus;

/// Builds a new instance now, with a fresh budget; calls in flight stay with the old one, which is
/// shut down when the last of them has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Restart;

/// Takes no more calls, lets those in flight end within `deadline`, then shuts the provider down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// How long calls in flight may take.
    pub deadline: Duration,
}

/// The time for a new instance has come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Begin {
    generation: u64,
}

/// An instance is ready, or could not be made so.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Initialized {
    generation: u64,
    outcome: Result<(), String>,
}

/// The time for a health check has come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CheckHealth {
    generation: u64,
}

/// A health check was answered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct HealthChecked {
    generation: u64,
    report: HealthReport,
}

/// Why an instance is replaced; decides how often that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It could not be built or made ready, or its checks fail. Whatever it talks to may come back
    /// at any time, so it is tried for ever. A panic there counts the same: no call is served by
    /// such an instance, and the longest pause bounds what it costs.
    Peer,
    /// It panicked in a call: the budget bounds how often others are drawn into that.
    Own,
}

/// The deadline of [`Stop`] has passed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct StopNow;

impl ProviderSupervisor {
    /// Builds an instance and makes it ready.
    pub(super) fn begin(&mut self, ctx: &mut Context<Self>) {
        self.generation += 1;
        self.judge.reset();
        self.enter(ProviderState::Starting);
        let generation = self.generation;
        let factory = &self.spec.factory;
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

    /// Drops the instance and sees to a new one; calls in flight keep the old one alive.
    pub(super) fn replace(&mut self, reason: String, trouble: Trouble, ctx: &mut Context<Self>) {
        if matches!(self.state, ProviderState::Starting | ProviderState::Serving) {
            self.back_off(reason, trouble, ctx);
        }
    }

    /// Lets go of the instance: it is shut down when the last of its calls has ended.
    pub(super) fn retire(&mut self) {
        self.judge.reset();
        let background_task = self.background_task.take();
        let Some(old) = self.instance.take() else { return };
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

    /// Ends what is asked of an instance besides calls, then shuts it down; `done` hears of it.
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
                let _ = background_task.await;
            }
            if let Err(error) = guarded(limit, async { provider.shutdown().await }).await {
                tracing::warn!(provider = %id, %error, "provider was not shut down in order");
            }
            if let Some(text) = discard(provider) {
                tracing::warn!(provider = %id, text, "provider panicked while it was dropped");
            }
            if let Some(done) = done {
                let _ = done.send(());
            }
        });
    }

    /// Lets go of the instance and builds the next one after a pause.
    pub(super) fn back_off(&mut self, reason: String, trouble: Trouble, ctx: &mut Context<Self>) {
        self.retire();
        let pause = match trouble {
            Trouble::Peer => self.backoff.failed(),
            Trouble::Own => match self.budget.spend(self.born.elapsed()) {
                Some(pause) => pause,
                None => return self.give_up(reason),
            },
        };
        self.log_down(&reason, trouble, pause);
        self.restarts += 1;
        self.publish_restart(&reason);
        self.detail = reason;
        self.enter(ProviderState::BackingOff);
        ctx.notify_later(Begin { generation: self.generation }, pause);
    }

    fn give_up(&mut self, reason: String) {
        let (provider_id, generation) = (self.id().clone(), self.generation);
        tracing::error!(provider = %provider_id, generation, reason, "provider failed");
        self.detail.clone_from(&reason);
        let reason = reason.into();
        self.publish(EventData::ProviderFailed { provider_id, generation, reason });
        self.enter(ProviderState::Failed);
    }

    /// An outage is logged when it begins and when its cause changes, not at each try: at the
    /// longest pause that would be 8,640 lines a day.
    fn log_down(&mut self, reason: &str, trouble: Trouble, pause: Duration) {
        let (provider, generation) = (self.id().clone(), self.generation);
        if matches!(trouble, Trouble::Own) {
            tracing::warn!(%provider, generation, reason, ?pause, "provider restarts");
        } else if self.logged.as_deref() == Some(reason) {
            tracing::debug!(%provider, generation, reason, ?pause, "provider is still down");
        } else {
            tracing::warn!(
                %provider, generation, reason, "provider is down; it is tried again until it serves"
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

    fn check_health(&mut self, generation: u64, ctx: &mut Context<Self>) {
        let Some(provider) = self.instance.clone() else { return };
        let limit = self.spec.supervision.health_timeout;
        let supervisor = ctx.address();
        self.background_task = Some(actix_rt::spawn(async move {
            let report = match guarded(limit, async { provider.health_check().await }).await {
                Ok(report) => report,
                Err(error) => HealthReport::unhealthy(error.to_string()),
            };
            supervisor.do_send(HealthChecked { generation, report });
        }));
    }

    /// Ends a stop once no call is left.
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

    /// Ends a stop whatever is in flight.
    pub(super) fn stop_now(&mut self) {
        self.drop_calls();
        self.finish_stopping();
    }
}

impl Handler<Begin> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, Begin { generation }: Begin, ctx: &mut Self::Context) {
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
                self.enter(ProviderState::Serving);
                self.check_health(generation, ctx);
            }
            Err(error) => {
                self.back_off(format!("could not be made ready: {error}"), Trouble::Peer, ctx);
            }
        }
    }
}

impl Handler<CheckHealth> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, CheckHealth { generation }: CheckHealth, ctx: &mut Self::Context) {
        if generation == self.generation && self.state == ProviderState::Serving {
            self.check_health(generation, ctx);
        }
    }
}

impl Handler<HealthChecked> for ProviderSupervisor {
    type Result = ();

    fn handle(&mut self, message: HealthChecked, ctx: &mut Self::Context) {
        let HealthChecked { generation, report } = message;
        if generation != self.generation || self.state != ProviderState::Serving {
            return;
        }
        self.detail.clone_from(&report.detail);
        if report.status != HealthStatus::Unhealthy {
            self.backoff.reset();
        }
        if let Some(health) = self.judge.judge(report.status) {
            if health == HealthStatus::Unhealthy {
                tracing::warn!(
                    provider = %self.id(), generation, report.detail, "provider is unhealthy"
                );
            } else {
                tracing::info!(
                    provider = %self.id(), generation, %health, report.detail, "health changed"
                );
            }
            self.publish(EventData::ProviderHealth {
                provider_id: self.id().clone(),
                health,
                generation,
                detail: report.detail.as_str().into(),
            });
            self.tell();
        }
        let supervision = self.spec.supervision;
        let must_restart = report.status == HealthStatus::Unhealthy
            && self.judge.failures() >= supervision.restart_after.max(1);
        if must_restart {
            let reason = format!(
                "failed {} health checks in a row: {}",
                self.judge.failures(),
                report.detail
            );
            self.replace(reason, Trouble::Peer, ctx);
        } else {
            ctx.notify_later(CheckHealth { generation }, supervision.health_interval);
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
        self.enter(ProviderState::Stopped);
        let (stopped, done) = oneshot::channel();
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
