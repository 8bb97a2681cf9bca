//! An engine whose line to the server stalls, and another one that takes over.

use std::{sync::Arc, time::Duration};

use gleitzeit::{
    Call, Effect, MethodSpec, ParameterSpec, ProtocolSpec, ProviderSpec, Runtime, Settings,
    TaskSpec, WorkflowSpec, WorkflowStatus,
};
use serde_json::json;
use tokio::sync::watch;

use super::LONG;
use crate::support::{postgres::Server, stalling_line::StallingLine};

/// Who began a call, in the order of the calls.
type Begun = Arc<watch::Sender<Vec<&'static str>>>;

fn protocol() -> ProtocolSpec {
    let mut run = MethodSpec::new("run").param("n", ParameterSpec::integer());
    run.effect = Effect::AtLeastOnce;
    ProtocolSpec::new("outside", "v1.0".parse().unwrap()).method(run)
}

async fn engine(url: &str, name: &'static str, begun: &Begun) -> Runtime {
    let begun = Arc::clone(begun);
    let call = move |_: Call| {
        let begun = Arc::clone(&begun);
        async move {
            begun.send_modify(|order| order.push(name));
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(json!(1))
        }
    };
    let settings =
        format!("storage.url = \"{url}\"\nstorage.lease_ttl = 3\nengine.max_concurrent_tasks = 4");
    let builder = Runtime::builder(Settings::from_toml(&settings).unwrap());
    let builder = builder.without_settings_providers().protocol(protocol());
    let provider = ProviderSpec::from_fn(name, "outside/v1.0", call).unwrap();
    builder.provider(provider).start().await.unwrap()
}

/// The first engine cannot know that it has been replaced; it must have stopped by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_engine_has_stopped_calling_when_another_one_begins() {
    let Some(server) = Server::reach("partition").await else { return };
    let url = server.database().await;
    let direct = url.expose();
    let (user, rest) = direct.rsplit_once('@').unwrap();
    let (host, database) = rest.split_once('/').unwrap();
    let line = StallingLine::to(host.to_owned()).await;
    let through = format!("{user}@{}/{database}", line.address);
    let begun: Begun = Arc::new(watch::Sender::new(Vec::new()));
    let first = engine(&through, "first", &begun).await;
    let second = engine(direct, "second", &begun).await;
    let task = |n: u64| TaskSpec::new(format!("t{n}"), "outside/run").params(json!({ "n": n }));
    // More than the first one can do before its lease has run out.
    let wide = (0..1_000).map(task).fold(WorkflowSpec::new("wide").id("wide"), WorkflowSpec::task);
    let id = first.handle().submit(wide).await.unwrap();
    let mut order = begun.subscribe();
    tokio::time::timeout(LONG, order.wait_for(|order| order.len() >= 20)).await.unwrap().unwrap();
    line.stall(true);
    let record = tokio::time::timeout(2 * LONG, second.handle().wait(&id)).await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    let order = begun.borrow().clone();
    assert_eq!(order[0], "first");
    let taken_over = order.iter().position(|by| *by == "second").unwrap();
    let late = order[taken_over..].iter().filter(|by| **by == "first").count();
    assert_eq!(late, 0, "calls of the first engine after the second one had begun");
    line.stall(false);
    // It hears that its lease is gone, and of the end.
    let ended = tokio::time::timeout(LONG, first.handle().wait(&id)).await.unwrap().unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed);
    first.stop(LONG).await;
    second.stop(LONG).await;
    server.drop_all().await;
}
