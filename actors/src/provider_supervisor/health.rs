//! The health checks of a provider: made, judged, repeated.
//!
//! Invariant: at most one check is under way, and its answer arms the next one.

use actix::prelude::*;
use gleitzeit_domain::{
    event::EventData,
    health::{HealthReport, HealthStatus},
};

use super::{ProviderState, ProviderSupervisor, lifecycle::Trouble};
use crate::guard::guarded;

/// Sent by the supervisor to itself: the next health check is due.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CheckHealth {
    generation: u64,
}

/// The answer to a health check.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct HealthChecked {
    generation: u64,
    report: HealthReport,
}

impl ProviderSupervisor {
    /// Checks the health of the instance, in a task of its own.
    pub(super) fn check_health(&mut self, generation: u64, ctx: &mut Context<Self>) {
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
        // Not when it begins to serve: an instance that initializes and then fails each check would
        // be rebuilt at the shortest pause for ever.
        if report.status != HealthStatus::Unhealthy {
            self.backoff.reset();
        }
        if let Some(health) = self.health.judge(report.status) {
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
            self.notify_balancer();
        }
        let supervision = self.spec.supervision;
        let must_restart = report.status == HealthStatus::Unhealthy
            && self.health.failures() >= supervision.restart_after.max(1);
        if must_restart {
            let reason = format!(
                "failed {} health checks in a row: {}",
                self.health.failures(),
                report.detail
            );
            self.replace(reason, Trouble::Peer, ctx);
        } else {
            // Armed by the answer, not by an interval: a slow check would overlap with the next, and
            // late ticks of an interval fire in a burst.
            ctx.notify_later(CheckHealth { generation }, supervision.health_interval);
        }
    }
}
