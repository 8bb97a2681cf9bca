//! What is told of a database.

use std::time::Duration;

use gleitzeit::{
    settings::StoreUrl,
    storage::admin::{self, Contents, Status},
};
use gleitzeit_domain::{
    needs::Offer,
    store::{LeaseStore as _, Store as _, conformance::sample},
};

use super::database::{LONG, TestDatabase, alter, fill, open};

async fn status(url: &StoreUrl) -> Status {
    admin::status(url).await.unwrap()
}

fn contents(status: Status) -> Contents {
    status.contents.unwrap()
}

/// An operator sees what waits, how much room it takes, and from when it is.
#[tokio::test]
async fn everything_is_counted() {
    for database in TestDatabase::all("counted").await {
        let url = database.empty().await;
        fill(&url).await;
        let report = status(&url).await;
        assert_eq!(report.url, url.to_string());
        assert_eq!(report.schema.version.as_deref(), Some("m20261201_000001_statuses"));
        assert_eq!((report.schema.pending.len(), report.schema.newer.len()), (0, 0));
        assert!(report.size.bytes > 10_000, "{:?}", report.size);
        let is_file = url.sqlite_path().is_some();
        assert_eq!(report.database.starts_with("SQLite 3."), is_file, "{}", report.database);
        assert_eq!(
            (report.size.log_bytes.is_some(), report.size.tables.len()),
            (is_file, if is_file { 0 } else { 8 })
        );
        let contents = contents(report);
        let count = |status: &str| contents.workflows[status];
        assert_eq!(
            (count("completed"), count("running"), count("pending"), count("failed")),
            (1, 2, 1, 0)
        );
        assert_eq!((contents.tasks, contents.unowned, contents.blobs), (9, 3, 2));
        assert_eq!(
            contents.settled.map(|it| (it.oldest, it.newest)),
            Some((sample::at(7), sample::at(7)))
        );
        assert_eq!(contents.unsettled.map(|it| it.oldest), Some(sample::at(1)));
        assert_eq!((contents.leases.len(), contents.requests), (0, 0));
        database.leave().await;
    }
}

/// Who works on it, and whose work is about to be taken over.
#[tokio::test]
async fn living_leases_are_distinguished_from_dead_ones() {
    for database in TestDatabase::all("living").await {
        let url = database.empty().await;
        fill(&url).await;
        let store = open(&url).await;
        let lease = store.open_lease("me", Duration::from_mins(1)).await.unwrap();
        store.claim(lease.epoch, 2, &Offer::everything()).await.unwrap();
        // One that has run out, and whose process is not here.
        alter(
            &url,
            &["INSERT INTO gleitzeit_leases (epoch, owner, process, until) VALUES (9000000000000000, 'gone', '', 1)",
              "UPDATE gleitzeit_workflows SET lease_epoch = 9000000000000000 WHERE id = 'between'"],
        )
        .await;
        let seen = contents(status(&url).await);
        let leases: Vec<_> =
            seen.leases.iter().map(|it| (&*it.owner, it.is_alive, it.workflows)).collect();
        assert_eq!(leases, [("me", true, 2), ("gone", false, 1)]);
        let me = &seen.leases[0];
        if url.sqlite_path().is_none() {
            assert_eq!(me.process_id, i32::try_from(std::process::id()).ok());
            assert!(me.runs_out_in.is_some_and(|left| left > Duration::from_secs(30)));
        }
        assert_eq!(seen.unowned, 0);
        store.close(LONG).await.unwrap();
        let seen = contents(status(&url).await);
        assert!(seen.leases.iter().all(|it| it.owner != "me"), "{:?}", seen.leases);
        assert_eq!(seen.unowned, 2);
        database.leave().await;
    }
}

/// Of a database that this program cannot read, as much is told as can be.
#[tokio::test]
async fn a_newer_or_an_empty_schema_is_reported() {
    for database in TestDatabase::all("told").await {
        let url = database.empty().await;
        if url.sqlite_path().is_none() {
            let empty = status(&url).await;
            assert_eq!((empty.schema.version, empty.schema.pending.len()), (None, 8));
            assert!(empty.contents.is_none());
        }
        fill(&url).await;
        let newer = "INSERT INTO gleitzeit_migrations VALUES ('m29990101_000001_future', 0)";
        alter(&url, &[newer]).await;
        let report = status(&url).await;
        assert_eq!(report.schema.newer, ["m29990101_000001_future"]);
        assert_eq!(report.schema.version.as_deref(), Some("m29990101_000001_future"));
        assert!(report.contents.is_none());
        database.leave().await;
    }
}
