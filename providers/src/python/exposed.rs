//! Sandboxes whose tasks see files that their workflow brought along.
//!
//! The readable files of a jail are fixed when it is built, so these files need jails of their own:
//! one sandbox for each block of a workflow's files, opened at the first call that names one of
//! them, and closed when it has been idle for a while. Workflows without such files do not use this
//! module.
//!
//! Invariant: a task sees no file of a block that its call names nothing of, and no workflow shares
//! a jail of this kind with another one that brought other files.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use gleitzeit_domain::{error::TaskError, file_access::FileAccess, provider::Call};
use gleitzeit_sandbox::Sandbox;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{PythonConfig, open, refused};
use crate::reach::FileReach;

/// Files that the jails of one sandbox show. A mount for each takes a descriptor and an inode while
/// the jail is built.
const FILES_MAX: usize = 256;

/// Sandboxes that are kept while nothing runs in them.
const KEPT_MAX: usize = 2;

/// A sandbox that was not used for so long is closed.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// The sandboxes that are open.
#[derive(Debug, Default)]
pub(super) struct ExposedFiles {
    open: RefCell<Vec<OpenSandbox>>,
}

#[derive(Debug)]
struct OpenSandbox {
    files: Vec<String>,
    /// Empty while the sandbox is being opened; concurrent calls wait for the same one.
    sandbox: Rc<OnceCell<Sandbox>>,
    used: Instant,
}

impl ExposedFiles {
    /// The sandbox for a call that names files of its workflow; `None` if it names none, or if the
    /// usual sandbox exposes them already.
    ///
    /// # Errors
    /// When no such sandbox can be had.
    pub(super) async fn sandbox(
        &self,
        config: &PythonConfig,
        reach: FileReach<'_>,
        call: &Call,
    ) -> Result<Option<Sandbox>, TaskError> {
        let Some(file_access) = call.file_access.as_deref() else { return Ok(None) };
        if file_access.files.is_empty() || !can_show(config) {
            return Ok(None);
        }
        let mut named = Vec::new();
        collect(call.params.get("context").unwrap_or(&Value::Null), file_access, &mut named);
        let is_usual = |at: &usize| {
            config
                .read_only_paths
                .iter()
                .any(|path| std::path::Path::new(&file_access.files[*at]).starts_with(path))
        };
        if named.iter().all(is_usual) {
            return Ok(None);
        }
        let files = block(file_access, named);
        let slot = self.entry(&files);
        let opening = slot.get_or_try_init(async || {
            let texts: Vec<&str> = files.iter().map(String::as_str).collect();
            let mut config = config.clone();
            config.read_only_paths.extend(reach.readable(&texts).into_iter().map(Into::into));
            open(&config).await.map_err(|error| refused(&error))
        });
        Ok(Some(opening.await?.clone()))
    }

    /// The entry of a sandbox for these files, added if there is none.
    fn entry(&self, files: &[String]) -> Rc<OnceCell<Sandbox>> {
        let mut open = self.open.borrow_mut();
        let now = Instant::now();
        if let Some(entry) = open.iter_mut().find(|entry| entry.files == files) {
            entry.used = now;
            return Rc::clone(&entry.sandbox);
        }
        // The least recently used entry is dropped. A task that runs in its sandbox keeps it open
        // until it has ended.
        while open.len() >= KEPT_MAX {
            let Some((oldest, _)) = open.iter().enumerate().min_by_key(|(_, it)| it.used) else {
                break;
            };
            open.swap_remove(oldest);
        }
        let sandbox = Rc::new(OnceCell::new());
        open.push(OpenSandbox { files: files.to_vec(), sandbox: Rc::clone(&sandbox), used: now });
        sandbox
    }

    /// Closes what was not used for a while.
    pub(super) fn tidy(&self) {
        self.open.borrow_mut().retain(|entry| entry.used.elapsed() < IDLE_MAX);
    }

    /// Ends all of them, and waits until they are gone.
    pub(super) async fn stop(&self) {
        let open = self.open.take();
        for entry in open {
            if let Some(sandbox) = entry.sandbox.get() {
                sandbox.stop().await;
            }
        }
    }
}

/// True if a jail or a container can expose single files of the machine. Without either a task
/// reads them anyway, and a root of the operator is used unchanged.
fn can_show(config: &PythonConfig) -> bool {
    let is_contained = config.jail().is_some() || config.containers_are_used();
    is_contained && config.root.is_none()
}

/// The positions of the workflow's files that are named anywhere in `value`.
fn collect(value: &Value, file_access: &FileAccess, named: &mut Vec<usize>) {
    match value {
        Value::String(text) => {
            named.extend(file_access.files.binary_search_by(|file| file.as_str().cmp(text)).ok());
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, file_access, named)),
        Value::Object(fields) => {
            fields.values().for_each(|field| collect(field, file_access, named));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The files that are exposed together with those at `named`: their block, if they share one, so
/// that one sandbox serves many tasks; else only these.
fn block(file_access: &FileAccess, mut named: Vec<usize>) -> Vec<String> {
    named.sort_unstable();
    named.dedup();
    let (first, last) = (named.first().copied(), named.last().copied());
    match (first, last) {
        (Some(first), Some(last)) if first / FILES_MAX == last / FILES_MAX => {
            let start = first / FILES_MAX * FILES_MAX;
            file_access.files[start..(start + FILES_MAX).min(file_access.files.len())].to_vec()
        }
        _ => named.into_iter().map(|at| file_access.files[at].clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file_access(count: usize) -> FileAccess {
        FileAccess {
            files: (0..count).map(|at| format!("/d/{at:05}")).collect(),
            ..FileAccess::default()
        }
    }

    /// The files of a large batch are shown a block at a time, so that a jail stays small and one
    /// sandbox serves many tasks.
    #[test]
    fn files_are_exposed_block_by_block() {
        let file_access = file_access(600);
        let of = |context: Value| {
            let mut named = Vec::new();
            collect(&context, &file_access, &mut named);
            block(&file_access, named)
        };
        assert_eq!(of(json!({"file_path": "/d/00003"})), file_access.files[..256]);
        assert_eq!(of(json!({"file_path": "/d/00599"})), file_access.files[512..]);
        let far = of(json!({"files": ["/d/00599", "/d/00000", "/d/00000"]}));
        assert_eq!(far, ["/d/00000", "/d/00599"]);
        assert!(of(json!({"file_path": "/d/other", "n": 1})).is_empty());
    }
}
