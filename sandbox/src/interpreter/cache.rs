//! Keeps what an interpreter answered, so that the next start need not ask it: a start of Python
//! takes longer than most tasks.
//!
//! One file per interpreter in `$XDG_CACHE_HOME/gleitzeit`, or `~/.cache/gleitzeit`. It begins with
//! a line of JSON: what was asked, and the state of every file that the answer depends on. The answer
//! follows as it came.
//!
//! Invariants: an answer is used only if none of the files that it depends on has changed since. A
//! file that another user could have written is not read. On any error of the cache, the
//! interpreter is asked instead.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{HARNESS, PROBE};

/// An answer is a few hundred KiB.
const FILE_MAX_BYTES: u64 = 8 << 20;
/// Variables that a shim such as pyenv's chooses the interpreter by, besides `PATH` and `HOME`.
const SHIM_VARIABLES: [&str; 5] = ["PYENV_", "ASDF_", "MISE_", "RTX_", "XDG_"];
/// Files by which a shim chooses for a directory and all below it.
const SHIM_FILES: [&str; 4] = [".python-version", ".tool-versions", "mise.toml", ".mise.toml"];

/// A question to an interpreter, by which its answer is found again.
#[derive(Debug, Clone)]
pub(super) struct CacheKey {
    /// All that goes into the answer, but for the state of files.
    key: String,
    /// Files that decide which interpreter a shim starts.
    depends: Vec<PathBuf>,
    asked_at: SystemTime,
}

/// The first line of a cache file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct CacheHeader {
    key: String,
    depends: Vec<(PathBuf, Option<Stamp>)>,
    /// Of what follows the line.
    length: u64,
    sum: u64,
}

/// The state of a file or directory: a change of its content changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
}

impl Stamp {
    /// `None` if the file does not exist, which is a state, too.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
        })
    }
}

impl CacheKey {
    /// The cache key of the interpreter at `path`: a path, or a name looked up in `PATH`. `None` if
    /// there is no such program.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let program = find(path)?;
        let mut depends = vec![program.clone()];
        let mut hasher = DefaultHasher::new();
        (PROBE, HARNESS).hash(&mut hasher);
        // The user's packages are found by these.
        for name in ["HOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE"] {
            env::var_os(name).hash(&mut hasher);
        }
        if is_shim(&program) {
            environment().hash(&mut hasher);
            let here = env::current_dir().ok()?;
            here.hash(&mut hasher);
            depends.extend(shim_files(&here));
        }
        let key = format!(
            "{} {:016x} {}",
            env!("CARGO_PKG_VERSION"),
            hasher.finish(),
            program.to_string_lossy()
        );
        Some(Self { key, depends, asked_at: SystemTime::now() })
    }

    /// The answer that was kept, if it still holds.
    pub(super) fn answer(&self) -> Option<Vec<u8>> {
        self.answer_in(&directory()?)
    }

    fn answer_in(&self, directory: &Path) -> Option<Vec<u8>> {
        check_owned(&open_directory(directory).ok()?).ok()?;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory.join(self.file_name()))
            .ok()?;
        check_owned(&file).ok()?;
        let found = file.metadata().ok()?;
        if !found.is_file() || found.len() > FILE_MAX_BYTES {
            return None;
        }
        let mut file = BufReader::new(file.take(FILE_MAX_BYTES));
        let mut line = Vec::new();
        file.read_until(b'\n', &mut line).ok()?;
        let head: CacheHeader = serde_json::from_slice(&line).ok()?;
        let mut answer = Vec::new();
        file.read_to_end(&mut answer).ok()?;
        let is_whole = head.length == answer.len() as u64 && head.sum == sum(&answer);
        let holds = head.key == self.key
            && self.depends.iter().all(|path| head.depends.iter().any(|(at, _)| at == path))
            && head.depends.iter().all(|(path, stamp)| Stamp::of(path) == *stamp);
        (is_whole && holds).then_some(answer)
    }

    /// Keeps an answer that depends on `depends` besides. A failure costs the next start a question.
    pub(super) fn keep(&self, answer: &[u8], depends: &[PathBuf]) {
        let Some(directory) = directory() else { return };
        if let Err(error) = self.keep_in(&directory, answer, depends) {
            tracing::debug!(%error, directory = %directory.display(), "probe of Python not cached");
        }
    }

    fn keep_in(&self, directory: &Path, answer: &[u8], depends: &[PathBuf]) -> io::Result<()> {
        let asked_at = self.asked_at.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let mut all: Vec<_> = self.depends.iter().chain(depends).collect();
        all.sort_unstable();
        all.dedup();
        let stamped: Vec<_> = all.into_iter().map(|path| (path.clone(), Stamp::of(path))).collect();
        // A file that changed after the question was asked may have been read before it changed, so
        // the answer is not kept.
        let is_old = |stamp: &Stamp| {
            u128::try_from(stamp.modified).is_ok_and(|modified| modified < asked_at.as_nanos())
        };
        if !stamped.iter().all(|(_, stamp)| stamp.as_ref().is_none_or(is_old)) {
            return Err(io::Error::other("the environment has just changed"));
        }
        let head = CacheHeader {
            key: self.key.clone(),
            depends: stamped,
            length: answer.len() as u64,
            sum: sum(answer),
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        check_owned(&open_directory(directory)?)?;
        let name = self.file_name();
        let new = directory.join(format!(".{name}.{}", std::process::id()));
        let written = (|| {
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            serde_json::to_writer(&mut file, &head)?;
            file.write_all(b"\n")?;
            file.write_all(answer)?;
            // No flush to the disk: a torn file is found by its sum.
            fs::rename(&new, directory.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    fn file_name(&self) -> String {
        format!("python-{:016x}", sum(self.key.as_bytes()))
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The directory of the cache; `None` for a user without a home.
fn directory() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|it| it.join(".cache")));
    base.map(|base| base.join("gleitzeit"))
}

fn open_directory(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// An answer contains code of the harness, so the file must belong to this user and be writable by
/// no other.
fn check_owned(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    let is_own = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if is_own { Ok(()) } else { Err(io::Error::other("others may write to the cache")) }
}

/// The program that `path` names.
fn find(path: &Path) -> Option<PathBuf> {
    if path.as_os_str().as_bytes().contains(&b'/') {
        return std::path::absolute(path).ok().filter(|path| path.exists());
    }
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(path))
        .find(is_program)
        .and_then(|path| std::path::absolute(path).ok())
}

/// True for a program that may start one Python today and another tomorrow.
fn is_shim(program: &Path) -> bool {
    let Ok(real) = fs::canonicalize(program) else { return true };
    let name = real.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let mut start = [0; 4];
    let is_program = File::open(&real).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == *b"\x7fELF";
    !(is_program && name.starts_with(b"python"))
}

/// The files that a shim reads to choose an interpreter, whether they exist or not.
fn shim_files(here: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = here
        .ancestors()
        .flat_map(|directory| SHIM_FILES.map(|name| directory.join(name)))
        .collect();
    let home = env::var_os("HOME").map(PathBuf::from);
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    files
        .extend(pyenv.or_else(|| Some(home.as_ref()?.join(".pyenv"))).map(|it| it.join("version")));
    if let Some(home) = home {
        files.extend(SHIM_FILES.map(|name| home.join(name)));
        files.push(home.join(".config/mise/config.toml"));
    }
    files
}

/// The environment variables that a shim needs to find the interpreter. No other variable of the
/// service is passed on.
pub(super) fn environment() -> Vec<(OsString, OsString)> {
    let is_needed = |name: &OsStr| {
        let name = name.as_bytes();
        [&b"PATH"[..], b"HOME", b"USER", b"PYTHONUSERBASE", b"PYTHONNOUSERSITE"].contains(&name)
            || SHIM_VARIABLES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    let mut found: Vec<_> = env::vars_os().filter(|(name, _)| is_needed(name)).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;

    /// A question about a program of its own, put in a moment that all files are older than.
    fn question(dir: &Path) -> CacheKey {
        let program = dir.join("python3");
        if !program.exists() {
            fs::copy("/proc/self/exe", &program).unwrap();
        }
        let asked_at = SystemTime::now() + Duration::from_mins(1);
        CacheKey { asked_at, ..CacheKey::new(&program).unwrap() }
    }

    fn cache(dir: &Path) -> PathBuf {
        dir.join("cache")
    }

    fn kept(dir: &Path) -> (CacheKey, PathBuf) {
        let question = question(dir);
        let site = dir.join("site.pth");
        fs::write(&site, "one").unwrap();
        question.keep_in(&cache(dir), b"the answer", &[site, dir.join("missing")]).unwrap();
        assert_eq!(question.answer_in(&cache(dir)).as_deref(), Some(&b"the answer"[..]));
        let file = cache(dir).join(question.file_name());
        (question, file)
    }

    /// An answer holds until anything that it depends on changes, also a file that was not there.
    #[test]
    fn an_answer_holds_until_something_changes() {
        for change in ["site.pth", "missing", "python3"] {
            let dir = tempfile::tempdir().unwrap();
            let (question, _) = kept(dir.path());
            fs::write(dir.path().join(change), "\x7fELF another").unwrap();
            assert_eq!(question.answer_in(&cache(dir.path())), None, "{change}");
        }
    }

    /// What changes while the interpreter is asked may be older or newer than its answer.
    #[test]
    fn an_answer_about_what_has_just_changed_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let before = question(dir.path());
        let question = CacheKey { asked_at: SystemTime::now() - Duration::from_secs(1), ..before };
        assert!(question.keep_in(&cache(dir.path()), b"x", &[]).is_err());
        assert_eq!(question.answer_in(&cache(dir.path())), None);
    }

    /// Whatever happened to the file, it is passed over, and written again in its place.
    #[test]
    fn a_broken_file_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (question, file) = kept(dir.path());
        let whole = fs::read(&file).unwrap();
        let cut = &whole[..whole.len() - 1];
        let other = [&whole[..whole.len() - 1], b"R"].concat();
        for broken in [&b""[..], b"{}\n", b"\xff\n\n", cut, &other] {
            fs::write(&file, broken).unwrap();
            assert_eq!(question.answer_in(&cache(dir.path())), None);
        }
        question.keep_in(&cache(dir.path()), b"the answer", &[]).unwrap();
        assert!(question.answer_in(&cache(dir.path())).is_some());
    }

    /// What somebody else could have written, or put there, is not run.
    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let dir = tempfile::tempdir().unwrap();
        let (question, file) = kept(dir.path());
        allow(&file, 0o622);
        assert_eq!(question.answer_in(&cache(dir.path())), None);
        allow(&file, 0o600);
        assert!(question.answer_in(&cache(dir.path())).is_some());
        allow(&cache(dir.path()), 0o777);
        assert_eq!(question.answer_in(&cache(dir.path())), None);
        assert!(question.keep_in(&cache(dir.path()), b"x", &[]).is_err());
        allow(&cache(dir.path()), 0o700);
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert_eq!(question.answer_in(&cache(dir.path())), None);
    }

    /// A script may start another interpreter tomorrow; the program itself does not.
    #[test]
    fn shims_are_distinguished_from_interpreters() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("python3.11");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(is_shim(&script));
        let (manager, python) = (dir.path().join("manager"), dir.path().join("python3.12"));
        fs::copy("/proc/self/exe", &manager).unwrap();
        fs::copy("/proc/self/exe", &python).unwrap();
        assert!(is_shim(&manager) && !is_shim(&python));
        assert!(shim_files(Path::new("/a/b")).contains(&"/a/.python-version".into()));
    }
}
