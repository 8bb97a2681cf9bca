//! Reads the files that a task names, and no others.
//!
//! Asked by the provider before it builds a request. Invariant: nothing is handed out of a file
//! that was not, when it was open, a regular file below one of the roots.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    file_access::FileAccess,
};

use crate::reach::{FileReach, Rules, Unreachable};

/// The files that a call may read, and their size limit.
#[derive(Debug, Clone)]
pub(super) struct Files {
    rules: Arc<Rules>,
    file_access: Option<Arc<FileAccess>>,
    max_bytes: u64,
}

impl Files {
    /// Files that `rules` permit, of at most `max_bytes`.
    pub(super) fn new(rules: Rules, max_bytes: u64) -> Self {
        Self { rules: Arc::new(rules), file_access: None, max_bytes }
    }

    /// The same for a call of a workflow from this place.
    pub(super) fn of(&self, file_access: Option<&Arc<FileAccess>>) -> Self {
        Self { file_access: file_access.cloned(), ..self.clone() }
    }

    /// True if no file may be read.
    pub(super) fn is_none(&self) -> bool {
        self.rules.reach(self.file_access.as_deref()).reads_nothing()
    }

    /// A text file's content; `field` is the parameter that named it.
    pub(super) async fn text(&self, field: &'static str, path: &str) -> Result<String, TaskError> {
        let bytes = self.read(field, path).await?;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            invalid(field, path, &format!("is not text in UTF-8 (at byte {at})"))
        })
    }

    /// Any file's content in base64.
    pub(super) async fn base64(
        &self,
        field: &'static str,
        path: &str,
    ) -> Result<String, TaskError> {
        Ok(STANDARD.encode(self.read(field, path).await?))
    }

    async fn read(&self, field: &'static str, path: &str) -> Result<Vec<u8>, TaskError> {
        let (files, path) = (self.clone(), path.to_owned());
        let read = tokio::task::spawn_blocking(move || files.read_blocking(field, &path));
        read.await.unwrap_or_else(|_| {
            Err(TaskError::new(
                ErrorCode::SystemShutdown,
                "the runtime stopped while a file was read",
            ))
        })
    }

    fn read_blocking(&self, field: &'static str, path: &str) -> Result<Vec<u8>, TaskError> {
        let refuse = |error: &io::Error| invalid(field, path, &format!("cannot be read: {error}"));
        let reach = self.rules.reach(self.file_access.as_deref());
        let real = reach.find(path).map_err(|why| match why {
            Unreachable::Missing(error) => refuse(&error),
            Unreachable::Outside => outside(reach, field, path),
            Unreachable::Guarded => {
                invalid(field, path, "is a file of the service, which no task is given")
            }
        })?;
        // Before it is opened, because opening a named pipe would wait for its other end.
        if !fs::metadata(&real).map_err(|error| refuse(&error))?.is_file() {
            return Err(invalid(field, path, "is not a regular file"));
        }
        let file = File::open(&real).map_err(|error| refuse(&error))?;
        // Again, of what was really opened: a link may have been put there in the meantime.
        let opened = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|error| refuse(&error))?;
        let kind = file.metadata().map_err(|error| refuse(&error))?;
        if !(reach.covers(&opened) || opened == real) || !kind.is_file() {
            return Err(outside(reach, field, path));
        }
        let mut bytes = Vec::new();
        file.take(self.max_bytes + 1).read_to_end(&mut bytes).map_err(|error| refuse(&error))?;
        if bytes.len() as u64 > self.max_bytes {
            let most = self.max_bytes;
            return Err(invalid(
                field,
                path,
                &format!("is larger than {most} bytes; raise `max_file` of the provider"),
            ));
        }
        Ok(bytes)
    }
}

fn outside(reach: FileReach<'_>, field: &'static str, path: &str) -> TaskError {
    let roots: Vec<String> =
        reach.roots().iter().map(|root| format!("`{}`", root.display())).collect();
    let allowed = if roots.is_empty() { "none".to_owned() } else { roots.join(", ") };
    TaskError::new(
        ErrorCode::TaskValidationFailed,
        format!(
            "{field}: `{path}` is not below a folder that this provider may read ({allowed}); \
             add its folder to `file_roots`"
        ),
    )
}

fn invalid(field: &str, path: &str, problem: &str) -> TaskError {
    TaskError::new(ErrorCode::InvalidParams, format!("{field}: `{path}` {problem}"))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use super::*;

    fn rooted(roots: &[PathBuf]) -> Files {
        Files::new(Rules::new(roots, &[], &[]), 8)
    }

    fn reading(root: &Path, path: &Path) -> Result<Vec<u8>, TaskError> {
        rooted(&[root.to_owned()]).read_blocking("file_path", path.to_str().unwrap())
    }

    /// A task that could name any file could read the service's keys.
    #[test]
    fn only_files_below_the_roots_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("inner")).unwrap();
        fs::write(root.join("inner/a.txt"), "hello").unwrap();
        fs::write(folder.path().join("secret"), "key").unwrap();
        symlink(folder.path().join("secret"), root.join("link")).unwrap();
        symlink(root.join("inner/a.txt"), root.join("good")).unwrap();

        assert_eq!(reading(&root, &root.join("inner/a.txt")).unwrap(), b"hello");
        assert_eq!(reading(&root, &root.join("good")).unwrap(), b"hello");
        for bad in ["link", "../secret", "inner/../../secret", "../missing", "../no/such/folder"] {
            let error = reading(&root, &root.join(bad)).unwrap_err();
            assert_eq!(error.code, ErrorCode::TaskValidationFailed, "{bad}: {error}");
            assert!(error.message.contains("file_roots"), "{error}");
        }
        let none = rooted(&[]).read_blocking("file_path", "Cargo.toml").unwrap_err();
        assert!(none.message.contains("(none)"), "{none}");
    }

    /// What is wrong with a file that may be read is said.
    #[test]
    fn unreadable_files_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("large"), "123456789").unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, part) in [
            ("large", "larger than 8 bytes"),
            ("missing", "No such file"),
            ("pipe", "not a regular file"),
            (".", "not a regular file"),
        ] {
            let error = reading(root, &root.join(name)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParams, "{name}");
            assert!(error.message.contains(part), "{error}");
        }
    }
}
