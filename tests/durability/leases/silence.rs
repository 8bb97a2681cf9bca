//! A server, or the way to it, that is gone without a word.

use gleitzeit::storage::{ReadOnlyStore, admin};

use super::*;
use crate::support::{postgres::Server, proxy::Proxy};

/// A statement is given up after so long.
const LIMIT: Duration = Duration::from_secs(1);

async fn open_soon(url: &StoreUrl) -> SqlStore {
    let options = SqlOptions { statement_timeout: LIMIT, ..SqlOptions::default() };
    SqlStore::connect(url, options).await.unwrap()
}

/// Nobody waits for ever: each call is answered, and the store works again once there is a way.
#[tokio::test]
async fn a_silent_server_fails_calls_and_holds_none() {
    let Some(server) = Server::reach("silent").await else { return };
    let url = server.database().await;
    let proxy = Proxy::before(&url).await;
    let store = open_soon(&proxy.url(&url)).await;
    store.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    assert!(store.workflow(&"a".into()).await.unwrap().is_some());
    proxy.fall_silent();
    let calls = async {
        let written = store.submit(vec![sample::workflow("b", 1)]).await.unwrap_err();
        assert!(written.is_transient(), "{written:?}");
        let read = store.workflow(&"a".into()).await.unwrap_err();
        assert!(read.is_transient(), "{read:?}");
        assert!(read.to_string().contains("no answer within 1s"), "{read}");
        let leased = store.open_lease("me", TERM).await.unwrap_err();
        assert!(leased.is_transient(), "{leased:?}");
    };
    tokio::time::timeout(LONG, calls).await.expect("each call is answered");
    proxy.recover();
    // What the connections were replaced by may be silent, too: it was opened in the meantime.
    let works = async {
        while store.submit(vec![sample::workflow("b", 1)]).await.is_err() {}
        while store.workflow(&"b".into()).await.is_err() {}
    };
    tokio::time::timeout(LONG, works).await.expect("works again");
    assert!(store.workflow(&"b".into()).await.unwrap().is_some());
    store.close(LONG).await.unwrap();
    server.drop_all().await;
}

/// To let go of a store must not take the server's consent.
#[tokio::test]
async fn a_store_over_a_silent_server_can_be_closed() {
    let Some(server) = Server::reach("silent_close").await else { return };
    let url = server.database().await;
    let proxy = Proxy::before(&url).await;
    let store = open_soon(&proxy.url(&url)).await;
    lease(&store).await;
    let _notifications = is_listening(&store).await;
    proxy.fall_silent();
    store.close(LONG).await.unwrap();
    server.drop_all().await;
}

/// A connection that listens is silent by nature; that it is deaf must not show after minutes.
#[tokio::test]
async fn a_deaf_listener_hears_again() {
    let Some(server) = Server::reach("deaf").await else { return };
    let url = server.database().await;
    let proxy = Proxy::before(&url).await;
    let (deaf, other) = (open_soon(&proxy.url(&url)).await, open(&url).await);
    let mut notifications = is_listening(&deaf).await;
    while tokio::time::timeout(LIMIT / 2, notifications.next()).await.is_ok() {}
    proxy.forget_connections();
    other.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    notified(&mut notifications).await;
    server.drop_all().await;
}

/// A server that is not there is told of at once, and with its address.
#[tokio::test]
async fn a_refused_connection_is_reported_as_such() {
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url: StoreUrl = format!("postgres://me:geheim@{free}/none").parse().unwrap();
    let begun = std::time::Instant::now();
    let error = SqlStore::connect(&url, SqlOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }));
    let message = error.to_string();
    assert!(message.contains(&free.to_string()) && message.contains("refused"), "{message}");
    assert!(!message.contains("geheim"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
}

/// What takes no writes is named when it is opened, and not by the first write.
#[tokio::test]
async fn a_server_that_is_read_only_is_named_as_such() {
    let Some(server) = Server::reach("read_only").await else { return };
    let url = server.database().await;
    open(&url).await.close(LONG).await.unwrap();
    let name = server.name(0);
    server.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let error = SqlStore::connect(&url, SqlOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    assert!(error.to_string().contains("PostgreSQL is read-only"), "{error}");
    let reader = ReadOnlyStore::open(&url, SqlOptions::default()).await.unwrap();
    assert!(reader.is_some(), "it can be looked at");
    drop(reader);
    server.drop_all().await;
}

/// An engine without work does not renew its lease. Nothing was taken from it, and nobody says so.
#[tokio::test]
async fn an_idle_lease_that_ran_out_is_left_alone() {
    let Some(server) = Server::reach("idle_lease").await else { return };
    let url = server.database().await;
    let (idle, other) = (open(&url).await, open(&url).await);
    let epoch = idle.open_lease("idle", Duration::ZERO).await.unwrap().epoch;
    let theirs = lease(&other).await;
    let mut notifications = is_listening(&other).await;
    assert_eq!(other.claim(theirs, 10, &Offer::everything()).await.unwrap().workflows, []);
    let contents = admin::status(&url).await.unwrap().contents.unwrap();
    let holder = contents.leases.iter().find(|holder| holder.epoch == epoch).unwrap();
    assert!(holder.is_alive && holder.is_idle, "{holder:?}");
    while tokio::time::timeout(Duration::from_millis(300), notifications.next()).await.is_ok() {}
    // It has work again; the others are to know that it may run out again.
    assert_eq!(idle.renew_lease(epoch, Duration::from_millis(10)).await, Ok(true));
    notified(&mut notifications).await;
    idle.submit(vec![owned("a", epoch)]).await.unwrap();
    let mut claimed = other.claim(theirs, 10, &Offer::everything()).await.unwrap();
    while let Some(pause) = claimed.ask_again_in.filter(|_| claimed.workflows.is_empty()) {
        tokio::time::sleep(pause).await;
        claimed = other.claim(theirs, 10, &Offer::everything()).await.unwrap();
    }
    assert_eq!(ids(&claimed), ["a"], "what it owns by then is taken over");
    assert_eq!(idle.renew_lease(epoch, TERM).await, Ok(false));
    server.drop_all().await;
}

/// Who waits for work hears of the end of a process on the same machine, long before its lease
/// runs out.
#[tokio::test]
async fn the_end_of_a_process_is_notified() {
    if let Some((store, _)) = child::arguments() {
        return own_and_wait(&store).await;
    }
    let Some(server) = Server::reach("end_heard").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let epoch = lease(&store).await;
    let mut notifications = is_listening(&store).await;
    let folder = tempfile::TempDir::new().unwrap();
    let test = "leases::silence::the_end_of_a_process_is_notified";
    let mut process = child::Process::start(test, url.expose(), folder.path());
    process.says().unwrap();
    while tokio::time::timeout(Duration::from_millis(300), notifications.next()).await.is_ok() {}
    assert_eq!(
        store.claim(epoch, 10, &Offer::everything()).await.unwrap().workflows,
        [],
        "it lives"
    );
    process.kill();
    let mut taken = Vec::new();
    while taken.is_empty() {
        notified(&mut notifications).await;
        taken = ids(&store.claim(epoch, 10, &Offer::everything()).await.unwrap());
    }
    assert_eq!(taken, ["w0", "w1"]);
    server.drop_all().await;
}
