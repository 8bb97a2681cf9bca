//! In a jail with a root file system of the operator's.

use std::{fs, path::PathBuf, process::Command};

use gleitzeit_sandbox::{JailSettings, Job, Level, Sandbox, SandboxError, Status};
use serde_json::json;

use crate::support::{self, jail_settings};

/// The level of this file's tests.
const LEVEL: Level = Level::Chroot;

/// Copies the interpreter that runs it, with all that it needs, below the directory it is given.
const MOVER: &str = r#"
import os, shutil, struct, sys, sysconfig
root = sys.argv[1]

def put(path):
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.exists(target): return
    shutil.copy(path, target)
    # And by the names that it is linked to by.
    folder = os.path.dirname(path)
    for name in os.listdir(folder):
        link = os.path.join(folder, name)
        if ".so" in name and os.path.islink(link) and os.path.realpath(link) == path:
            os.symlink(os.path.basename(path), root + link)

for name in ("_bz2", "_ctypes", "_hashlib", "_lzma", "_socket", "select", "zlib", "resource"):
    try: __import__(name)
    except ImportError: pass
program = os.path.realpath(sys.executable)
library = sysconfig.get_path("stdlib")
skipped = ("test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "ensurepip",
           "lib2to3", "config-*", "__pycache__", "turtledemo", "pydoc_data")
shutil.copytree(library, root + library, ignore=shutil.ignore_patterns(*skipped))
put(program)
for line in open("/proc/self/maps"):
    path = line.split(None, 5)[5:]
    if path and ".so" in os.path.basename(path[0]): put(path[0].strip())
with open(program, "rb") as file:
    head = file.read(64)
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for number in range(count):
        file.seek(offset + number * size)
        part = struct.unpack("<IIQQQQQQ", file.read(56))
        if part[0] == 3:
            file.seek(part[2])
            put(file.read(part[5]).rstrip(b"\0").decode())
print(program)
"#;

/// A root with this machine's Python in it, and where that is there.
fn root() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let result = Command::new(support::python())
        .args(["-c", MOVER])
        .arg(root.path())
        .output()
        .expect("Python starts");
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    fs::create_dir_all(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/marker"), "of this root").unwrap();
    (root, String::from_utf8(result.stdout).unwrap().trim().into())
}

/// A task sees the operator's root and nothing of the machine's, and cannot change it.
#[tokio::test]
async fn a_task_sees_the_operators_root_only() {
    let (root, python) = root();
    let settings = JailSettings { root: Some(root.path().to_owned()), ..jail_settings() };
    let sandbox = Sandbox::jailed(&python, &settings).await.unwrap();
    assert_eq!(sandbox.level(), LEVEL);
    let code = "
import os
def attempt(what):
    try: return what()
    except OSError as error: return type(error).__name__
result = [
    open('/etc/marker').read(),
    attempt(lambda: open('/etc/passwd').read()),
    attempt(lambda: open('/etc/marker', 'w')),
    attempt(lambda: os.listdir('/proc')),
    os.getcwd(),
]";
    let outcome = sandbox.run(Job::execute(code)).await.unwrap();
    assert_eq!((outcome.status, outcome.sandbox), (Status::Ok, LEVEL), "{outcome:?}");
    let result = outcome.result;
    assert_eq!((&result[0], &result[4]), (&json!("of this root"), &json!("/task")));
    assert_eq!(
        (&result[1], &result[3]),
        (&json!("FileNotFoundError"), &json!("FileNotFoundError"))
    );
    assert!(["PermissionError", "OSError"].contains(&result[2].as_str().unwrap()), "{result}");
    assert_eq!(fs::read_to_string(root.path().join("etc/marker")).unwrap(), "of this root");
    sandbox.stop().await;
}

/// What is not in that root is not found by way of the machine's.
#[tokio::test]
async fn an_interpreter_that_is_not_in_the_root_is_named() {
    let root = tempfile::tempdir().unwrap();
    for (root, part) in [(root.path().to_owned(), "there is none"), ("/no/such/root".into(), "")] {
        let settings = JailSettings { root: Some(root), ..jail_settings() };
        let error = Sandbox::jailed("python3".as_ref(), &settings).await.unwrap_err();
        assert!(matches!(error, SandboxError::Interpreter { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
