//! Which package knows what: the rule of ARCHITECTURE.md, held against the manifests and sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(folder: &Path) -> toml::Table {
    fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The folders of all packages of the workspace.
fn packages() -> Vec<String> {
    let members = manifest(root())["workspace"]["members"].clone();
    members.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// The folders of the packages that depend on `name`, tests and benchmarks left out.
fn that_know(name: &str) -> BTreeSet<String> {
    let knows = |folder: &String| {
        let manifest = manifest(&root().join(folder));
        let has = |table: &toml::Table| {
            table.get("dependencies").is_some_and(|it| it.as_table().unwrap().contains_key(name))
        };
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        has(&manifest)
            || targets.is_some_and(|it| it.values().any(|target| has(target.as_table().unwrap())))
    };
    packages().into_iter().filter(knows).collect()
}

/// A library that everybody may use is soon used by everybody, and cannot be replaced again.
#[test]
fn a_library_is_known_only_where_it_belongs() {
    for (name, folders) in [
        ("actix", &["actors"][..]),
        ("sea-orm", &["storage"]),
        ("sea-orm-migration", &["migrations"]),
        ("awc", &["providers"]),
        ("bollard", &["sandbox"]),
        ("libc", &["sandbox"]),
        ("clap", &["cli"]),
        ("indicatif", &["cli"]),
        ("config", &["."]),
    ] {
        let expected: BTreeSet<_> = folders.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(that_know(name), expected, "the packages that depend on `{name}`");
    }
    for name in ["tokio", "sea-orm", "actix-rt", "awc", "nix"] {
        assert!(!that_know(name).contains("domain"), "domain depends on `{name}`");
    }
}

/// The lints deny `unsafe` everywhere; only the sandbox may lift them.
#[test]
fn unsafe_code_is_in_the_sandbox_alone() {
    let mut found = BTreeSet::new();
    for folder in packages() {
        for file in sources(&root().join(&folder).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            if ["allow(unsafe_code", "expect(unsafe_code"].iter().any(|it| text.contains(it)) {
                found.insert(folder.clone());
            }
        }
    }
    assert_eq!(found, BTreeSet::from(["sandbox".to_owned()]));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(|entry| entry.unwrap().into_path());
    files.filter(|file| file.extension().is_some_and(|it| it == "rs")).collect()
}
