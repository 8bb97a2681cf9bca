//! The baseline writes the rows that the store would have written.

use gleitzeit::{
    Store as _, WorkflowStatus,
    domain::store::{WorkflowChange, conformance::sample},
    storage::SqlStore,
};
use serde_json::json;

use super::*;

/// A loop that wrote less than the store does would be no measure for it; and nothing of the
/// measuring stays in the database.
#[tokio::test]
async fn a_plain_loop_leaves_what_the_store_would_have_left() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = format!("sqlite:{}/a.db", folder.path().display());
    let url: StoreUrl = file.parse().unwrap();
    let options = SqlOptions::default();
    let new = sample::workflow("w", 3);
    let id = new.record.id.clone();
    let large = json!("x".repeat(100_000));
    let change = WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[1], large)],
        events: sample::events(&id, 2, 4),
        last_sequence: 5,
        ..sample::settles(&new, WorkflowStatus::Completed, sample::at(7))
    };
    let store = SqlStore::connect(&url, options).await.unwrap();
    store.submit(vec![new]).await.unwrap();
    store.record(vec![change]).await.unwrap();
    let expected = store.workflow(&id).await.unwrap().unwrap();
    let events = store.events(&id, 0, 9).await.unwrap();
    store.close(Duration::from_secs(5)).await.unwrap();

    let baseline = Baseline::open(&url, options).await.unwrap();
    let sample = baseline.sample(&id).await.unwrap();
    let (whole, twice) = (WorkflowId::from("whole"), WorkflowId::from("twice"));
    let mut pending = sample.workflow.clone();
    "pending".clone_into(&mut pending.status);
    (pending.started_at, pending.completed_at, pending.last_sequence) = (None, None, 1);
    let mut batch = Batch::default();
    let all = Change { tasks: &sample.tasks, events: &events, state: None };
    batch.add(&whole, &sample, &sample.workflow, all).unwrap();
    let first = Change { tasks: &[], events: &events[..1], state: None };
    batch.add(&twice, &sample, &pending, first).unwrap();
    let (took, keys) = baseline.write(batch).await.unwrap();
    assert!(took > Duration::ZERO && keys.len() == 2, "{keys:?}");
    let rest = Change { tasks: &sample.tasks, events: &events[1..], state: Some(&sample.workflow) };
    let mut batch = Batch::default();
    batch.change(keys[1], rest).unwrap();
    baseline.write(batch).await.unwrap();
    assert!(baseline.commit_one().await.unwrap() > Duration::ZERO);
    baseline.close().await.unwrap();

    let store = SqlStore::connect(&url, options).await.unwrap();
    for id in [whole, twice] {
        let written = store.workflow(&id).await.unwrap().unwrap();
        assert_eq!(written, gleitzeit::WorkflowRecord { id: id.clone(), ..expected.clone() });
        let written = store.events(&id, 0, 9).await.unwrap();
        let data = |events: &[Event]| -> Vec<_> {
            events.iter().map(|it| (it.sequence, it.timestamp, it.data.clone())).collect()
        };
        assert_eq!(data(&written), data(&events));
    }
    store.close(Duration::from_secs(5)).await.unwrap();
    let db = storage::connect(&url, options).await.unwrap();
    assert!(db.execute_unprepared(&format!("SELECT * FROM {TABLE}")).await.is_err());
}

/// Any number of rows is cut into statements, of which none has more parameters than a database
/// takes.
#[test]
fn rows_are_cut_into_statements() {
    for backend in [DbBackend::Sqlite, DbBackend::Postgres] {
        for rows in [0, 1, 255, 256, 257, 1024] {
            let values: Vec<Value> = (0..rows * 4).map(|it: i32| it.into()).collect();
            let statements: Vec<Statement> = EVENTS.all(backend, values.clone()).collect();
            let written = statements.iter().filter_map(|it| it.values.as_ref());
            let written: Vec<Value> = written.flat_map(|it| it.0.clone()).collect();
            assert_eq!(written, values, "{rows} rows");
            assert_eq!(statements.len(), usize::try_from(rows).unwrap().div_ceil(ROWS));
            for statement in &statements {
                let count = statement.values.as_ref().unwrap().0.len();
                let placeholders = statement.sql.matches(['?', '$']).count();
                assert_eq!(placeholders, count);
            }
        }
    }
}
