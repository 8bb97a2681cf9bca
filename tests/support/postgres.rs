//! A PostgreSQL server for tests, and databases of a test's own on it.
//!
//! The server is the one at `GLEITZEIT_TEST_POSTGRES` (default
//! `postgres://postgres@127.0.0.1:5432/postgres`). Where none answers, a test says
//! `SKIPPED: <test>: no PostgreSQL`.
#![expect(clippy::print_stdout, reason = "it says what was skipped")]

use std::sync::atomic::{AtomicUsize, Ordering};

use gleitzeit::settings::StoreUrl;
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection};

/// A server, and the databases that a test made there.
pub(crate) struct Server {
    url: String,
    db: DatabaseConnection,
    test: &'static str,
    made: AtomicUsize,
}

impl Server {
    /// `None` where there is none; the test is then skipped, visibly.
    pub(crate) async fn reach(test: &'static str) -> Option<Self> {
        let url = std::env::var("GLEITZEIT_TEST_POSTGRES")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
        match Database::connect(&url).await {
            Ok(db) => Some(Self { url, db, test, made: AtomicUsize::new(0) }),
            Err(error) => {
                println!("SKIPPED: {test}: no PostgreSQL ({error})");
                None
            }
        }
    }

    pub(crate) fn name(&self, number: usize) -> String {
        format!("gleitzeit_test_{}_{}_{number}", std::process::id(), self.test)
    }

    fn url(&self, database: &str) -> StoreUrl {
        let (server, _) = self.url.rsplit_once('/').unwrap();
        format!("{server}/{database}").parse().unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.db.execute_unprepared(sql).await.unwrap();
    }

    /// A new and empty database.
    pub(crate) async fn database(&self) -> StoreUrl {
        self.database_as("").await
    }

    /// The same, made with these options of `CREATE DATABASE`.
    pub(crate) async fn database_as(&self, options: &str) -> StoreUrl {
        let name = self.name(self.made.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("CREATE DATABASE {name} {options}")).await;
        self.url(&name)
    }

    /// A new database with all that is in another one of these, to which nobody is connected.
    pub(crate) async fn copy_of(&self, database: &StoreUrl) -> StoreUrl {
        let (_, template) = database.expose().rsplit_once('/').unwrap();
        let name = self.name(self.made.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        self.url(&name)
    }

    pub(crate) async fn drop_all(self) {
        for number in 0..self.made.load(Ordering::Relaxed) {
            self.run(&format!("DROP DATABASE {} WITH (FORCE)", self.name(number))).await;
        }
    }
}
