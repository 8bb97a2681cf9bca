//! Several processes on one SQLite file.

use std::{future::poll_fn, task::Poll};

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection};
use tempfile::TempDir;

use super::*;

fn file(folder: &TempDir) -> StoreUrl {
    format!("sqlite:{}/a.db", folder.path().display()).parse().unwrap()
}

/// A connection past the store.
async fn raw_connection(url: &StoreUrl) -> DatabaseConnection {
    Database::connect(format!("{}?mode=rw", url.expose())).await.unwrap()
}

async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_free_is_shared() {
    let folder = TempDir::new().unwrap();
    two_stores_share_what_is_free(&file(&folder)).await;
}

#[tokio::test]
async fn closing_hands_over() {
    let folder = TempDir::new().unwrap();
    a_closed_store_hands_over_at_once(&file(&folder)).await;
}

#[tokio::test]
async fn a_pruned_workflow_stays_away() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    a_late_write_about_a_pruned_workflow_leaves_nothing(&url).await;
}

#[tokio::test]
async fn epochs_differ() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    epochs_of_two_databases_differ(&file(&one), &file(&other)).await;
}

#[tokio::test]
async fn an_id_is_used_again() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    an_id_that_is_used_again_is_another_workflow(&url).await;
}

#[tokio::test]
async fn a_repeated_end_is_passed_over() {
    let folder = TempDir::new().unwrap();
    a_repeated_end_leaves_what_was_reopened_alone(&file(&folder)).await;
}

#[tokio::test]
async fn requests_cross() {
    let folder = TempDir::new().unwrap();
    a_request_crosses_and_is_answered(&file(&folder)).await;
}

#[tokio::test]
async fn requests_outlive_who_was_asked() {
    let folder = TempDir::new().unwrap();
    a_request_to_a_process_that_ends_is_done_by_who_asked(&file(&folder)).await;
}

#[tokio::test]
async fn other_processes_are_followed() {
    let folder = TempDir::new().unwrap();
    what_another_process_runs_is_followed(&file(&folder)).await;
}

#[tokio::test]
async fn a_killed_process_has_no_lease() {
    if let Some((store, _)) = child::arguments() {
        return own_and_wait(&store).await;
    }
    let folder = TempDir::new().unwrap();
    let test = "leases::sqlite::a_killed_process_has_no_lease";
    a_killed_process_is_taken_over_at_once(test, &file(&folder)).await;
}

#[tokio::test]
async fn successors_inherit() {
    if let Some((store, _)) = child::arguments() {
        return successors::take_two_and_wait(&store).await;
    }
    let folder = TempDir::new().unwrap();
    successors::what_an_successor_leaves_is_inherited_again(
        "leases::sqlite::successors_inherit",
        &file(&folder),
    )
    .await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn successors_die_while_they_share() {
    if let Some((store, _)) = child::arguments() {
        return successors::take_two_and_wait(&store).await;
    }
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    successors::a_kill_while_sharing_loses_nothing(
        "leases::sqlite::successors_die_while_they_share",
        &url,
    )
    .await;
}

#[tokio::test]
async fn successors_share() {
    if let Some((store, _)) = child::arguments() {
        return successors::take_two_and_wait(&store).await;
    }
    let folder = TempDir::new().unwrap();
    successors::a_successor_shares_with_a_new_lease(
        "leases::sqlite::successors_share",
        &file(&folder),
    )
    .await;
}

/// A lease without a term: nobody can take it from a process that stands still.
#[tokio::test]
async fn a_lease_on_a_file_ends_with_its_process_only() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    let (owner, other) = (open(&url).await, open(&url).await);
    let taken = owner.open_lease("a", Duration::ZERO).await.unwrap();
    assert_eq!(taken.term, None);
    let new = owned("a", taken.epoch);
    owner.submit(vec![new.clone()]).await.unwrap();
    let epoch = lease(&other).await;
    assert_eq!(
        ids(&other.claim(epoch, 10, &Offer::everything()).await.unwrap()),
        Vec::<String>::new()
    );
    owner.record(vec![outcome(&new.record, taken.epoch)]).await.unwrap();
    assert_eq!(owner.renew_lease(taken.epoch, Duration::ZERO).await, Ok(true));
    // The epoch of another one is no key.
    let stolen = owner.record(vec![outcome(&new.record, epoch)]).await;
    assert_eq!(stolen, Err(StoreError::LeaseLost { epoch }));
}

/// Whatever another connection commits is heard: also that of a host service, which knows nothing of
/// a notification.
#[tokio::test]
async fn notifications_arrive_for_what_others_commit() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    let (ours, theirs) = (open(&url).await, open(&url).await);
    let epoch = lease(&ours).await;
    let mut notifications = is_listening(&ours).await;
    for round in 0..5 {
        let id = format!("w{round}");
        theirs.submit(vec![sample::workflow(&id, 1)]).await.unwrap();
        let mut taken = Vec::new();
        while taken.is_empty() {
            notified(&mut notifications).await;
            taken = ids(&ours.claim(epoch, 10, &Offer::everything()).await.unwrap());
        }
        assert_eq!(taken, [id]);
    }
    let db = raw_connection(&url).await;
    db.execute_unprepared("CREATE TABLE host (n INTEGER)").await.unwrap();
    notified(&mut notifications).await;
}

/// How often a thread of SQLite was given something to do, by what the kernel counts.
#[cfg(target_os = "linux")]
fn statements() -> u64 {
    let mut switches = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        if name.starts_with("sqlx-sqlite") {
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += count.unwrap().trim().parse::<u64>().unwrap();
        }
    }
    switches
}

/// The life of a process in which two stores have nothing to do: asked for work again and again,
/// they ask the kernel whether the other one lives, and the database nothing.
#[cfg(target_os = "linux")]
async fn ask_for_nothing(url: &str) {
    let url = url.parse().unwrap();
    let (ours, theirs) = (open(&url).await, open(&url).await);
    let (epoch, other) = (lease(&ours).await, lease(&theirs).await);
    let _notifications = (is_listening(&ours).await, is_listening(&theirs).await);
    let mut last = 0;
    // The watch on the file looks for some seconds after the last write, and then no more.
    for _ in 0..1_000 {
        let before = statements();
        let mut asked = Vec::new();
        for _ in 0..20 {
            asked.push(ours.claim(epoch, 10, &Offer::everything()).await.unwrap());
            asked.push(theirs.claim(other, 10, &Offer::everything()).await.unwrap());
        }
        assert!(asked.iter().all(|claimed| claimed.workflows.is_empty()));
        assert!(asked.iter().all(|claimed| claimed.ask_again_in.is_some()));
        last = statements() - before;
        if last == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It still finds what comes.
    theirs.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = ids(&ours.claim(epoch, 10, &Offer::everything()).await.unwrap());
    }
    child::say(&format!("{last} {taken:?}"));
}

/// An idle process must not wake a disk, nor drain a battery.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn stores_without_work_issue_no_statement() {
    if let Some((store, _)) = child::arguments() {
        return ask_for_nothing(&store).await;
    }
    let folder = TempDir::new().unwrap();
    let test = "leases::sqlite::stores_without_work_issue_no_statement";
    let mut process = child::Process::start(test, file(&folder).expose(), folder.path());
    assert_eq!(process.says().as_deref(), Some("0 [\"a\"]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_a_file() {
    let folder = TempDir::new().unwrap();
    services::services_run_what_they_know(&file(&folder)).await;
}

#[tokio::test]
async fn a_service_of_another_kind_takes_what_it_knows() {
    if let Some((store, _)) = child::arguments() {
        return services::own_an_order_and_wait(&store).await;
    }
    let folder = TempDir::new().unwrap();
    let test = "leases::sqlite::a_service_of_another_kind_takes_what_it_knows";
    services::a_strangers_inheritance_is_freed(test, &file(&folder)).await;
}

/// A claim that nobody waits for any more must not keep its workflows from everyone.
#[tokio::test]
async fn what_was_claimed_for_nobody_is_claimed_again() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    let store = open(&url).await;
    let epoch = lease(&store).await;
    store.submit(vec![sample::workflow("a", 1), sample::workflow("b", 1)]).await.unwrap();
    let db = raw_connection(&url).await;
    db.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let everything = Offer::everything();
    let mut claim = Box::pin(store.claim(epoch, 1, &everything));
    poll_fn(|context| {
        assert!(claim.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(claim);
    db.execute_unprepared("ROLLBACK").await.unwrap();
    assert_eq!(ids(&store.claim(epoch, 10, &Offer::everything()).await.unwrap()), ["a", "b"]);
    assert_eq!(
        ids(&store.claim(epoch, 10, &Offer::everything()).await.unwrap()),
        Vec::<String>::new()
    );
}

/// What the planner makes of the conditions decides whether a claim among a million settled
/// workflows costs a look or a walk through all of them.
#[tokio::test]
async fn what_is_free_is_found_by_its_index() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    open(&url).await.close(LONG).await.unwrap();
    let db = raw_connection(&url).await;
    let plan = async |sql: &str| {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, explain);
        let rows = db.query_all_raw(statement).await.unwrap();
        let lines = rows.iter().map(|row| row.try_get_by_index::<String>(3).unwrap());
        lines.collect::<Vec<_>>().join("\n")
    };
    let free = "SELECT key FROM gleitzeit_workflows INDEXED BY gleitzeit_workflows_free \
                WHERE lease_epoch = 0 AND status IN ('pending', 'running') ORDER BY key LIMIT 10";
    let free = plan(free).await;
    assert!(free.contains("gleitzeit_workflows_free") && !free.contains("TEMP B-TREE"), "{free}");
    // A process that does not know much of what is free does not walk through it.
    let known = "SELECT 1 FROM gleitzeit_workflows INDEXED BY gleitzeit_workflows_free_by_needs \
                 WHERE lease_epoch = 0 AND status IN ('pending', 'running') AND needs IN (0,5,7)";
    let known = plan(known).await;
    assert!(known.contains("gleitzeit_workflows_free_by_needs (needs=?)"), "{known}");
    let owned = "UPDATE gleitzeit_workflows SET lease_epoch = 0 WHERE (lease_epoch = 5 OR \
                 lease_epoch IN (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = 5)) \
                 AND status IN ('pending', 'running')";
    let owned = plan(owned).await;
    assert!(owned.contains("gleitzeit_workflows_status"), "{owned}");
    let inherited = "WITH listed AS MATERIALIZED (SELECT key, status, lease_epoch FROM \
                     gleitzeit_workflows WHERE key IN (SELECT value FROM json_each('[1]'))) \
                     SELECT key FROM listed WHERE lease_epoch = 5 \
                     AND status IN ('pending', 'running')";
    let inherited = plan(inherited).await;
    assert!(inherited.contains("INTEGER PRIMARY KEY"), "{inherited}");
    assert_eq!(number(&db, "SELECT COUNT(*) FROM gleitzeit_leases").await, 0);
}
