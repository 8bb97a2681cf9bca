//! pgbouncer between: refused at the start where each transaction may have another session.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gleitzeit::settings::StoreUrl;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown},
};
use tempfile::TempDir;

use super::{open, refusal};
use crate::support::own_server::Server;

/// Where Debian has it, beside the folders of `PATH`.
const PATHS: [&str; 3] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// A pooler before a server; it ends when it is dropped.
struct Pooler {
    _folder: TempDir,
    process: Child,
    port: u16,
}

impl Pooler {
    /// It refuses to be root.
    fn start(program: &Path, server: &StoreUrl, settings: &str) -> Self {
        let user = User::from_name("postgres").unwrap().unwrap();
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (_, server) = server.expose().rsplit_once(':').unwrap();
        let (server, _) = server.split_once('/').unwrap();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
             {settings}\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, text).unwrap();
        for path in [folder.path(), &file] {
            chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        let process = Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &gid, "--clear-groups"])
            .arg(program)
            .arg("-q")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the pooler does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { _folder: folder, process, port }
    }

    fn url(&self) -> StoreUrl {
        format!("postgres://postgres@127.0.0.1:{}/here", self.port).parse().unwrap()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap());
        let _ = kill(pid, Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    PATHS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// However it is set up, the words name it; nobody finds out later, by a statement that fails now and
/// then. What a database holds by then does not matter.
#[tokio::test]
async fn a_pooler_that_changes_sessions_is_refused() {
    let Some(program) = program() else {
        return println!("SKIPPED: a pooler (no pgbouncer: install the package pgbouncer)");
    };
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return println!("SKIPPED: a pooler ({why})"),
    };
    let direct = server.database().await;
    for is_made in [false, true] {
        if is_made {
            open(&direct).await.unwrap();
        }
        for mode in ["transaction", "statement", "session"] {
            // As it comes, it knows no such parameters; told to, it drops them.
            for ignored in ["", "ignore_startup_parameters = extra_float_digits,options"] {
                let pooler =
                    Pooler::start(&program, &direct, &format!("pool_mode = {mode}\n{ignored}"));
                let detail = refusal(&pooler.url()).await;
                assert!(
                    detail.contains("a pooler such as pgbouncer"),
                    "{mode} {ignored}: {detail}"
                );
                assert!(detail.contains("name the server itself"), "{mode} {ignored}: {detail}");
            }
        }
    }
    open(&direct).await.unwrap();
}
