//! Several processes on one store: who owns what, and what a lost lease can still do. Passed over
//! for a store without leases.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, future::join};
use serde_json::json;

use super::{
    Broken, Outcome, same,
    sample::{at, change, completed, settles, workflow},
    shorten,
};
use crate::{
    error::{ErrorCode, TaskError},
    store::{
        Epoch, LeaseStore, NewWorkflow, Store, StoreError, Submitted, WorkflowChange,
        lease::{Ask, ClaimedOne, PersonsVerdict, Request},
    },
    workflow::WorkflowStatus,
};

/// Longer than any check takes.
const TERM: Duration = Duration::from_mins(10);

/// Leaves the check where the store has no leases.
macro_rules! leases_of {
    ($store:expr) => {
        match $store.leases() {
            Some(leases) => leases,
            None => return Ok(()),
        }
    };
}

async fn open(leases: &dyn LeaseStore, owner: &str) -> Result<Epoch, StoreError> {
    Ok(leases.open_lease(owner, TERM).await?.epoch)
}

fn owned(id: &str, epoch: Epoch) -> NewWorkflow {
    NewWorkflow { epoch: Some(epoch), ..workflow(id, 2) }
}

fn outcome(new: &NewWorkflow, epoch: Epoch) -> WorkflowChange {
    WorkflowChange {
        tasks: vec![completed(&new.record.tasks[0], json!(epoch.0))],
        epoch: Some(epoch),
        ..change(&new.record.id, 1)
    }
}

/// The ids that a claim of at most `limit` takes.
async fn claim(
    leases: &dyn LeaseStore,
    epoch: Epoch,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let claimed = leases.claim(epoch, limit).await?;
    Ok(claimed.workflows.into_iter().map(|record| record.id.to_string()).collect())
}

pub(super) async fn an_epoch_is_never_given_twice(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let mut last = Epoch(0);
    for round in 0..3 {
        let epoch = open(leases, "a").await?;
        if epoch <= last {
            return Err(Broken(format!("epoch {epoch} in round {round}, after {last}")));
        }
        leases.close_lease(epoch).await?;
        last = epoch;
    }
    Ok(())
}

pub(super) async fn a_lost_lease_writes_nothing_more(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let lease = leases.open_lease("a", TERM).await?;
    let epoch = lease.epoch;
    let new = owned("kept", epoch);
    let mut record = new.record.clone();
    same!(store.submit(vec![new.clone()]).await?, [Submitted::Created], "a submission under it");
    let first = outcome(&new, epoch);
    super::sample::apply(&mut record, &first);
    store.record(vec![first]).await?;
    same!(leases.renew_lease(epoch, TERM).await?, true, "renewed while it is held");
    leases.close_lease(epoch).await?;
    leases.close_lease(epoch).await?;
    let lost = StoreError::LeaseLost { epoch };
    let mut late = outcome(&new, epoch);
    late.tasks = vec![completed(&new.record.tasks[1], json!("late"))];
    same!(store.record(vec![late]).await, Err(lost.clone()), "a change");
    same!(store.submit(vec![owned("late", epoch)]).await, Err(lost.clone()), "a submission");
    same!(leases.claim(epoch, 10).await, Err(lost.clone()), "a claim");
    same!(leases.claim_one(epoch, &"kept".into(), false).await, Err(lost), "a claim on one");
    same!(leases.renew_lease(epoch, TERM).await?, false, "renewed once it is gone");
    same!(store.workflow(&"kept".into()).await?, Some(record), "what it wrote before");
    same!(store.workflow(&"late".into()).await?, None, "what it did not write");
    Ok(())
}

pub(super) async fn a_lost_lease_holds_nobody_else_up(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (lost, held) = (open(leases, "a").await?, open(leases, "b").await?);
    let (late, timely) = (owned("late", lost), owned("timely", held));
    store.submit(vec![late.clone(), timely.clone()]).await?;
    leases.close_lease(lost).await?;
    let (refused, written) =
        join(store.record(vec![outcome(&late, lost)]), store.record(vec![outcome(&timely, held)]))
            .await;
    same!(refused, Err(StoreError::LeaseLost { epoch: lost }), "the late one");
    written?;
    let stored = store.workflow(&"timely".into()).await?;
    let result = stored.and_then(|record| record.tasks[0].result.as_deref().cloned());
    same!(result, Some(json!(held.0)), "the timely one");
    Ok(())
}

pub(super) async fn what_a_live_lease_owns_is_not_claimed(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (owner, other) = (open(leases, "a").await?, open(leases, "b").await?);
    let new = owned("a", owner);
    store.submit(vec![new.clone()]).await?;
    let none: [&str; 0] = [];
    same!(claim(leases, other, 10).await?, none, "by another one");
    same!(leases.claim_one(other, &"a".into(), false).await?, ClaimedOne::Held, "by its name");
    same!(claim(leases, owner, 10).await?, none, "by the owner again");
    let taken = ClaimedOne::Taken(Box::new(new.record));
    same!(leases.claim_one(owner, &"a".into(), false).await?, taken, "by its name, by the owner");
    let unknown = leases.claim_one(other, &"b".into(), false).await?;
    same!(unknown, ClaimedOne::Unknown, "what is not there");
    Ok(())
}

pub(super) async fn what_is_free_is_claimed_once(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (first, second) = (open(leases, "a").await?, open(leases, "b").await?);
    let news: Vec<NewWorkflow> =
        (0..40).map(|number| workflow(&format!("w{number:02}"), 1)).collect();
    store.submit(news.clone()).await?;
    let settled = settles(&news[7], WorkflowStatus::Completed, at(5));
    store.record(vec![settled]).await?;
    let drain = async |epoch: Epoch| -> Result<Vec<String>, StoreError> {
        let mut all = Vec::new();
        loop {
            let claimed = leases.claim(epoch, 3).await?;
            if claimed.workflows.len() > 3 {
                return Err(StoreError::Read { detail: "more than were asked for".into() });
            }
            let more = claimed.more || !claimed.workflows.is_empty();
            all.extend(claimed.workflows.into_iter().map(|record| record.id.to_string()));
            if !more {
                return Ok(all);
            }
        }
    };
    let (ours, theirs) = join(drain(first), drain(second)).await;
    let (ours, theirs) = (ours?, theirs?);
    let each: BTreeSet<&String> = ours.iter().chain(&theirs).collect();
    same!(each.len(), 39, "all that is not settled");
    same!(ours.len() + theirs.len(), 39, "each once");
    same!(ours.is_sorted(), true, "the oldest first: {ours:?}");
    Ok(())
}

pub(super) async fn what_a_closed_lease_owned_is_free(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (gone, heir) = (open(leases, "a").await?, open(leases, "b").await?);
    let (open_one, done) = (owned("open", gone), owned("done", gone));
    store.submit(vec![open_one.clone(), done.clone()]).await?;
    let step = outcome(&open_one, gone);
    let mut end = settles(&done, WorkflowStatus::Completed, at(5));
    end.epoch = Some(gone);
    store.record(vec![step.clone(), end]).await?;
    leases.close_lease(gone).await?;
    let mut record = open_one.record.clone();
    super::sample::apply(&mut record, &step);
    let claimed = leases.claim(heir, 10).await?;
    same!(claimed.workflows, [record], "claimed");
    let late = store.record(vec![outcome(&open_one, gone)]).await;
    same!(late, Err(StoreError::LeaseLost { epoch: gone }), "a write of the old owner");
    store.record(vec![outcome(&open_one, heir)]).await?;
    Ok(())
}

pub(super) async fn a_settled_workflow_can_be_claimed_by_name(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (owner, other) = (open(leases, "a").await?, open(leases, "b").await?);
    let new = owned("a", owner);
    store.submit(vec![new.clone()]).await?;
    let mut end = settles(&new, WorkflowStatus::Failed, at(5));
    end.epoch = Some(owner);
    let mut record = new.record.clone();
    super::sample::apply(&mut record, &end);
    store.record(vec![end]).await?;
    // Nobody runs what is settled, even where its last owner lives; to look at it takes nothing.
    let taken = ClaimedOne::Taken(Box::new(record));
    let id = "a".into();
    same!(leases.claim_one(owner, &id, false).await?, taken, "by its last owner");
    same!(leases.claim_one(other, &id, false).await?, taken, "by another one");
    same!(leases.claim_one(other, &id, true).await?, taken, "to be opened again");
    // Two that opened it again would both run it.
    same!(leases.claim_one(owner, &id, true).await?, ClaimedOne::Held, "to be opened twice");
    same!(leases.claim_one(other, &id, true).await?, taken, "by the same once more");
    leases.close_lease(other).await?;
    same!(leases.claim(owner, 10).await?.workflows.len(), 0, "settled workflows to run");
    same!(leases.claim_one(owner, &id, true).await?, taken, "after who had taken it");
    store.record(vec![outcome(&new, owner)]).await?;
    Ok(())
}

pub(super) async fn what_ended_before_its_submission_belongs_to_nobody(
    store: &dyn Store,
) -> Outcome {
    let leases = leases_of!(store);
    let (owner, other) = (open(leases, "a").await?, open(leases, "b").await?);
    let mut new = owned("a", owner);
    let end = settles(&new, WorkflowStatus::Completed, at(5));
    super::sample::apply(&mut new.record, &end);
    store.submit(vec![new.clone(), owned("b", owner)]).await?;
    let taken = ClaimedOne::Taken(Box::new(new.record.clone()));
    let id = "a".into();
    same!(leases.claim_one(other, &id, true).await?, taken, "to be opened again by another one");
    same!(leases.claim_one(owner, &id, true).await?, ClaimedOne::Held, "to be opened twice");
    leases.close_lease(other).await?;
    leases.close_lease(owner).await?;
    let third = open(leases, "c").await?;
    same!(claim(leases, third, 10).await?, ["b"], "what is to be run");
    // Whoever lost its lease has no say in what it ended before the submission either.
    let late = NewWorkflow {
        record: crate::workflow::WorkflowRecord { id: "c".into(), ..new.record },
        ..new
    };
    let refused = store.submit(vec![late]).await;
    same!(refused, Err(StoreError::LeaseLost { epoch: owner }), "under a lease that is gone");
    same!(store.workflow(&"c".into()).await?, None, "what was refused");
    Ok(())
}

pub(super) async fn requests_reach_the_owner(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (owner, other) = (open(leases, "a").await?, open(leases, "b").await?);
    store.submit(vec![owned("a", owner)]).await?;
    let settle = Ask::Settle {
        task: "t0".into(),
        verdict: PersonsVerdict::Completed { result: json!({"n": "a\u{0}b"}) },
    };
    let settle = Request { workflow: "a".into(), ask: settle };
    let cancel = Request { workflow: "a".into(), ask: Ask::Cancel { reason: "enough".into() } };
    let first = leases.ask(settle.clone()).await?;
    let second = leases.ask(cancel.clone()).await?;
    same!(leases.requests(other).await?, [], "those of another one");
    let asked = leases.requests(owner).await?;
    same!(asked, [(first, settle), (second, cancel.clone())], "those of the owner, in order");
    same!(leases.take_answer(first).await?, None, "before it is answered");
    let refusal = TaskError::new(ErrorCode::WorkflowInvalidState, "it runs");
    leases.answer(first, Err(refusal.clone())).await?;
    leases.answer(first, Ok(())).await?;
    same!(leases.requests(owner).await?, [(second, cancel)], "those not answered");
    same!(leases.take_answer(first).await?, Some(Err(refusal)), "the first answer");
    same!(leases.take_answer(first).await?, None, "an answer that was taken");
    leases.withdraw(second).await?;
    same!(leases.requests(owner).await?, [], "those not withdrawn");
    let stray = Request { workflow: "b".into(), ask: Ask::Cancel { reason: "x".into() } };
    match leases.ask(stray).await {
        Err(StoreError::Integrity { .. }) => Ok(()),
        other => Err(Broken(format!("about a workflow that is not there: {other:?}"))),
    }
}

pub(super) async fn the_bell_rings_for_what_is_free(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let mut bell = leases.bell();
    store.submit(vec![workflow("a", 1)]).await?;
    same!(bell.next().await, Some(()), "for a submission");
    let epoch = open(leases, "a").await?;
    same!(claim(leases, epoch, 10).await?, ["a"], "claimed");
    let mut bell = leases.bell();
    let ask = Ask::Cancel { reason: "enough".into() };
    leases.ask(Request { workflow: "a".into(), ask }).await?;
    same!(bell.next().await, Some(()), "for a request");
    let mut bell = leases.bell();
    leases.close_lease(epoch).await?;
    same!(bell.next().await, Some(()), "for a closed lease");
    Ok(())
}
