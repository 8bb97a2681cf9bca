//! Protocols and providers that come and go while the runtime works.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gleitzeit::{
    Candidate, ErrorCode, LoadBalancingStrategy, MethodSpec, ParameterSpec, PickContext,
    ProtocolSpec, ProviderId, ProviderSpec, ProviderState, TaskSpec, WorkflowSpec, WorkflowStatus,
    providers::echo,
};
use serde_json::json;

use crate::support::whole::{
    all_serve, echo_builder, echo_runtime, echo_workflow, gate, gate_protocol, gate_task, settings,
    within,
};

/// `gate/v1.0` with one parameter more, which must be given where `must` is true.
fn wider(must: bool) -> ProtocolSpec {
    let depth = ParameterSpec::integer();
    let mut protocol = gate_protocol();
    let pass = protocol.methods.get_mut("pass").unwrap();
    pass.params_schema.insert("depth".into(), if must { depth } else { depth.optional() });
    protocol
}

/// A handler may return anything; a value beyond the limit fails its task, and is not kept.
#[tokio::test]
async fn a_value_of_a_handler_is_bounded() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let fill = MethodSpec::new("fill").param("megabytes", ParameterSpec::integer());
    let protocol = ProtocolSpec::new("filler", "v1.0".parse().unwrap()).method(fill);
    handle.register_protocol(protocol).await.unwrap();
    let provider = ProviderSpec::from_fn("filler", "filler/v1.0", |call| async move {
        let count = call.param("megabytes").and_then(serde_json::Value::as_u64).unwrap_or_default();
        Ok(json!("x".repeat(usize::try_from(count).unwrap() << 20)))
    });
    handle.register_provider(provider.unwrap()).await.unwrap();
    let fill = |id: &str, megabytes: u32| {
        TaskSpec::new(id, "filler/fill").params(json!({ "megabytes": megabytes }))
    };
    let spec = WorkflowSpec::new("w").task(fill("large", 65)).task(fill("fits", 63));
    let ended = within("the end", handle.run(spec)).await.unwrap();
    let error = ended.tasks[0].error.clone().expect("65 MiB are more than 64");
    assert_eq!(error.code, ErrorCode::TaskResultInvalid);
    assert!(error.message.contains("`engine.max_result_mb`"), "{error}");
    assert!(error.message.contains("68157442 bytes"), "{error}");
    assert_eq!(ended.tasks[0].result, None);
    let kept = ended.tasks[1].result.as_deref().and_then(serde_json::Value::as_str);
    assert_eq!(kept.map(str::len), Some(63 << 20));
    runtime.stop(Duration::ZERO).await;
}

/// A host learns of new kinds of work while it runs.
#[tokio::test]
async fn a_protocol_and_its_provider_can_be_added_at_run_time() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let double = MethodSpec::new("double").param("n", ParameterSpec::integer().maximum(100));
    let protocol = ProtocolSpec::new("math", "v2.0".parse().unwrap()).method(double);
    let task = |n: i64| TaskSpec::new("d", "math/double").params(json!({ "n": n }));
    let early = handle.submit(WorkflowSpec::new("w").task(task(1))).await.unwrap_err();
    assert_eq!(early.code(), ErrorCode::ProtocolNotFound, "{early}");

    assert_eq!(handle.register_protocol(protocol.clone()).await.unwrap().to_string(), "math/v2.0");
    let provider = ProviderSpec::from_fn("math", "math/v2.0", |call| async move {
        let n = call.param("n").and_then(serde_json::Value::as_i64).unwrap_or_default();
        Ok(json!(2 * n))
    });
    handle.register_provider(provider.unwrap()).await.unwrap();
    let ended = within("the end", handle.run(WorkflowSpec::new("w").task(task(21)))).await.unwrap();
    assert_eq!(ended.tasks[0].result.as_deref(), Some(&json!(42)));
    let wrong = handle.submit(WorkflowSpec::new("w").task(task(101))).await.unwrap_err();
    assert_eq!(wrong.code(), ErrorCode::InvalidParams, "{wrong}");

    // The same again changes nothing; another of the same id is a replacement.
    handle.register_protocol(protocol.clone()).await.unwrap();
    let other = protocol.method(MethodSpec::new("halve"));
    let refused = handle.register_protocol(other.clone()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest, "{refused}");
    handle.replace_protocol(other).await.unwrap();
    assert!(handle.protocols().await.unwrap().list().any(|it| it.methods.contains_key("halve")));
    runtime.stop(Duration::ZERO).await;
}

/// A task that was accepted must not find its method changed under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_in_use_is_replaced_only_by_a_compatible_one() {
    let (provider, mut gate) = gate("gate");
    let builder = echo_builder(settings("")).protocol(gate_protocol()).provider(provider);
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    let workflow = WorkflowSpec::new("w").task(gate_task("a")).task(gate_task("b").after("a"));
    let id = handle.submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");

    let refused = handle.replace_protocol(wider(true)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest, "{refused}");
    assert!(refused.message.contains("in use"), "{refused}");
    assert!(refused.message.contains("depth"), "{refused}");
    handle.replace_protocol(wider(false)).await.unwrap();
    // Tasks of the first protocol are still there, though none of the second.
    let refused = handle.replace_protocol(wider(true)).await.unwrap_err();
    assert!(refused.message.contains("in use"), "{refused}");

    gate.let_through(2);
    let ended = within("the end", handle.wait(&id)).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    drop(ended);
    // Nobody uses it any more.
    within("the old plan to go", async {
        while handle.replace_protocol(wider(true)).await.is_err() {}
    })
    .await;
    let old = handle.submit(WorkflowSpec::new("w").task(gate_task("a"))).await.unwrap_err();
    assert_eq!(old.code(), ErrorCode::InvalidParams, "{old}");

    let unknown = ProtocolSpec::new("nobody", "v1.0".parse().unwrap());
    let refused = handle.replace_protocol(unknown).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ProtocolNotFound, "{refused}");
    runtime.stop(Duration::ZERO).await;
}

/// Who inherits a method uses it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_is_in_use_while_one_that_extends_it_is() {
    let mut child = ProtocolSpec::new("portal", "v1.0".parse().unwrap());
    child.extends = Some("gate/v1.0".parse().unwrap());
    let (mut provider, mut gate) = gate("gate");
    provider.protocols.push("portal/v1.0".parse().unwrap());
    let builder = echo_builder(settings("")).protocol(gate_protocol()).protocol(child);
    let runtime = builder.provider(provider).start().await.unwrap();
    let handle = runtime.handle();
    let workflow = WorkflowSpec::new("w").task(TaskSpec::new("a", "portal/pass"));
    let id = handle.submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let refused = handle.replace_protocol(wider(true)).await.unwrap_err();
    assert!(refused.message.contains("portal/v1.0"), "{refused}");
    gate.let_through(1);
    within("the end", handle.wait(&id)).await.unwrap();
    runtime.stop(Duration::ZERO).await;
}

/// A host that looks at the protocols does not use them.
#[tokio::test]
async fn a_copy_of_the_protocols_keeps_none_from_being_replaced() {
    let runtime = echo_builder(settings("")).protocol(gate_protocol()).start().await.unwrap();
    let handle = runtime.handle();
    let before = handle.protocols().await.unwrap();
    handle.register_protocol(ProtocolSpec::new("x", "v1.0".parse().unwrap())).await.unwrap();
    let between = handle.protocols().await.unwrap();
    handle.replace_protocol(wider(true)).await.unwrap();
    let pass = |catalog: &gleitzeit::domain::protocol::catalog::ProtocolCatalog| {
        let id = "gate/v1.0".parse().unwrap();
        catalog.get(&id).unwrap().methods["pass"].params_schema.len()
    };
    // Each copy stays as it was.
    assert_eq!([pass(&before), pass(&between)], [1, 1]);
    assert_eq!(pass(&handle.protocols().await.unwrap()), 2);
    runtime.stop(Duration::ZERO).await;
}

/// A provider goes without harm to the call that it is busy with.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_provider_ends_its_calls_and_gets_no_others() {
    let (provider, mut gate) = gate("gate");
    let settings = settings("[engine]\nprovider_wait = 0");
    let builder = echo_builder(settings).protocol(gate_protocol()).provider(provider);
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    all_serve(&handle).await;
    let workflow = || WorkflowSpec::new("w").task(gate_task("a"));
    let id = handle.submit(workflow()).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let removing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.remove_provider(&"gate".into(), Duration::from_mins(10)).await }
    });
    within("the provider to be gone", async {
        while handle.providers().await.unwrap().len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let lost = within("the refusal", handle.run(workflow())).await.unwrap();
    let error = lost.tasks[0].error.as_deref().unwrap();
    assert!(
        matches!(error.code, ErrorCode::ProviderNotAvailable | ErrorCode::MethodNotSupported),
        "{error}"
    );
    gate.let_through(1);
    let ended = within("the running call", handle.wait(&id)).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    within("the removal", removing).await.unwrap().unwrap();
    let again = handle.remove_provider(&"gate".into(), Duration::ZERO).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::ProviderNotFound, "{again}");
    runtime.stop(Duration::ZERO).await;
}

/// A person can give a provider a new life without stopping anything.
#[tokio::test]
async fn a_provider_is_restarted_on_request() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    handle.run(echo_workflow("w")).await.unwrap();
    let before = handle.providers().await.unwrap().remove(0);
    assert_eq!((before.generation, before.calls_total, before.in_flight), (1, 1, 0));
    handle.restart_provider(&"echo".into()).await.unwrap();
    let ended = within("a call after it", handle.run(echo_workflow("w"))).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    let after = handle.providers().await.unwrap().remove(0);
    assert_eq!((after.generation, after.state), (2, ProviderState::Serving));
    let unknown = handle.restart_provider(&"nobody".into()).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::ProviderNotFound, "{unknown}");
    runtime.stop(Duration::ZERO).await;
}

/// Two providers of one id could not be told apart, and one without methods is of no use.
#[tokio::test]
async fn a_provider_that_cannot_be_used_is_refused() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let taken = handle.register_provider(echo::spec("echo")).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::ConfigurationError, "{taken}");
    let mut idle = echo::spec("idle");
    idle.protocols.clear();
    let idle = handle.register_provider(idle).await.unwrap_err();
    assert_eq!(idle.code, ErrorCode::ConfigurationError, "{idle}");
    let mut lost = echo::spec("lost");
    lost.protocols = vec!["nowhere/v1.0".parse().unwrap()];
    let lost = handle.register_provider(lost).await.unwrap_err();
    assert_eq!(lost.code, ErrorCode::ProtocolNotFound, "{lost}");
    runtime.stop(Duration::ZERO).await;
}

/// Always the same one, and it tells whom it could have chosen.
struct Last(Arc<Mutex<Vec<ProviderId>>>);

impl LoadBalancingStrategy for Last {
    fn name(&self) -> &'static str {
        "last"
    }

    fn select(&mut self, candidates: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
        let ids = candidates.iter().map(|candidate| candidate.id.clone());
        self.0.lock().expect("no panic under it").extend(ids);
        candidates.len() - 1
    }
}

/// A strategy of one's own is asked where there is a choice, and obeyed.
#[tokio::test]
async fn a_strategy_of_ones_own_chooses_the_provider() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let settings = settings("[balancing.protocols]\necho = \"last\"");
    let builder = echo_builder(settings)
        .provider(echo::spec("other"))
        .strategy("last", Arc::new(move |_| Box::new(Last(Arc::clone(&log)))));
    let runtime = builder.start().await.unwrap();
    all_serve(&runtime.handle()).await;
    let workflow = (0..10).fold(WorkflowSpec::new("w"), |spec, n| {
        spec.task(crate::support::whole::echo_task(&format!("t{n}")))
    });
    let ended = runtime.handle().run(workflow).await.unwrap();
    let by = ended.tasks.iter().filter(|task| task.provider_id == Some("other".into()));
    assert_eq!(by.count(), 10);
    assert_eq!(seen.lock().unwrap().len(), 20);
    runtime.stop(Duration::ZERO).await;
}
