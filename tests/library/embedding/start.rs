//! What keeps a runtime from starting: each with its code, and a text that says what to do. Nothing
//! is left behind.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use gleitzeit::{
    ErrorCode, MemoryStore, MethodSpec, ProtocolSpec, ProviderSpec, ProviderState, Runtime,
    Settings, StartError, TaskError,
    providers::echo,
    settings::{ProviderConfig, StoreUrl},
};
use serde_json::json;

use crate::support::whole::{echo_builder, echo_workflow, settings, within};

/// The code of the failure, its text, and the failure itself.
async fn failure(builder: gleitzeit::RuntimeBuilder) -> (ErrorCode, String, StartError) {
    match within("the start", builder.start()).await {
        Ok(_) => panic!("it started"),
        Err(error) => (error.code(), error.to_string(), error),
    }
}

fn with_store(url: &str) -> gleitzeit::RuntimeBuilder {
    let mut settings = settings("");
    settings.storage.url = url.parse::<StoreUrl>().unwrap();
    echo_builder(settings)
}

/// A path whose folder cannot be made, whoever runs this.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_path_that_cannot_be_written_is_reported() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("sqlite:{}/gleitzeit.db", file.path().display());
    let (code, text, _) = failure(with_store(&url)).await;
    assert_eq!(code, ErrorCode::ConfigurationError, "{text}");
    assert!(text.contains(&url) && text.contains("cannot create the folder"), "{text}");
}

/// Somebody else's file is not overwritten.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_file_that_is_no_database_is_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let notes = "these are notes, and no database ".repeat(200);
    std::fs::write(&path, &notes).unwrap();
    let (code, text, error) = failure(with_store(&format!("sqlite:{}", path.display()))).await;
    assert!(matches!(error, StartError::Store { .. }), "{text}");
    assert_eq!(code, ErrorCode::PersistenceConnectionFailed, "{text}");
    assert!(text.contains("not a database"), "{text}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
}

/// A server that is not there is told without the password that would open it.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_server_that_does_not_answer_is_reported_without_the_password() {
    let url = "postgres://me:geheim@127.0.0.1:1/gleitzeit";
    let (code, text, _) = failure(with_store(url)).await;
    assert_eq!(code, ErrorCode::PersistenceConnectionFailed, "{text}");
    assert!(text.contains("postgres://me:***@127.0.0.1:1/gleitzeit"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}

/// Settings that were loaded cannot be of a kind that no build knows; the place is reported.
#[test]
fn an_unknown_kind_of_store_is_reported_when_settings_are_read() {
    let error = Settings::from_toml("[storage]\nurl = \"mysql://host/name\"").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("storage.url") && text.contains("mysql"), "{text}");
    assert_eq!(StartError::from(error).code(), ErrorCode::ConfigurationError);
}

/// What the program could have meant is told; and a store that was opened is closed again.
#[tokio::test]
async fn an_unknown_strategy_is_reported_with_the_known_ones() {
    let store = Arc::new(MemoryStore::default());
    let settings = settings("[balancing]\ndefault = \"fastest\"");
    let builder = echo_builder(settings).store(store.clone());
    let (code, text, error) = failure(builder).await;
    assert_eq!(code, ErrorCode::ConfigurationError);
    assert!(matches!(error, StartError::Strategy(_)));
    for part in ["[balancing]", "`fastest`", "round_robin", "weighted_random", "peak_ewma"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let closed = gleitzeit::Store::unsettled(&*store).await.unwrap_err();
    assert_eq!(closed, gleitzeit::StoreError::Closed);
}

/// A typing error in a strategy of one protocol counts as much.
#[tokio::test]
async fn an_unknown_strategy_of_one_protocol_is_reported() {
    let settings = settings("[balancing.protocols]\n\"echo/v1.0\" = \"peek_ewma\"");
    let (code, text, _) = failure(echo_builder(settings)).await;
    assert_eq!(code, ErrorCode::ConfigurationError);
    assert!(text.contains("`peek_ewma`"), "{text}");
}

/// Every name that the default settings mention is one.
#[tokio::test]
async fn every_strategy_that_the_settings_file_names_is_there() {
    let text = include_str!("../../../config/default.toml");
    let line = text.lines().find(|line| line.starts_with("default = \"round_robin\"")).unwrap();
    let (_, names) = line.split_once('#').unwrap();
    let names: Vec<&str> = names.split('|').map(str::trim).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let settings = settings(&format!("[balancing]\ndefault = \"{name}\""));
        let runtime = echo_builder(settings).start().await;
        let runtime = runtime.unwrap_or_else(|error| panic!("{name}: {error}"));
        runtime.stop(std::time::Duration::ZERO).await;
    }
}

/// Settings that a program changed are checked like those that were read.
#[cfg(feature = "python")]
#[tokio::test]
async fn a_wrong_provider_config_is_reported_with_its_key() {
    let mut settings = settings("");
    let python = settings.providers.get_mut("python").unwrap();
    python.config = ProviderConfig(json!({ "interpeter": "x" }).as_object().unwrap().clone());
    let (code, text, error) = failure(Runtime::builder(settings)).await;
    assert_eq!(code, ErrorCode::ConfigurationError);
    assert!(matches!(error, StartError::Settings(_)), "{text}");
    assert!(text.contains("providers.python.config.interpeter"), "{text}");
}

/// A provider of a protocol that nobody registered would never be called.
#[tokio::test]
async fn a_provider_of_an_unknown_protocol_is_reported() {
    let spec = ProviderSpec::from_fn("lost", "nowhere/v1.0", |_| async { Ok(json!(null)) });
    let (code, text, error) = failure(echo_builder(settings("")).provider(spec.unwrap())).await;
    assert_eq!(code, ErrorCode::ConfigurationError);
    assert!(matches!(&error, StartError::Provider { id, .. } if id == "lost"), "{text}");
    assert!(text.contains("nowhere/v1.0"), "{text}");
}

/// Two providers with one id could not be told apart.
#[tokio::test]
async fn two_providers_of_one_id_are_reported() {
    let (code, text, _) = failure(echo_builder(settings("")).provider(echo::spec("echo"))).await;
    assert_eq!(code, ErrorCode::ConfigurationError);
    assert!(text.contains("`echo`") && text.contains("another id"), "{text}");
}

/// Everything that is wrong with the protocols is reported at once.
#[tokio::test]
async fn wrong_protocols_are_reported_together() {
    let version = || "v1.0".parse().unwrap();
    let mut orphan = ProtocolSpec::new("orphan", version()).method(MethodSpec::new("a"));
    orphan.extends = Some("nobody/v1.0".parse().unwrap());
    let mut nameless = ProtocolSpec::new("odd", version());
    nameless.methods.insert("not a name!".into(), MethodSpec::default());
    let builder = echo_builder(settings("")).protocol(orphan).protocol(nameless);
    let (code, text, error) = failure(builder).await;
    assert_eq!(code, ErrorCode::ConfigurationError);
    assert!(matches!(error, StartError::Protocols { .. }));
    assert!(text.contains("nobody/v1.0") && text.contains("not a name!"), "{text}");
}

/// A provider that is down at the start is retried, and the rest of the runtime works.
#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_not_fatal() {
    let attempts = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&attempts);
    let spec = ProviderSpec::new("late", "echo/v1.0", move || {
        if counter.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(TaskError::failed("not up yet"));
        }
        Ok(echo::Echo::default())
    });
    let builder = Runtime::builder(settings("")).without_settings_providers();
    let runtime = builder.provider(spec.unwrap()).start().await.unwrap();
    // Its only provider is down: the call waits for it.
    let ended = within("the provider", runtime.handle().run(echo_workflow("w"))).await.unwrap();
    assert!(ended.error.is_none(), "{:?}", ended.error);
    let status = runtime.handle().providers().await.unwrap();
    assert_eq!(status[0].state, ProviderState::Serving);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    assert_eq!(status[0].restarts, 2);
    runtime.stop(std::time::Duration::ZERO).await;
}

/// Whoever gives up waiting for the start leaves nothing running.
#[tokio::test]
async fn a_start_that_nobody_waits_for_is_undone() {
    let store = Arc::new(MemoryStore::default());
    let mut start = Box::pin(echo_builder(settings("")).store(store.clone()).start());
    assert!(futures_util::poll!(&mut start).is_pending(), "it started at once");
    drop(start);
    // The runtime holds the other one until its thread is done with it.
    within("the thread to let go", async {
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(gleitzeit::Store::unsettled(&*store).await.is_err(), "the store was left open");
}
