//! Loads what a store remembers: after a crash, after a stop, or by a command.
//!
//! What this process cannot run, for it does not know a method or has another schema of it, is
//! returned to the store. What becomes of the rest is decided by the core.

use std::{rc::Rc, sync::Arc};

use futures_util::future::join;
use gleitzeit_domain::{
    engine::{
        RecoverOptions, Recovered, RecoveryProgress, ResumeError, StoredDrafts, StoredWorkflow,
        check_settled, read_stored, reopened, stopped,
    },
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    needs::Needs,
    store::{
        Epoch, Store,
        lease::{ClaimedOne, ClaimedWorkflow, Release},
    },
    workflow::WorkflowRecord,
};

mod claim_all;

pub(super) use self::claim_all::claim_all;
use super::claims::{EngineRecipients, GraphsRestored, NeedLease, RecoveryGuard, ResumeRuns};
use crate::{
    dependency_resolver::RestoreWorkflows, peers::Peers, protocol_registry::ReplanWorkflows,
    store_writes::release,
};

/// One recovery under way.
pub(super) struct Recovery {
    pub(super) guard: RecoveryGuard,
    pub(super) engine: Rc<EngineRecipients>,
    pub(super) peers: Rc<Peers>,
}

fn gone<E>(_: E) -> TaskError {
    stopped()
}

/// One workflow as it is stored, claimed if the store has leases; `None` if a live process runs it.
async fn load_one(
    engine: &EngineRecipients,
    store: &dyn Store,
    id: &WorkflowId,
    reopens: bool,
) -> Result<Option<(ClaimedWorkflow, Option<Epoch>)>, TaskError> {
    let unknown = || {
        let message = format!("no workflow has the id `{id}`");
        TaskError::new(ErrorCode::WorkflowNotFound, message)
    };
    let epoch = engine.lease.send(NeedLease).await.map_err(gone)??;
    let (Some(leases), Some(mine)) = (store.leases(), epoch) else {
        let record = store.workflow(id).await?.ok_or_else(unknown)?;
        return Ok(Some((unclaimed(record), None)));
    };
    // From here on the store may give the workflow to this lease: it must be resumed or released.
    gleitzeit_failpoint::failpoint!("engine.claim_one.before");
    match leases.claim_one(mine, id, reopens).await? {
        ClaimedOne::Taken(claimed) => Ok(Some((*claimed, epoch))),
        ClaimedOne::Held => Ok(None),
        ClaimedOne::Unknown => Err(unknown()),
    }
}

/// As a store without leases has it.
fn unclaimed(record: WorkflowRecord) -> ClaimedWorkflow {
    ClaimedWorkflow { record, needs: Needs::default(), left_by: None }
}

/// Claims one workflow and goes on with it; what was recovered, or why nothing was.
pub(super) async fn recover_one(
    recovery: Recovery,
    store: Arc<dyn Store>,
    id: WorkflowId,
    options: RecoverOptions,
) -> Result<(Recovered, Option<ResumeError>), TaskError> {
    let loaded = load_one(&recovery.engine, &*store, &id, options.reopen).await?;
    let Some((claimed, epoch)) = loaded else {
        return Ok((Recovered { held: 1, ..Recovered::default() }, None));
    };
    gleitzeit_failpoint::failpoint!("engine.claim_one.after");
    // After the claim: before it, another process might settle the workflow in between.
    check_settled(&claimed.record, options)?;
    let mut progress = RecoveryProgress::default();
    resume_all(&recovery, &store, vec![claimed], epoch, options, &mut progress).await?;
    progress.of_one(&id)
}

/// Runs again what did not complete in a settled workflow.
pub(super) async fn reopen(
    recovery: Recovery,
    store: Arc<dyn Store>,
    id: WorkflowId,
) -> Result<Recovered, TaskError> {
    let options = RecoverOptions { reopen: true, hold: false };
    reopened(&id, recover_one(recovery, store, id.clone(), options).await?)
}

/// Goes on with what can be run here, and returns the rest to the store.
async fn resume_all(
    recovery: &Recovery,
    store: &Arc<dyn Store>,
    claimed: Vec<ClaimedWorkflow>,
    epoch: Option<Epoch>,
    options: RecoverOptions,
    progress: &mut RecoveryProgress,
) -> Result<(), TaskError> {
    // A poll that finds nothing is the rule: it must not cost three messages.
    if claimed.is_empty() {
        return Ok(());
    }
    let StoredDrafts { drafts, records, unreadable } = read_stored(claimed);
    progress.recovered.unreadable += unreadable.len() as u64;
    let mut unfit = Vec::with_capacity(unreadable.len());
    for (workflow, why) in unreadable {
        tracing::error!(%workflow, why, "stored workflow unreadable");
        unfit.push(workflow);
    }
    let plans = recovery.peers.registry.send(ReplanWorkflows(drafts)).await.map_err(gone)?;
    gleitzeit_failpoint::failpoint!("engine.recover.planned");
    let found = progress.select(plans, records, options, &mut unfit);
    let returned = return_unfit(store, epoch, unfit);
    // Together: a store that is slow to take workflows back must not delay those that can run.
    let (resumed, ()) = join(resume(recovery, found, epoch, options, progress), returned).await;
    resumed
}

/// Leaves workflows to processes that can run them.
async fn return_unfit(store: &Arc<dyn Store>, epoch: Option<Epoch>, unfit: Vec<WorkflowId>) {
    if let Some(epoch) = epoch.filter(|_| !unfit.is_empty()) {
        release(&**store, epoch, &unfit, Release::ForOthers).await;
    }
}

async fn resume(
    recovery: &Recovery,
    found: Vec<StoredWorkflow>,
    epoch: Option<Epoch>,
    options: RecoverOptions,
    progress: &mut RecoveryProgress,
) -> Result<(), TaskError> {
    if found.is_empty() {
        return Ok(());
    }
    let resume = ResumeRuns { found, epoch, options, begun: recovery.guard.begun };
    let mut stored = Vec::new();
    let mut runs = Vec::new();
    for resumed in recovery.engine.resume.send(resume).await.map_err(gone)? {
        match resumed {
            Ok(run) => {
                let open = run.tasks.iter().filter(|task| !task.status.is_settled()).count();
                runs.push((run.run, open as u64));
                stored.push(run);
            }
            // Not released: a run that is here already keeps the lease of the one claimed again.
            Err(why) => progress.rejected = Some(why),
        }
    }
    gleitzeit_failpoint::failpoint!("engine.recover.adopted");
    let restore = RestoreWorkflows(stored);
    let settlements = recovery.peers.resolver.send(restore).await.map_err(gone)?;
    gleitzeit_failpoint::failpoint!("engine.recover.restored");
    let mut graphs = Vec::with_capacity(runs.len());
    for ((run, open), settlement) in runs.into_iter().zip(settlements) {
        progress.count(settlement.is_ok(), open);
        graphs.push((run, settlement));
    }
    // Also for graphs that failed: the engine has registered their runs, and abandons them.
    recovery.engine.restored.do_send(GraphsRestored { graphs });
    Ok(())
}

/// Logs what is left to others; what was recovered comes back.
fn end(progress: RecoveryProgress) -> Recovered {
    if let Some((id, why)) = progress.unfit {
        tracing::warn!(workflows = progress.recovered.unfit, first = %id, why = %why.message, "workflows left to other processes: this one cannot run them");
    }
    progress.recovered
}
