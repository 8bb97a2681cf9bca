//! Files that no task is given: the database with the files beside it, and the settings.
//!
//! Asked when settings are checked, when a batch looks for its files, and by providers before they
//! read or show a file. A task that reads the database reads every workflow; one that only locks it
//! keeps outcomes from being stored.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
};

/// Suffixes of the files that SQLite and the leases keep beside a database `NAME`.
const BESIDE: [&str; 4] = ["-wal", "-shm", "-journal", "-leases"];

/// Files that no task is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guarded(Vec<PathBuf>);

impl Guarded {
    /// These files, by absolute path.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self(files)
    }

    /// A database file with those beside it, and the files that settings were read from.
    pub fn of(database: Option<&Path>, settings: &[PathBuf]) -> Self {
        let mut files = Vec::new();
        if let Some(database) = database.and_then(real) {
            let beside = BESIDE.map(|suffix| {
                let mut name = database.clone().into_os_string();
                name.push(suffix);
                PathBuf::from(name)
            });
            files.push(database);
            files.extend(beside);
        }
        files.extend(settings.iter().filter_map(|file| real(file)));
        Self(files)
    }

    /// The files, by absolute path.
    pub fn files(&self) -> &[PathBuf] {
        &self.0
    }

    /// The guarded file that `path` leads to, under whatever name: through symbolic links or by
    /// another hard link.
    pub fn is(&self, path: &Path) -> Option<&Path> {
        if self.0.is_empty() {
            return None;
        }
        let found = real(path)?;
        let inode = fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
        let is_same = |guarded: &&PathBuf| {
            **guarded == found
                || inode.is_some()
                    && fs::metadata(guarded).ok().map(|it| (it.dev(), it.ino())) == inode
        };
        self.0.iter().find(is_same).map(PathBuf::as_path)
    }

    /// The files that a workflow may use: real files by absolute path, below one of `roots`, and
    /// not guarded. The others are left out.
    pub fn fit<'f>(&self, files: &[&'f str], roots: &[PathBuf]) -> Vec<&'f str> {
        let is_fit = |file: &&&str| {
            let path = Path::new(**file);
            path.is_absolute()
                && path.canonicalize().is_ok_and(|real| {
                    is_below(&real, roots) && real.is_file() && self.is(&real).is_none()
                })
        };
        files.iter().filter(is_fit).copied().collect()
    }

    /// The guarded file that is readable through `path`: `path` itself, or a file below it.
    pub fn seen_through(&self, path: &Path) -> Option<&Path> {
        let found = real(path)?;
        let below = self.0.iter().find(|guarded| guarded.starts_with(&found));
        below.map(PathBuf::as_path).or_else(|| self.is(path))
    }
}

/// True for a file below one of `roots`, links followed; a root that is not there has none.
pub fn is_below(real: &Path, roots: &[PathBuf]) -> bool {
    roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| real.starts_with(root))
}

/// The absolute path without links. The file need not be there yet, and neither need its folders:
/// a guarded file may be made later.
fn real(path: &Path) -> Option<PathBuf> {
    let path = absolute(path).ok()?;
    for above in path.ancestors() {
        if let Ok(found) = above.canonicalize() {
            let rest = path.strip_prefix(above).ok()?;
            return Some(if rest.as_os_str().is_empty() { found } else { found.join(rest) });
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A guarded file is found under each of its names, also before it is made.
    #[test]
    fn a_guarded_file_is_known_by_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        let db = at.join("w.db");
        fs::write(&db, "x").unwrap();
        fs::write(at.join("other.txt"), "x").unwrap();
        symlink(&db, at.join("link.txt")).unwrap();
        fs::hard_link(&db, at.join("hard.txt")).unwrap();
        symlink(&at, at.join("again")).unwrap();
        let guarded = Guarded::of(Some(&db), &[at.join("settings.toml")]);
        for name in [
            "w.db",
            "w.db-wal",
            "w.db-leases",
            "link.txt",
            "hard.txt",
            "again/w.db",
            "settings.toml",
        ] {
            assert!(guarded.is(&at.join(name)).is_some(), "{name}");
        }
        assert_eq!(guarded.is(&at.join("other.txt")), None);
        assert!(guarded.seen_through(&at).is_some());
        assert!(guarded.seen_through(&at.join("again")).is_some());
        assert_eq!(guarded.seen_through(&at.join("other.txt")), None);
    }
}
