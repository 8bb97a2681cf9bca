//! The jail: a warm Python inside namespaces that forks one child for each task.
//!
//! `service` → (starts itself again) `launcher` → builds the jail and becomes `python3`, the
//! *zygote* → forks one child a task, which shuts itself in and runs it.
//!
//! | module | what it does |
//! |---|---|
//! | `launcher`, `spec` | the program that becomes the interpreter, and its orders |
//! | `namespaces`, `mounts`, `layout` | what the jail sees of the machine |
//! | `filter`, `bpf`, `landlock`, `cgroup` | what a task may do and take in it |
//! | `attendant`, `connect`, `address` | what the launcher does for a task: locks, connections |
//! | `zygote`, `child`, `channel` | the service's side of both, and the line to them |
//! | `slot` | slots with a zygote each |
//! | `selftest` | a few attempts to get out, before the first task |
//! | `kernel` | the system calls that no safe wrapper has |
//!
//! Invariant: a task runs behind every wall that the kernel has, or not at all.

mod address;
mod bpf;
pub(crate) mod cgroup;
mod channel;
mod child;
mod config;
mod connect;
pub(crate) mod filter;
mod ids;
pub(crate) mod kernel;
mod landlock;
mod launch_error;
mod launcher;
mod layout;
mod mounts;
mod namespaces;
mod probe;
mod settings;
mod slot;
mod slots;
mod spec;
mod syscall_handler;
mod zygote;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    Interpreter, Job, Level, SandboxError,
    pool::WorkerPool,
    self_test::{SelfTest, attempts},
    watch::Ended,
};
use cgroup::ControlGroups;
use child::{Child, RunError};
use config::ZygoteConfig;
use slot::ZygoteSlot;
use slots::ZygoteSlots;
use zygote::Zygote;

pub use address::NetworkRule;
pub use cgroup::Controller;
#[cfg(feature = "fuzzing")]
pub(crate) use channel::Message;
pub use launcher::{INIT_COMMAND, init};
pub(crate) use namespaces::has_other_users;
pub use probe::available;
pub(crate) use probe::probe;
pub use settings::JailSettings;
#[cfg(feature = "fuzzing")]
pub(crate) use zygote::read as read_message;

/// A task that could not begin is handed to so many processes.
const HAND_OVERS_MAX: u32 = 3;
/// Places with a zygote each. Dropped, all of them are ended.
#[derive(Debug)]
pub(crate) struct Jail {
    pool: Arc<WorkerPool<Child>>,
    level: Level,
    self_test: SelfTest,
    slots: ZygoteSlots,
    /// Answers when everything that belongs to it is gone.
    ended: Mutex<Option<mpsc::Receiver<Infallible>>>,
}

impl Jail {
    /// Starts the zygotes and tries to get out of one.
    pub(crate) async fn start(
        interpreter: &Interpreter,
        settings: &JailSettings,
    ) -> Result<Self, SandboxError> {
        let (alive, ended) = mpsc::channel(1);
        let config = Arc::new(ZygoteConfig::new(interpreter, settings, alive)?);
        let pool = Arc::new(WorkerPool::new(settings.queue_max));
        // The first zygote starts alone: a fault is logged once, and the first task need not wait
        // for the others.
        let first = Zygote::start(Arc::clone(&config)).await?;
        let slot = ZygoteSlot::new(Arc::clone(&pool), Arc::clone(&config), first);
        tokio::spawn(slot.keep());
        let level = if settings.root.is_some() { Level::Chroot } else { Level::Process };
        let mut jail = Self {
            pool,
            level,
            self_test: SelfTest::default(),
            slots: ZygoteSlots::new(&config, settings.workers),
            ended: Mutex::new(Some(ended)),
        };
        jail.self_test = jail.test(interpreter, &config).await?;
        while settings.prefork && jail.slots.add(&jail.pool, usize::MAX) {}
        Ok(jail)
    }

    /// Runs every attempt to get out as a task.
    ///
    /// # Errors
    /// [`SandboxError::Unavailable`] if the task does not finish, or if one attempt gets out.
    async fn test(
        &self,
        interpreter: &Interpreter,
        config: &ZygoteConfig,
    ) -> Result<SelfTest, SandboxError> {
        let run = async |job: &Job| self.run(interpreter, job).await;
        Ok(SelfTest {
            checks: attempts::run(self.level, run).await?,
            landlock: kernel::landlock_version(),
            cgroups: config.groups.as_ref().map(ControlGroups::controllers).unwrap_or_default(),
            network: config.spec.network,
            #[cfg(feature = "docker")]
            engine: None,
        })
    }

    pub(crate) async fn run(
        &self,
        interpreter: &Interpreter,
        job: &Job,
    ) -> Result<Ended, SandboxError> {
        let busy = self.slots.enter();
        self.slots.add(&self.pool, busy.number);
        let mut tries = 1;
        loop {
            let child = self.pool.next(&self.pool.enter_queue()?).await?;
            match child.run(interpreter, job).await {
                Ok(ended) => return Ok(ended),
                Err(RunError::Failed(error)) => return Err(error),
                // Nothing of it has run, so that it does no harm to hand it to another one.
                Err(RunError::NotBegun(source)) if tries == HAND_OVERS_MAX => {
                    return Err(SandboxError::System { what: "begin a task", source });
                }
                Err(RunError::NotBegun(error)) => {
                    tracing::warn!(%error, "Python task could not begin; handing it to another process");
                    tries += 1;
                }
            }
        }
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// True while at least one place has a zygote.
    pub(crate) fn is_serving(&self) -> bool {
        self.pool.is_serving()
    }

    pub(crate) fn self_test(&self) -> &SelfTest {
        &self.self_test
    }

    /// Ends all zygotes, with what runs in them, and waits until they are gone.
    pub(crate) async fn stop(&self) {
        self.pool.close();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut ended) = ended {
            // Nothing is ever sent: `recv` returns once every sender is dropped.
            let _ = ended.recv().await;
        }
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        self.pool.close();
    }
}
