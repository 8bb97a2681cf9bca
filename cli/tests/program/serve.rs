//! Several processes of the program on one database: one stores a workflow, another runs it, a
//! third one stops it, and one that is killed leaves nothing undone.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::support::Scratch;

/// Echo alone: nothing else need be installed.
const SETTINGS: &str = "[providers.python]\nkind = \"python\"\nenabled = false\n\
                        [providers.ollama]\nkind = \"ollama\"\nenabled = false\n\
                        [providers.echo]\nkind = \"echo\"\n";

/// A place with settings and workflow files.
struct Site {
    scratch: Scratch,
    config: String,
}

/// A process that serves; killed when it is dropped.
struct Server(Option<Child>);

impl Site {
    fn new(store: &str) -> Self {
        let scratch = Scratch::new();
        let config = scratch.file("serve.toml", &format!("storage.url = \"{store}\"\n{SETTINGS}"));
        Self { scratch, config }
    }

    /// A workflow of one task that takes so many seconds.
    fn sleeping(&self, name: &str, seconds: f64) -> String {
        let task = json!({"id": "t", "method": "echo/sleep", "params": {"seconds": seconds}});
        let workflow = json!({"name": name, "id": name, "tasks": [task]});
        self.scratch.file(&format!("{name}.json"), &workflow.to_string())
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [arguments, &["--config", &self.config, "--json"]].concat()
    }

    /// The one document that the program answers with success.
    fn ask(&self, arguments: &[&str]) -> Value {
        self.scratch.json(&self.arguments(arguments)).success()
    }

    /// Starts to serve; answers once it does.
    fn serve(&self) -> Server {
        let mut child = self
            .scratch
            .command(&self.arguments(&["serve", "--engine"]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut lines = stderr.lines().map(|line| line.expect("UTF-8"));
        let serving = lines.find(|line| line.starts_with("serving "));
        assert!(serving.is_some(), "it ended before it served");
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.count());
        Server(Some(child))
    }
}

impl Server {
    /// Stops it in good order; what it reports.
    fn stop(mut self) -> Value {
        let child = self.0.take().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        let output = child.wait_with_output().expect("its own child");
        assert!(output.status.success(), "{:?}", output.status);
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }

    /// SIGKILL: no last words.
    fn kill(mut self) {
        let mut child = self.0.take().expect("it runs");
        child.kill().expect("it runs");
        child.wait().expect("its own child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a check on both databases, each empty.
fn on_both(name: &'static str, check: impl Fn(&Site)) {
    check(&Site::new("sqlite:shared.db"));
    #[cfg(feature = "postgres")]
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        if let Some(server) = crate::support::postgres::Server::reach(name).await {
            check(&Site::new(server.database().await.expose()));
            server.drop_all().await;
        }
    });
}

/// The process that stores a workflow need not be the one that runs it.
#[test]
fn what_one_process_submits_another_runs() {
    on_both("what_one_process_submits", |site| {
        let file = site.sleeping("w", 0.0);
        // Nobody serves yet: it waits in the store.
        assert_eq!(site.ask(&["submit", &file]), json!({"workflow_id": "w"}));
        assert_eq!(site.ask(&["show", "w"])["status"], "pending");
        let server = site.serve();
        let ended = site.ask(&["submit", &file, "--wait"]);
        assert_eq!(ended["status"], "completed", "the same id is the first submission");
        let next = site.sleeping("next", 0.0);
        assert_eq!(site.ask(&["submit", &next, "--wait"])["status"], "completed");
        let report = server.stop();
        assert_eq!(report["unsettled"], json!([]));
    });
}

/// A process that is asked over the store stops what it runs.
#[test]
fn one_process_cancels_what_another_runs() {
    on_both("one_process_cancels_what", |site| {
        let server = site.serve();
        site.ask(&["submit", &site.sleeping("long", 600.0)]);
        // It is claimed before it can be cancelled there; either way it is stopped once.
        let record = site.ask(&["cancel", "long", "--reason", "enough"]);
        assert_eq!(record["status"], "cancelled", "{record}");
        let report = server.stop();
        assert_eq!((&report["unsettled"], &report["abandoned"]), (&json!([]), &json!([])));
    });
}

/// What a killed process ran goes on in one that lives, without anybody's doing.
#[test]
fn workflows_of_a_killed_process_continue_in_another() {
    on_both("what_a_killed_process_ra", |site| {
        let (first, second) = (site.serve(), site.serve());
        let file = site.sleeping("w", 0.2);
        for round in 0..4 {
            let id = format!("w{round}");
            site.ask(&["submit", &file, "--id", &id]);
        }
        first.kill();
        for round in 0..4 {
            let id = format!("w{round}");
            let ended = site.ask(&["submit", &file, "--id", &id, "--wait"]);
            assert_eq!(ended["status"], "completed", "{ended}");
        }
        assert_eq!(second.stop()["unsettled"], json!([]));
        let listed = site.ask(&["list"]);
        assert_eq!(listed.as_array().map(Vec::len), Some(4), "each once: {listed}");
    });
}

/// A provider is restarted in the processes that serve, also in several and in idle ones; one that no
/// process has is told so.
#[test]
fn a_provider_is_restarted_where_it_runs() {
    on_both("a_provider_is_restarted", |site| {
        let restart = ["providers", "restart", "echo"];
        let (first, second) = (site.serve(), site.serve());
        for _ in 0..2 {
            let answer = site.ask(&restart);
            assert_eq!(answer, json!({"provider_id": "echo", "restarted": true}));
        }
        site.ask(&["submit", &site.sleeping("after", 0.0), "--wait"]);
        let unknown = ["providers", "restart", "nobody"];
        let refused = site.scratch.json(&site.arguments(&unknown)).status(3);
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("`nobody`"), "{refused}");
        let (first, second) = (first.stop(), second.stop());
        assert_eq!((&first["unsettled"], &second["unsettled"]), (&json!([]), &json!([])));
        assert_eq!(site.ask(&["db", "check"])["findings"], json!([]), "no request is left");
        assert_eq!(site.ask(&["db", "status"])["contents"]["requests"], 0);
    });
}

/// A task whose provider is down waits where it is served, and whoever looks sees for what.
#[cfg(feature = "ollama")]
#[test]
fn a_task_waits_for_a_provider_that_is_down_and_says_so() {
    let site = Site::new("sqlite:shared.db");
    let settings = "\
        [providers.ollama]\nkind = \"ollama\"\n\
        [providers.ollama.config]\nbase_url = \"http://127.0.0.1:1\"\n\
        [engine]\nprovider_wait = 1\n";
    let config = std::fs::read_to_string(&site.config).expect("its settings");
    let ollama = "[providers.ollama]\nkind = \"ollama\"\nenabled = false\n";
    site.scratch.file("serve.toml", &config.replace(ollama, settings));
    let chat = json!({"id": "t", "method": "llm/chat",
                      "params": {"messages": [{"role": "user", "content": "hi"}]}});
    let workflow = json!({"name": "w", "id": "w", "tasks": [chat]}).to_string();
    let file = site.scratch.file("w.json", &workflow);
    let server = site.serve();
    site.ask(&["submit", &file]);
    let mut follows = site
        .scratch
        .command(&["events", "w", "--follow", "--config", &site.config])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let events = BufReader::new(follows.stdout.take().expect("a pipe"));
    let mut lines = events.lines().map(|line| line.expect("UTF-8"));
    assert!(lines.any(|line| line.contains("task:waiting")), "it never waited");
    follows.kill().expect("it runs");
    follows.wait().expect("its own child");
    let record = site.ask(&["show", "w"]);
    let message = record["tasks"]["t"]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("waits for a provider: "), "{record}");
    assert!(message.contains("ollama serve"), "{record}");
    assert_eq!(record["tasks"]["t"]["attempts"], 0);
    let listed = site.scratch.run(&["list", "--config", &site.config]);
    assert!(listed.stdout.contains("1 waits"), "{}", listed.stdout);
    let table = site.scratch.run(&["show", "w", "--config", &site.config]);
    assert!(table.stdout.contains("ollama serve"), "{}", table.stdout);
    site.ask(&["cancel", "w"]);
    server.stop();

    // `run` does not wait for ever, and its last word is the cause.
    let mut ran = site.scratch.command(&["run", &file, "--id", "r", "--config", &site.config]);
    let ran = ran.output().expect("the program starts");
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{printed}");
    assert!(printed.contains("ollama serve"), "{printed}");
}

/// What no process knows is kept for one that does: whoever submits it is told at once, and whoever
/// looks sees what it waits for. It can be cancelled all the same.
#[test]
fn a_workflow_that_no_process_knows_waits_visibly() {
    on_both("a_workflow_that_no_proc", |site| {
        let task = json!({"id": "pay", "method": "shop/v1.0/charge", "params": {"count": 1}});
        let order = json!({"name": "order", "id": "order", "tasks": [task]});
        let file = site.scratch.file("order.json", &order.to_string());
        let printed = |arguments: &[&str]| {
            let arguments = [arguments, &["--config", &site.config]].concat();
            let output = site.scratch.command(&arguments).output().expect("the program starts");
            let text = |bytes| String::from_utf8(bytes).expect("text");
            text(output.stdout) + &text(output.stderr)
        };
        let waits = "waits for a process that knows shop/v1.0 (charge)";
        let server = site.serve();
        let submitted = printed(&["submit", &file]);
        assert!(submitted.contains(waits), "{submitted}");
        // The one that serves has looked at the store since.
        site.ask(&["submit", &site.sleeping("other", 0.0), "--wait"]);
        let record = site.ask(&["show", "order"]);
        assert_eq!((&record["status"], &record["owner"]), (&json!("pending"), &Value::Null));
        assert_eq!(record["waits_for"], "shop/v1.0 (charge)");
        for arguments in [&["show", "order"][..], &["list"]] {
            let text = printed(arguments);
            assert!(text.contains(waits), "{text}");
        }
        let refused = site.scratch.json(&site.arguments(&["resume", "order"])).status(2);
        assert_eq!(refused["error"]["name"], "PROTOCOL_NOT_FOUND", "{refused}");
        // Here the method is a mistake in writing, for what is built in is known to all.
        let wrong = file.replace("order", "wrong");
        std::fs::write(&wrong, order.to_string().replace("shop/v1.0/charge", "echo/ehco")).unwrap();
        site.scratch.json(&site.arguments(&["submit", &wrong, "--id", "wrong"])).status(2);
        assert_eq!(site.ask(&["cancel", "order"])["status"], "cancelled");
        let again = site.scratch.json(&site.arguments(&["cancel", "other"])).status(2);
        let message = again["error"]["message"].as_str().expect("a text");
        assert!(message.contains("nothing to cancel") && !message.contains("retry"), "{message}");
        server.stop();
    });
}

/// What runs is seen from elsewhere, with where it runs, though its first task has not ended.
#[test]
fn a_long_first_task_is_seen_to_run() {
    on_both("a_long_first_task_is_see", |site| {
        let server = site.serve();
        site.ask(&["submit", &site.sleeping("long", 600.0)]);
        let begun = std::time::Instant::now();
        let record = loop {
            let record = site.ask(&["show", "long"]);
            if record["status"] == "running" {
                break record;
            }
            assert!(begun.elapsed().as_secs() < 60, "{record}");
        };
        let task = &record["tasks"]["t"];
        assert_eq!((&task["status"], &task["attempts"]), (&json!("executing"), &json!(1)));
        let since = &record["running"]["t"];
        assert!(since.is_string() && record["owner"]["is_alive"] == true, "{record}");
        let events = site.ask(&["events", "long"]);
        let is_start = |it: &Value| it["event_type"] == "task:started";
        assert!(events.as_array().is_some_and(|all| all.iter().any(is_start)), "{events}");
        let running = site.ask(&["list", "--status", "running"]);
        assert_eq!(running.as_array().map(Vec::len), Some(1));
        site.ask(&["cancel", "long"]);
        server.stop();
    });
}

/// A store that no other process sees cannot be served.
#[test]
fn a_store_in_memory_is_not_served() {
    let site = Site::new("sqlite:unused.db");
    let file = site.sleeping("w", 0.0);
    for arguments in [&["serve", "--engine"][..], &["submit", &file]] {
        let arguments = [arguments, &["--store", "memory"]].concat();
        let refused = site.scratch.json(&site.arguments(&arguments)).status(2);
        assert!(refused["error"]["message"].as_str().is_some_and(|it| it.contains("--store")));
    }
}
