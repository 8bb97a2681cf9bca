//! `providers restart`: asks the processes that serve a store to give a provider a new instance.

use std::{sync::Arc, time::Duration};

use gleitzeit::runtime;
use gleitzeit_domain::{
    id::ProviderId,
    store::{
        LeaseStore, Store,
        lease::{Command, RequestAnswer, RequestKey},
    },
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Outcome,
    output::{self, Exit, Failure},
    session::{Session, close},
};

/// A serving process answers within this: the store notifies it of the request.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Time between two polls for the answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Once one process has answered, the others have this long to read the request, too.
const FOR_OTHERS: Duration = Duration::from_secs(1);

/// Asks, and waits for the first answer.
pub(crate) async fn restart(session: &Session, provider: ProviderId) -> Outcome {
    let url = &session.settings.storage.url;
    let nobody = || {
        let wait = ANSWER_WAIT.as_secs();
        Failure::infrastructure(format!(
            "no process that serves {url} restarted provider `{provider}` within {wait} s: none is \
             there, or none has a provider of this id; `gleitzeit db status` lists the processes"
        ))
    };
    if url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is seen by no other process; name one with --store".to_owned(),
        ));
    }
    // To ask must not make a database that nobody serves.
    if url.sqlite_path().is_some_and(|path| !path.exists()) {
        return Err(nobody());
    }
    let store = runtime::open_store(&session.settings).await?;
    let answer = ask(&store, &provider).await;
    close(store).await?;
    answer?.ok_or_else(nobody)??;
    if session.json {
        output::document(&json!({ "provider_id": provider, "restarted": true }));
    } else {
        output::text(format_args!("provider {provider} is restarted"));
    }
    Ok(Exit::Success)
}

async fn ask(
    store: &Arc<dyn Store>,
    provider: &ProviderId,
) -> Result<Option<RequestAnswer>, Failure> {
    let Some(leases) = store.leases() else { return Ok(None) };
    let key = leases.ask_all(Command::RestartProvider { provider: provider.clone() }).await?;
    let answered = wait(leases, key).await;
    if matches!(answered, Ok(true)) {
        sleep(FOR_OTHERS).await;
        return Ok(leases.take_answer(key).await?);
    }
    leases.withdraw(key).await?;
    answered.map(|_| None)
}

/// True once somebody has answered.
async fn wait(leases: &dyn LeaseStore, key: RequestKey) -> Result<bool, Failure> {
    let end = Instant::now() + ANSWER_WAIT;
    while Instant::now() < end {
        // Taking the answer would take the request from the others.
        let asked = leases.asked_of_all(RequestKey(key.0.saturating_sub(1))).await?;
        if asked.iter().any(|(asked, _, is_answered)| *asked == key && *is_answered) {
            return Ok(true);
        }
        sleep(PAUSE).await;
    }
    Ok(false)
}
