//! Requests to every process of a database: read at each look for work, and answered by those whom
//! they concern.
//!
//! A request has no owner, so each process notes up to which one it has served. One that begins
//! serves what nobody has answered yet and passes over the rest, which others had before it was there.

use std::cell::Cell;

use gleitzeit_domain::{
    error::ErrorCode,
    store::{
        Store,
        lease::{Ask, RequestKey},
    },
};

use crate::{addresses::ActorAddresses, load_balancer::RestartProvider};

/// The last request to all that this process has seen; `None` before it has looked.
pub(super) type LastAsked = Cell<Option<RequestKey>>;

/// Serves the requests to all processes that concern this one.
pub(super) async fn serve_those_to_all(
    store: &dyn Store,
    addresses: &ActorAddresses,
    last: &LastAsked,
) {
    let Some(leases) = store.leases() else { return };
    let begins = last.get().is_none();
    let after = last.get().unwrap_or(RequestKey(0));
    let asked = match leases.asked_of_all(after).await {
        Ok(asked) => asked,
        Err(error) => {
            tracing::error!(%error, "requests to all processes could not be read");
            return;
        }
    };
    last.set(Some(after));
    for (key, ask, is_answered) in asked {
        last.set(Some(key));
        if begins && is_answered {
            continue;
        }
        let Ask::RestartProvider { provider } = ask else { continue };
        let Ok(answer) = addresses.balancer.send(RestartProvider(provider)).await else { return };
        // Another process may have it.
        if answer.as_ref().is_err_and(|error| error.code == ErrorCode::ProviderNotFound) {
            continue;
        }
        if let Err(error) = leases.answer(key, answer).await {
            tracing::error!(%error, "the answer to another process could not be stored");
        }
    }
}
