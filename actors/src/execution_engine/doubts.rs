//! Submissions of which the store did not say whether they are stored.
//!
//! The answer to a commit may be lost. The same is then written again a few times, while who asked
//! waits. A store that is away for longer leaves a doubt: who asked is told so, and the engine
//! writes the workflow again until the store answers. It is stored after that, whether it was before
//! or not, and runs: otherwise it could belong to a lease whose engine does not know of it, and run
//! nowhere.
//!
//! Invariant: a doubt ends only when its workflow runs here, is run by another engine, or has
//! settled; or when the store refuses it for ever.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::Event,
    id::WorkflowId,
    store::{Epoch, NewWorkflow, Store, StoreError, Submitted},
    workflow::WorkflowRecord,
};

use super::{Cancel, ExecutionEngine, Phase, Recover, refusal::is_content};
use crate::addresses::ActorAddresses;

/// A store that does not say whether it committed is asked again so often.
const UNKNOWN_RETRIES: u32 = 5;

/// The first pause before that; it doubles each time.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

/// Between two tries to settle what is in doubt after that.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// Why a workflow was not stored.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// It certainly was not.
    Store(StoreError),
    /// The same, for what is in it. With the events that were to be stored.
    Content(StoreError, Vec<Event>),
    /// It may be stored.
    InDoubt(StoreError, Box<NewWorkflow>),
    /// It was not under this lease, or, in doubt, it was before that was gone. With the events that
    /// were to be stored.
    LeaseLost { epoch: Epoch, events: Vec<Event>, in_doubt: bool },
}

/// What became of each workflow of a batch.
pub(super) type SubmitOutcomes = Vec<Result<Submitted, Refusal>>;
type Writing = Pin<Box<dyn Future<Output = SubmitOutcomes>>>;

/// Writes new workflows; what the answers mean is decided here.
pub(super) fn write(store: Arc<dyn Store>, new: Vec<NewWorkflow>) -> Writing {
    Box::pin(async move {
        let kept = if store.is_fallible() { new.clone() } else { Vec::new() };
        let count = new.len();
        gleitzeit_failpoint::failpoint!("engine.submit.storing");
        match store.submit(new).await {
            Ok(fates) => {
                gleitzeit_failpoint::failpoint!("engine.submit.stored");
                fates.into_iter().map(Ok).collect()
            }
            Err(error) if kept.is_empty() => vec![Err(Refusal::Store(error)); count],
            Err(error) => write_again(store, kept, error).await,
        }
    })
}

/// Asks again where it is not known what was committed, and for each alone where one of them may
/// be at fault.
async fn write_again(
    store: Arc<dyn Store>,
    new: Vec<NewWorkflow>,
    mut error: StoreError,
) -> SubmitOutcomes {
    let in_doubt = matches!(error, StoreError::Unknown { .. });
    let mut pause = UNKNOWN_PAUSE;
    for _ in 0..UNKNOWN_RETRIES {
        if !in_doubt || !error.is_transient() {
            break;
        }
        tracing::warn!(%error, ?pause, "the store did not say whether it committed; writing again");
        tokio::time::sleep(pause).await;
        pause *= 2;
        match store.submit(new.clone()).await {
            Ok(fates) => return recognise(&*store, new, fates).await,
            Err(next) => error = next,
        }
    }
    if let StoreError::LeaseLost { epoch } = error {
        let lost = |new: NewWorkflow| {
            let events = new.events;
            Err(Refusal::LeaseLost { epoch, events, in_doubt })
        };
        return new.into_iter().map(lost).collect();
    }
    if in_doubt {
        return new.into_iter().map(|new| Err(in_doubt_of(&error, new))).collect();
    }
    if is_content(&error)
        && let [_] = new.as_slice()
    {
        return new
            .into_iter()
            .map(|new| Err(Refusal::Content(error.clone(), new.events)))
            .collect();
    }
    if new.len() == 1 || error.is_transient() || error == StoreError::Closed {
        return vec![Err(Refusal::Store(error)); new.len()];
    }
    let mut fates = Vec::with_capacity(new.len());
    for one in new {
        fates.append(&mut write(Arc::clone(&store), vec![one]).await);
    }
    fates
}

/// After a write in doubt: what is there already may have been written by it.
async fn recognise(
    store: &dyn Store,
    new: Vec<NewWorkflow>,
    fates: Vec<Submitted>,
) -> SubmitOutcomes {
    let mut recognised = Vec::with_capacity(fates.len());
    for (new, fate) in new.into_iter().zip(fates) {
        recognised.push(match fate {
            Submitted::Created => Ok(fate),
            Submitted::Existed => match store.workflow(&new.record.id).await {
                Ok(Some(stored)) if is_same(&stored, &new.record) => Ok(Submitted::Created),
                Ok(_) => Ok(Submitted::Existed),
                Err(error) => Err(in_doubt_of(&error, new)),
            },
        });
    }
    recognised
}

/// Who asked must not take it for refused: it may be stored, and will be.
fn in_doubt_of(error: &StoreError, new: NewWorkflow) -> Refusal {
    let detail = format!(
        "{error}; the workflow is written again until the store answers, and runs then: submit it \
         again under its id `{}` only",
        new.record.id
    );
    Refusal::InDoubt(StoreError::Unknown { detail }, Box::new(new))
}

/// Nobody else submits the same id within the same microsecond.
fn is_same(stored: &WorkflowRecord, new: &WorkflowRecord) -> bool {
    stored.created_at.timestamp_micros() == new.created_at.timestamp_micros()
        && stored.last_sequence == new.last_sequence
}

/// A submission in doubt.
#[derive(Debug)]
pub(super) struct Doubt {
    new: NewWorkflow,
    /// Why it is to be stopped once it runs.
    reason: Option<Arc<str>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    open: Vec<Doubt>,
    /// Being settled now.
    asked: Vec<WorkflowId>,
    is_timed: bool,
}

impl Doubts {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty()
    }

    /// True while it is not known whether a workflow of this id is stored.
    pub(super) fn is_about(&self, id: &WorkflowId) -> bool {
        self.open.iter().any(|doubt| doubt.new.record.id == *id) || self.asked.contains(id)
    }

    pub(super) fn add(&mut self, new: NewWorkflow, reason: Option<Arc<str>>) {
        self.open.push(Doubt { new, reason });
    }
}

/// What became of doubts: those that are left, and the tasks of those that are not.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct DoubtsAsked {
    left: Vec<Doubt>,
    settled_tasks: u64,
    lost: Option<Epoch>,
}

impl ExecutionEngine {
    pub(super) fn settle_doubts_later(&mut self, ctx: &mut Context<Self>) {
        let doubts = &mut self.admission.doubts;
        if !doubts.open.is_empty() && !std::mem::replace(&mut doubts.is_timed, true) {
            ctx.run_later(DOUBT_PAUSE, |engine, ctx| {
                engine.admission.doubts.is_timed = false;
                engine.settle_doubts(ctx);
            });
        }
    }

    fn settle_doubts(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.phase, Phase::Running) || !self.admission.doubts.asked.is_empty() {
            return;
        }
        let Ok(epoch) = self.lease_now(ctx) else {
            self.settle_doubts_later(ctx);
            return;
        };
        let mut doubts = std::mem::take(&mut self.admission.doubts.open);
        for doubt in &mut doubts {
            doubt.new.epoch = epoch;
        }
        let ids = doubts.iter().map(|doubt| doubt.new.record.id.clone());
        self.admission.doubts.asked = ids.collect();
        let (store, addresses) = (Arc::clone(&self.store), ActorAddresses::clone(self.addresses()));
        actix_rt::spawn(async move {
            let asked = settle(&*store, &addresses, doubts).await;
            addresses.engine.do_send(asked);
        });
    }
}

/// Settles doubts one by one, until the store does not answer.
async fn settle(store: &dyn Store, addresses: &ActorAddresses, doubts: Vec<Doubt>) -> DoubtsAsked {
    let mut asked = DoubtsAsked { left: Vec::new(), settled_tasks: 0, lost: None };
    let mut doubts = doubts.into_iter();
    while let Some(doubt) = doubts.next() {
        let id = doubt.new.record.id.clone();
        let answer = match store.submit(vec![doubt.new.clone()]).await {
            Ok(_) => run(addresses, &id, doubt.reason.as_ref()).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => {
                tracing::info!(workflow = %id, "submission in doubt settled: the workflow is stored");
            }
            Err(error) if is_final(&error) => {
                tracing::error!(workflow = %id, %error, "submission in doubt cannot be settled");
            }
            Err(error) => {
                if let StoreError::LeaseLost { epoch } = error {
                    asked.lost = Some(epoch);
                }
                asked.left.push(doubt);
                asked.left.extend(doubts);
                break;
            }
        }
        asked.settled_tasks += doubt.new.record.tasks.len() as u64;
    }
    asked
}

/// True where asking again does not help.
const fn is_final(error: &StoreError) -> bool {
    !error.is_transient() && !matches!(error, StoreError::LeaseLost { .. })
}

/// Runs a stored workflow here, unless another engine does, or it has settled.
async fn run(
    addresses: &ActorAddresses,
    id: &WorkflowId,
    reason: Option<&Arc<str>>,
) -> Result<(), StoreError> {
    let recover = Recover { id: Some(id.clone()), hold: false };
    match addresses.engine.send(recover).await {
        Ok(Ok(_)) => {}
        Ok(Err(TaskError { code, message, .. })) => match code {
            ErrorCode::WorkflowInvalidState | ErrorCode::WorkflowNotFound => {}
            ErrorCode::SystemShutdown => return Err(StoreError::Closed),
            _ => return Err(StoreError::Unavailable { detail: message.into_owned() }),
        },
        Err(_) => return Err(StoreError::Closed),
    }
    if let Some(reason) = reason {
        // Where it runs elsewhere, or has ended, there is nothing to stop here.
        let _ = addresses.engine.send(Cancel { id: id.clone(), reason: Arc::clone(reason) }).await;
    }
    Ok(())
}

/// The same, asked again until the store answers.
pub(super) async fn run_until_answered(addresses: &ActorAddresses, id: &WorkflowId) {
    while let Err(error) = run(addresses, id, None).await
        && error.is_transient()
    {
        tokio::time::sleep(DOUBT_PAUSE).await;
    }
}

impl Handler<DoubtsAsked> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, asked: DoubtsAsked, ctx: &mut Self::Context) {
        let DoubtsAsked { left, settled_tasks, lost } = asked;
        self.admission.doubts.asked.clear();
        self.admission.doubts.open.extend(left);
        self.load = self.load.saturating_sub(settled_tasks);
        if let Some(epoch) = lost {
            self.lose(epoch, ctx);
        }
        self.settle_doubts_later(ctx);
    }
}
