//! What a host logs in a call is found under what it logged when it submitted.

use std::num::NonZeroUsize;

use gleitzeit::service::{CallContext, HandlerError, Service};
use serde_json::json;
use tracing::Instrument as _;

use super::{log, one, start, stop};
use crate::support::whole::within;

/// Through the engine and to whichever thread the handler runs on.
#[tokio::test]
async fn the_span_of_the_submission_is_that_of_the_calls() {
    log::capture();
    let say = |(): (), call: CallContext| async move {
        tracing::info!(said = call.call().method_name(), "handler");
        tokio::task::yield_now().await;
        tracing::info!(said_again = call.call().method_name(), "handler");
        Ok::<_, HandlerError>(())
    };
    let service = Service::new("voice", "v1.0")
        .method("pool", say)
        .method("block", say)
        .blocking()
        .local_method("local", say)
        .threads(NonZeroUsize::new(2).unwrap());
    let runtime = start(service).await;
    let handle = runtime.handle();
    for method in ["pool", "block", "local"] {
        let request = tracing::info_span!("request", number = method);
        let workflow = one(&format!("voice/{method}"), json!({})).id(method);
        let ended = within("it", handle.run(workflow).instrument(request)).await.unwrap();
        assert_eq!(ended.error, None);
        for field in ["said", "said_again"] {
            let line = log::wait_for(&["handler", &format!("{field}=\"{method}\"")]);
            let (_, spans) = line.split_once("in ").unwrap();
            assert!(spans.starts_with("task{workflow="), "{line}");
            assert!(spans.contains(&format!("method={method} ")), "{line}");
            assert!(spans.ends_with(&format!("< request{{number=\"{method}\"}}")), "{line}");
        }
    }
    // Without a span of the host, a call is a root.
    handle.run(one("voice/local", json!({})).id("none")).await.unwrap();
    let line = log::wait_for(&["handler", "workflow=none", "said_again"]);
    assert!(!line.contains('<'), "{line}");
    stop(runtime).await;
}
