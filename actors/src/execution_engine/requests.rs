//! Polls: requests of other processes are carried out and answered, then work is claimed.
//!
//! A request to all processes has no owner, so each process keeps the key of the last one that it has
//! seen. A process that starts serves what is not answered yet and passes over the rest, which others
//! had before it was there.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use gleitzeit_domain::{
    command::Command,
    error::ErrorCode,
    store::{
        Epoch, Store,
        lease::{Request, RequestKey},
    },
};

use super::{
    claims::{EngineRecipients, PollAfter, PollDone, RecoveryGuard},
    commands::Apply,
    recovery::{self, Recovery},
};
use crate::{load_balancer::RestartProvider, peers::Peers};

/// After a claim that failed.
const CLAIM_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The last request to all that this process has seen; `None` before it has polled.
pub(super) type LastSeen = Cell<Option<RequestKey>>;

/// What a poll needs.
pub(super) struct Poll {
    pub(super) store: Arc<dyn Store>,
    pub(super) engine: Rc<EngineRecipients>,
    pub(super) peers: Rc<Peers>,
    pub(super) last_seen: Rc<LastSeen>,
    /// The lease whose requests are read.
    pub(super) epoch: Option<Epoch>,
    /// Counts the claim as a recovery; `None` if nothing is claimed.
    pub(super) recovery: Option<RecoveryGuard>,
}

/// One poll.
pub(super) async fn poll(poll: Poll) {
    let Poll { store, engine, peers, last_seen, epoch, recovery } = poll;
    // Requests first: a cancellation must not wait for a claim of a thousand workflows.
    if let Some(epoch) = epoch {
        serve_own(&*store, &engine, epoch).await;
    }
    serve_all(&*store, &peers, &last_seen).await;
    if let Some(guard) = recovery {
        let recovery = Recovery { guard, engine: Rc::clone(&engine), peers };
        match recovery::claim_all(&recovery, store).await {
            Ok(recovered) if recovered.workflows > 0 => {
                tracing::info!(recovered.workflows, recovered.tasks, "workflows claimed");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "claim failed");
                engine.poll_after.do_send(PollAfter(Some(CLAIM_RETRY_PAUSE)));
            }
        }
    }
    // Last: the engine begins no other poll before, so that two never claim at once.
    engine.poll_done.do_send(PollDone);
}

/// Carries out the requests about workflows of this lease.
async fn serve_own(store: &dyn Store, engine: &EngineRecipients, epoch: Epoch) {
    let Some(leases) = store.leases() else { return };
    let requests = match leases.requests(epoch).await {
        Ok(requests) => requests,
        Err(error) => {
            tracing::error!(%error, "requests of other processes unreadable");
            return;
        }
    };
    gleitzeit_failpoint::failpoint!("engine.request.read");
    for (key, Request { workflow: id, command }) in requests {
        // An engine that is gone leaves the request to the process that claims the workflow.
        let Ok(answer) = engine.apply.send(Apply { id, command }).await else { return };
        gleitzeit_failpoint::failpoint!("engine.request.served");
        if let Err(error) = leases.answer(key, answer).await {
            tracing::error!(%error, "answer to another process not stored");
        }
    }
}

/// Carries out the requests to all processes that concern this one.
async fn serve_all(store: &dyn Store, peers: &Peers, last_seen: &LastSeen) {
    let Some(leases) = store.leases() else { return };
    let is_first = last_seen.get().is_none();
    let after = last_seen.get().unwrap_or(RequestKey(0));
    let asked = match leases.asked_of_all(after).await {
        Ok(asked) => asked,
        Err(error) => {
            tracing::error!(%error, "requests to all processes unreadable");
            return;
        }
    };
    // Also if there is none: from now on this process serves every later request.
    last_seen.set(Some(after));
    for (key, command, is_answered) in asked {
        // Before it is carried out: one that fails must not be repeated at each poll.
        last_seen.set(Some(key));
        // A restart that others answered before this process was there is no business of its own.
        if is_first && is_answered {
            continue;
        }
        let Command::RestartProvider { provider } = command else { continue };
        let Ok(answer) = peers.balancer.send(RestartProvider(provider)).await else { return };
        // Another process may have it.
        if answer.as_ref().is_err_and(|error| error.code == ErrorCode::ProviderNotFound) {
            continue;
        }
        if let Err(error) = leases.answer(key, answer).await {
            tracing::error!(%error, "answer to another process not stored");
        }
    }
}
