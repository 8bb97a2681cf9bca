//! The files of the machine that a jail's root contains: directories and files bound read-only, and
//! the links that lead to them.
//!
//! Asked once per sandbox; the launcher builds what is laid out here. Links are kept as links, so
//! that every path of the machine that was added means in the jail what it means outside.
//!
//! Invariant: the root contains only added paths, and the targets of their links.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A chain of more links is a circle.
const LINKS_MAX: usize = 40;
/// Top directories that the jail makes itself.
const OWN: [&str; 4] = ["task", "dev", "proc", "sys"];

/// A directory or file of the machine, and its path in the jail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) is_dir: bool,
    /// True for what the settings name: the task may read it as if it were its own.
    pub(crate) is_read_only: bool,
}

/// The root of a jail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct JailLayout {
    /// Links, by their path.
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    /// Bound directories and files; none contains another.
    pub(crate) binds: Vec<Bind>,
    /// Directories of the jail that a task may list, although only some of what is in them is bound.
    #[serde(default)]
    pub(crate) listed: Vec<PathBuf>,
}

impl JailLayout {
    /// Lays out existing paths of this machine: `needed` ones, and `read_only` ones of the
    /// operator. Missing paths are left out.
    ///
    /// # Errors
    /// When a path leads to the root itself, which would show everything.
    pub(crate) fn of_paths<N: AsRef<Path>, S: AsRef<Path>>(
        needed: impl IntoIterator<Item = N>,
        read_only: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let mut links = BTreeMap::new();
        let mut real = BTreeMap::new();
        for path in read_only {
            if let Some(found) = follow(path.as_ref(), &mut links)? {
                real.insert(found, true);
            }
        }
        for path in needed {
            if let Some(found) = follow(path.as_ref(), &mut links)? {
                real.entry(found).or_insert(false);
            }
        }
        // In the order of paths a directory comes before what is in it.
        let mut binds: Vec<Bind> = Vec::new();
        for (path, is_read_only) in real {
            if binds.iter().any(|bind| path.starts_with(&bind.target)) {
                continue;
            }
            let is_dir = fs::metadata(&path)?.is_dir();
            binds.push(Bind { source: path.clone(), target: path, is_dir, is_read_only });
        }
        links.retain(|at, _| !binds.iter().any(|bind| at.starts_with(&bind.target)));
        Ok(Self { links, binds, listed: Vec::new() })
    }

    /// Lays out the root file system that is at `root`, but for what a jail has of its own.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn of_root(root: &Path) -> io::Result<Self> {
        let mut layout = Self::default();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            if OWN.iter().any(|own| *own == name) {
                continue;
            }
            let target = Path::new("/").join(&name);
            if entry.file_type()?.is_symlink() {
                layout.links.insert(target, fs::read_link(entry.path())?);
            } else {
                let is_dir = entry.file_type()?.is_dir();
                layout.binds.push(Bind {
                    source: entry.path(),
                    target,
                    is_dir,
                    is_read_only: false,
                });
            }
        }
        layout.binds.sort();
        Ok(layout)
    }
}

/// Resolves `path` and records every link on the way; `None` if it leads nowhere.
fn follow(path: &Path, links: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<Option<PathBuf>> {
    let mut ahead: VecDeque<OsString> = VecDeque::new();
    prepend(&mut ahead, path);
    let mut at = PathBuf::from("/");
    let mut followed = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match fs::symlink_metadata(&next) {
            Err(_) => return Ok(None),
            Ok(found) if found.is_symlink() => {
                followed += 1;
                if followed > LINKS_MAX {
                    return Ok(None);
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                prepend(&mut ahead, &target);
                links.insert(next, target);
            }
            Ok(_) => at = next,
        }
    }
    if at == Path::new("/") {
        let message = format!("`{}` is the root: all of the machine", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(Some(at))
}

fn prepend(ahead: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn lay_out<P: AsRef<Path>>(needed: impl IntoIterator<Item = P>) -> io::Result<JailLayout> {
        JailLayout::of_paths(needed, ["/no/such/place"])
    }

    fn targets(layout: &JailLayout) -> Vec<&Path> {
        layout.binds.iter().map(|bind| &*bind.target).collect()
    }

    /// A path through links is shown with its links, and what it leads to is bound once.
    #[test]
    fn links_are_kept_and_their_ends_are_bound() {
        let dir = tempfile::tempdir().unwrap();
        let at = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(at.join("usr/lib/deep")).unwrap();
        fs::write(at.join("usr/lib/deep/loader"), "x").unwrap();
        symlink("usr/lib", at.join("lib")).unwrap();
        symlink(at.join("lib/deep/loader"), at.join("usr/start")).unwrap();
        let layout = lay_out([at.join("usr/start")]).unwrap();
        assert_eq!(targets(&layout), [at.join("usr/lib/deep/loader")]);
        assert!(!layout.binds[0].is_dir);
        let links: Vec<_> = layout.links.into_iter().collect();
        assert_eq!(
            links,
            [
                (at.join("lib"), PathBuf::from("usr/lib")),
                (at.join("usr/start"), at.join("lib/deep/loader")),
            ]
        );
    }

    /// What is in a directory that is shown is not bound again, and links in it are its own.
    #[test]
    fn covered_paths_are_not_bound_twice() {
        let dir = tempfile::tempdir().unwrap();
        let at = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(at.join("a/b")).unwrap();
        symlink("b", at.join("a/link")).unwrap();
        let paths = [at.join("a/link"), at.join("a"), at.join("a/b"), at.join("missing")];
        let layout = lay_out(paths).unwrap();
        assert_eq!(targets(&layout), [at.join("a")]);
        assert!(layout.links.is_empty(), "{layout:?}");
    }

    /// Circles lead nowhere, and the root is never shown whole.
    #[test]
    fn circles_and_the_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = fs::canonicalize(dir.path()).unwrap();
        symlink("two", at.join("one")).unwrap();
        symlink("one", at.join("two")).unwrap();
        symlink("/", at.join("all")).unwrap();
        assert_eq!(lay_out([at.join("one")]).unwrap().binds, []);
        assert!(lay_out([at.join("all")]).is_err());
        assert!(lay_out(["/"]).is_err());
    }

    /// An operator's root is shown as it is, without what would get in the way of the jail's own.
    #[test]
    fn a_root_of_the_operators_is_bound_entry_by_entry() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["usr", "proc", "dev", "task"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        let layout = JailLayout::of_root(dir.path()).unwrap();
        assert_eq!(targets(&layout), [Path::new("/usr")]);
        assert_eq!(layout.links[Path::new("/lib")], Path::new("usr/lib"));
    }
}
