//! Databases for tests that kill: made once, and put back to a kept state before each kill.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

/// A database, and the folder for what else the processes of a test share.
pub(crate) struct TestDatabase {
    /// Of the store.
    pub(crate) url: String,
    home: TempDir,
    #[cfg(feature = "postgres")]
    server: Option<postgres::Server>,
}

impl TestDatabase {
    /// A new and empty one; why there is none.
    pub(crate) fn new(kind: Kind, name: &str) -> Result<Self, String> {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("now")).unwrap();
        match kind {
            Kind::Sqlite => Ok(Self {
                url: format!("sqlite:{}", home.path().join("now/g.db").display()),
                home,
                #[cfg(feature = "postgres")]
                server: None,
            }),
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let server = postgres::Server::reach(name)?;
                Ok(Self { url: server.url.clone(), home, server: Some(server) })
            }
        }
    }

    /// The folder that processes share; holds the database where that is a file.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().join("now")
    }

    /// Makes it empty, as if no process had ever been.
    pub(crate) fn clear(&self) {
        fs::remove_dir_all(self.folder()).unwrap();
        fs::create_dir(self.folder()).unwrap();
        #[cfg(feature = "postgres")]
        if let Some(server) = &self.server {
            server.clear();
        }
    }

    /// Keeps the state, for [`restore`](Self::restore).
    pub(crate) fn keep(&self) {
        copy_all(&self.folder(), &self.home.path().join("kept"));
        #[cfg(feature = "postgres")]
        if let Some(server) = &self.server {
            server.keep();
        }
    }

    /// Goes back to the state that was kept.
    pub(crate) fn restore(&self) {
        copy_all(&self.home.path().join("kept"), &self.folder());
        #[cfg(feature = "postgres")]
        if let Some(server) = &self.server {
            server.restore();
        }
    }

    /// Leaves the folder behind and says where, for whoever looks into a failure.
    pub(crate) fn leave(&self, name: &str) -> String {
        let left =
            std::env::temp_dir().join(format!("gleitzeit-crash-{}-{name}", std::process::id()));
        copy_all(&self.folder(), &left);
        left.display().to_string()
    }
}

/// Makes `to` what `from` is; both hold files only.
fn copy_all(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::fmt::Write as _;

    use sea_orm::{
        ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement,
    };
    use tokio::runtime::{Builder, Runtime};

    /// A database of a test on a server, with a schema `kept` beside the one in use: to make and
    /// drop a database for each kill would cost more than the kill.
    pub(super) struct Server {
        pub(super) url: String,
        name: String,
        runtime: Runtime,
        admin: DatabaseConnection,
        db: DatabaseConnection,
    }

    impl Server {
        pub(super) fn reach(name: &str) -> Result<Self, String> {
            let url = std::env::var("GLEITZEIT_TEST_POSTGRES")
                .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let admin = runtime
                .block_on(Database::connect(&url))
                .map_err(|error| format!("no PostgreSQL ({error})"))?;
            let name = format!("gleitzeit_crash_{}_{name}", std::process::id());
            let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
            let create = format!("CREATE DATABASE {name}");
            runtime.block_on(admin.execute_unprepared(&create)).unwrap();
            // One connection, for all others are cut off.
            let options = ConnectOptions::new(&url).max_connections(1).to_owned();
            let db = runtime.block_on(Database::connect(options)).unwrap();
            Ok(Self { url, name, runtime, admin, db })
        }

        fn run(&self, sql: &str) {
            let run = self.runtime.block_on(self.db.execute_unprepared(sql));
            run.unwrap_or_else(|error| panic!("{error}: {sql}"));
        }

        fn names(&self, sql: &str) -> Vec<String> {
            let query = Statement::from_string(DbBackend::Postgres, sql);
            let rows = self.runtime.block_on(self.db.query_all_raw(query)).unwrap();
            rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
        }

        /// The server may not have seen yet that a process is dead.
        fn cut_others(&self) {
            let others = "FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid()";
            while !self
                .names(&format!("SELECT pg_terminate_backend(pid)::text {others}"))
                .is_empty()
            {
                std::thread::yield_now();
            }
        }

        pub(super) fn clear(&self) {
            self.cut_others();
            self.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        }

        fn tables(&self) -> Vec<String> {
            self.names("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        }

        pub(super) fn keep(&self) {
            self.run("DROP SCHEMA IF EXISTS kept CASCADE; CREATE SCHEMA kept");
            for table in self.tables() {
                self.run(&format!("CREATE TABLE kept.{table} AS TABLE public.{table}"));
            }
            self.run(
                "CREATE TABLE kept.all_sequences AS SELECT sequencename, last_value \
                 FROM pg_sequences WHERE schemaname = 'public'",
            );
        }

        pub(super) fn restore(&self) {
            self.cut_others();
            let tables = self.tables();
            let mut sql = "SET session_replication_role = replica;".to_owned();
            for table in tables {
                // Much faster than to truncate, which makes new files.
                write!(
                    sql,
                    "DELETE FROM public.{table}; \
                     INSERT INTO public.{table} OVERRIDING SYSTEM VALUE SELECT * FROM kept.{table};"
                )
                .unwrap();
            }
            sql += "SELECT setval(format('public.%I', sequencename)::regclass, \
                    coalesce(last_value, 1), last_value IS NOT NULL) FROM kept.all_sequences;";
            sql += "SET session_replication_role = DEFAULT";
            self.run(&sql);
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.runtime.block_on(self.db.close_by_ref());
            let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
            let _ = self.runtime.block_on(self.admin.execute_unprepared(&drop));
        }
    }
}
