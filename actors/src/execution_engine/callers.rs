//! The engine's callers as channels, and the answers sent to them.

use std::sync::Arc;

use gleitzeit_domain::{
    engine::{Callers, Reply},
    id::WorkflowId,
    problem::SubmitError,
    workflow::WorkflowRecord,
};
use tokio::sync::oneshot;

use super::commands::WaitAnswer;
use crate::provider_supervisor::CallerSpan;

/// Callers that wait at a channel.
#[derive(Debug)]
pub(super) struct Channels;

impl Callers for Channels {
    type OnStored = oneshot::Sender<()>;
    type OnState = oneshot::Sender<Option<Arc<WorkflowRecord>>>;
    type OnEnd = oneshot::Sender<WaitAnswer>;
    type OnAccepted = oneshot::Sender<Result<WorkflowId, SubmitError>>;
    type Span = CallerSpan;
}

/// A caller that waits for the end of a workflow.
pub(super) type Waiter = gleitzeit_domain::engine::Waiter<oneshot::Sender<WaitAnswer>>;

/// Sends an answer; one for a workflow that is elsewhere comes back. A caller that is gone needs none.
pub(super) fn send(reply: Reply<Channels>) -> Option<(Waiter, WorkflowId)> {
    match reply {
        Reply::Stored(caller) => {
            let _ = caller.send(());
        }
        Reply::State(caller, state) => {
            let _ = caller.send(state);
        }
        Reply::End(caller, end) => {
            let _ = caller.send(end);
        }
        Reply::EndElsewhere(waiter, id) => return Some((waiter, id)),
        Reply::Accepted(caller, accepted) => {
            // Read before the send, which consumes it: a rejection is no durable promise to test.
            let is_accepted = accepted.is_ok();
            let _ = caller.send(accepted);
            if is_accepted {
                gleitzeit_failpoint::failpoint!("engine.submit.told");
            }
        }
    }
    None
}
