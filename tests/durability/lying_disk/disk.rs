//! A disk that keeps what was flushed, and of the rest what it likes.

use std::{collections::BTreeMap, fs, path::Path};

use super::trace::Done;

/// A disk writes sectors of this size whole or not at all.
const SECTOR: usize = 512;

/// What becomes of what was written and not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// All of it is gone.
    Everything,
    /// Each sector is there or not, by this seed.
    SomeSectors(u64),
}

#[derive(Debug, Default, Clone)]
struct File {
    flushed: Vec<u8>,
    /// Writes and truncations since, in order.
    pending: Vec<Done>,
}

/// Files, as far as they are known to be on the disk, by name.
#[derive(Debug, Default)]
pub(crate) struct Disk(BTreeMap<String, File>);

impl Disk {
    /// Goes on by one step.
    pub(crate) fn apply(&mut self, done: &Done) {
        match done {
            Done::Write { file, .. } | Done::Truncate { file, .. } => {
                self.0.entry(file.clone()).or_default().pending.push(done.clone());
            }
            Done::Flush { file } => {
                let file = self.0.entry(file.clone()).or_default();
                for step in std::mem::take(&mut file.pending) {
                    change(&mut file.flushed, &step, &mut |_| true);
                }
            }
            Done::Remove { file } => drop(self.0.remove(file)),
            Done::Printed(_) => {}
        }
    }

    /// How many writes and truncations are not flushed.
    pub(crate) fn pending(&self) -> usize {
        self.0.values().map(|file| file.pending.len()).sum()
    }

    /// Puts into `folder` what is left when the power goes now.
    pub(crate) fn power_off(&self, folder: &Path, lost: Lost) {
        for (name, file) in &self.0 {
            let mut left = file.flushed.clone();
            if let Lost::SomeSectors(seed) = lost {
                let mut seed = seed;
                let mut keeps = |_| {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    seed >> 63 == 1
                };
                for step in &file.pending {
                    change(&mut left, step, &mut keeps);
                }
            }
            let name = Path::new(name).file_name().expect("a file");
            fs::write(folder.join(name), left).expect("room for a copy");
        }
    }
}

/// Makes a change to a file, of a write those sectors that are kept.
fn change(content: &mut Vec<u8>, step: &Done, keeps: &mut dyn FnMut(usize) -> bool) {
    match step {
        Done::Write { at, bytes, .. } => {
            let mut from = 0;
            while from < bytes.len() {
                let at = usize::try_from(*at).expect("a small file") + from;
                let to = bytes.len().min(from + SECTOR - at % SECTOR);
                let end = at + to - from;
                if keeps(at / SECTOR) {
                    if content.len() < end {
                        content.resize(end, 0);
                    }
                    content[at..end].copy_from_slice(&bytes[from..to]);
                }
                from = to;
            }
        }
        Done::Truncate { len, .. } if keeps(0) => {
            content.resize(usize::try_from(*len).expect("a small file"), 0);
        }
        _ => {}
    }
}
