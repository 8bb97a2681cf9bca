//! Engines whose machines disagree about the time: what they compare goes by the store's clock.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use gleitzeit_actors::{
    execution_engine::{EngineSettings, Shutdown},
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    store::Store as _,
    workflow::{WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{Harness, RemoteStore, Setup, secs, task};

/// An engine on a server whose clock is so far before this machine's.
async fn engine(memory: &Arc<MemoryStore>, ahead: TimeDelta, takes_over: bool) -> Harness {
    let engine = EngineSettings { takes_over, ..EngineSettings::default() };
    let store = RemoteStore::to_server_ahead(memory, ahead);
    Setup { engine, store, ..Setup::default() }.open_again().await
}

/// The limit of a workflow counts from its submission, over processes. Where each went by the clock
/// of its machine, one that is an hour off would end what another one has just taken in.
#[actix::test]
async fn a_workflow_that_changes_engines_keeps_its_time() {
    tokio::time::pause();
    for hours in [1, -1] {
        let ahead = TimeDelta::hours(hours);
        let memory = Arc::new(MemoryStore::default().with_timed_leases());
        let mut first = engine(&memory, ahead, false).await;
        let gated = task("t", json!({"gate": "g"}));
        let spec = WorkflowSpec::new("w").id("w").task(gated).timeout(secs(300));
        first.submit(spec).await.unwrap();
        first.until_task("task:started", "t").await;
        let record = memory.workflow(&"w".into()).await.unwrap().unwrap();
        let off = record.created_at - Utc::now() - ahead;
        assert!(off.abs() < TimeDelta::minutes(5), "born {off} from the server's time");
        let events = memory.events(&"w".into(), 0, 100).await.unwrap();
        assert!(events.iter().all(|event| event.timestamp >= record.created_at), "{events:?}");
        first.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();

        let mut second = engine(&memory, ahead, true).await;
        second.recover().await;
        second.script.open("g");
        let end = second.wait(&"w".into()).await.unwrap();
        assert_eq!(end.status, WorkflowStatus::Completed);
        second.check_stored(&"w".into()).await;
        second.finish().await;
    }
}
