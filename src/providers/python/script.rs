//! Reads scripts, below the roots of the settings only.
//!
//! Invariant: what is read is a file whose real path, every link followed, is below a root.

use std::path::Path;

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    place::Place,
};
use gleitzeit_sandbox::Source;
use tokio::io::AsyncReadExt as _;

use crate::providers::reach::{Reach, Rules, Unreachable};

/// Longer scripts are refused.
const SCRIPT_MAX_BYTES: u64 = 4 << 20;

/// Finds and reads scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    rules: Rules,
}

impl Scripts {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules }
    }

    /// What a call of a workflow from this place may name.
    pub(super) fn reach<'r>(&'r self, place: Option<&'r Place>) -> Reach<'r> {
        self.rules.reach(place)
    }

    /// Reads `file`: an absolute path, or one relative to a directory of its workflow or a root, the
    /// first that has it.
    ///
    /// # Errors
    /// [`ErrorCode::TaskValidationFailed`] when it is not below a root, and
    /// [`ErrorCode::TaskParameterError`] when it is not there or cannot be read.
    pub(super) async fn read(
        &self,
        place: Option<&Place>,
        file: &str,
    ) -> Result<Source, TaskError> {
        let reach = self.reach(place);
        let path = reach.find(file).map_err(|why| not_found(reach, file, &why))?;
        let unreadable = |why: &dyn std::fmt::Display| {
            let message = format!("cannot read script `{}`: {why}", path.display());
            TaskError::new(ErrorCode::TaskParameterError, message)
        };
        let metadata = tokio::fs::metadata(&path).await.map_err(|error| unreadable(&error))?;
        // Also keeps from opening a pipe, which would wait for a writer.
        if !metadata.is_file() {
            return Err(unreadable(&"it is not a regular file"));
        }
        let opened = tokio::fs::File::open(&path).await.map_err(|error| unreadable(&error))?;
        let mut bytes = Vec::new();
        opened
            .take(SCRIPT_MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| unreadable(&error))?;
        if bytes.len() as u64 > SCRIPT_MAX_BYTES {
            return Err(unreadable(&format!("it is longer than {SCRIPT_MAX_BYTES} bytes")));
        }
        Ok(Source { bytes, filename: file.to_owned(), is_file: true })
    }
}

fn not_found(reach: Reach<'_>, file: &str, why: &Unreachable) -> TaskError {
    let roots = match &reach.roots()[..] {
        [] => "none are set".to_owned(),
        roots => roots.iter().map(|root| shown(root)).collect::<Vec<_>>().join(", "),
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

fn shown(root: &Path) -> String {
    format!("`{}`", root.display())
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
}
