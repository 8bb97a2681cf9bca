//! The files that a call may name: those below the roots of the settings, and those stored with its
//! workflow.
//!
//! Providers ask before they read a file. A relative path is resolved in the directories that are
//! stored with the workflow, so that it means the same in every process that runs it; in a workflow
//! without any, below the roots.
//!
//! Invariant: a path that [`Reach::find`] returns has no links in it, is no guarded file, and is
//! below a root or one of the workflow's own files, as far as `place_roots` permits those.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gleitzeit_domain::file_access::FileAccess;

use crate::guarded::{Guarded, is_below};

/// The rules of the settings.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    roots: Vec<PathBuf>,
    workflow_file_roots: Vec<PathBuf>,
    guarded: Guarded,
}

/// Why a file is not given to a call.
#[derive(Debug)]
pub(super) enum Unreachable {
    /// The file does not exist in the directories that the call may read.
    #[cfg_attr(not(feature = "ollama"), allow(dead_code, reason = "Python names no cause"))]
    Missing(io::Error),
    /// It is somewhere else, or would be.
    Outside,
    /// It is a file that no task is given.
    Guarded,
}

impl Rules {
    /// Files below `roots`, and those of a workflow's own that are below `place_roots`; none that
    /// is `guarded`.
    pub(super) fn new(
        roots: &[PathBuf],
        workflow_file_roots: &[PathBuf],
        guarded: &[PathBuf],
    ) -> Self {
        Self {
            roots: roots.to_vec(),
            workflow_file_roots: workflow_file_roots.to_vec(),
            guarded: Guarded::new(guarded.to_vec()),
        }
    }

    /// The files that a call of a workflow with this file access may name.
    pub(super) fn reach<'r>(&'r self, file_access: Option<&'r FileAccess>) -> FileReach<'r> {
        FileReach { rules: self, file_access }
    }
}

/// The files that one call may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileReach<'r> {
    rules: &'r Rules,
    file_access: Option<&'r FileAccess>,
}

impl FileReach<'_> {
    /// The real path of a file that a parameter names.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub(super) fn find(&self, file: &str) -> Result<PathBuf, Unreachable> {
        let (mut outside, mut missing) = (false, None);
        for candidate in self.candidates(Path::new(file)) {
            match candidate.canonicalize() {
                Ok(real) if self.rules.guarded.is(&real).is_some() => {
                    return Err(Unreachable::Guarded);
                }
                Ok(real) if self.covers(&real) || self.is_own(&candidate, &real) => {
                    return Ok(real);
                }
                Ok(_) => outside = true,
                // Outside of the roots, even the existence of a file is not disclosed.
                Err(error) if self.may_hold(&candidate) => missing = Some(error),
                Err(_) => {}
            }
        }
        match missing {
            Some(error) if !outside => Err(Unreachable::Missing(error)),
            _ => Err(Unreachable::Outside),
        }
    }

    /// True for a path without links that is below a root.
    pub(super) fn covers(&self, real: &Path) -> bool {
        is_below(real, &self.roots())
    }

    /// True if no file may be read at all.
    #[cfg(feature = "ollama")]
    pub(super) fn reads_nothing(&self) -> bool {
        self.rules.roots.is_empty()
            && self.file_access.is_none_or(|file_access| file_access.files.is_empty())
    }

    /// The roots, for an error.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        let directories = self.directories();
        let relative = self.rules.roots.iter().filter(|root| root.is_relative());
        let moved = relative.flat_map(|root| directories.iter().map(move |it| it.join(root)));
        let mut roots: Vec<PathBuf> = moved.collect();
        roots.extend_from_slice(&self.rules.roots);
        roots
    }

    /// The files of the workflow that the code of a task may see: real files that are not guarded,
    /// below a root that the settings permit. The others are left out.
    #[cfg_attr(not(feature = "python"), allow(dead_code, reason = "Python alone mounts files"))]
    pub(super) fn readable<'p>(&self, files: &[&'p str]) -> Vec<&'p str> {
        self.rules.guarded.fit(files, &self.rules.workflow_file_roots)
    }

    fn candidates(&self, file: &Path) -> Vec<PathBuf> {
        if file.is_absolute() {
            return vec![file.to_owned()];
        }
        let mut candidates: Vec<PathBuf> =
            self.directories().into_iter().map(|it| it.join(file)).collect();
        let roots = &self.rules.roots;
        // A path in the working directory is another file for each process.
        let has_directories =
            self.file_access.is_some_and(|file_access| !file_access.directories.is_empty());
        candidates.extend(
            roots
                .iter()
                .filter(|root| !has_directories || root.is_absolute())
                .map(|it| it.join(file)),
        );
        if !has_directories {
            candidates.push(file.to_owned());
        }
        candidates
    }

    /// The directories of the workflow that the settings permit.
    fn directories(&self) -> Vec<PathBuf> {
        let directories = self
            .file_access
            .iter()
            .flat_map(|file_access| &file_access.directories)
            .map(PathBuf::from);
        let is_fit = |it: &PathBuf| {
            it.is_absolute() && it.canonicalize().is_ok_and(|real| self.permits(&real))
        };
        directories.filter(is_fit).collect()
    }

    /// True for a file that the workflow brought along, which the settings permit.
    fn is_own(&self, candidate: &Path, real: &Path) -> bool {
        let named = |file_access: &FileAccess| {
            candidate.to_str().is_some_and(|name| {
                // The list is sorted by its maker. In an unsorted list the search finds fewer
                // files, never more.
                let is_in = |files: &[String]| {
                    files.binary_search_by(|file| file.as_str().cmp(name)).is_ok()
                };
                is_in(&file_access.files) || is_in(&file_access.scripts)
            })
        };
        self.file_access.is_some_and(named) && self.permits(real)
    }

    fn permits(&self, real: &Path) -> bool {
        is_below(real, &self.rules.workflow_file_roots)
    }

    /// True when a path that does not exist would lie below a root.
    fn may_hold(&self, path: &Path) -> bool {
        let folder = path.ancestors().skip(1).find_map(|above| {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            fs::canonicalize(above).ok()
        });
        folder.is_some_and(|folder| self.covers(&folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_access(directories: &[&Path], files: &[&Path]) -> FileAccess {
        let texts = |paths: &[&Path]| paths.iter().map(|it| it.display().to_string()).collect();
        FileAccess { directories: texts(directories), files: texts(files), ..FileAccess::default() }
    }

    /// A relative path leads to the directory of its workflow, whatever the working directory is,
    /// and absolute roots of the settings hold for everyone.
    #[test]
    fn relative_paths_are_those_of_the_workflow() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        for name in ["one", "two", "srv"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        fs::write(at.join("two/s.py"), "").unwrap();
        fs::write(at.join("srv/t.py"), "").unwrap();
        let rules = Rules::new(&[".".into(), at.join("srv")], &["/".into()], &[]);
        let file_access = file_access(&[&at.join("one"), &at.join("two")], &[]);
        let reach = rules.reach(Some(&file_access));
        assert_eq!(reach.find("s.py").unwrap(), at.join("two/s.py"));
        assert_eq!(reach.find("t.py").unwrap(), at.join("srv/t.py"));
        assert!(matches!(reach.find("Cargo.toml"), Err(Unreachable::Missing(_))));
        assert!(matches!(reach.find("../srv/../../x"), Err(Unreachable::Outside)));
    }

    /// What a submitter stored counts for nothing outside of what the settings permit, and opens
    /// neither the database nor the directory of a file.
    #[test]
    fn stored_file_access_opens_only_what_the_settings_permit() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        for name in ["open", "closed"] {
            fs::create_dir(at.join(name)).unwrap();
            for file in ["a.txt", "b.txt", "w.db"] {
                fs::write(at.join(name).join(file), "x").unwrap();
            }
        }
        let (a, db) = (at.join("open/a.txt"), at.join("open/w.db"));
        let secret = at.join("closed/a.txt");
        let rules = Rules::new(&[], &[at.join("open")], std::slice::from_ref(&db));
        let file_access = file_access(&[&at.join("closed")], &[&secret, &a, &db]);
        let reach = rules.reach(Some(&file_access));
        assert_eq!(reach.find(a.to_str().unwrap()).unwrap(), a);
        assert!(matches!(reach.find(secret.to_str().unwrap()), Err(Unreachable::Outside)));
        assert!(matches!(reach.find("b.txt"), Err(Unreachable::Outside)));
        assert!(matches!(reach.find(db.to_str().unwrap()), Err(Unreachable::Guarded)));
        let beside = at.join("open/b.txt");
        assert!(matches!(reach.find(beside.to_str().unwrap()), Err(Unreachable::Outside)));
        let files: Vec<&str> = file_access.files.iter().map(String::as_str).collect();
        let open = at.join("open");
        let readable = reach.readable(&[&files[..], &[open.to_str().unwrap()]].concat());
        assert_eq!(readable, [a.to_str().unwrap()]);
    }
}
