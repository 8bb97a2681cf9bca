//! A PostgreSQL server of the test's own: started, killed, started again.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gleitzeit::settings::StoreUrl;
use nix::unistd::User;
use sea_orm::{ConnectionTrait as _, Database};
use tempfile::TempDir;

/// Who the server runs as: it refuses to be root.
const USER: &str = "postgres";

/// A server; it stops when it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    programs: PathBuf,
    user: User,
    port: u16,
}

impl Server {
    /// A new one, which runs; or why there cannot be one.
    pub(crate) fn start() -> Result<Self, String> {
        Self::start_with(|_, _| String::new())
    }

    /// The same with settings of its own. They are told the folder of the data and a way to give a
    /// file to the server.
    pub(crate) fn start_with(
        settings: impl FnOnce(&Path, &dyn Fn(&Path)) -> String,
    ) -> Result<Self, String> {
        let programs = programs().ok_or("no PostgreSQL server is installed")?;
        let user = User::from_name(USER).ok().flatten().ok_or("there is no user `postgres`")?;
        if !nix::unistd::geteuid().is_root() {
            return Err("only root can start a server as the user `postgres`".into());
        }
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = Self { folder, programs, user, port };
        server.own(server.folder.path());
        let made = server.run("initdb", &["--auth=trust", "--username=postgres", "--no-sync"]);
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr).trim()));
        }
        let text = settings(&server.data(), &|file| server.own(file));
        let file = server.data().join("postgresql.auto.conf");
        let made = fs::read_to_string(&file).unwrap();
        fs::write(&file, made + &text).unwrap();
        server.launch();
        Ok(server)
    }

    fn own(&self, path: &Path) {
        chown(path, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw())).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs a program of the server over its data.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let (uid, gid) = (self.user.uid.to_string(), self.user.gid.to_string());
        Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &gid, "--clear-groups"])
            .arg(self.programs.join(program))
            .arg("-D")
            .arg(self.data())
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn launch(&self) {
        let folder = self.folder.path().display();
        let port = self.port;
        let options = format!("-p {port} -k {folder} -c listen_addresses=127.0.0.1");
        let log = self.folder.path().join("log");
        let log = log.to_str().unwrap();
        let started = self.run("pg_ctl", &["start", "-w", "-s", "-l", log, "-o", &options]);
        let log_text = fs::read_to_string(log).unwrap_or_default();
        assert!(started.status.success(), "{log_text}");
    }

    /// Ends it as a crash does: nothing is written any more, and no client is notified.
    pub(crate) fn kill(&self) {
        let killed = self.run("pg_ctl", &["stop", "-s", "-m", "immediate"]);
        assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    }

    fn url(&self, database: &str) -> StoreUrl {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port).parse().unwrap()
    }

    async fn sql(&self, statements: &[&str]) {
        let db = Database::connect(self.url("postgres").expose()).await.unwrap();
        for sql in statements {
            db.execute_unprepared(sql).await.unwrap();
        }
        db.close().await.unwrap();
    }

    /// An empty database.
    pub(crate) async fn database(&self) -> StoreUrl {
        self.sql(&["CREATE DATABASE here"]).await;
        self.url("here")
    }

    /// An empty database whose tables lie on a disk of their own. The server's log lies elsewhere:
    /// without room for that it would end.
    pub(crate) async fn database_on(&self, disk: &Path) -> StoreUrl {
        let space = disk.join("space");
        fs::create_dir(&space).unwrap();
        self.own(&space);
        let make = format!("CREATE TABLESPACE small LOCATION '{}'", space.display());
        self.sql(&[&make, "CREATE DATABASE there TABLESPACE small"]).await;
        self.url("there")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "-s", "-m", "immediate"]);
    }
}

/// Where the newest server's programs are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> =
        versions.flatten().map(|version| version.path().join("bin")).collect();
    found.retain(|programs| programs.join("initdb").exists());
    found.sort();
    found.pop()
}
