//! The program over it: exit status, and what stands on standard output.

use std::process::Stdio;

use gleitzeit::settings::StoreUrl;
use serde_json::{Value, json};

use super::database::{TestDatabase, alter, fill, number};
use crate::support::{Answer, Scratch};

/// A directory, and a database that is named on the command line.
struct Site<'a> {
    scratch: Scratch,
    url: &'a StoreUrl,
}

impl<'a> Site<'a> {
    fn over(url: &'a StoreUrl) -> Self {
        Self { scratch: Scratch::new(), url }
    }

    fn arguments<'b>(&'b self, arguments: &[&'b str]) -> Vec<&'b str> {
        [&["db"], arguments, &["--store", self.url.expose()]].concat()
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.scratch.run(&self.arguments(arguments))
    }

    fn ask(&self, arguments: &[&str], status: i32) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        self.scratch.json(&self.arguments(&arguments)).status(status)
    }
}

/// Two programs that migrate at once do it once, and a newer schema is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_brought_up_once() {
    for database in TestDatabase::all("brought_up").await {
        let url = database.empty().await;
        let site = Site::over(&url);
        let start = || {
            let arguments = site.arguments(&["migrate", "--json"]);
            site.scratch.command(&arguments).stdout(Stdio::piped()).spawn().unwrap()
        };
        let mut applied = Vec::new();
        for child in [start(), start(), start()] {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            applied.extend(answer["applied"].as_array().unwrap().iter().cloned());
        }
        assert_eq!(
            applied,
            [
                "m20261123_000001_workflows",
                "m20261124_000001_leases",
                "m20261124_000002_heirs",
                "m20261129_000001_needs",
                "m20261130_000001_epochs",
                "m20261130_000002_lease_transfers",
                "m20261130_000003_id_order",
                "m20261201_000001_statuses",
            ]
        );
        let again = site.run(&["migrate"]);
        assert!(again.stdout.ends_with(": up to date already\n"), "{}", again.stdout);
        let newer = "INSERT INTO gleitzeit_migrations VALUES ('m29990101_000001_future', 0)";
        alter(&url, &[newer]).await;
        for command in ["migrate", "check", "vacuum"] {
            let refused = site.ask(&[command], 3);
            let message = refused["error"]["message"].as_str().unwrap();
            assert!(message.contains("m29990101_000001_future"), "{message}");
            assert_eq!(refused["error"]["name"], "CONFIGURATION_ERROR");
        }
        assert_eq!(site.ask(&["status"], 0)["schema"]["newer"], json!(["m29990101_000001_future"]));
        database.leave().await;
    }
}

/// A script asks by the exit status, a person reads lines.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_ends_with_1_where_something_is_wrong() {
    for database in TestDatabase::all("ends_with").await {
        let url = database.empty().await;
        fill(&url).await;
        let site = Site::over(&url);
        let report = site.ask(&["check"], 0);
        assert_eq!((&report["sound"], &report["findings"]), (&json!(true), &json!([])));
        alter(&url, &["UPDATE gleitzeit_workflows SET lease_epoch = 77 WHERE id = 'open'"]).await;
        let broken = site.ask(&["check"], 1);
        assert_eq!(broken["checked"]["findings"], json!({"lease": 1}));
        assert_eq!(broken["findings"][0]["workflow"], "open");
        let answer = site.run(&["check"]);
        assert_eq!(answer.status, 1);
        assert!(answer.stdout.starts_with("lease: workflow `open`: it belongs to the lease 77"));
        let answer = site.run(&["status"]);
        assert!(answer.stdout.contains("1 completed, 1 pending, 2 running"), "{}", answer.stdout);
        assert!(answer.stdout.contains("no process holds a lease"), "{}", answer.stdout);
        database.leave().await;
    }
}

/// A damaged row is an error, and does not hide the events that can be read.
#[tokio::test(flavor = "multi_thread")]
async fn readable_events_of_a_damaged_workflow_are_printed() {
    for database in TestDatabase::all("damaged_events").await {
        let intact = database.empty().await;
        fill(&intact).await;
        let of_done = "(SELECT key FROM gleitzeit_workflows WHERE id = 'done')";
        let row = |first: u64| {
            format!(
                "UPDATE gleitzeit_events SET body = '[' \
                 WHERE first_sequence = {first} AND workflow_key = {of_done}"
            )
        };
        for (damage, readable) in [
            ("UPDATE gleitzeit_workflows SET spec = '{' WHERE id = 'done'".into(), 1..=5),
            (row(1), 2..=5),
            (row(2), 1..=1),
        ] {
            let url = database.copy_of(&intact).await;
            alter(&url, &[&damage]).await;
            let scratch = Scratch::new();
            let ask = ["events", "done", "--store", url.expose(), "--json"];
            for options in [&[][..], &["--follow"]] {
                let answer = scratch.run(&[&ask, options].concat());
                assert_eq!(answer.status, 3, "{damage}: {}", answer.stderr);
                assert!(answer.stderr.contains("workflow `done`"), "{damage}: {}", answer.stderr);
                let document: Value = serde_json::from_str(&answer.stdout).unwrap();
                let events = document.as_array().unwrap().iter();
                let seen: Vec<u64> =
                    events.map(|event| event["sequence"].as_u64().unwrap()).collect();
                assert_eq!(seen, readable.clone().collect::<Vec<u64>>(), "{damage}");
            }
        }
        database.leave().await;
    }
}

/// What was forgotten takes no room any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_frees_disk_space() {
    for database in TestDatabase::all("vacuum").await {
        let url = database.empty().await;
        fill(&url).await;
        let copy = "INSERT INTO gleitzeit_blobs SELECT CAST(n.key || b.body AS BLOB), b.body \
                    FROM gleitzeit_blobs b, gleitzeit_workflows n";
        let copy = if url.sqlite_path().is_some() {
            copy.to_owned()
        } else {
            copy.replace(
                "CAST(n.key || b.body AS BLOB)",
                "sha256(convert_to(n.key || b.body, 'UTF8'))",
            )
        };
        alter(&url, &[&copy, "DELETE FROM gleitzeit_blobs"]).await;
        let site = Site::over(&url);
        let vacuumed = site.ask(&["vacuum"], 0);
        let bytes = |when: &str| vacuumed[when]["bytes"].as_u64().unwrap();
        if url.sqlite_path().is_some() {
            assert!(bytes("before") > 800_000 && bytes("after") < 300_000, "{vacuumed}");
            assert_eq!(vacuumed["after"]["log_bytes"], 0);
            assert_eq!(vacuumed["after"]["unused_bytes"], 0);
        } else {
            let blobs = |when: &str| vacuumed[when]["tables"]["gleitzeit_blobs"].as_u64().unwrap();
            assert!(blobs("after") < blobs("before"), "{vacuumed}");
            let dead =
                "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'gleitzeit_blobs'";
            assert_eq!(number(&url, dead).await, 0);
        }
        database.leave().await;
    }
}

/// From a file to a server and back, by files and through a pipe.
#[tokio::test(flavor = "multi_thread")]
async fn all_workflows_move_from_one_database_to_another() {
    let grounds = TestDatabase::all("move").await;
    let from = grounds[0].empty().await;
    fill(&from).await;
    let site = Site::over(&from);
    let file = site.scratch.path("all.jsonl").display().to_string();
    assert_eq!(site.ask(&["export", &file], 0), json!({"workflows": 4, "skipped": 0}));
    let refused = site.ask(&["export", &file], 2);
    assert!(refused["error"]["message"].as_str().unwrap().contains("is there already"));
    assert!(!site.scratch.path("all.jsonl.unfinished").exists());
    let piped = site.run(&["export", "-"]).stdout;
    assert_eq!(piped.lines().skip(1).count(), 5);
    site.ask(&["export", "-"], 2);
    for database in &grounds {
        let to = database.empty().await;
        let site = Site::over(&to);
        assert_eq!(site.ask(&["import", &file], 0), json!({"workflows": 4, "existed": 0}));
        let again = site.run(&["import", &file]);
        assert!(again.stderr.contains("workflow open is there already"), "{}", again.stderr);
        assert!(again.stdout.contains("0 workflows taken in, 4 were there already"));
        site.ask(&["check"], 0);
        let broken = site.scratch.file("broken.jsonl", &piped.replacen("\"spec\"", "\"spek\"", 1));
        let refused = site.ask(&["import", &broken], 2);
        assert_eq!(refused["error"]["data"]["line"], 2);
        assert_eq!(refused["error"]["name"], "PARSE_ERROR");
    }
    for database in grounds {
        database.leave().await;
    }
}

/// There is nothing to be done about a store that goes with its process.
#[test]
fn a_store_in_memory_is_no_database() {
    let refused = Scratch::new().json(&["db", "status", "--store", "memory", "--json"]).status(2);
    assert!(refused["error"]["message"].as_str().unwrap().contains("--store"));
}
