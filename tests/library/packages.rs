//! Which package knows what: the rule of ARCHITECTURE.md, held against the manifests and sources.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The packages that each member depends on at run time or at build time, on any system, by their
/// own names: a renamed dependency must not escape.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let shared = manifest(root())["workspace"]["dependencies"].clone();
    let name = |(key, dependency): (&String, &toml::Value)| {
        let own = dependency.get("package");
        let name = own.or_else(|| shared.get(key).and_then(|it| it.get("package")));
        name.map_or(key.as_str(), |name| name.as_str().unwrap()).to_owned()
    };
    let of = |folder: String| {
        let manifest = manifest(&root().join(&folder));
        let systems = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
        let tables = systems.filter_map(|(_, table)| table.as_table()).chain([&manifest]);
        let kinds = ["dependencies", "build-dependencies"];
        let listed = tables.flat_map(|table| kinds.map(|kind| table.get(kind)));
        let listed = listed.flatten().flat_map(|list| list.as_table().unwrap());
        (folder, listed.map(name).collect())
    };
    packages().into_iter().map(of).collect()
}

/// A library that everybody may use is soon used by everybody, and cannot be replaced again.
#[test]
fn a_library_is_known_only_where_it_belongs() {
    let dependencies = dependencies();
    let that_know = |name: &str| -> BTreeSet<String> {
        let known = dependencies.iter().filter(|(_, known)| known.contains(name));
        known.map(|(folder, _)| folder.clone()).collect()
    };
    for (name, folders) in [
        ("actix", &["actors"][..]),
        ("actix-web", &["server"]),
        ("actix-http", &["server"]),
        ("actix-server", &["server"]),
        ("axum", &[]),
        // Beside the store, only a loop that the store is measured by.
        ("sea-orm", &["loadgen", "storage"]),
        ("awc", &["providers"]),
        ("bollard", &["sandbox"]),
        ("libc", &["sandbox"]),
        ("clap", &["cli", "loadgen"]),
        ("indicatif", &["cli"]),
        ("config", &["."]),
    ] {
        let expected: BTreeSet<_> = folders.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(that_know(name), expected, "the packages that depend on `{name}`");
    }
    for name in ["tokio", "sea-orm", "actix-rt", "awc", "nix"] {
        assert!(!that_know(name).contains("domain"), "domain depends on `{name}`");
    }
    for name in ["gleitzeit-cli", "gleitzeit-loadgen", "gleitzeit-testkit"] {
        assert_eq!(that_know(name), BTreeSet::new(), "the packages that depend on `{name}`");
    }
}

/// A package that is not described is one whose place nobody has thought of.
#[test]
fn each_package_is_in_the_table_of_the_architecture() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in packages() {
        let name = manifest(&root().join(&folder))["package"]["name"].as_str().unwrap().to_owned();
        let folder = if folder == "." { "src" } else { &folder };
        let row = format!("| `{name}` | `{folder}/` |");
        assert!(page.contains(&row), "ARCHITECTURE.md has no row that begins with `{row}`");
    }
}

/// The lints deny `unsafe` everywhere; only the sandbox may lift them.
#[test]
fn unsafe_code_is_in_the_sandbox_alone() {
    let lints = &manifest(root())["workspace"]["lints"]["rust"];
    assert_eq!(lints["unsafe_code"].as_str(), Some("deny"));
    let mut found = BTreeSet::new();
    for folder in packages() {
        let lints = manifest(&root().join(&folder))["lints"]["workspace"].as_bool();
        assert_eq!(lints, Some(true), "{folder} has lints of its own");
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
