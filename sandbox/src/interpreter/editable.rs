//! The importable files of a project that is installed in editable form.
//!
//! The `.pth` file of such an install often names the whole project, with `.env` and `.git` beside
//! its packages. Only importable files are exposed.
//!
//! Invariant: no file is exposed whose name begins with a dot, or that is outside of the named
//! directory.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// No more places than this of one project; each is a mount in the jail.
const PATHS_MAX: usize = 512;
/// The bound on the entries that are read; a larger project is exposed as far as it was read.
const ENTRIES_MAX: usize = 50_000;
/// Packages are not nested deeper than this.
const DEPTH_MAX: usize = 16;

/// The files to expose of `named`: itself if it is a module, or a package without hidden files;
/// else the modules and packages in it. The flag is true if the list was cut.
pub(super) fn importable(named: &Path) -> (Vec<PathBuf>, bool) {
    let mut walk = ProjectWalk { paths: Vec::new(), entries: 0, is_cut: false };
    if named.is_dir() {
        walk.directory(named, 0);
    } else if is_module(named) {
        walk.paths.push(named.to_owned());
    }
    (walk.paths, walk.is_cut)
}

struct ProjectWalk {
    paths: Vec<PathBuf>,
    entries: usize,
    /// True when something was left out because a bound was reached.
    is_cut: bool,
}

impl ProjectWalk {
    /// Shows `directory` whole if it is a package without hidden files, else what is importable in
    /// it.
    fn directory(&mut self, directory: &Path, depth: usize) {
        if depth > DEPTH_MAX || self.paths.len() >= PATHS_MAX {
            self.is_cut = true;
            return;
        }
        if directory.join("__init__.py").is_file() && self.is_clean(directory, depth) {
            return self.paths.push(directory.to_owned());
        }
        let in_package = depth > 0;
        for entry in self.listed(directory) {
            if entry.is_dir() {
                if is_package_name(&entry) && self.has_module(&entry, depth + 1) {
                    self.directory(&entry, depth + 1);
                }
            } else if is_module(&entry) || (in_package && entry.is_file()) {
                self.paths.push(entry);
            }
        }
    }

    /// True when nothing below has a hidden name, nor leads elsewhere.
    fn is_clean(&mut self, directory: &Path, depth: usize) -> bool {
        if depth > DEPTH_MAX {
            return false;
        }
        let Ok(entries) = fs::read_dir(directory) else { return false };
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX || is_hidden(&entry.file_name()) {
                return false;
            }
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && !self.is_clean(&entry.path(), depth + 1) {
                return false;
            }
        }
        true
    }

    /// True when a module is in it, at any depth.
    fn has_module(&mut self, directory: &Path, depth: usize) -> bool {
        if depth > DEPTH_MAX || directory.join("pyvenv.cfg").exists() {
            return false;
        }
        let entries = self.listed(directory);
        entries.iter().any(|entry| is_module(entry) && entry.is_file())
            || entries.iter().any(|entry| {
                entry.is_dir() && is_package_name(entry) && self.has_module(entry, depth + 1)
            })
    }

    /// The entries of a directory without hidden names and links, sorted by name.
    fn listed(&mut self, directory: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                self.is_cut = true;
                break;
            }
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if !is_hidden(&entry.file_name()) && !is_link {
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_module(path: &Path) -> bool {
    matches!(path.extension().and_then(OsStr::to_str), Some("py" | "pyc" | "so"))
}

/// A directory that `import` can name, or the metadata of a distribution.
fn is_package_name(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    let is_identifier = !name.starts_with(|first: char| first.is_numeric())
        && name.chars().all(|c| c == '_' || c.is_alphanumeric());
    is_identifier && name != "__pycache__" && name != "node_modules"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        dir
    }

    fn importable_names(dir: &tempfile::TempDir) -> Vec<String> {
        let (paths, is_cut) = importable(dir.path());
        assert!(!is_cut);
        let relative = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().to_owned();
        paths.iter().map(|path| relative(path).display().to_string()).collect()
    }

    /// A project's secrets and history stay out, and so does what cannot be imported.
    #[test]
    fn only_importable_files_are_listed() {
        let dir = project(&[
            ".env",
            ".git/config",
            "README.md",
            "config/prod.toml",
            "lib/__init__.py",
            "lib/deep/data.json",
            "space/inner/a.py",
            "single.py",
            "native.cpython-311-x86_64-linux-gnu.so",
            "env/pyvenv.cfg",
            "env/lib/x.py",
            "not-a-name/x.py",
        ]);
        assert_eq!(
            importable_names(&dir),
            ["lib", "native.cpython-311-x86_64-linux-gnu.so", "single.py", "space/inner/a.py"]
        );
    }

    /// A package with a hidden file is shown without it.
    #[test]
    fn a_hidden_file_in_a_package_stays_out() {
        let dir = project(&["app/__init__.py", "app/.env", "app/sub/__init__.py", "app/sub/t.txt"]);
        assert_eq!(importable_names(&dir), ["app/__init__.py", "app/sub"]);
    }

    /// A link may lead anywhere, and is not followed.
    #[test]
    fn links_are_not_followed() {
        let dir = project(&["lib/__init__.py"]);
        let secret = project(&["secret.py"]);
        std::os::unix::fs::symlink(secret.path(), dir.path().join("out")).unwrap();
        assert_eq!(importable_names(&dir), ["lib"]);
    }
}
