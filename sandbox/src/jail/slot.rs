//! Keeps one place of a sandbox filled: a zygote that serves, then its successor.
//!
//! One task of the runtime keeps one slot. It publishes one child at a time, of a zygote that has
//! nothing else to do. It replaces a zygote that has run its share of tasks, has grown, or cannot
//! be trusted any more.
//!
//! Invariants: at most one task at a time is run by a zygote; a successor serves before its
//! predecessor goes, unless the predecessor is not to be used at all.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{
    child::{Child, Note},
    config::ZygoteConfig,
    zygote::{ChildReport, Zygote, ZygoteMessage},
};
use crate::{SandboxError, pool::WorkerPool, watch::Exit};

/// A zygote that has grown by so much is replaced.
const GROWTH_MAX_BYTES: u64 = 64 << 20;
/// After a start that failed, the next one waits so long, then twice as long, up to the most.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A zygote that has nothing else to do makes a child in milliseconds; one that has not by then
/// never will.
const CHILD_TIMEOUT: Duration = Duration::from_secs(30);

type Started = Result<(Zygote, ZygoteMessage), SandboxError>;

/// A start in progress, aborted when this is dropped, so that a closing sandbox does not wait for
/// an unused interpreter.
struct Starting(tokio::task::JoinHandle<Started>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a zygote is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChildHealth {
    /// It is as good as new.
    None,
    /// It serves on until its successor does.
    Due,
    /// No task goes to it any more.
    Broken,
}

/// The child that the pool knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Current {
    pid: u64,
    works: bool,
}

/// One place of the pool.
pub(crate) struct ZygoteSlot {
    /// Tells its children from those of other zygotes, whose numbers are the same.
    id: u64,
    pool: Arc<WorkerPool<Child>>,
    config: Arc<ZygoteConfig>,
    zygote: Zygote,
    /// The child that waits, and is not offered while another one works.
    spare: Option<Child>,
    /// The child that is offered or works.
    current: Option<Current>,
    /// The receivers that wait for the end of a child.
    ends: HashMap<u64, oneshot::Sender<Exit>>,
    notes: mpsc::UnboundedReceiver<Note>,
    notes_to: mpsc::UnboundedSender<Note>,
    tasks: u32,
    own_bytes: u64,
    kills: u64,
    health: ChildHealth,
}

impl ZygoteSlot {
    /// Keeps the place from here on with a zygote that has started.
    pub(crate) fn new(
        pool: Arc<WorkerPool<Child>>,
        config: Arc<ZygoteConfig>,
        (mut zygote, first): (Zygote, ZygoteMessage),
    ) -> Self {
        zygote.log();
        let (notes_to, notes) = mpsc::unbounded_channel();
        let mut slot = Self {
            id: pool.next_id(),
            pool,
            config,
            zygote,
            spare: None,
            current: None,
            ends: HashMap::new(),
            notes,
            notes_to,
            tasks: 0,
            own_bytes: 0,
            kills: 0,
            health: ChildHealth::None,
        };
        slot.on_message(first);
        slot.pool.slot_up();
        slot
    }

    /// Fills the place until the sandbox is closed.
    pub(crate) async fn keep(mut self) {
        let mut closed = self.pool.closed();
        loop {
            let serving = self.serve();
            let successor = tokio::select! {
                successor = serving => successor,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            let old = if let Some(successor) = successor {
                let old = self.replace(successor);
                self.pool.slot_down();
                old
            } else {
                // No zygote serves. Waiting jobs fail if no start succeeds.
                self.withdraw();
                self.pool.slot_down();
                match start_again(&self.pool, &self.config).await {
                    Some(successor) => self.replace(successor),
                    None => break,
                }
            };
            // The old zygote finishes its task, which has a time limit of its own.
            tokio::spawn(old.drain());
        }
        self.withdraw();
        self.zygote.end().await;
    }

    /// Serves until a successor has started, which it returns, or until the zygote is gone.
    async fn serve(&mut self) -> Option<(Zygote, ZygoteMessage)> {
        let age = self.config.recycle_age.saturating_sub(self.zygote.started_at.elapsed());
        let mut old = std::pin::pin!(tokio::time::sleep(age));
        let mut successor: Option<Starting> = None;
        // Back off if every child dies; else zygotes would be started in a tight loop.
        let mut pause = Duration::ZERO;
        loop {
            if self.health != ChildHealth::None && successor.is_none() {
                let config = Arc::clone(&self.config);
                successor = Some(Starting(tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    Zygote::start(config).await
                })));
                pause = BACKOFF;
            }
            tokio::select! {
                message = self.zygote.receive() => match message {
                    Ok(message) => self.on_message(message),
                    Err(error) => {
                        tracing::warn!(%error, "Python zygote exited");
                        return None;
                    }
                },
                Some(note) = self.notes.recv() => self.note(note),
                () = tokio::time::sleep(CHILD_TIMEOUT), if self.is_stuck() => {
                    tracing::warn!("Python zygote forked no child; replacing it");
                    self.health = ChildHealth::Broken;
                }
                () = &mut old, if self.health == ChildHealth::None => self.health = ChildHealth::Due,
                started = ended(&mut successor) => {
                    successor = None;
                    match started {
                        Ok(started) => return Some(started),
                        Err(error) => {
                            tracing::warn!(%error, "start of a replacement Python zygote failed");
                        }
                    }
                }
            }
        }
    }

    /// Handles a message of the zygote.
    fn on_message(&mut self, message: ZygoteMessage) {
        // Notes must be read first: they were sent before this message, and a child that has ended
        // may have had a task.
        while let Ok(note) = self.notes.try_recv() {
            self.note(note);
        }
        match message {
            ZygoteMessage::Child(pid, process, line) => {
                let (end, ended) = oneshot::channel();
                self.ends.insert(pid, end);
                let notes = self.notes_to.clone();
                let group = self.zygote.group.clone();
                let control = Arc::clone(&self.zygote.control);
                let child = Child::new((pid, process, line), control, ended, notes, group);
                self.spare = Some(child);
            }
            ZygoteMessage::Ended(report) => self.on_child_exit(&report),
        }
        self.publish_idle();
    }

    fn on_child_exit(&mut self, report: &ChildReport) {
        let out_of_memory = report.was_killed() && self.kernel_has_killed();
        // The end must be sent last: its receiver may ask for the next child at once.
        let end = self.ends.remove(&report.ended);
        let had_task = match self.current {
            Some(current) if current.pid == report.ended => {
                self.current = None;
                current.works
            }
            _ => false,
        };
        if !had_task {
            // Something may be wrong with all that this zygote makes.
            self.spare.take_if(|spare| spare.pid == report.ended);
            self.health = ChildHealth::Broken;
        }
        if self.own_bytes == 0 {
            self.own_bytes = report.own_bytes;
        }
        if !report.clean {
            tracing::warn!("task files could not be removed; replacing the zygote");
            self.health = ChildHealth::Broken;
        } else if self.health == ChildHealth::None
            && (self.tasks >= self.config.recycle_tasks
                || report.own_bytes > self.own_bytes + GROWTH_MAX_BYTES)
        {
            self.health = ChildHealth::Due;
        }
        if let Some(end) = end {
            let _ = end.send(report.exit(out_of_memory));
        }
    }

    /// True when the kernel has killed something in the jail, for want of memory, since it was asked
    /// last.
    fn kernel_has_killed(&mut self) -> bool {
        let kills = self.zygote.group.as_ref().map_or(0, |group| group.kills());
        let before = std::mem::replace(&mut self.kills, kills);
        kills > before
    }

    /// Takes in what became of a child that was offered.
    fn note(&mut self, note: Note) {
        match note {
            // The user of the child has notified the zygote already, which forks the next child
            // meanwhile.
            Note::Taken(pid) => {
                if let Some(current) = self.current.as_mut().filter(|current| current.pid == pid) {
                    current.works = true;
                }
                self.tasks += 1;
            }
            Note::NotBegun(_) => {
                tracing::warn!("Python process could not begin a task; replacing its zygote");
                self.health = ChildHealth::Broken;
            }
        }
    }

    /// True while a child is to come and nothing stands in its way.
    fn is_stuck(&self) -> bool {
        self.health != ChildHealth::Broken && self.current.is_none() && self.spare.is_none()
    }

    /// Offers the child that waits, when nothing else of this zygote works.
    fn publish_idle(&mut self) {
        if self.current.is_some() || self.health == ChildHealth::Broken {
            return;
        }
        if let Some(spare) = self.spare.take() {
            self.current = Some(Current { pid: spare.pid, works: false });
            self.pool.publish_idle(self.id, spare);
        }
    }

    /// Takes back what was offered and not taken.
    fn withdraw(&mut self) {
        // Dropped, it is killed.
        drop(self.pool.withdraw(self.id));
        self.spare = None;
    }

    /// Replaces the zygote with its successor and returns the old one.
    fn replace(&mut self, started: (Zygote, ZygoteMessage)) -> Self {
        let new = Self::new(Arc::clone(&self.pool), Arc::clone(&self.config), started);
        let mut old = std::mem::replace(self, new);
        old.withdraw();
        old
    }

    /// Lets what still runs end, and then the zygote.
    async fn drain(mut self) {
        self.spare = None;
        let mut closed = self.pool.closed();
        while !self.ends.is_empty() {
            tokio::select! {
                message = self.zygote.receive() => match message {
                    Ok(ZygoteMessage::Ended(report)) => self.on_child_exit(&report),
                    Ok(ZygoteMessage::Child(..)) => {}
                    Err(_) => break,
                },
                _ = closed.wait_for(|closed| *closed) => break,
            }
        }
        self.zygote.end().await;
    }
}

/// Keeps a place whose zygote has yet to start.
pub(crate) async fn fill_new_slot(pool: Arc<WorkerPool<Child>>, config: Arc<ZygoteConfig>) {
    if let Some(started) = start_again(&pool, &config).await {
        ZygoteSlot::new(pool, config, started).keep().await;
    }
}

/// Starts zygotes until one does, or until the sandbox is closed.
async fn start_again(
    pool: &WorkerPool<Child>,
    config: &Arc<ZygoteConfig>,
) -> Option<(Zygote, ZygoteMessage)> {
    let mut closed = pool.closed();
    let mut pause = BACKOFF;
    loop {
        let started = tokio::select! {
            started = Zygote::start(Arc::clone(config)) => started,
            _ = closed.wait_for(|closed| *closed) => return None,
        };
        match started {
            Ok(started) => return Some(started),
            Err(error) => {
                tracing::warn!(%error, ?pause, "Python zygote start failed");
                pool.failed(&error);
            }
        }
        let is_closed =
            tokio::time::timeout(pause, closed.wait_for(|closed| *closed)).await.is_ok();
        if is_closed {
            return None;
        }
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// The end of a start in progress; pending forever if there is none.
async fn ended(start: &mut Option<Starting>) -> Started {
    match start {
        Some(Starting(start)) => start.await.unwrap_or_else(|error| {
            Err(SandboxError::unavailable(format!("its start was aborted: {error}")))
        }),
        None => std::future::pending().await,
    }
}
