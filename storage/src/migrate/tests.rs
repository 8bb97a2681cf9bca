//! The steps of the schema, there and back, over rows that a step finds.
//!
//! On PostgreSQL in a database of its own on the server at `GLEITZEIT_TEST_POSTGRES` (default
//! `postgres://postgres@127.0.0.1:5432/postgres`); without one it says `SKIPPED`.

use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbErr, Statement,
};

use super::{begin, down, inspect, migrate, up};

/// The steps after the first one.
const LATER: [&str; 7] = [
    "m20261124_000001_leases",
    "m20261124_000002_heirs",
    "m20261129_000001_needs",
    "m20261130_000001_epochs",
    "m20261130_000002_lease_transfers",
    "m20261130_000003_id_order",
    "m20261201_000001_statuses",
];

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    // A database in memory is that of its connection.
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.unwrap()
}

async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn climb(db: &DatabaseConnection, count: Option<usize>) -> Result<(), DbErr> {
    let transaction = begin(db).await?;
    up(&transaction, count).await?;
    transaction.commit().await
}

async fn descend(db: &DatabaseConnection, count: Option<usize>) -> Result<(), DbErr> {
    let transaction = begin(db).await?;
    down(&transaction, count).await?;
    transaction.commit().await
}

/// A workflow of the first schema belongs to nobody, and can be claimed; what a step takes away its
/// way back brings again.
async fn leases_come_and_go(db: &DatabaseConnection) {
    let empty = inspect(db).await.unwrap();
    assert_eq!((empty.version(), empty.pending().len()), (None, 8));
    climb(db, Some(1)).await.unwrap();
    let first = inspect(db).await.unwrap();
    assert_eq!(first.version(), Some("m20261123_000001_workflows"));
    assert_eq!((first.pending(), first.is_current()), (LATER.to_vec(), false));
    let insert = "INSERT INTO gleitzeit_workflows (id, name, status, created_at, task_count, \
                  last_sequence, lease_owner, lease_until, spec) \
                  VALUES ('a', 'a', 'running', 1, 0, 1, NULL, NULL, '{}')";
    db.execute_unprepared(insert).await.unwrap();
    let never_ran = "INSERT INTO gleitzeit_tasks (workflow_key, position, id, status, attempts) \
                     SELECT key, 0, 't', 'skipped', 0 FROM gleitzeit_workflows";
    db.execute_unprepared(never_ran).await.unwrap();
    assert_eq!(migrate(db).await.unwrap(), LATER);
    assert!(inspect(db).await.unwrap().steps.iter().all(|step| step.applied));
    assert!(inspect(db).await.unwrap().is_current());
    // A status of the first schema that has another meaning since.
    let renamed = "SELECT COUNT(*) FROM gleitzeit_tasks WHERE status = 'upstream_failed'";
    assert_eq!(number(db, renamed).await, 1);
    let free = "SELECT COUNT(*) FROM gleitzeit_workflows WHERE lease_epoch = 0 \
                AND status IN ('pending', 'running')";
    assert_eq!(number(db, free).await, 1);
    let lease = "INSERT INTO gleitzeit_leases (owner, process) VALUES ('me', '') RETURNING epoch";
    let first = number(db, lease).await;
    db.execute_unprepared("DELETE FROM gleitzeit_leases").await.unwrap();
    assert!(number(db, lease).await > first, "an epoch was given twice");
    let gone = "SELECT COUNT(lease_owner) + COUNT(lease_until) FROM gleitzeit_workflows";
    assert!(db.execute_unprepared(gone).await.is_err());
    let take = format!("UPDATE gleitzeit_workflows SET lease_epoch = {first}");
    db.execute_unprepared(&take).await.unwrap();
    // What was stored before needs were written down may be tried by anybody.
    let known = "SELECT COUNT(*) FROM gleitzeit_workflows WHERE needs <> 0 OR left_by <> 0";
    assert_eq!(number(db, known).await, 0);
    // Back to before the needs, over the steps that rename a table and move the count of epochs.
    let transfer = "SELECT COUNT(*) FROM gleitzeit_lease_transfers WHERE from_epoch = to_epoch";
    assert_eq!(number(db, transfer).await, 0);
    descend(db, Some(5)).await.unwrap();
    assert!(db.execute_unprepared(known).await.is_err());
    // What was inherited is free, once nobody knows of heirs.
    let heir = format!("INSERT INTO gleitzeit_heirs (epoch, heir) VALUES ({first}, {first} + 1)");
    db.execute_unprepared(&heir).await.unwrap();
    descend(db, Some(1)).await.unwrap();
    assert_eq!(number(db, free).await, 1);
    db.execute_unprepared(&take).await.unwrap();
    descend(db, Some(1)).await.unwrap();
    assert_eq!(number(db, gone).await, 0);
    assert!(db.execute_unprepared("SELECT * FROM gleitzeit_leases").await.is_err());
    // Its lease is gone with its table.
    assert_eq!(number(db, free).await, 1);
    assert_eq!(migrate(db).await.unwrap(), LATER);
    descend(db, None).await.unwrap();
    assert_eq!(migrate(db).await.unwrap().len(), 8);
}

/// An earlier version made the list with sea-orm's migrator: its form stays.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_list_has_the_form_of_earlier_versions() {
    let db = connect("sqlite::memory:").await;
    migrate(&db).await.unwrap();
    let sql = "SELECT sql FROM sqlite_master WHERE name = 'gleitzeit_migrations'";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let form: String =
        db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    let expected = "CREATE TABLE \"gleitzeit_migrations\" \
                    ( \"version\" varchar NOT NULL PRIMARY KEY, \"applied_at\" integer NOT NULL )";
    assert_eq!(form, expected);
    let dated = "SELECT COUNT(*) FROM gleitzeit_migrations WHERE applied_at > 1700000000";
    assert_eq!(number(&db, dated).await, 8);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn steps_on_sqlite() {
    leases_come_and_go(&connect("sqlite::memory:").await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn steps_on_postgres() {
    let url = std::env::var("GLEITZEIT_TEST_POSTGRES")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let Ok(server) = Database::connect(&url).await else {
        println!("SKIPPED: steps_on_postgres: no PostgreSQL");
        return;
    };
    let name = format!("gleitzeit_test_{}_steps", std::process::id());
    server.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
    let (server_url, _) = url.rsplit_once('/').unwrap();
    let db = connect(&format!("{server_url}/{name}")).await;
    leases_come_and_go(&db).await;
    db.close().await.unwrap();
    server.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
}
