//! Reads the files that a task names, and no others.
//!
//! Asked by the provider before it builds a request. Invariant: nothing is handed out of a file
//! that was not, when it was open, a regular file below one of the roots.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gleitzeit_domain::error::{ErrorCode, TaskError};

/// The folders below which a task may name a file.
#[derive(Debug, Clone)]
pub(super) struct Files {
    roots: Arc<[PathBuf]>,
    max_bytes: u64,
}

impl Files {
    /// Files below `roots` of at most `max_bytes`.
    pub(super) fn new(roots: &[PathBuf], max_bytes: u64) -> Self {
        Self { roots: roots.into(), max_bytes }
    }

    /// True where no file may be read.
    pub(super) fn is_none(&self) -> bool {
        self.roots.is_empty()
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
        let real = fs::canonicalize(path).map_err(|error| {
            // Outside the roots not even the existence of a file is told.
            if self.may_hold(Path::new(path)) { refuse(&error) } else { self.outside(field, path) }
        })?;
        if !self.covers(&real) {
            return Err(self.outside(field, path));
        }
        // Before it is opened, because opening a named pipe would wait for its other end.
        if !fs::metadata(&real).map_err(|error| refuse(&error))?.is_file() {
            return Err(invalid(field, path, "is not a regular file"));
        }
        let file = File::open(&real).map_err(|error| refuse(&error))?;
        // Again, of what was really opened: a link may have been put there in the meantime.
        let opened = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|error| refuse(&error))?;
        let kind = file.metadata().map_err(|error| refuse(&error))?;
        if !self.covers(&opened) || !kind.is_file() {
            return Err(self.outside(field, path));
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

    fn covers(&self, real: &Path) -> bool {
        self.roots
            .iter()
            .filter_map(|root| fs::canonicalize(root).ok())
            .any(|root| real.starts_with(root))
    }

    /// True when a path that does not exist would lie below a root.
    fn may_hold(&self, path: &Path) -> bool {
        let folder = path.ancestors().skip(1).find_map(|above| {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            fs::canonicalize(above).ok()
        });
        folder.is_some_and(|folder| self.covers(&folder))
    }

    fn outside(&self, field: &'static str, path: &str) -> TaskError {
        let roots: Vec<String> =
            self.roots.iter().map(|root| format!("`{}`", root.display())).collect();
        let allowed = if roots.is_empty() { "none".to_owned() } else { roots.join(", ") };
        TaskError::new(
            ErrorCode::TaskValidationFailed,
            format!(
                "{field}: `{path}` is not below a folder that this provider may read ({allowed}); \
                 add its folder to `file_roots`"
            ),
        )
    }
}

fn invalid(field: &str, path: &str, problem: &str) -> TaskError {
    TaskError::new(ErrorCode::InvalidParams, format!("{field}: `{path}` {problem}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn reading(root: &Path, path: &Path) -> Result<Vec<u8>, TaskError> {
        Files::new(&[root.to_owned()], 8).read_blocking("file_path", path.to_str().unwrap())
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
        let none = Files::new(&[], 8).read_blocking("file_path", "Cargo.toml").unwrap_err();
        assert!(none.message.contains("(none)"), "{none}");
    }

    /// What is wrong with a file that may be read is said.
    #[test]
    fn unreadable_files_are_told_apart() {
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
