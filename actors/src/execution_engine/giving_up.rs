//! Whoever cannot run a workflow does not own it.
//!
//! A workflow that was taken up only to be changed by a person's word, or that this process cannot
//! run, is given back to the store once what was said is stored: whoever can run it claims it.
//!
//! Invariant: of what is being given up nothing runs and nothing is on its way to the store, and it
//! is not taken up here before that is over: by then another process may run it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    id::WorkflowId,
    run::RunKey,
    store::{Epoch, Store, StoreError, lease::Release},
};
use tokio::sync::oneshot;

use super::{ExecutionEngine, Held};

/// Nobody says what is to become of it within this: it is given back as it is.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// First and longest pause before the store is asked once more.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Workflows that are being given up, and who waits for the end of it.
#[derive(Debug, Default)]
pub(super) struct GivingUp(HashMap<WorkflowId, Vec<oneshot::Sender<()>>>);

/// The store has a workflow back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct GivenUp(WorkflowId);

/// Gives workflows back, however often the store must be asked. A lease that is gone owns none.
pub(super) async fn release(store: &dyn Store, epoch: Epoch, ids: &[WorkflowId], why: Release) {
    let Some(leases) = store.leases() else { return };
    let mut pause = PAUSE_MIN;
    loop {
        match leases.release(epoch, ids, why).await {
            Ok(()) | Err(StoreError::LeaseLost { .. } | StoreError::Closed) => return,
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, workflows = ids.len(), ?pause, "workflows could not be given back yet; trying again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
            Err(error) => {
                tracing::error!(%error, workflows = ids.len(), "workflows could not be given back; they are free when this process ends");
                return;
            }
        }
    }
}

/// Keeps a workflow until it is said what to do with it, but not for ever.
pub(super) fn hold_for_a_while(key: RunKey, ctx: &mut Context<ExecutionEngine>) {
    ctx.run_later(HOLD_MAX, move |engine, ctx| engine.was_asked(key, ctx));
}

/// Until what is being given up is given up.
pub(super) async fn wait_for(given_up: Option<oneshot::Receiver<()>>) {
    if let Some(given_up) = given_up {
        // An engine that is gone gives nothing up any more.
        let _ = given_up.await;
    }
}

impl ExecutionEngine {
    /// Comes when a workflow is given up that is being given up now.
    pub(super) fn given_up(&mut self, id: &WorkflowId) -> Option<oneshot::Receiver<()>> {
        let waiting = self.giving_up.0.get_mut(id)?;
        let (tell, told) = oneshot::channel();
        waiting.push(tell);
        Some(told)
    }

    /// What is held here has been changed, or will not be: it is given up once that is stored.
    pub(super) fn was_asked(&mut self, key: RunKey, ctx: &mut Context<Self>) {
        if let Some(held) = self.runs.get_mut(&key).and_then(|active| active.held.as_mut()) {
            held.was_asked = true;
            self.let_go(key, ctx);
        }
    }

    /// Gives up a workflow that is held, was changed as it was to be, and is stored.
    pub(super) fn let_go(&mut self, key: RunKey, ctx: &mut Context<Self>) {
        let Some(active) = self.runs.get(&key) else { return };
        let is_over = |held: &Held| held.was_asked && held.settling == 0;
        let is_written = !active.run.is_uncommitted() && !active.run.is_settled();
        if !is_written || !active.held.as_ref().is_some_and(is_over) {
            return;
        }
        // A store without leases has one process at a time: there is nobody to give it to.
        let Some(epoch) = active.run.epoch() else { return };
        let id = active.run.id().clone();
        self.release_run(key);
        self.giving_up.0.insert(id.clone(), Vec::new());
        let store = Arc::clone(&self.store);
        let engine = ctx.address();
        actix_rt::spawn(async move {
            release(&*store, epoch, std::slice::from_ref(&id), Release::ForAll).await;
            engine.do_send(GivenUp(id));
        });
    }
}

impl Handler<GivenUp> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, GivenUp(id): GivenUp, _: &mut Self::Context) {
        for waiting in self.giving_up.0.remove(&id).into_iter().flatten() {
            let _ = waiting.send(());
        }
    }
}
