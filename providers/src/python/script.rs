//! Reads scripts, below the roots of the settings only, and the modules beside them.
//!
//! Invariant: what is read is a file whose real path, every link followed, is one that the call may
//! name. It is opened once, by that path, on which no link is followed any more, and read from that
//! descriptor: a name that is swapped meanwhile leads nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    file_access::FileAccess,
};
use gleitzeit_sandbox::Source;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlink},
    sys::stat::Mode,
};

use crate::reach::{FileReach, Rules, Unreachable};

/// Longer scripts are refused, and so are modules that are longer together.
const SCRIPT_MAX_BYTES: u64 = 4 << 20;
/// More modules beside a script are refused.
const MODULES_MAX: usize = 512;
/// Packages are not looked into deeper than this.
const PACKAGE_DEPTH_MAX: usize = 8;

/// Finds and reads scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    rules: Rules,
}

impl Scripts {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules }
    }

    /// The files that a call of a workflow with this file access may name.
    pub(super) fn reach<'r>(&'r self, file_access: Option<&'r FileAccess>) -> FileReach<'r> {
        self.rules.reach(file_access)
    }

    /// Reads `file`: an absolute path, or one relative to a directory of its workflow or a root, the
    /// first that has it.
    ///
    /// # Errors
    /// [`ErrorCode::TaskValidationFailed`] when it is not below a root, and
    /// [`ErrorCode::TaskParameterError`] when it is not there or cannot be read.
    pub(super) async fn read(
        &self,
        file_access: Option<&Arc<FileAccess>>,
        file: &str,
    ) -> Result<Source, TaskError> {
        let (rules, file_access, file) =
            (self.rules.clone(), file_access.cloned(), file.to_owned());
        let read = move || read_now(rules.reach(file_access.as_deref()), &file);
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
            Err(TaskError::new(ErrorCode::InternalError, format!("reading a script: {error}")))
        })
    }
}

fn read_now(reach: FileReach<'_>, file: &str) -> Result<Source, TaskError> {
    let path = reach.find(file).map_err(|why| not_found(reach, file, &why))?;
    let unreadable = |why: &dyn std::fmt::Display| {
        let message = format!("cannot read script `{}`: {why}", path.display());
        TaskError::new(ErrorCode::TaskParameterError, message)
    };
    let bytes = read_real(&path, SCRIPT_MAX_BYTES).map_err(|error| unreadable(&error))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let modules = Modules::beside(reach, directory, &bytes)
        .map_err(|error| unreadable(&format!("modules beside it: {error}")))?;
    Ok(Source { bytes, filename: file.to_owned(), is_file: true, modules })
}

fn not_found(reach: FileReach<'_>, file: &str, why: &Unreachable) -> TaskError {
    let roots = match &reach.roots()[..] {
        [] => "none are set".to_owned(),
        roots => roots.iter().map(|root| display_path(root)).collect::<Vec<_>>().join(", "),
    };
    let (code, what) = match why {
        Unreachable::Missing(_) => (ErrorCode::TaskParameterError, "is not there"),
        Unreachable::Outside => {
            (ErrorCode::TaskValidationFailed, "is not below a directory that scripts may be in")
        }
        Unreachable::Guarded => {
            (ErrorCode::TaskValidationFailed, "is a file of the service, which no task is given")
        }
    };
    TaskError::new(code, format!("script `{file}` {what}; file_roots: {roots}"))
}

fn display_path(root: &Path) -> String {
    format!("`{}`", root.display())
}

/// Reads a regular file of at most `most` bytes at a real path.
fn read_real(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_real(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Opens a real path, without following a link that was put into it since. Does not block: to open a
/// pipe would wait for a writer.
fn open_real(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let below = path.strip_prefix("/").unwrap_or(path);
    match openat2(&root, below, OpenHow::new().flags(flags).resolve(resolve)) {
        // Before Linux 5.6, and in containers that know no newer calls.
        Err(Errno::ENOSYS | Errno::EPERM) => open_and_check(path, flags),
        opened => Ok(File::from(opened?)),
    }
}

/// Opens by name and then asks the kernel what was opened: what is not at `path` is let go of unread.
fn open_and_check(path: &Path, flags: OFlag) -> io::Result<File> {
    let file = File::from(open(path, flags | OFlag::O_NOFOLLOW, Mode::empty())?);
    let opened = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str())?;
    if Path::new(&opened) == path {
        Ok(file)
    } else {
        Err(io::Error::other("its path has just changed"))
    }
}

/// Modules beside a script: those that it imports by names that stand there, and what these import.
struct Modules<'a> {
    reach: FileReach<'a>,
    /// That of the script.
    directory: &'a Path,
    read: BTreeMap<String, Vec<u8>>,
    left: u64,
}

impl<'a> Modules<'a> {
    fn beside(
        reach: FileReach<'a>,
        directory: &'a Path,
        script: &[u8],
    ) -> io::Result<BTreeMap<String, Vec<u8>>> {
        let mut modules =
            Modules { reach, directory, read: BTreeMap::new(), left: SCRIPT_MAX_BYTES };
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<String> = imported(script);
        while let Some(name) = ahead.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let before: BTreeSet<String> = modules.read.keys().cloned().collect();
            // A package comes before a module of the same name, as in Python.
            if !modules.package(&name, 0)? {
                modules.module(&format!("{name}.py"))?;
            }
            for (file, text) in &modules.read {
                if !before.contains(file) {
                    ahead.extend(imported(text));
                }
            }
        }
        Ok(modules.read)
    }

    /// The real path of `file` beside the script, if the call may name it and no link leads to it.
    fn find(&self, file: &str) -> Option<PathBuf> {
        let path = self.directory.join(file);
        self.reach.find(path.to_str()?).ok().filter(|real| *real == path)
    }

    /// Reads one module; a missing one belongs to a package.
    fn module(&mut self, file: &str) -> io::Result<()> {
        let Some(path) = self.find(file) else { return Ok(()) };
        let text = read_real(&path, self.left);
        let text = text.map_err(|error| io::Error::other(format!("`{file}`: {error}")))?;
        self.left -= text.len() as u64;
        self.read.insert(file.to_owned(), text);
        if self.read.len() > MODULES_MAX {
            return Err(io::Error::other(format!("more than {MODULES_MAX}")));
        }
        Ok(())
    }

    /// Reads all modules of a package; false if there is no such directory, or if it is empty.
    fn package(&mut self, name: &str, depth: usize) -> io::Result<bool> {
        let Some(path) = self.find(name).filter(|path| path.is_dir()) else { return Ok(false) };
        let directory = open_real(&path)?;
        let before = self.read.len();
        // By its descriptor, for its name may lead elsewhere by now.
        let listed = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let names: Vec<String> =
            listed.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for entry in names {
            let path = format!("{name}/{entry}");
            if entry.strip_suffix(".py").is_some_and(is_identifier) {
                self.module(&path)?;
            } else if is_identifier(&entry) && entry != "__pycache__" && depth < PACKAGE_DEPTH_MAX {
                self.package(&path, depth + 1)?;
            }
        }
        Ok(self.read.len() > before)
    }
}

/// The top names of a text's imports, as far as single lines show them. A name without a module
/// beside the script costs one lookup; a missed name fails at the import.
fn imported(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut names = Vec::new();
    for statement in text.split(['\n', '\r', ';']) {
        let statement = statement.trim_start();
        let rest = if let Some(rest) = statement.strip_prefix("import ") {
            rest
        } else if let Some(rest) = statement.strip_prefix("from ") {
            rest.split(" import").next().unwrap_or_default()
        } else {
            continue;
        };
        for module in rest.split(',') {
            let first = module.trim().split(['.', ' ', '\t', '#']).next().unwrap_or_default();
            if is_identifier(first) {
                names.push(first.to_owned());
            }
        }
    }
    names
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_numeric())
        && name.chars().all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::*;

    async fn read(roots: &[PathBuf], file: &str) -> Result<String, TaskError> {
        let source = Scripts::new(Rules::new(roots, &[], &[])).read(None, file).await?;
        Ok(String::from_utf8(source.bytes).unwrap())
    }

    /// Relative, absolute, through a link that stays inside: all below a root, all read.
    #[tokio::test]
    async fn scripts_below_a_root_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a.py"), "1").unwrap();
        symlink(root.join("sub/a.py"), root.join("link.py")).unwrap();
        let absolute = root.join("sub/a.py");
        let roots = [dir.path().join("missing"), root];
        for file in ["sub/a.py", "link.py", "sub/../sub/a.py", absolute.to_str().unwrap()] {
            assert_eq!(read(&roots, file).await.as_deref(), Ok("1"), "{file}");
        }
    }

    /// No way out: not up, not by an absolute path, not through a link.
    #[tokio::test]
    async fn scripts_outside_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(dir.path().join("secret.py"), "1").unwrap();
        symlink(dir.path().join("secret.py"), root.join("link.py")).unwrap();
        symlink(dir.path(), root.join("up")).unwrap();
        let absolute = dir.path().join("secret.py");
        for file in ["../secret.py", "link.py", "up/secret.py", absolute.to_str().unwrap()] {
            let error = read(std::slice::from_ref(&root), file).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::TaskValidationFailed, "{file}: {error}");
            assert!(error.message.contains(file), "{error}");
            assert!(error.message.contains(root.to_str().unwrap()), "{error}");
        }
        let error = read(std::slice::from_ref(&root), "missing.py").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::TaskParameterError);
        assert!(error.message.contains("`missing.py` is not there"), "{error}");
        let error = read(&[root], ".").await.unwrap_err();
        assert!(error.message.contains("not a regular file"), "{error}");
        assert!(read(&[], "x.py").await.unwrap_err().message.contains("none are set"));
    }

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What a script imports from beside it comes with it, packages whole; what it does not import,
    /// and what is no module, stays.
    #[tokio::test]
    async fn modules_beside_a_script_are_read_with_it() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        write(
            at,
            "p/main.py",
            "import os, helper\nif 1:\n    from pkg.sub import x; import json\n",
        );
        write(at, "p/helper.py", "import second");
        write(at, "p/second.py", "import helper");
        write(at, "p/unused.py", "");
        write(at, "p/pkg/__init__.py", "");
        write(at, "p/pkg/sub/__init__.py", "x = 1");
        write(at, "p/pkg/.env", "secret");
        write(at, "p/pkg/data.txt", "");
        write(at, "above.py", "");
        let scripts = Scripts::new(Rules::new(&[at.to_owned()], &[], &[]));
        let source = scripts.read(None, "p/main.py").await.unwrap();
        let names: Vec<_> = source.modules.keys().map(String::as_str).collect();
        assert_eq!(names, ["helper.py", "pkg/__init__.py", "pkg/sub/__init__.py", "second.py"]);
    }

    /// A module beside a script is no way out of the root either.
    #[tokio::test]
    async fn a_module_that_is_a_link_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        write(&root, "main.py", "import secret, up");
        write(dir.path(), "secret.py", "1");
        symlink(dir.path().join("secret.py"), root.join("secret.py")).unwrap();
        symlink(dir.path(), root.join("up")).unwrap();
        let source =
            Scripts::new(Rules::new(&[root], &[], &[])).read(None, "main.py").await.unwrap();
        assert!(source.modules.is_empty(), "{:?}", source.modules.keys());
    }

    /// A directory on the way that is swapped for a link after it was looked at leads nowhere.
    #[test]
    fn a_path_that_changes_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        write(&root, "a/s.py", "1");
        write(dir.path(), "outside/s.py", "secret");
        let rules = Rules::new(std::slice::from_ref(&root), &[], &[]);
        let path = rules.reach(None).find("a/s.py").unwrap();
        assert!(open_real(&path).is_ok());
        fs::rename(root.join("a"), root.join("before")).unwrap();
        symlink(dir.path().join("outside"), root.join("a")).unwrap();
        assert!(open_real(&path).is_err());
        assert!(open_and_check(&path, OFlag::O_RDONLY).is_err());
    }
}
