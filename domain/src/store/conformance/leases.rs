//! Several processes on one store: who owns what, and what a lost lease can still do. Passed over
//! for a store without leases.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::join};
use serde_json::json;

use super::{
    Broken, Outcome, same,
    sample::{at, change, completed, settles, workflow},
    shorten,
};
use crate::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    needs::{Needs, Offer},
    store::{
        Epoch, LeaseStore, NewWorkflow, Store, StoreError, Submitted, WorkflowChange,
        lease::{ClaimedOne, ClaimedWorkflow, Command, Release, Request, Resolution},
    },
    workflow::{WorkflowRecord, WorkflowStatus},
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

fn needing(id: &str, methods: &[&str]) -> NewWorkflow {
    let needs = methods.iter().map(|method| Arc::from(*method)).collect();
    NewWorkflow { needs, ..workflow(id, 2) }
}

fn offer(methods: &[&str]) -> Offer {
    Offer::of(methods.iter().filter_map(|method| method.parse().ok()))
}

/// One whose needs nobody wrote down, and that no dead lease left behind.
fn claimed_as(record: WorkflowRecord) -> ClaimedWorkflow {
    ClaimedWorkflow { record, needs: Needs::default(), left_by: None }
}

fn taken(record: WorkflowRecord) -> ClaimedOne {
    ClaimedOne::Taken(Box::new(claimed_as(record)))
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
    claim_with(leases, epoch, limit, &Offer::everything()).await
}

async fn claim_with(
    leases: &dyn LeaseStore,
    epoch: Epoch,
    limit: usize,
    offer: &Offer,
) -> Result<Vec<String>, StoreError> {
    let claimed = leases.claim(epoch, limit, offer).await?;
    Ok(claimed.workflows.into_iter().map(|it| it.record.id.to_string()).collect())
}

pub(super) async fn an_epoch_is_never_issued_twice(store: &dyn Store) -> Outcome {
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
    same!(leases.claim(epoch, 10, &Offer::everything()).await, Err(lost.clone()), "a claim");
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
    let by_name = taken(new.record);
    same!(leases.claim_one(owner, &"a".into(), false).await?, by_name, "by its name, by the owner");
    let unknown = leases.claim_one(other, &"b".into(), false).await?;
    same!(unknown, ClaimedOne::Unknown, "what is not there");
    Ok(())
}

pub(super) async fn what_is_free_is_claimed_once(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (first, second) = (open(leases, "a").await?, open(leases, "b").await?);
    let workflows: Vec<NewWorkflow> =
        (0..40).map(|number| workflow(&format!("w{number:02}"), 1)).collect();
    store.submit(workflows.clone()).await?;
    let settled = settles(&workflows[7], WorkflowStatus::Completed, at(5));
    store.record(vec![settled]).await?;
    let drain = async |epoch: Epoch| -> Result<Vec<String>, StoreError> {
        let mut all = Vec::new();
        loop {
            let claimed = leases.claim(epoch, 3, &Offer::everything()).await?;
            if claimed.workflows.len() > 3 {
                return Err(StoreError::Read { detail: "more than were asked for".into() });
            }
            let more = claimed.more || !claimed.workflows.is_empty();
            all.extend(claimed.workflows.into_iter().map(|it| it.record.id.to_string()));
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
    let (gone, successor) = (open(leases, "a").await?, open(leases, "b").await?);
    let (open_one, done) = (owned("open", gone), owned("done", gone));
    store.submit(vec![open_one.clone(), done.clone()]).await?;
    let step = outcome(&open_one, gone);
    let mut end = settles(&done, WorkflowStatus::Completed, at(5));
    end.epoch = Some(gone);
    store.record(vec![step.clone(), end]).await?;
    leases.close_lease(gone).await?;
    let mut record = open_one.record.clone();
    super::sample::apply(&mut record, &step);
    let claimed = leases.claim(successor, 10, &Offer::everything()).await?;
    same!(claimed.workflows, [claimed_as(record)], "claimed");
    let late = store.record(vec![outcome(&open_one, gone)]).await;
    same!(late, Err(StoreError::LeaseLost { epoch: gone }), "a write of the old owner");
    store.record(vec![outcome(&open_one, successor)]).await?;
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
    let by_name = taken(record);
    let id = "a".into();
    same!(leases.claim_one(owner, &id, false).await?, by_name, "by its last owner");
    same!(leases.claim_one(other, &id, false).await?, by_name, "by another one");
    same!(leases.claim_one(other, &id, true).await?, by_name, "to be opened again");
    // Two that opened it again would both run it.
    same!(leases.claim_one(owner, &id, true).await?, ClaimedOne::Held, "to be opened twice");
    same!(leases.claim_one(other, &id, true).await?, by_name, "by the same once more");
    leases.close_lease(other).await?;
    same!(
        leases.claim(owner, 10, &Offer::everything()).await?.workflows.len(),
        0,
        "settled workflows to run"
    );
    same!(leases.claim_one(owner, &id, true).await?, by_name, "after who had taken it");
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
    let by_name = taken(new.record.clone());
    let id = "a".into();
    same!(leases.claim_one(other, &id, true).await?, by_name, "to be opened again by another one");
    same!(leases.claim_one(owner, &id, true).await?, ClaimedOne::Held, "to be opened twice");
    leases.close_lease(other).await?;
    leases.close_lease(owner).await?;
    let third = open(leases, "c").await?;
    same!(claim(leases, third, 10).await?, ["b"], "what is to be run");
    // Whoever lost its lease has no say in what it ended before the submission either.
    let late = NewWorkflow { record: WorkflowRecord { id: "c".into(), ..new.record }, ..new };
    let refused = store.submit(vec![late]).await;
    same!(refused, Err(StoreError::LeaseLost { epoch: owner }), "under a lease that is gone");
    same!(store.workflow(&"c".into()).await?, None, "what was refused");
    Ok(())
}

pub(super) async fn a_claim_takes_what_its_offer_covers(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (older, newer) = (open(leases, "a").await?, open(leases, "b").await?);
    let shop = ["shop/v1.0:charge", "shop/v1.0:ship"];
    store
        .submit(vec![
            needing("both", &shop),
            needing("charge", &shop[..1]),
            needing("other", &["store/v1.0:sell"]),
            workflow("unknown", 1),
        ])
        .await?;
    let knows_less = offer(&shop[..1]);
    same!(claim_with(leases, older, 1, &knows_less).await?, ["charge"], "the oldest that fits");
    same!(claim_with(leases, older, 10, &knows_less).await?, ["unknown"], "what may be tried");
    let none: [&str; 0] = [];
    same!(claim_with(leases, older, 10, &knows_less).await?, none, "once more");
    // The same process learns a method, or another one knows it.
    store.submit(vec![needing("late", &shop)]).await?;
    same!(claim_with(leases, newer, 1, &offer(&shop)).await?, ["both"], "by who knows it");
    same!(claim_with(leases, older, 10, &offer(&shop)).await?, ["late"], "by who has learnt it");
    same!(claim_with(leases, newer, 10, &offer(&shop)).await?, none, "what nobody knows");
    let claimed = leases.claim(newer, 10, &offer(&["store/v1.0:sell"])).await?;
    let needs: Vec<String> = claimed.workflows.iter().map(|it| it.needs.to_string()).collect();
    same!(needs, ["store/v1.0 (sell)"], "what it needs");
    Ok(())
}

pub(super) async fn orphaned_work_is_claimed_by_who_knows_it(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let gone = open(leases, "a").await?;
    let shop = NewWorkflow { epoch: Some(gone), ..needing("shop", &["shop/v1.0:charge"]) };
    store.submit(vec![shop, owned("plain", gone)]).await?;
    leases.close_lease(gone).await?;
    let stranger = open(leases, "b").await?;
    let knows_none = offer(&[]);
    same!(claim_with(leases, stranger, 10, &knows_none).await?, ["plain"], "by a stranger");
    let successor = open(leases, "c").await?;
    let knows_it = offer(&["shop/v1.0:charge"]);
    same!(claim_with(leases, successor, 10, &knows_it).await?, ["shop"], "by who knows it");
    Ok(())
}

pub(super) async fn what_is_released_is_free(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (first, second) = (open(leases, "a").await?, open(leases, "b").await?);
    store.submit(vec![owned("a", first), owned("b", first), owned("c", second)]).await?;
    let all: Vec<_> = ["a", "c", "none"].map(Into::into).into();
    let mut notifications = leases.notifications();
    leases.release(first, &all, Release::ForAll).await?;
    same!(notifications.next().await, Some(()), "the notifications for what is free");
    same!(claim(leases, first, 10).await?, ["a"], "what it owned, and nothing of others");
    let some = [WorkflowId::from("a"), "b".into()];
    leases.release(first, &some, Release::ForOthers).await?;
    leases.release(first, &some, Release::ForOthers).await?;
    let none: [&str; 0] = [];
    let offered = offer(&["shop/v1.0:charge"]);
    leases.release(first, &some, Release::ForOthers).await?;
    same!(claim(leases, first, 10).await?, none, "what it cannot run");
    same!(claim(leases, second, 1).await?, ["a"], "by another one");
    same!(claim_with(leases, first, 10, &offered).await?, ["b"], "once it offers something else");
    leases.close_lease(first).await?;
    let refused = leases.release(first, &some, Release::ForAll).await;
    same!(refused, Err(StoreError::LeaseLost { epoch: first }), "by a lease that is gone");
    Ok(())
}

pub(super) async fn people_see_who_has_a_workflow(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let epoch = open(leases, "some process").await?;
    store.submit(vec![owned("a", epoch), needing("b", &["shop/v1.0:charge"])]).await?;
    let ids = ["b", "none", "a"].map(WorkflowId::from);
    let standings = leases.standings(&ids).await?;
    let [Some(free), None, Some(run)] = standings.as_slice() else {
        return Err(Broken(format!("of three, one unknown: {standings:?}")));
    };
    same!(free.owner, None, "the owner of what is free");
    same!(free.needs.to_string(), "shop/v1.0 (charge)", "what it needs");
    let owner = run.owner.as_ref().map(|owner| (owner.epoch, &*owner.name, owner.is_alive));
    same!(owner, Some((epoch, "some process", true)), "the owner of what is run");
    Ok(())
}

pub(super) async fn requests_reach_the_owner(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let (owner, other) = (open(leases, "a").await?, open(leases, "b").await?);
    store.submit(vec![owned("a", owner)]).await?;
    let settle = Command::Resolve {
        task: "t0".into(),
        resolution: Resolution::Completed { result: json!({"n": "a\u{0}b"}) },
    };
    let settle = Request { workflow: "a".into(), command: settle };
    let cancel =
        Request { workflow: "a".into(), command: Command::Cancel { reason: "enough".into() } };
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
    let stray = Request { workflow: "b".into(), command: Command::Cancel { reason: "x".into() } };
    match leases.ask(stray).await {
        Err(StoreError::Integrity { .. }) => Ok(()),
        other => Err(Broken(format!("about a workflow that is not there: {other:?}"))),
    }
}

pub(super) async fn notifications_arrive_for_what_is_free(store: &dyn Store) -> Outcome {
    let leases = leases_of!(store);
    let mut notifications = leases.notifications();
    store.submit(vec![workflow("a", 1)]).await?;
    same!(notifications.next().await, Some(()), "for a submission");
    let epoch = open(leases, "a").await?;
    same!(claim(leases, epoch, 10).await?, ["a"], "claimed");
    let mut notifications = leases.notifications();
    let command = Command::Cancel { reason: "enough".into() };
    leases.ask(Request { workflow: "a".into(), command }).await?;
    same!(notifications.next().await, Some(()), "for a request");
    let mut notifications = leases.notifications();
    leases.close_lease(epoch).await?;
    same!(notifications.next().await, Some(()), "for a closed lease");
    Ok(())
}
