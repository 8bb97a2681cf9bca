//! Several processes on one PostgreSQL server.

use sea_orm::{
    ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement,
    TransactionTrait as _, sqlx::postgres::PgListener,
};

use super::*;
use crate::support::postgres::Server;

async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_free_is_shared() {
    let Some(server) = Server::reach("shared").await else { return };
    two_stores_share_what_is_free(&server.database().await).await;
    server.drop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_a_server() {
    let Some(server) = Server::reach("services").await else { return };
    services::services_run_what_they_know(&server.database().await).await;
    server.drop_all().await;
}

#[tokio::test]
async fn a_service_of_another_kind_takes_what_it_knows() {
    if let Some((store, _)) = child::arguments() {
        return services::own_an_order_and_wait(&store).await;
    }
    let Some(server) = Server::reach("strangers").await else { return };
    let test = "leases::postgres::a_service_of_another_kind_takes_what_it_knows";
    services::a_strangers_inheritance_is_freed(test, &server.database().await).await;
    server.drop_all().await;
}

#[tokio::test]
async fn closing_hands_over() {
    let Some(server) = Server::reach("closing").await else { return };
    a_closed_store_hands_over_at_once(&server.database().await).await;
    server.drop_all().await;
}

#[tokio::test]
async fn a_pruned_workflow_stays_away() {
    let Some(server) = Server::reach("pruned").await else { return };
    let url = server.database().await;
    a_late_write_about_a_pruned_workflow_leaves_nothing(&url).await;
    let db = Database::connect(url.expose()).await.unwrap();
    for table in ["tasks", "events"] {
        let stray = format!(
            "SELECT COUNT(*) FROM gleitzeit_{table} WHERE workflow_key NOT IN \
             (SELECT key FROM gleitzeit_workflows)"
        );
        assert_eq!(number(&db, &stray).await, 0, "{table} of no workflow");
    }
    server.drop_all().await;
}

#[tokio::test]
async fn epochs_differ() {
    let Some(server) = Server::reach("epochs").await else { return };
    let (one, other) = (server.database().await, server.database().await);
    epochs_of_two_databases_differ(&one, &other).await;
    server.drop_all().await;
}

#[tokio::test]
async fn an_id_is_used_again() {
    let Some(server) = Server::reach("again").await else { return };
    let url = server.database().await;
    an_id_that_is_used_again_is_another_workflow(&url).await;
    server.drop_all().await;
}

#[tokio::test]
async fn a_repeated_end_is_passed_over() {
    let Some(server) = Server::reach("repeated").await else { return };
    let url = server.database().await;
    a_repeated_end_leaves_what_was_reopened_alone(&url).await;
    server.drop_all().await;
}

#[tokio::test]
async fn requests_cross() {
    let Some(server) = Server::reach("requests").await else { return };
    a_request_crosses_and_is_answered(&server.database().await).await;
    server.drop_all().await;
}

#[tokio::test]
async fn other_processes_are_followed() {
    let Some(server) = Server::reach("followed").await else { return };
    what_another_process_runs_is_followed(&server.database().await).await;
    server.drop_all().await;
}

#[tokio::test]
async fn requests_outlive_who_was_asked() {
    let Some(server) = Server::reach("unanswered").await else { return };
    a_request_to_a_process_that_ends_is_done_by_who_asked(&server.database().await).await;
    server.drop_all().await;
}

/// On the same machine nobody need wait for the time to run out.
#[tokio::test]
async fn a_killed_process_has_no_lease() {
    if let Some((store, _)) = child::arguments() {
        return own_and_wait(&store).await;
    }
    let Some(server) = Server::reach("killed").await else { return };
    let test = "leases::postgres::a_killed_process_has_no_lease";
    a_killed_process_is_taken_over_at_once(test, &server.database().await).await;
    server.drop_all().await;
}

#[tokio::test]
async fn successors_inherit() {
    if let Some((store, _)) = child::arguments() {
        return successors::take_two_and_wait(&store).await;
    }
    let Some(server) = Server::reach("successors").await else { return };
    let url = server.database().await;
    successors::what_an_successor_leaves_is_inherited_again(
        "leases::postgres::successors_inherit",
        &url,
    )
    .await;
    server.drop_all().await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn successors_die_while_they_share() {
    if let Some((store, _)) = child::arguments() {
        return successors::take_two_and_wait(&store).await;
    }
    let Some(server) = Server::reach("dying").await else { return };
    let url = server.database().await;
    successors::a_kill_while_sharing_loses_nothing(
        "leases::postgres::successors_die_while_they_share",
        &url,
    )
    .await;
    server.drop_all().await;
}

#[tokio::test]
async fn successors_share() {
    if let Some((store, _)) = child::arguments() {
        return successors::take_two_and_wait(&store).await;
    }
    let Some(server) = Server::reach("shared").await else { return };
    let url = server.database().await;
    successors::a_successor_shares_with_a_new_lease("leases::postgres::successors_share", &url)
        .await;
    server.drop_all().await;
}

/// An engine that has nothing to do and knows of no other asks nothing. It must hear of a process
/// that comes, or nobody would look when that one dies.
#[tokio::test]
async fn a_new_lease_is_notified() {
    let Some(server) = Server::reach("heard").await else { return };
    let url = server.database().await;
    let (idle, joining) = (open(&url).await, open(&url).await);
    let epoch = lease(&idle).await;
    let mut notifications = is_listening(&idle).await;
    while tokio::time::timeout(Duration::from_millis(500), notifications.next()).await.is_ok() {}
    assert_eq!(idle.claim(epoch, 10, &Offer::everything()).await.unwrap().ask_again_in, None);
    let other = lease(&joining).await;
    notified(&mut notifications).await;
    let claimed = idle.claim(epoch, 10, &Offer::everything()).await.unwrap();
    assert_eq!(claimed.workflows, []);
    assert!(claimed.ask_again_in.is_some_and(|pause| pause <= TERM), "{claimed:?}");
    assert!(other > epoch);
    server.drop_all().await;
}

/// Fencing: a process that stood still past its lease writes nothing more.
#[tokio::test]
async fn a_lease_that_ran_out_is_taken_over_and_its_late_writes_are_refused() {
    let Some(server) = Server::reach("ran_out").await else { return };
    let url = server.database().await;
    let (paused, successor) = (open(&url).await, open(&url).await);
    let short = Duration::from_millis(300);
    let before = paused.open_lease("paused", short).await.unwrap();
    assert_eq!(before.term, Some(short));
    let gone = before.epoch;
    let new = owned("a", gone);
    paused.submit(vec![new.clone()]).await.unwrap();
    let epoch = lease(&successor).await;
    let mut claimed = successor.claim(epoch, 10, &Offer::everything()).await.unwrap();
    while let Some(pause) = claimed.ask_again_in {
        assert!(pause <= short, "to be asked again in {pause:?}");
        assert_eq!(claimed.workflows, []);
        tokio::time::sleep(pause).await;
        claimed = successor.claim(epoch, 10, &Offer::everything()).await.unwrap();
    }
    assert_eq!(claimed.workflows.len(), 1);
    assert_eq!(claimed.workflows[0].record, new.record);
    let lost = StoreError::LeaseLost { epoch: gone };
    assert_eq!(paused.record(vec![outcome(&new.record, gone)]).await, Err(lost.clone()));
    assert_eq!(paused.claim(gone, 10, &Offer::everything()).await, Err(lost));
    assert_eq!(paused.renew_lease(gone, short).await, Ok(false));
    successor.record(vec![outcome(&new.record, epoch)]).await.unwrap();
    let stored = successor.workflow(&"a".into()).await.unwrap().unwrap();
    assert_eq!(stored.tasks[0].result.as_deref(), Some(&json!(epoch.0)));
    assert_eq!(stored.last_sequence, 2);
    server.drop_all().await;
}

/// Renewal keeps a lease for as long as it goes on, however short its term.
#[tokio::test]
async fn a_renewed_lease_is_good_for_its_new_term() {
    let Some(server) = Server::reach("renewed").await else { return };
    let url = server.database().await;
    let (owner, other) = (open(&url).await, open(&url).await);
    let mine = owner.open_lease("owner", Duration::ZERO).await.unwrap().epoch;
    owner.submit(vec![owned("a", mine)]).await.unwrap();
    // It has run out, and nobody has ended it.
    assert_eq!(owner.renew_lease(mine, TERM).await, Ok(true));
    let epoch = lease(&other).await;
    let claimed = other.claim(epoch, 10, &Offer::everything()).await.unwrap();
    assert_eq!(claimed.workflows, []);
    let pause = claimed.ask_again_in.unwrap();
    assert!(pause <= TERM && pause > TERM / 2, "{pause:?}");
    server.drop_all().await;
}

/// A transaction that stands still holds its lease; nobody may stand still with it.
#[tokio::test]
async fn a_lease_under_way_is_passed_over_and_ended_later() {
    let Some(server) = Server::reach("under_way").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let gone = store.open_lease("gone", Duration::ZERO).await.unwrap().epoch;
    store.submit(vec![owned("a", gone)]).await.unwrap();
    let epoch = lease(&store).await;
    let db = Database::connect(url.expose()).await.unwrap();
    let transaction = db.begin().await.unwrap();
    let hold = format!("SELECT 1 FROM gleitzeit_leases WHERE epoch = {gone} FOR KEY SHARE");
    transaction.execute_unprepared(&hold).await.unwrap();
    let claimed = tokio::time::timeout(LONG, store.claim(epoch, 10, &Offer::everything()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claimed.workflows, []);
    assert!(claimed.ask_again_in.unwrap() < Duration::from_secs(1));
    transaction.rollback().await.unwrap();
    assert_eq!(ids(&store.claim(epoch, 10, &Offer::everything()).await.unwrap()), ["a"]);
    server.drop_all().await;
}

/// A renewal that waits behind thousands of writes comes too late.
#[tokio::test]
async fn a_renewal_overtakes_the_queue() {
    let Some(server) = Server::reach("overtakes").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let epoch = lease(&store).await;
    let writes = (0..10_000).map(|number| store.submit(vec![owned(&format!("w{number}"), epoch)]));
    // The first poll queues them all: ten transactions and more.
    let mut writes = std::pin::pin!(futures_util::future::join_all(writes));
    assert!(futures_util::poll!(&mut writes).is_pending());
    let before = store.commits();
    assert_eq!(store.renew_lease(epoch, TERM).await, Ok(true));
    // One that is under way, one that ended while the commits were read, and its own.
    let commits = store.commits() - before;
    assert!(commits <= 3, "{commits} commits came first");
    assert!(writes.await.iter().all(Result::is_ok));
    server.drop_all().await;
}

/// Notifications cost every listener a wake-up: owned writes, which are nearly all, send none.
#[tokio::test]
async fn owned_writes_notify_nobody_and_others_once_a_commit() {
    let Some(server) = Server::reach("notify").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let epoch = lease(&store).await;
    let mut listener = PgListener::connect(url.expose()).await.unwrap();
    listener.listen("gleitzeit").await.unwrap();
    let db = Database::connect(url.expose()).await.unwrap();
    let end = async || db.execute_unprepared("NOTIFY gleitzeit, 'end'").await.unwrap();
    let new = owned("a", epoch);
    store.submit(vec![new.clone()]).await.unwrap();
    store.record(vec![outcome(&new.record, epoch)]).await.unwrap();
    store.renew_lease(epoch, TERM).await.unwrap();
    assert_eq!(store.claim(epoch, 10, &Offer::everything()).await.unwrap().workflows, []);
    end().await;
    assert_eq!(listener.recv().await.unwrap().payload(), "end", "rang for owned writes");
    let before = store.commits();
    let free =
        (0..500).map(|number| store.submit(vec![sample::workflow(&format!("f{number}"), 1)]));
    futures_util::future::try_join_all(free).await.unwrap();
    let commits = store.commits() - before;
    end().await;
    let mut rings = 0;
    while listener.recv().await.unwrap().payload() != "end" {
        rings += 1;
    }
    assert!((1..=commits).contains(&rings), "{rings} rings in {commits} commits");
    // A workflow that is there already is nothing new.
    store.submit(vec![sample::workflow("f0", 1)]).await.unwrap();
    end().await;
    assert_eq!(listener.recv().await.unwrap().payload(), "end");
    server.drop_all().await;
}

/// Notifications that came while there was no connection are lost; the notifier makes up for them.
#[tokio::test]
async fn notifications_arrive_across_stores_and_after_a_lost_connection() {
    let Some(server) = Server::reach("notifications").await else { return };
    let url = server.database().await;
    let (ours, theirs) = (open(&url).await, open(&url).await);
    let epoch = lease(&ours).await;
    let mut notifications = is_listening(&ours).await;
    let hear_of = async |id: &str, notifications: &mut BoxStream<'static, ()>| {
        theirs.submit(vec![sample::workflow(id, 1)]).await.unwrap();
        let mut taken = Vec::new();
        while taken.is_empty() {
            notified(notifications).await;
            taken = ids(&ours.claim(epoch, 10, &Offer::everything()).await.unwrap());
        }
        assert_eq!(taken, [id]);
    };
    hear_of("a", &mut notifications).await;
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{}' AND application_name = 'gleitzeit-notifier'",
        server.name(0)
    );
    server.run(&cut).await;
    notified(&mut notifications).await;
    hear_of("b", &mut notifications).await;
    server.drop_all().await;
}

/// A server that restarts costs a lease nothing.
#[tokio::test]
async fn leases_outlive_their_connection() {
    let Some(server) = Server::reach("reconnect").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let epoch = lease(&store).await;
    store.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        server.name(0)
    );
    server.run(&cut).await;
    assert_eq!(store.renew_lease(epoch, TERM).await, Ok(true));
    server.run(&cut).await;
    assert_eq!(ids(&store.claim(epoch, 10, &Offer::everything()).await.unwrap()), ["a"]);
    server.run(&cut).await;
    let another = lease(&store).await;
    server.run(&cut).await;
    store.close_lease(epoch).await.unwrap();
    assert_eq!(ids(&store.claim(another, 10, &Offer::everything()).await.unwrap()), ["a"]);
    server.drop_all().await;
}

/// Statements of idle processes add up on a server that many share.
#[tokio::test]
async fn stores_without_work_issue_no_statement() {
    let Some(server) = Server::reach("idle").await else { return };
    let url = server.database().await;
    let (ours, theirs) = (open(&url).await, open(&url).await);
    let (epoch, _) = (lease(&ours).await, lease(&theirs).await);
    let _notifications = (is_listening(&ours).await, is_listening(&theirs).await);
    ours.submit(vec![owned("a", epoch)]).await.unwrap();
    ours.claim(epoch, 10, &Offer::everything()).await.unwrap();
    let db = Database::connect(url.expose()).await.unwrap();
    let last = format!(
        "SELECT (EXTRACT(EPOCH FROM MAX(state_change)) * 1000000)::BIGINT FROM pg_stat_activity \
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        server.name(0)
    );
    let before = number(&db, &last).await;
    // There is nothing to wait for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(number(&db, &last).await, before, "a connection was used");
    server.drop_all().await;
}
