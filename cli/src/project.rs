//! The settings file of a project: `gleitzeit.toml` in the working directory or the nearest one above.
//!
//! A settings file names programs and paths, so a file that another user could have put there is
//! refused, and never read in silence.

use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use super::output::Failure;

/// The name of the file.
pub(crate) const NAME: &str = "gleitzeit.toml";

/// A project's settings file.
#[derive(Debug)]
pub(crate) struct ProjectFile {
    /// Its whole path.
    pub(crate) path: PathBuf,
    /// As it was read.
    pub(crate) text: String,
}

/// The nearest file from the working directory upwards to the root; `None` if there is none.
///
/// # Errors
/// If the file cannot be read or must not be trusted.
pub(crate) fn find() -> Result<Option<ProjectFile>, Failure> {
    let Ok(directory) = env::current_dir() else { return Ok(None) };
    let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let Some(path) = directory.ancestors().map(|it| it.join(NAME)).find(is_there) else {
        return Ok(None);
    };
    let text = read(&path).map_err(|why| {
        let file = path.display();
        Failure::usage(format!(
            "project file `{file}` is not used: {why}; if you trust it, name it with \
             `--config {file}`; to run without it, `--config /dev/null`"
        ))
    })?;
    Ok(Some(ProjectFile { path, text }))
}

/// Reads the file that was checked, and not one that replaced it since.
fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
        _ => format!("it cannot be read: {error}"),
    };
    // A pipe of that name would never end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut file = File::open(path).map_err(failed)?;
    #[cfg(unix)]
    check(path, &file.metadata().map_err(failed)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Refuses a file that somebody else wrote or may replace: the file, the link that leads to it if it
/// is one, and the directories of both.
#[cfg(unix)]
fn check(path: &Path, opened: &fs::Metadata) -> Result<(), String> {
    let me = nix::unistd::geteuid().as_raw();
    let missing = |error: std::io::Error| format!("it cannot be read: {error}");
    let real = path.canonicalize().map_err(missing)?;
    refuse("it", opened, me)?;
    refuse("the link", &fs::symlink_metadata(path).map_err(missing)?, me)?;
    for file in [path, &*real] {
        let directory = file.parent().unwrap_or(Path::new("/"));
        let what = format!("its directory `{}`", directory.display());
        refuse(&what, &fs::metadata(directory).map_err(missing)?, me)?;
    }
    Ok(())
}

#[cfg(unix)]
fn refuse(what: &str, found: &fs::Metadata, me: u32) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    distrust(found.uid(), found.mode(), found.is_dir(), found.is_symlink(), me)
        .map_or(Ok(()), |why| Err(format!("{what} {why}")))
}

/// Why a file or directory of this owner and mode is not to be trusted by the user `me`.
#[cfg(unix)]
fn distrust(owner: u32, mode: u32, is_dir: bool, is_link: bool, me: u32) -> Option<String> {
    const WRITABLE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    if owner != me && owner != 0 {
        return Some(format!("belongs to another user (uid {owner}, and this process is {me})"));
    }
    // In a sticky directory only the owner replaces a file; every link has all bits set.
    let is_guarded = is_link || (is_dir && mode & STICKY != 0);
    (mode & WRITABLE != 0 && !is_guarded)
        .then(|| "can be written by every user (`chmod o-w` ends that)".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Only what this user or root wrote, and nobody else can replace, is trusted.
    #[test]
    fn files_of_other_users_are_not_trusted() {
        let file = |owner, mode| distrust(owner, mode, false, false, 1000);
        assert_eq!(file(1000, 0o644), None);
        assert_eq!(file(0, 0o644), None);
        assert!(file(1001, 0o644).unwrap().contains("another user"));
        assert!(file(1000, 0o646).unwrap().contains("chmod"));
        assert!(file(0, 0o666).unwrap().contains("every user"));
        assert!(distrust(1000, 0o777, true, false, 1000).is_some());
        assert_eq!(distrust(0, 0o1777, true, false, 1000), None, "a sticky directory");
        assert_eq!(distrust(1000, 0o777, false, true, 1000), None, "a link");
        assert!(distrust(1001, 0o777, false, true, 1000).is_some(), "a link of somebody else");
        // Root trusts root alone.
        assert!(distrust(1000, 0o644, false, false, 0).is_some());
    }
}
