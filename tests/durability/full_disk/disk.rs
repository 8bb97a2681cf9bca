//! A small disk: a file system in memory, to be filled to the last byte.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// What fills it.
const BALLAST: &str = "ballast";

/// A disk of its own; gone when it is dropped.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Of so many MiB; or why there cannot be one.
    pub(crate) fn mount(mib: u32) -> Result<Self, String> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={mib}m,mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(folder)),
            Ok(output) => {
                Err(format!("no small disk: {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) => Err(format!("no `mount`: {error}")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join(BALLAST)
    }

    /// Leaves no room at all.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![b'x'; size];
            while ballast.write_all(&bytes).is_ok() {}
        }
    }

    /// Takes back what [`fill`](Self::fill) did.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while somebody has a file open there.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
