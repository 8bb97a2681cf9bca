//! Relative paths of a project's file begin at its directory, wherever the program is run.
//!
//! `security.file_roots` is no such path: a relative root is a directory of the workflow.

use std::path::Path;

use serde_json::Value;

/// The keys whose values are paths, or lists of paths.
const PATHS: [&[&str]; 7] = [
    &["storage", "url"],
    &["storage", "ca_file"],
    &["protocols", "directory"],
    &["security", "root"],
    &["security", "launcher"],
    &["security", "read_only_paths"],
    &["security", "place_roots"],
];

/// The same in the `config` of a provider.
const PATHS_OF_PROVIDERS: [&str; 10] = [
    "ca_file",
    "cert_file",
    "key_file",
    "cgroup",
    "interpreter",
    "launcher",
    "read_only_paths",
    "root",
    "shown",
    "virtual_env",
];

/// Joins each relative path to the directory that `base` names for its key, if any.
pub(super) fn rebase<'b>(tree: &mut Value, base: impl Fn(&[String]) -> Option<&'b Path>) {
    let mut keys: Vec<Vec<String>> =
        PATHS.iter().map(|path| path.iter().map(|&step| step.to_owned()).collect()).collect();
    let providers = tree.get("providers").and_then(Value::as_object);
    for id in providers.into_iter().flat_map(|providers| providers.keys()) {
        for key in PATHS_OF_PROVIDERS {
            keys.push(["providers", id, "config", key].map(str::to_owned).to_vec());
        }
    }
    for key in keys {
        let Some(directory) = base(&key) else { continue };
        let value = key.iter().try_fold(&mut *tree, |tree, step| tree.get_mut(step.as_str()));
        match value {
            Some(Value::Array(items)) => {
                for item in items {
                    join(item, &key, directory);
                }
            }
            Some(value) => join(value, &key, directory),
            None => {}
        }
    }
}

fn join(value: &mut Value, key: &[String], directory: &Path) {
    let Value::String(text) = value else { return };
    let (scheme, path) = match key.last().map(String::as_str) {
        // Other stores are no files.
        Some("url") => match text.strip_prefix("sqlite:") {
            Some(path) => ("sqlite:", path),
            None => return,
        },
        // A bare name is looked up in `PATH`.
        Some("interpreter" | "launcher") if !text.contains('/') => return,
        _ => ("", text.as_str()),
    };
    if path.is_empty() || path.starts_with(['/', '~', ':']) {
        return;
    }
    // A path that is not UTF-8 cannot stand in a settings tree.
    if let Some(whole) = directory.join(path).to_str() {
        *text = format!("{scheme}{whole}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A text that is no relative path stays as it is written.
    #[test]
    fn relative_paths_begin_at_the_directory() {
        let mut tree = json!({
            "storage": {"url": "sqlite:data/w.db", "ca_file": "/etc/ca.pem"},
            "security": {"read_only_paths": ["lib", "/usr/share"], "root": "root"},
            "providers": {"p": {"config": {"interpreter": "python3", "virtual_env": ".venv"}}},
        });
        rebase(&mut tree, |path| (path[1] != "root").then_some(Path::new("/project")));
        assert_eq!(
            tree,
            json!({
                "storage": {"url": "sqlite:/project/data/w.db", "ca_file": "/etc/ca.pem"},
                "security": {"read_only_paths": ["/project/lib", "/usr/share"], "root": "root"},
                "providers": {
                    "p": {"config": {"interpreter": "python3", "virtual_env": "/project/.venv"}},
                },
            })
        );
        for url in ["memory", "postgres://me@host/db", "sqlite:/abs.db", "sqlite::memory:"] {
            let mut tree = json!({"storage": {"url": url}});
            rebase(&mut tree, |_| Some(Path::new("/project")));
            assert_eq!(tree["storage"]["url"], url);
        }
    }
}
