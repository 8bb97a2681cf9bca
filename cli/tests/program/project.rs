//! The settings file of a project: where it is found, what is above it, and when it is refused.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    process::Command,
};

use serde_json::Value;

use super::support::Scratch;

/// What the program answers in a directory below the place's own.
fn answer(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn mode(scratch: &Scratch, name: &str, mode: u32) {
    fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn config(scratch: &Scratch, below: &str) -> Value {
    let mut command = scratch.command(&["--json", "config"]);
    command.current_dir(scratch.path(below));
    let (status, out, err) = answer(command);
    assert_eq!(status, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

/// The nearest file upwards counts, its relative paths begin beside it, and `config` and `doctor`
/// name it.
#[test]
fn a_project_file_is_found_from_below_and_named() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("a/b")).unwrap();
    let outer = scratch.file(
        "gleitzeit.toml",
        "[storage]\nurl = \"sqlite:data/w.db\"\n[engine]\nseed = 1\n[providers.python.config]\n\
         read_only_paths = [\"lib\"]\n",
    );
    let here = fs::canonicalize(scratch.path(".")).unwrap();
    let settings = config(&scratch, "a/b");
    assert_eq!(settings["read_from"], serde_json::json!([fs::canonicalize(&outer).unwrap()]));
    assert_eq!(settings["storage"]["url"], format!("sqlite:{}/data/w.db", here.display()));
    assert_eq!(settings["engine"]["seed"], 1);
    let path = &settings["providers"]["python"]["config"]["read_only_paths"][0];
    assert_eq!(*path, format!("{}/lib", here.display()));
    // Without a word about it the store is beside the project's file, and not below it.
    scratch.file("gleitzeit.toml", "[engine]\nseed = 1\n");
    let url = format!("sqlite:{}/gleitzeit.db", here.display());
    assert_eq!(config(&scratch, "a/b")["storage"]["url"], url);
    scratch.file("w.yaml", "name: w\ntasks:\n  - {id: t, method: echo/echo, params: {x: 1}}\n");
    scratch.json(&["--json", "run", "w.yaml"]).success();
    let mut list = scratch.command(&["--json", "list"]);
    list.current_dir(scratch.path("a/b"));
    assert!(answer(list).1.contains("\"completed\""));
    let printed = scratch.run(&["config"]).stdout;
    assert!(printed.starts_with(&format!("# read from {}/gleitzeit.toml\n", here.display())));
    let doctor = scratch.run(&["doctor"]).stdout;
    assert!(doctor.starts_with(&format!("settings: {}/gleitzeit.toml\n", here.display())));
    // The inner one alone counts.
    scratch.file("a/gleitzeit.toml", "[logging]\nlevel = \"info\"\n");
    let settings = config(&scratch, "a/b");
    assert_eq!(
        (&settings["engine"]["seed"], &settings["logging"]["level"]),
        (&Value::Null, &"info".into())
    );
}

/// `--config`, then `GLEITZEIT_CONFIG`, then the project's file, then that of `GLEITZEIT_ENV`.
#[test]
fn a_named_file_replaces_the_projects_and_that_is_above_the_environments() {
    let scratch = Scratch::new();
    scratch.file("gleitzeit.toml", "[engine]\nseed = 1\n");
    let named = scratch.file("named.toml", "[engine]\nseed = 2\n");
    let other = scratch.file("other.toml", "[engine]\nseed = 3\n");
    fs::create_dir(scratch.path("config")).unwrap();
    scratch.file("config/test.toml", "[engine]\nseed = 4\n[logging]\nlevel = \"info\"\n");
    let settings = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = scratch.command(&[&["--json", "config"], arguments].concat());
        command.envs(variables.iter().copied());
        let (status, out, err) = answer(command);
        assert_eq!(status, Some(0), "{err}");
        let settings: Value = serde_json::from_str(&out).unwrap();
        (settings["engine"]["seed"].as_u64().unwrap(), settings["logging"]["level"].clone())
    };
    let warn = Value::from("warn");
    let variable = [("GLEITZEIT_CONFIG", other.as_str())];
    assert_eq!(settings(&["--config", &named], &variable), (2, warn.clone()));
    assert_eq!(settings(&[], &variable), (3, warn.clone()));
    assert_eq!(settings(&[], &[]), (1, warn));
    assert_eq!(settings(&[], &[("GLEITZEIT_ENV", "test")]), (1, "info".into()));
    let seed = [("GLEITZEIT__ENGINE__SEED", "9")];
    assert_eq!(settings(&[], &seed).0, 9);
}

/// A mistake is reported with the file's whole path, the line and the column.
#[test]
fn a_broken_project_file_names_itself_and_the_line() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("below")).unwrap();
    for (text, at, message) in [
        ("[engine]\nseed = \n", "gleitzeit.toml:2:", ""),
        ("[engine]\nsed = 1\n", "gleitzeit.toml:2:1", "did you mean `seed`?"),
        ("[engine]\nseed = \"x\"\n", "gleitzeit.toml:2:1", "expected"),
    ] {
        let file = scratch.file("gleitzeit.toml", text);
        let mut command = scratch.command(&["list"]);
        command.current_dir(scratch.path("below"));
        let (status, _, err) = answer(command);
        assert_eq!(status, Some(2), "{err}");
        let directory = fs::canonicalize(&file).unwrap();
        let directory = directory.parent().unwrap().display().to_string();
        assert!(err.contains(&format!("{directory}/{at}")) && err.contains(message), "{err}");
        // What needs no settings works.
        assert_eq!(scratch.run(&["completions", "bash"]).status, 0);
    }
    fs::remove_file(scratch.path("gleitzeit.toml")).unwrap();
    fs::create_dir(scratch.path("gleitzeit.toml")).unwrap();
    let out = scratch.run(&["list"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("it is no file"), "{}", out.stderr);
}

/// A file names programs and paths: one that somebody else wrote, or could replace, is refused, and
/// the message says how to go on.
#[test]
fn a_project_file_that_others_can_write_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.file("gleitzeit.toml", "[engine]\nseed = 1\n");
    fs::create_dir(scratch.path("below")).unwrap();
    let list = || {
        let mut command = scratch.command(&["list"]);
        command.current_dir(scratch.path("below"));
        answer(command)
    };
    let refused = |reason: &str| {
        let (status, out, err) = list();
        assert_eq!((status, out.as_str()), (Some(2), ""), "{err}");
        for part in ["gleitzeit.toml", "is not used", "--config", reason] {
            assert!(err.contains(part), "no `{part}` in {err}");
        }
    };
    assert_eq!(list().0, Some(0));
    mode(&scratch, "gleitzeit.toml", 0o666);
    refused("every user");
    mode(&scratch, "gleitzeit.toml", 0o644);
    mode(&scratch, ".", 0o777);
    refused("its directory");
    mode(&scratch, ".", 0o755);
    // Both ways out of the message.
    mode(&scratch, "gleitzeit.toml", 0o666);
    assert_eq!(scratch.run(&["list", "--config", &file]).status, 0);
    assert_eq!(scratch.run(&["list", "--config", "/dev/null"]).status, 0);
    mode(&scratch, "gleitzeit.toml", 0o644);
    assert_eq!(list().0, Some(0));
    // Only root may give a file away.
    if chown(scratch.path("gleitzeit.toml"), Some(4242), None).is_ok() {
        refused("another user (uid 4242");
        let real = scratch.path("real.toml");
        fs::rename(scratch.path("gleitzeit.toml"), &real).unwrap();
        symlink(&real, scratch.path("gleitzeit.toml")).unwrap();
        refused("another user (uid 4242");
        chown(&real, Some(nix::unistd::geteuid().as_raw()), None).unwrap();
        assert_eq!(list().0, Some(0));
        chown(scratch.path("."), Some(4242), None).unwrap();
        refused("its directory");
    }
}
