//! The effect of a write, alone and among others.

use futures_util::future::join_all;
use serde_json::json;

use super::{
    Broken, CLOSING, Outcome, same,
    sample::{apply, at, change, completed, events, retry_pending, settles, state, workflow},
    shorten,
};
use crate::{
    store::{ListFilter, Store, StoreError, Submitted, WorkflowChange},
    task::TaskStatus,
    workflow::WorkflowStatus,
};

pub(super) async fn the_first_submission_of_an_id_counts(store: &dyn Store) -> Outcome {
    use Submitted::{Created, Existed};
    let first = workflow("a", 1);
    let mut second = workflow("a", 3);
    second.events = events(&second.record.id, 1, 2);
    second.record.last_sequence = 2;
    let batch = vec![first.clone(), workflow("b", 1), second.clone(), workflow("b", 2)];
    same!(store.submit(batch).await?, [Created, Created, Existed, Existed], "one batch");
    let batch = vec![second, workflow("c", 1)];
    same!(store.submit(batch).await?, [Existed, Created], "a later batch");
    let id = &first.record.id;
    same!(store.workflow(id).await?, Some(first.record.clone()), "the first one stands");
    same!(store.events(id, 0, 10).await?, first.events, "and its events");
    Ok(())
}

/// However a store writes many at once, each is found as it was submitted, or as it was there.
pub(super) async fn of_many_those_that_are_there_stand(store: &dyn Store) -> Outcome {
    let named =
        |from: usize, tasks| (from..from + 40).map(move |it| workflow(&format!("w{it:02}"), tasks));
    let first: Vec<_> = named(0, 1).collect();
    same!(store.submit(first.clone()).await?, vec![Submitted::Created; 40], "forty");
    let second: Vec<_> = named(20, 2).collect();
    let mut expected = vec![Submitted::Existed; 20];
    expected.extend([Submitted::Created; 20]);
    same!(store.submit(second.clone()).await?, expected, "forty, half of which are there");
    let mut records: Vec<_> = first.into_iter().chain(second.into_iter().skip(20)).collect();
    let changes = records.iter_mut().map(|new| {
        let first = WorkflowChange {
            tasks: vec![completed(&new.record.tasks[0], json!({"of": new.record.id.as_str()}))],
            events: events(&new.record.id, 2, 2),
            last_sequence: 3,
            ..settles(new, WorkflowStatus::Completed, at(9))
        };
        apply(&mut new.record, &first);
        new.events.extend(first.events.iter().cloned());
        first
    });
    store.record(changes.collect()).await?;
    for new in records {
        let id = &new.record.id;
        same!(store.workflow(id).await?, Some(new.record.clone()), "one of sixty");
        same!(store.events(id, 0, 10).await?, new.events, "its events");
    }
    Ok(())
}

pub(super) async fn of_submissions_at_once_one_creates(store: &dyn Store) -> Outcome {
    let answers = join_all((1..=32).map(|tasks| store.submit(vec![workflow("same", tasks)]))).await;
    let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
    let created: Vec<_> = (1_usize..)
        .zip(&answers)
        .filter(|(_, answer)| **answer == [Submitted::Created])
        .map(|(tasks, _)| tasks)
        .collect();
    same!(created.len(), 1, "those of 32 that say to have created it");
    let stored = store.workflow(&"same".into()).await?.map(|record| record.tasks.len());
    same!(stored, created.first().copied(), "the tasks of the one that created it");
    Ok(())
}

pub(super) async fn a_change_touches_what_it_names(store: &dyn Store) -> Outcome {
    let new = workflow("a", 4);
    let mut record = new.record.clone();
    let bystander = workflow("b", 4);
    store.submit(vec![new, bystander.clone()]).await?;
    let id = record.id.clone();
    let mut executing = record.tasks[3].clone();
    executing.status = TaskStatus::Executing;
    executing.attempts = 1;
    let steps = [
        WorkflowChange {
            tasks: vec![completed(&record.tasks[2], json!({"x": null}))],
            events: events(&id, 2, 2),
            ..change(&id, 3)
        },
        WorkflowChange {
            tasks: vec![executing.clone(), retry_pending(&record.tasks[0])],
            workflow: Some(state(WorkflowStatus::Running)),
            events: events(&id, 4, 1),
            ..change(&id, 4)
        },
        WorkflowChange {
            // Back to where it was: nothing of the attempt may be left.
            tasks: vec![record.tasks[0].clone(), completed(&executing, json!(null))],
            ..change(&id, 4)
        },
        WorkflowChange { workflow: Some(state(WorkflowStatus::Failed)), ..change(&id, 4) },
        WorkflowChange { workflow: Some(state(WorkflowStatus::Running)), ..change(&id, 4) },
    ];
    for (step, turn) in steps.into_iter().zip(1..) {
        apply(&mut record, &step);
        store.record(vec![step]).await?;
        same!(store.workflow(&id).await?, Some(record.clone()), "after step {turn}");
    }
    let untouched = store.workflow(&bystander.record.id).await?;
    same!(untouched, Some(bystander.record), "another workflow");
    Ok(())
}

pub(super) async fn a_repeated_write_does_no_harm(store: &dyn Store) -> Outcome {
    let new = workflow("a", 2);
    let mut record = new.record.clone();
    let id = record.id.clone();
    let first = WorkflowChange {
        tasks: vec![completed(&record.tasks[0], json!("done"))],
        workflow: Some(state(WorkflowStatus::Running)),
        events: events(&id, 2, 3),
        ..change(&id, 4)
    };
    let last = WorkflowChange {
        tasks: vec![completed(&record.tasks[1], json!("done"))],
        workflow: Some(state(WorkflowStatus::Completed)),
        events: events(&id, 5, 2),
        ..change(&id, 6)
    };
    apply(&mut record, &first);
    apply(&mut record, &last);
    store.submit(vec![new.clone()]).await?;
    store.record(vec![first.clone(), first.clone()]).await?;
    store.record(vec![first]).await?;
    same!(store.submit(vec![new.clone()]).await?, [Submitted::Existed], "a repeated submission");
    for _ in 0..2 {
        store.record(vec![last.clone()]).await?;
    }
    store.submit(vec![new]).await?;
    same!(store.workflow(&id).await?, Some(record), "the workflow");
    same!(store.events(&id, 0, 100).await?, events(&id, 1, 6), "the events");
    Ok(())
}

pub(super) async fn changes_of_one_batch_apply_in_order(store: &dyn Store) -> Outcome {
    let new = workflow("a", 2);
    let mut record = new.record.clone();
    let id = record.id.clone();
    store.submit(vec![new]).await?;
    let steps = [
        WorkflowChange {
            tasks: vec![retry_pending(&record.tasks[0])],
            workflow: Some(state(WorkflowStatus::Running)),
            events: events(&id, 2, 1),
            ..change(&id, 2)
        },
        WorkflowChange {
            tasks: vec![completed(&record.tasks[0], json!(1)), retry_pending(&record.tasks[1])],
            events: events(&id, 3, 2),
            ..change(&id, 4)
        },
        WorkflowChange {
            tasks: vec![completed(&record.tasks[1], json!(2))],
            workflow: Some(state(WorkflowStatus::Completed)),
            events: events(&id, 5, 1),
            ..change(&id, 5)
        },
    ];
    for step in &steps {
        apply(&mut record, step);
    }
    store.record(steps.to_vec()).await?;
    same!(store.workflow(&id).await?, Some(record), "the workflow");
    same!(store.events(&id, 0, 100).await?, events(&id, 1, 5), "the events");
    Ok(())
}

pub(super) async fn a_bad_change_leaves_its_batch_unwritten(store: &dyn Store) -> Outcome {
    let (good, bad) = (workflow("good", 1), workflow("bad", 1));
    store.submit(vec![good.clone(), bad.clone()]).await?;
    let mut stray = completed(&bad.record.tasks[0], json!(1));
    stray.index = 1;
    let good_change = WorkflowChange {
        tasks: vec![completed(&good.record.tasks[0], json!(1))],
        ..change(&good.record.id, 1)
    };
    let bad_change = WorkflowChange { tasks: vec![stray], ..change(&bad.record.id, 1) };
    match store.record(vec![good_change.clone(), bad_change]).await {
        Err(StoreError::Integrity { .. }) => {}
        other => return Err(Broken(format!("a task that is not there: {other:?}"))),
    }
    same!(store.workflow(&good.record.id).await?, Some(good.record.clone()), "the good one");
    same!(store.workflow(&bad.record.id).await?, Some(bad.record), "the bad one");
    store.record(vec![good_change.clone()]).await?;
    let mut record = good.record;
    apply(&mut record, &good_change);
    same!(store.workflow(&record.id).await?, Some(record.clone()), "the good one, written alone");
    Ok(())
}

pub(super) async fn a_change_of_a_forgotten_workflow_is_passed_over(store: &dyn Store) -> Outcome {
    let new = workflow("gone", 1);
    store.submit(vec![new.clone(), workflow("here", 1)]).await?;
    let last = settles(&new, WorkflowStatus::Completed, at(5));
    store.record(vec![last.clone()]).await?;
    same!(store.prune(at(6), 10).await?, 1, "pruned");
    let here = WorkflowChange {
        workflow: Some(state(WorkflowStatus::Running)),
        ..change(&"here".into(), 1)
    };
    store.record(vec![last, here]).await?;
    same!(store.workflow(&new.record.id).await?, None, "the forgotten one");
    let status = store.workflow(&"here".into()).await?.map(|record| record.status);
    same!(status, Some(WorkflowStatus::Running), "the rest of the batch");
    // Its id is free, and the repeated change has not left anything for the next one.
    same!(store.submit(vec![new.clone()]).await?, [Submitted::Created], "the id is free");
    same!(store.workflow(&new.record.id).await?, Some(new.record), "the new one");
    Ok(())
}

pub(super) async fn writes_at_once_are_all_written(store: &dyn Store) -> Outcome {
    let run = async |number: u32| -> Result<(), StoreError> {
        let new = workflow(&format!("w{number:03}"), 2);
        let (id, tasks) = (new.record.id.clone(), new.record.tasks.clone());
        store.submit(vec![new]).await?;
        for task in &tasks {
            let sequence = u64::from(task.index) + 2;
            let step = WorkflowChange {
                tasks: vec![completed(task, json!(number))],
                events: events(&id, sequence, 1),
                workflow: (sequence == 3).then(|| state(WorkflowStatus::Completed)),
                ..change(&id, sequence)
            };
            store.record(vec![step]).await?;
        }
        Ok(())
    };
    for outcome in join_all((0..200).map(run)).await {
        outcome?;
    }
    for number in 0..200 {
        let id = format!("w{number:03}").into();
        let Some(record) = store.workflow(&id).await? else {
            return Err(Broken(format!("{id} is not there")));
        };
        same!(record.status, WorkflowStatus::Completed, "status of {id}");
        let results: Vec<_> = record.tasks.iter().map(|task| task.result.as_deref()).collect();
        let expected = json!(number);
        same!(results, vec![Some(&expected); 2], "results of {id}");
        same!(store.events(&id, 0, 10).await?, events(&id, 1, 3), "events of {id}");
    }
    same!(store.unsettled().await?, [], "what is left");
    Ok(())
}

pub(super) async fn an_empty_batch_is_fine(store: &dyn Store) -> Outcome {
    same!(store.submit(Vec::new()).await?, [], "a submission of nothing");
    store.record(Vec::new()).await?;
    Ok(())
}

pub(super) async fn a_closed_store_says_so(store: &dyn Store) -> Outcome {
    let new = workflow("a", 1);
    let id = new.record.id.clone();
    store.submit(vec![new.clone()]).await?;
    store.close(CLOSING).await?;
    store.close(CLOSING).await?;
    let closed = StoreError::Closed;
    same!(store.submit(vec![new]).await, Err(closed.clone()), "submit");
    same!(store.record(vec![change(&id, 1)]).await, Err(closed.clone()), "record");
    same!(store.workflow(&id).await, Err(closed.clone()), "workflow");
    same!(store.unsettled().await, Err(closed.clone()), "unsettled");
    same!(store.list(ListFilter::default()).await, Err(closed.clone()), "list");
    same!(store.events(&id, 0, 1).await, Err(closed.clone()), "events");
    same!(store.prune(at(0), 1).await, Err(closed), "prune");
    Ok(())
}
