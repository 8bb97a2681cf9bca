//! Batches on their way through registry and resolver.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;
use gleitzeit_domain::{
    engine::{PlannedWorkflow, Settled},
    graph::Settlement,
    plan::{Draft, Plan},
    problem::SubmitError,
    run::RunKey,
};

use crate::{
    dependency_resolver::{AddWorkflows, LoseResults, SettleTasks},
    peers::Peers,
    protocol_registry::ValidateWorkflows,
};

/// The answers of registry and resolver to a batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct SubmissionsPlanned(
    pub(super) Vec<(RunKey, Result<PlannedWorkflow, SubmitError>)>,
);

/// What follows from settled tasks.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct DependentsResolved {
    /// One for each settled task that was asked about.
    pub(super) asked: Vec<RunKey>,
    pub(super) settlements: Vec<(RunKey, Settlement)>,
}

/// Registry, then resolver; an actor that does not answer rejects all.
pub(super) async fn validate(peers: Rc<Peers>, batch: Vec<(RunKey, Draft)>) -> SubmissionsPlanned {
    // Split, because the registry answers in the order of the drafts and knows no keys.
    let (keys, drafts): (Vec<RunKey>, Vec<Draft>) = batch.into_iter().unzip();
    gleitzeit_failpoint::failpoint!("engine.submit.asked");
    let Ok(plans) = peers.registry.send(ValidateWorkflows(drafts)).await else {
        let rejected = keys.into_iter().map(|key| (key, Err(SubmitError::Stopped)));
        return SubmissionsPlanned(rejected.collect());
    };
    gleitzeit_failpoint::failpoint!("engine.submit.planned");
    let valid = keys.iter().zip(&plans);
    let valid = valid.filter_map(|(key, plan)| Some((*key, Arc::clone(plan.as_ref().ok()?))));
    // The graph is added before the workflow is stored: the first task may end during the commit.
    let ready = peers.resolver.send(AddWorkflows(valid.collect())).await;
    gleitzeit_failpoint::failpoint!("engine.submit.added");
    let mut ready = ready.unwrap_or_default().into_iter();
    let answer = |plan: Result<Arc<Plan>, SubmitError>| {
        // The resolver answers for valid plans only, in their order.
        let plan = plan?;
        let ready = ready.next().unwrap_or(Err(SubmitError::Stopped))?;
        Ok((plan, ready))
    };
    SubmissionsPlanned(keys.into_iter().zip(plans.into_iter().map(answer)).collect())
}

/// `None` if the resolver is gone: it takes the system with it, and nothing follows.
pub(super) async fn settle(peers: Rc<Peers>, settled: Vec<Settled>) -> Option<DependentsResolved> {
    let asked = settled.iter().map(|settled| settled.task.run).collect();
    let settlements = peers.resolver.send(SettleTasks(settled)).await.ok()?;
    gleitzeit_failpoint::failpoint!("engine.end.followed");
    Some(DependentsResolved { asked, settlements })
}

/// The same for a task that had completed, and has failed after all.
pub(super) async fn lose_result(peers: Rc<Peers>, lost: Settled) -> Option<DependentsResolved> {
    // One entry for the one task: the engine counts it as settling until the answer.
    let asked = vec![lost.task.run];
    let settlements = peers.resolver.send(LoseResults(vec![lost])).await.ok()?;
    Some(DependentsResolved { asked, settlements })
}
