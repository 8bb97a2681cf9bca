//! The settings file of a project: where it is found, what is above it, and when it is refused.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    process::Command,
};

use serde_json::Value;

use super::support::Place;

/// What the program answers in a directory below the place's own.
fn answer(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn mode(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn config(place: &Place, below: &str) -> Value {
    let mut command = place.command(&["--json", "config"]);
    command.current_dir(place.path(below));
    let (status, out, err) = answer(command);
    assert_eq!(status, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

/// The nearest file upwards counts, its relative paths begin beside it, and `config` and `doctor`
/// name it.
#[test]
fn a_project_file_is_found_from_below_and_named() {
    let place = Place::new();
    fs::create_dir_all(place.path("a/b")).unwrap();
    let outer = place.file(
        "gleitzeit.toml",
        "[storage]\nurl = \"sqlite:data/w.db\"\n[engine]\nseed = 1\n[providers.python.config]\n\
         read_only_paths = [\"lib\"]\n",
    );
    let here = fs::canonicalize(place.path(".")).unwrap();
    let told = config(&place, "a/b");
    assert_eq!(told["read_from"], serde_json::json!([fs::canonicalize(&outer).unwrap()]));
    assert_eq!(told["storage"]["url"], format!("sqlite:{}/data/w.db", here.display()));
    assert_eq!(told["engine"]["seed"], 1);
    let shown = &told["providers"]["python"]["config"]["read_only_paths"][0];
    assert_eq!(*shown, format!("{}/lib", here.display()));
    // Without a word about it the store is beside the project's file, and not below it.
    place.file("gleitzeit.toml", "[engine]\nseed = 1\n");
    let url = format!("sqlite:{}/gleitzeit.db", here.display());
    assert_eq!(config(&place, "a/b")["storage"]["url"], url);
    place.file("w.yaml", "name: w\ntasks:\n  - {id: t, method: echo/echo, params: {x: 1}}\n");
    place.json(&["--json", "run", "w.yaml"]).success();
    let mut list = place.command(&["--json", "list"]);
    list.current_dir(place.path("a/b"));
    assert!(answer(list).1.contains("\"completed\""));
    let printed = place.run(&["config"]).stdout;
    assert!(printed.starts_with(&format!("# read from {}/gleitzeit.toml\n", here.display())));
    let doctor = place.run(&["doctor"]).stdout;
    assert!(doctor.starts_with(&format!("settings: {}/gleitzeit.toml\n", here.display())));
    // The inner one alone counts.
    place.file("a/gleitzeit.toml", "[logging]\nlevel = \"info\"\n");
    let told = config(&place, "a/b");
    assert_eq!(
        (&told["engine"]["seed"], &told["logging"]["level"]),
        (&Value::Null, &"info".into())
    );
}

/// `--config`, then `GLEITZEIT_CONFIG`, then the project's file, then that of `GLEITZEIT_ENV`.
#[test]
fn a_named_file_replaces_the_projects_and_that_is_above_the_environments() {
    let place = Place::new();
    place.file("gleitzeit.toml", "[engine]\nseed = 1\n");
    let named = place.file("named.toml", "[engine]\nseed = 2\n");
    let other = place.file("other.toml", "[engine]\nseed = 3\n");
    fs::create_dir(place.path("config")).unwrap();
    place.file("config/test.toml", "[engine]\nseed = 4\n[logging]\nlevel = \"info\"\n");
    let told = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = place.command(&[&["--json", "config"], arguments].concat());
        command.envs(variables.iter().copied());
        let (status, out, err) = answer(command);
        assert_eq!(status, Some(0), "{err}");
        let told: Value = serde_json::from_str(&out).unwrap();
        (told["engine"]["seed"].as_u64().unwrap(), told["logging"]["level"].clone())
    };
    let warn = Value::from("warn");
    let variable = [("GLEITZEIT_CONFIG", other.as_str())];
    assert_eq!(told(&["--config", &named], &variable), (2, warn.clone()));
    assert_eq!(told(&[], &variable), (3, warn.clone()));
    assert_eq!(told(&[], &[]), (1, warn));
    assert_eq!(told(&[], &[("GLEITZEIT_ENV", "test")]), (1, "info".into()));
    let seed = [("GLEITZEIT__ENGINE__SEED", "9")];
    assert_eq!(told(&[], &seed).0, 9);
}

/// A mistake is told with the file's whole path, the line and the column.
#[test]
fn a_broken_project_file_names_itself_and_the_line() {
    let place = Place::new();
    fs::create_dir(place.path("below")).unwrap();
    for (text, at, told) in [
        ("[engine]\nseed = \n", "gleitzeit.toml:2:", ""),
        ("[engine]\nsed = 1\n", "gleitzeit.toml:2:1", "did you mean `seed`?"),
        ("[engine]\nseed = \"x\"\n", "gleitzeit.toml:2:1", "expected"),
    ] {
        let file = place.file("gleitzeit.toml", text);
        let mut command = place.command(&["list"]);
        command.current_dir(place.path("below"));
        let (status, _, err) = answer(command);
        assert_eq!(status, Some(2), "{err}");
        let directory = fs::canonicalize(&file).unwrap();
        let directory = directory.parent().unwrap().display().to_string();
        assert!(err.contains(&format!("{directory}/{at}")) && err.contains(told), "{err}");
        // What needs no settings works.
        assert_eq!(place.run(&["completions", "bash"]).status, 0);
    }
    fs::remove_file(place.path("gleitzeit.toml")).unwrap();
    fs::create_dir(place.path("gleitzeit.toml")).unwrap();
    let out = place.run(&["list"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("it is no file"), "{}", out.stderr);
}

/// A file names programs and paths: one that somebody else wrote, or could replace, is refused, and
/// the message says how to go on.
#[test]
fn a_project_file_that_others_can_write_is_refused() {
    let place = Place::new();
    let file = place.file("gleitzeit.toml", "[engine]\nseed = 1\n");
    fs::create_dir(place.path("below")).unwrap();
    let list = || {
        let mut command = place.command(&["list"]);
        command.current_dir(place.path("below"));
        answer(command)
    };
    let refused = |told: &str| {
        let (status, out, err) = list();
        assert_eq!((status, out.as_str()), (Some(2), ""), "{err}");
        for part in ["gleitzeit.toml", "is not used", "--config", told] {
            assert!(err.contains(part), "no `{part}` in {err}");
        }
    };
    assert_eq!(list().0, Some(0));
    mode(&place, "gleitzeit.toml", 0o666);
    refused("every user");
    mode(&place, "gleitzeit.toml", 0o644);
    mode(&place, ".", 0o777);
    refused("its directory");
    mode(&place, ".", 0o755);
    // Both ways out of the message.
    mode(&place, "gleitzeit.toml", 0o666);
    assert_eq!(place.run(&["list", "--config", &file]).status, 0);
    assert_eq!(place.run(&["list", "--config", "/dev/null"]).status, 0);
    mode(&place, "gleitzeit.toml", 0o644);
    assert_eq!(list().0, Some(0));
    // Only root may give a file away.
    if chown(place.path("gleitzeit.toml"), Some(4242), None).is_ok() {
        refused("another user (uid 4242");
        let real = place.path("real.toml");
        fs::rename(place.path("gleitzeit.toml"), &real).unwrap();
        symlink(&real, place.path("gleitzeit.toml")).unwrap();
        refused("another user (uid 4242");
        chown(&real, Some(nix::unistd::geteuid().as_raw()), None).unwrap();
        assert_eq!(list().0, Some(0));
        chown(place.path("."), Some(4242), None).unwrap();
        refused("its directory");
    }
}
