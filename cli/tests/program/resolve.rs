//! A call that must not run twice, cut off by SIGKILL: its outcome is unknown, everybody can see so,
//! and a person says what became of it.

use std::time::Duration;

use gleitzeit::{
    Call, Effect, MethodSpec, ProtocolSpec, ProviderSpec, Runtime, RuntimeBuilder, TaskSpec,
    TaskStatus, WorkflowSpec, WorkflowStatus,
};
use serde_json::{Value, json};

use TaskStatus::{Completed, Failed, UpstreamFailed};

use crate::support::Scratch;
use crate::support::child::{Process, arguments, say};
use crate::support::whole::{sqlite_settings, within};

/// `bank/v1.0`: `pay` must not run twice, and holds while the process is to be killed.
fn builder(folder: &std::path::Path, holds: bool) -> RuntimeBuilder {
    let pay = MethodSpec { effect: Effect::AtMostOnce, ..MethodSpec::new("pay") };
    let bank = ProtocolSpec::new("bank", "v1.0".parse().unwrap())
        .method(pay)
        .method(MethodSpec { additional_params: true, ..MethodSpec::new("tell") });
    let run = move |call: Call| async move {
        let is_payment = call.method_name() == "pay";
        if is_payment && holds {
            say(&format!("pays {}", call.task_id));
            std::future::pending::<()>().await;
        }
        Ok(if is_payment { json!({"paid": 2}) } else { Value::clone(&call.params) })
    };
    Runtime::builder(sqlite_settings(&folder.join("gleitzeit.db"), ""))
        .without_settings_providers()
        .protocol(bank)
        .provider(ProviderSpec::from_fn("bank", "bank/v1.0", run).unwrap())
}

/// Three payments, and what follows from each.
fn payments() -> WorkflowSpec {
    ["a", "b", "c"].into_iter().fold(WorkflowSpec::new("pay").id("pay"), |workflow, id| {
        let after = TaskSpec::new(format!("after-{id}"), "bank/tell");
        workflow
            .task(TaskSpec::new(id, "bank/pay"))
            .task(after.params(json!({"paid": format!("${{{id}.paid}}")})))
    })
}

/// The life of the process that is killed.
#[tokio::main]
async fn doomed(folder: &std::path::Path) {
    let runtime = builder(folder, true).start().await.unwrap();
    runtime.handle().submit(payments()).await.unwrap();
    runtime.handle().wait(&"pay".into()).await.unwrap();
}

/// Nobody but a person knows whether the money was sent.
#[test]
fn a_payment_cut_off_by_a_crash_is_settled_by_a_person() {
    if let Some((_, folder)) = arguments() {
        return doomed(&folder);
    }
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let name = "resolve::a_payment_cut_off_by_a_crash_is_settled_by_a_person";
    let mut process = Process::start(name, "unused", &folder);
    for _ in 0..3 {
        assert!(process.says().unwrap().starts_with("pays "));
    }
    process.kill();

    // Until someone takes it up, it stands as it was. Whoever settles it finds out.
    let settle = |task: &str, word: &[&str]| {
        scratch.json(&[&["resolve", "pay", task, "--json"], word].concat())
    };
    // A result that the method cannot give is a mistake of whoever says so.
    std::fs::create_dir_all(scratch.path("config/protocols")).unwrap();
    scratch.file(
        "config/protocols/bank.toml",
        "name = \"bank\"\nversion = \"v1.0\"\n[methods.pay]\neffect = \"at_most_once\"\n\
         returns_schema = { type = \"object\" }\n[methods.tell]\nadditional_params = true\n",
    );
    let wrong = settle("a", &["--completed", "\"yes\""]).status(2);
    assert_eq!(wrong["error"]["name"], "TASK_RESULT_INVALID", "{wrong}");
    let paid = settle("a", &["--completed", "{\"paid\": 1}"]).success();
    let status = |record: &Value, task: &str| record["tasks"][task]["status"].clone();
    assert_eq!(status(&paid, "a"), "completed", "{paid}");
    assert_eq!(status(&paid, "b"), "outcome_unknown", "{paid}");
    assert_eq!(status(&paid, "after-a"), "pending", "nothing of it is run by whoever settles");
    let listed = scratch.run(&["list"]).stdout;
    assert!(listed.contains("2 unknown"), "{listed}");
    let events = scratch.run(&["events", "pay"]).stdout;
    assert_eq!(events.matches("task:outcome_unknown").count(), 3, "{events}");

    let refused = settle("b", &["--failed", "no money", "--retry"]).status(2);
    assert!(refused["error"]["message"].as_str().is_some(), "one word only: {refused}");
    settle("b", &["--failed", "no money"]).success();
    let again = settle("a", &["--retry"]).status(2);
    assert_eq!(again["error"]["name"], "WORKFLOW_INVALID_STATE", "{again}");
    let missing = settle("d", &["--retry"]).status(2);
    assert_eq!(missing["error"]["name"], "TASK_NOT_FOUND", "{missing}");
    settle("c", &["--retry"]).success();

    let waiter = tokio::runtime::Runtime::new().unwrap();
    let record = waiter.block_on(async {
        let runtime = builder(&folder, false).start().await.unwrap();
        let record = within("its end", runtime.handle().wait(&"pay".into())).await.unwrap();
        runtime.stop(Duration::from_secs(10)).await;
        record
    });
    assert_eq!(record.status, WorkflowStatus::Failed, "one payment failed");
    let statuses: Vec<TaskStatus> = record.tasks.iter().map(|task| task.status).collect();
    assert_eq!(statuses, [Completed, Completed, Failed, UpstreamFailed, Completed, Completed]);
    let result = |task: usize| record.tasks[task].result.as_deref().cloned();
    assert_eq!(result(1), Some(json!({"paid": 1})), "the person's word");
    assert_eq!(result(5), Some(json!({"paid": 2})), "what running it again gave");
}
