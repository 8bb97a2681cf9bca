//! Asks the store about submissions that it did not confirm, and about ids that it had before.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;
use gleitzeit_domain::{
    command::Command,
    difference::difference,
    engine::{CONFIRM_PAUSE, Confirmations, Existed, Unconfirmed, is_unconfirmable},
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    problem::SubmitError,
    store::{Store, StoreError},
    workflow::WorkflowSpec,
};

use super::{
    callers::{Channels, Waiter},
    claims::EngineRecipients,
    commands::{Apply, Recover, Wait},
    elsewhere::settled_elsewhere,
};
use crate::follower::Follower;

/// What became of unconfirmed submissions.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Confirmed(pub(super) Confirmations);

/// Confirms submissions one by one, until the store does not answer.
pub(super) async fn confirm(
    store: Arc<dyn Store>,
    engine: Rc<EngineRecipients>,
    unconfirmed: Vec<Unconfirmed>,
) -> Confirmed {
    let mut confirmed = Confirmations::default();
    let mut unconfirmed = unconfirmed.into_iter();
    // One by one: a store that fails in the middle leaves the rest as it was.
    while let Some(one) = unconfirmed.next() {
        let id = one.new.record.id.clone();
        // Written again, whether it is stored or not: after that it certainly is.
        let answer = match store.submit(vec![one.new.clone()]).await {
            Ok(_) => run(&engine, &id, one.cancelled.as_ref()).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => tracing::info!(workflow = %id, "unconfirmed submission is stored"),
            Err(error) if is_unconfirmable(&error) => {
                tracing::error!(workflow = %id, %error, "unconfirmed submission cannot be stored");
            }
            Err(error) => {
                if let StoreError::LeaseLost { epoch } = error {
                    confirmed.lost = Some(epoch);
                }
                confirmed.left.push(one);
                confirmed.left.extend(unconfirmed);
                break;
            }
        }
        confirmed.settled_tasks += one.new.record.tasks.len() as u64;
    }
    Confirmed(confirmed)
}

/// Runs a stored workflow here, unless another engine does, or it has settled.
async fn run(
    engine: &EngineRecipients,
    id: &WorkflowId,
    cancelled: Option<&Arc<str>>,
) -> Result<(), StoreError> {
    let recover = Recover { id: Some(id.clone()), hold: false };
    match engine.recover.send(recover).await {
        Ok(Ok(_)) => {}
        Ok(Err(TaskError { code, message, .. })) => match code {
            // Settled, or pruned since: nothing is left to run, so the submission is confirmed.
            ErrorCode::WorkflowInvalidState | ErrorCode::WorkflowNotFound => {}
            ErrorCode::SystemShutdown => return Err(StoreError::Closed),
            _ => return Err(StoreError::Unavailable { detail: message.into_owned() }),
        },
        Err(_) => return Err(StoreError::Closed),
    }
    if let Some(reason) = cancelled {
        let command = Command::Cancel { reason: Arc::clone(reason) };
        // If it runs elsewhere, or has ended, there is nothing to stop here.
        let _ = engine.apply.send(Apply { id: id.clone(), command }).await;
    }
    Ok(())
}

/// The same, asked again until the store answers.
pub(super) async fn run_until_answered(engine: &EngineRecipients, id: &WorkflowId) {
    while let Err(error) = run(engine, id, None).await
        && error.is_transient()
    {
        tokio::time::sleep(CONFIRM_PAUSE).await;
    }
}

/// Answers the callers of a submission whose id the store had before.
pub(super) async fn answer_existed(
    store: Arc<dyn Store>,
    engine: Rc<EngineRecipients>,
    follower: Follower,
    existed: Existed<Channels>,
) {
    let Existed { id, spec, accepted, ended, is_claimed, is_unconfirmed } = existed;
    // Before the callers are answered: a caller that waits next must find the workflow running.
    if is_claimed {
        run_until_answered(&engine, &id).await;
    }
    let same = is_same(&*store, &id, spec).await;
    for accepted in accepted {
        let _ = accepted.send(same.clone().map(|()| id.clone()));
    }
    for waiter in ended {
        match &same {
            // It will run here, or where it was claimed, but may not run yet: the engine would answer
            // that it does not.
            Ok(()) if is_unconfirmed => {
                actix_rt::spawn(settled_elsewhere(follower.clone(), id.clone(), waiter));
            }
            Ok(()) => {
                let Waiter { answer, outline } = waiter;
                engine.wait.do_send(Wait { id: id.clone(), answer, outline });
            }
            Err(error) => {
                let _ = waiter.answer.send(Err(error.clone().into()));
            }
        }
    }
}

/// Whether the workflow that the store has under this id is the one that was submitted.
async fn is_same(
    store: &dyn Store,
    id: &WorkflowId,
    spec: Option<Arc<WorkflowSpec>>,
) -> Result<(), SubmitError> {
    let Some(spec) = spec else { return Ok(()) };
    let stored = store.workflow(id).await.map_err(SubmitError::Store)?;
    match stored.and_then(|stored| difference(&stored.spec, &spec)) {
        Some(what) => Err(SubmitError::Differs { id: id.clone(), what }),
        None => Ok(()),
    }
}
