//! What contradicts itself is found, one kind at a time, and nothing else is.

use gleitzeit::{
    settings::StoreUrl,
    storage::admin::{self, Rule},
};
use gleitzeit_domain::store::StoreError;
use serde_json::json;

use super::database::{TestDatabase, alter, fill, findings, number};

/// A database that is in use is not to be called broken.
#[tokio::test]
async fn a_sound_database_has_no_findings() {
    for database in TestDatabase::all("sound").await {
        let url = database.empty().await;
        fill(&url).await;
        let (checked, found) = findings(&url).await;
        assert_eq!(found, []);
        assert!(checked.is_consistent());
        // Rows of tasks: three that completed, twice, and one that waits for its next attempt.
        let counts = (checked.workflows, checked.tasks, checked.events, checked.blobs);
        assert_eq!(counts, (4, 7, 5 + 3 + 1 + 5, 2));
        database.leave().await;
    }
}

/// What is broken, by which statements, and what must be told: about which workflow, in which words.
type Case<'a> = (&'a [&'a str], Rule, Option<&'a str>, &'a str);

const CASES: &[Case<'static>] = &[
    (&["DELETE FROM gleitzeit_workflows WHERE id = 'done'"], Rule::Task, None, "3 tasks belong"),
    (&["DELETE FROM gleitzeit_workflows WHERE id = 'done'"], Rule::Event, None, "2 rows of events"),
    (
        &["UPDATE gleitzeit_tasks SET status = 'executing' WHERE id = 't1'"],
        Rule::Workflow,
        Some("done"),
        "it is completed, and its task `t1` is executing",
    ),
    (
        &["UPDATE gleitzeit_workflows SET task_count = 4 WHERE id = 'done'"],
        Rule::Workflow,
        Some("done"),
        "its row has the count 4, and its spec 3 tasks",
    ),
    (
        &["UPDATE gleitzeit_workflows SET status = 'odd' WHERE id = 'done'"],
        Rule::Workflow,
        Some("done"),
        "`odd` is no status of a workflow",
    ),
    (
        &["UPDATE gleitzeit_workflows SET status = 'failed' WHERE id = 'done'"],
        Rule::Workflow,
        Some("done"),
        "all of its tasks are completed",
    ),
    (
        &["UPDATE gleitzeit_workflows SET completed_at = NULL WHERE id = 'done'"],
        Rule::Workflow,
        Some("done"),
        "no time of its end",
    ),
    (
        &["UPDATE gleitzeit_workflows SET spec = '{\"name\":' WHERE id = 'open'"],
        Rule::Workflow,
        Some("open"),
        "cannot read stored JSON",
    ),
    (
        &["UPDATE gleitzeit_workflows SET spec = NULL WHERE id = 'open'"],
        Rule::Workflow,
        Some("open"),
        "no spec",
    ),
    (
        &["UPDATE gleitzeit_workflows SET error = 'why' WHERE id = 'open'"],
        Rule::Workflow,
        Some("open"),
        "cannot read stored JSON",
    ),
    (
        &["UPDATE gleitzeit_tasks SET id = 'x' WHERE id = 't2' AND workflow_key = 1"],
        Rule::Workflow,
        Some("done"),
        "task 2 is `x` (x), and `t2` (t2) in its spec",
    ),
    (
        &["UPDATE gleitzeit_tasks SET position = 9 WHERE id = 't0' AND workflow_key = 2"],
        Rule::Task,
        Some("open"),
        "it has 2 tasks, and a row for one at 9",
    ),
    (
        &["UPDATE gleitzeit_tasks SET error = '{' WHERE workflow_key = 2"],
        Rule::Task,
        Some("open"),
        "its task at 0: cannot read stored JSON",
    ),
    (
        &["UPDATE gleitzeit_tasks SET result = 'nonsense' WHERE id = 't0' AND workflow_key = 1"],
        Rule::Task,
        Some("done"),
        "its task at 0: cannot read stored JSON",
    ),
    (
        &["UPDATE gleitzeit_tasks SET result = NULL WHERE id = 't0' AND workflow_key = 1"],
        Rule::Workflow,
        Some("done"),
        "`t0` is completed and has no result",
    ),
    (
        &["DELETE FROM gleitzeit_events WHERE workflow_key = 1 AND first_sequence = 1"],
        Rule::Event,
        Some("done"),
        "its events continue with 2 instead of 1",
    ),
    (
        &["DELETE FROM gleitzeit_events WHERE workflow_key = 1 AND first_sequence = 2"],
        Rule::Event,
        Some("done"),
        "its last event is 5, and its events end with 1",
    ),
    (
        &["UPDATE gleitzeit_events SET event_count = 2 WHERE workflow_key = 3"],
        Rule::Event,
        Some("large"),
        "its row of events from 1 on has 1 of 2",
    ),
    (
        &["UPDATE gleitzeit_events SET body = '[' WHERE workflow_key = 3"],
        Rule::Event,
        Some("large"),
        "its events from 1 on: cannot read stored JSON",
    ),
    (&["UPDATE gleitzeit_blobs SET body = '1'"], Rule::Blob, None, "its 1 bytes have the hash"),
    (
        &["DELETE FROM gleitzeit_blobs WHERE body LIKE '{\"mark\":\"result\"%'"],
        Rule::Blob,
        Some("done"),
        "the result of its task `t1`, blob ",
    ),
    (
        &["DELETE FROM gleitzeit_blobs WHERE body LIKE '{\"name\":\"name of large\"%'"],
        Rule::Blob,
        Some("large"),
        "its spec, blob ",
    ),
    (
        &[
            "UPDATE gleitzeit_tasks SET result = '1', result_blob = NULL WHERE result_blob IS NOT NULL",
        ],
        Rule::Blob,
        None,
        "nothing refers to it",
    ),
    (
        &["UPDATE gleitzeit_workflows SET lease_epoch = 77 WHERE id = 'open'"],
        Rule::Lease,
        Some("open"),
        "it belongs to the lease 77, which does not exist",
    ),
    (
        &["INSERT INTO gleitzeit_requests (workflow_key, body, created_at) \
           VALUES (999, '{\"ask\":\"cancel\",\"reason\":\"r\"}', 1)"],
        Rule::Request,
        None,
        "1 requests belong to the workflow of key 999",
    ),
    (
        &["INSERT INTO gleitzeit_requests (key, workflow_key, body, created_at) \
           VALUES (5, 1, '{\"ask\":\"dance\"}', 1)"],
        Rule::Request,
        None,
        "request 5: cannot read stored JSON",
    ),
    (
        &["DROP INDEX gleitzeit_workflows_free"],
        Rule::Database,
        None,
        "`gleitzeit_workflows_free` is missing",
    ),
];

/// Each kind of damage by itself: what is found, and that the rest is not blamed for it.
#[tokio::test]
async fn each_kind_of_damage_is_found() {
    for database in TestDatabase::all("damage").await {
        let intact = database.empty().await;
        fill(&intact).await;
        assert_eq!(
            number(&intact, "SELECT key FROM gleitzeit_workflows WHERE id = 'done'").await,
            1
        );
        for (statements, rule, workflow, detail) in CASES {
            let url = database.copy_of(&intact).await;
            alter(&url, statements).await;
            let before = fingerprint(&url).await;
            let (checked, found) = findings(&url).await;
            let is_it = found.iter().any(|it| {
                it.rule == *rule
                    && it.workflow.as_deref() == *workflow
                    && it.detail.contains(detail)
            });
            assert!(is_it, "{statements:?}: {found:#?}");
            assert!(checked.findings.contains_key(rule));
            let others = ["done", "open", "large", "between"].map(str::to_owned);
            let blamed = found.iter().filter_map(|it| it.workflow.clone());
            for id in blamed.filter(|id| others.contains(id) && Some(&**id) != *workflow) {
                // The two that completed share their large result, and changes of all blobs or of
                // all tasks of a name touch several.
                assert!(workflow.is_none() || id == "between", "{statements:?} blames {id}");
            }
            assert_eq!(fingerprint(&url).await, before, "a check has written");
        }
        database.leave().await;
    }
}

/// How much there is of everything.
async fn fingerprint(url: &StoreUrl) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in ["workflows", "tasks", "events", "blobs", "requests", "leases", "migrations"] {
        counts.push(number(url, &format!("SELECT COUNT(*) FROM gleitzeit_{table}")).await);
    }
    counts
}

/// Numbers are added up while a database is looked through, and a broken row may say any number.
#[tokio::test]
async fn numbers_out_of_range_are_found_and_do_no_harm() {
    for database in TestDatabase::all("out_of_range").await {
        let url = database.empty().await;
        fill(&url).await;
        alter(
            &url,
            &[
                "UPDATE gleitzeit_events SET event_count = 9223372036854775807",
                "UPDATE gleitzeit_workflows SET task_count = 9223372036854775807",
            ],
        )
        .await;
        let (checked, found) = findings(&url).await;
        assert_eq!(checked.workflows, 4);
        for workflow in ["done", "open", "large", "between"] {
            for rule in [Rule::Workflow, Rule::Event] {
                let is_it = |it: &admin::Finding| {
                    it.rule == rule && it.workflow.as_deref() == Some(workflow)
                };
                assert!(found.iter().any(is_it), "{rule:?} of {workflow}: {found:#?}");
            }
        }
        database.leave().await;
    }
}

/// A dependency that its workflow does not have can never settle.
#[tokio::test]
async fn a_dependency_on_nothing_is_found() {
    for database in TestDatabase::all("dependency").await {
        let url = database.empty().await;
        fill(&url).await;
        let task = |id: &str, after: &[&str]| json!({"id": id, "method": "echo/echo", "dependencies": after});
        for (first, detail) in
            [("gone", "no task has the id or name `gone`"), ("t1", "t0 → t1 → t0")]
        {
            let spec = json!({"name": "name of open", "tasks": [task("t0", &[first]), task("t1", &["t0"])]});
            let set = format!("UPDATE gleitzeit_workflows SET spec = '{spec}' WHERE id = 'open'");
            alter(&url, &[&set]).await;
            let (_, found) = findings(&url).await;
            assert!(matches!(&*found, [one] if one.detail.contains(detail)), "{found:#?}");
        }
        database.leave().await;
    }
}

/// A file whose pages are damaged says so, and is not read to its end.
#[tokio::test]
async fn a_damaged_file_is_found() {
    let database = TestDatabase::folder();
    let url = database.empty().await;
    fill(&url).await;
    let page = "SELECT rootpage FROM sqlite_master WHERE name = 'gleitzeit_workflows_status'";
    let page = usize::try_from(number(&url, page).await).unwrap();
    let path = url.sqlite_path().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[(page - 1) * 4096..][..512].fill(0xff);
    std::fs::write(path, bytes).unwrap();
    let (checked, found) = findings(&url).await;
    assert!(!checked.is_consistent());
    assert!(found.iter().all(|it| it.rule == Rule::Database), "{found:#?}");
}

/// To look into what is not there must not make it, nor what is old change it.
#[tokio::test]
async fn what_is_not_of_this_schema_is_refused_and_left_alone() {
    for database in TestDatabase::all("schema").await {
        let url = database.empty().await;
        let refused = async |url: &StoreUrl| match admin::check(url, &mut |_| ()).await {
            Err(StoreError::Open { detail }) => detail,
            other => panic!("{other:?}"),
        };
        let detail = refused(&url).await;
        match url.sqlite_path() {
            Some(path) => {
                assert!(detail.contains("there is no file"), "{detail}");
                assert!(!path.exists());
            }
            None => assert!(detail.contains("holds no workflows"), "{detail}"),
        }
        fill(&url).await;
        let newer = "INSERT INTO gleitzeit_migrations VALUES ('m29990101_000001_future', 0)";
        alter(&url, &[newer]).await;
        let detail = refused(&url).await;
        assert!(detail.contains("m29990101_000001_future"), "{detail}");
        let older = "DELETE FROM gleitzeit_migrations WHERE version LIKE 'm29990101%' \
                     OR version LIKE '%_heirs'";
        alter(&url, &[older]).await;
        let detail = refused(&url).await;
        assert!(
            detail.contains("lacks m20261124_000002_heirs; `gleitzeit db migrate`"),
            "{detail}"
        );
        database.leave().await;
    }
}
