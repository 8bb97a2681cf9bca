//! The input and output of calls: references, parameters, results.

use std::collections::HashMap;

use gleitzeit_domain::{
    error::ErrorCode,
    task::{
        OnDependencyFailure::Run,
        TaskStatus::{Completed, Failed, UpstreamFailed},
    },
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::{Value, json};

use crate::support::{Harness, Setup, code, failing, of, result, statuses, task};

/// The parameters of a task as its provider got them.
fn seen(harness: &Harness, id: &str) -> Value {
    Value::clone(&harness.script.calls_of(id)[0].params)
}

/// A lone reference keeps the type of what it stands for; inside a text, values become text.
#[actix::test]
async fn references_keep_their_types_on_the_way() {
    let mut harness = Harness::open().await;
    let value = json!({
        "int": 9_007_199_254_740_993_i64, "float": 0.1, "yes": true, "none": null,
        "list": [1, [2]], "object": {"odd key": {"a": 1}}, "text": "täxt",
    });
    let spec = WorkflowSpec::new("types")
        .input("city", "Berlin")
        .task(task("from", json!({"value": value.clone()})).named("The source"))
        .task(task(
            "to",
            json!({
                "int": "${from.int}", "float": "${from.float}", "yes": "${from.yes}",
                "none": "${from.none}", "list": "${from.list}", "deep": "${from.list[1][0]}",
                "object": "${from.object}", "odd": "${from.object[\"odd key\"].a}",
                "whole": "${The source}", "optional": "${from.result.text}",
                "inside": ["${from.int} in ${inputs.city}: ${from.object}"],
                "fallback": "${from.nothing:-[1, 2]}",
                "status": "${from.$.status}", "by": "${from.$.provider_id}",
                "name": "${workflow.name}",
            }),
        ));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert_eq!(
        seen(&harness, "to"),
        json!({
            "int": 9_007_199_254_740_993_i64, "float": 0.1, "yes": true, "none": null,
            "list": [1, [2]], "deep": 2, "object": {"odd key": {"a": 1}}, "odd": 1,
            "whole": value, "optional": "täxt",
            "inside": [r#"9007199254740993 in Berlin: {"odd key":{"a":1}}"#],
            "fallback": [1, 2], "status": "completed", "by": "main", "name": "types",
        })
    );
    harness.finish().await;
}

/// Text from a result is never expanded again, and an escaped reference is text.
#[actix::test]
async fn text_of_a_result_is_not_expanded() {
    let mut harness = Harness::open().await;
    harness.script.expect_escapes();
    let spec = WorkflowSpec::new("escapes")
        .task(task("evil", json!({"value": "$${inputs.secret}"})))
        .task(task("to", json!({"value": "${evil}", "literal": "$${evil}"})))
        .input("secret", "hidden");
    let record = harness.run(spec).await;
    assert_eq!(result(&record, "evil"), "${inputs.secret}");
    assert_eq!(seen(&harness, "to"), json!({"value": "${inputs.secret}", "literal": "${evil}"}));
    harness.finish().await;
}

/// A path without a value fails the task before any provider sees it, and names what there is.
#[actix::test]
async fn a_missing_path_names_the_reference_and_the_keys() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("missing")
        .task(task("from", json!({"value": {"alpha": 1, "beta": 2}})))
        .task(task("to", json!({"deep": {"x": ["a", "see ${from.gamma}"]}})));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed]);
    let error = of(&record, "to").error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::TaskParameterError);
    for part in ["${from.gamma}", "gamma", "alpha, beta", "/deep/x/1"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    let data = error.data.as_ref().expect("the same for a program");
    assert_eq!(data["reference"], "${from.gamma}");
    assert_eq!(data["keys"], json!(["alpha", "beta"]));
    assert_eq!(harness.script.order(), ["from"]);
    harness.finish().await;
}

/// A task that runs after a failed one has only fallbacks and metadata of it.
#[actix::test]
async fn a_failed_task_has_only_the_fields_that_are_known() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("after failure")
        .task(failing("bad"))
        .task(
            task("copes", json!({
                "value": "${bad.x:-none}", "why": "${bad.$.error.code}", "how": "${bad.$.status}",
            }))
            .on_dependency_failure(Run),
        )
        .task(task("insists", json!({"value": "${bad.x}"})).on_dependency_failure(Run));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed, Completed, Failed]);
    assert_eq!(
        seen(&harness, "copes"),
        json!({"value": "none", "why": ErrorCode::TaskExecutionFailed.number(), "how": "failed"})
    );
    assert_eq!(code(&record, "insists"), Some(ErrorCode::TaskParameterError));
    assert!(harness.script.calls_of("insists").is_empty());
    harness.finish().await;
}

/// Beside a task that is skipped for it: this one still needs what the skipped one does not.
#[actix::test]
async fn a_failed_task_can_be_referred_to_where_others_are_skipped_for_it() {
    let mut harness = Harness::open().await;
    let how = |id: &str| task(id, json!({"how": "${bad.$.status}"})).on_dependency_failure(Run);
    let spec = WorkflowSpec::new("beside")
        .task(failing("bad"))
        .task(task("skipped", json!({})).after("bad"))
        .task(how("runs"))
        .task(how("later").after("slow").on_dependency_failure(Run))
        .task(task("slow", json!({"sleep": 1})));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed, UpstreamFailed, Completed, Completed, Completed]);
    for id in ["runs", "later"] {
        assert_eq!(seen(&harness, id), json!({"how": "failed"}), "{id}");
    }
    harness.finish().await;
}

/// Only listed variables of the environment can be read, and only those that are set.
#[actix::test]
async fn the_environment_is_read_as_listed() {
    let env =
        HashMap::from([("LISTED".to_owned(), Some("yes".to_owned())), ("UNSET".to_owned(), None)]);
    let mut harness = Setup { env, ..Setup::default() }.open().await;
    let read = |id: &str, name: &str| task(id, json!({"value": format!("${{env.{name}}}")}));
    let spec = WorkflowSpec::new("env")
        .task(read("listed", "LISTED"))
        .task(read("unset", "UNSET"))
        .task(read("secret", "SECRET"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed, Failed]);
    assert_eq!(result(&record, "listed"), "yes");
    for id in ["unset", "secret"] {
        assert_eq!(code(&record, id), Some(ErrorCode::TaskParameterError));
    }
    harness.finish().await;
}

/// Parameters are checked once more with the references resolved: what they bring in may be wrong.
#[actix::test]
async fn resolved_parameters_are_checked() {
    let mut harness = Harness::open().await;
    let strict = |id: &str, count: &str| {
        TaskSpec::new(id, "test/strict").params(json!({"count": format!("${{{count}}}")}))
    };
    let spec = WorkflowSpec::new("checked")
        .task(task("one", json!({"value": 1})))
        .task(task("none", json!({"value": 0})))
        .task(task("text", json!({"value": "1"})))
        .task(strict("fits", "one"))
        .task(strict("too-small", "none"))
        .task(strict("wrong-type", "text"));
    let record = harness.run(spec).await;
    assert_eq!(of(&record, "fits").status, Completed);
    for id in ["too-small", "wrong-type"] {
        let error = of(&record, id).error.clone().unwrap();
        assert_eq!(error.code, ErrorCode::InvalidParams, "{id}");
        assert_eq!(error.data.as_ref().unwrap()["violations"][0]["pointer"], "/count", "{id}");
        assert!(harness.script.calls_of(id).is_empty());
    }
    harness.finish().await;
}

/// A result that breaks the method's schema is not passed on; it is kept in the error.
#[actix::test]
async fn a_result_is_checked_against_its_schema() {
    let mut harness = Harness::open().await;
    let typed =
        |id: &str, value: Value| TaskSpec::new(id, "test/typed").params(json!({"value": value}));
    let spec = WorkflowSpec::new("results")
        .task(typed("fits", json!({"number": 3})))
        .task(typed("odd", json!({"number": "three"})))
        .task(task("behind", json!({"value": "${odd.number}"})));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record)[..2], [Completed, Failed]);
    let error = of(&record, "odd").error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::TaskResultInvalid);
    let data = error.data.as_ref().unwrap();
    assert_eq!(data["result"], json!({"number": "three"}));
    assert_eq!(data["violations"][0]["pointer"], "/number");
    assert_eq!(harness.script.calls_of("behind").len(), 0);
    harness.finish().await;
}
