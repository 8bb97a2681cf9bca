//! The jail: a warm Python inside namespaces that forks one child for each task.
//!
//! `service` → (starts itself again) `launcher` → builds the jail and becomes `python3`, the
//! *zygote* → forks one child a task, which shuts itself in and runs it.
//!
//! | module | what it does |
//! |---|---|
//! | `launcher`, `spec` | the program that becomes the interpreter, and what it is told |
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
mod attendant;
mod bpf;
pub(crate) mod cgroup;
mod channel;
mod child;
mod connect;
mod filter;
pub(crate) mod kernel;
mod landlock;
mod launcher;
mod layout;
mod mounts;
mod namespaces;
pub(crate) mod selftest;
mod slot;
mod spec;
mod zygote;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    Interpreter, Job, Level, SandboxError, frames,
    interpreter::{HARNESS, PROBE, PROBE_SWITCHES, PROBE_TIMEOUT},
    pool::Shared,
    watch::Ended,
};
use cgroup::{Group, Groups};
use child::NoEnd;
use layout::Layout;
use slot::ZygoteSlot;
use spec::{Kind, Spec};
use zygote::Zygote;

pub use address::NetworkRule;
pub use cgroup::Controller;
#[cfg(feature = "fuzzing")]
pub(crate) use channel::Message;
#[cfg(feature = "docker")]
pub(crate) use filter::{OWN_PID, names as filter_names, program as filter_program};
pub use launcher::{INIT_COMMAND, init};
pub(crate) use namespaces::has_other_users;
pub use selftest::{Check, SelfTest};
#[cfg(feature = "fuzzing")]
pub(crate) use zygote::read as read_message;

/// Reads the harness from the frames, which are descriptor 3, and hands over to it.
const BOOTSTRAP: &str = "\
import marshal
stream = open(3, 'rb', closefd=False)
harness = {'__name__': 'gleitzeit'}
exec(marshal.loads(stream.read(int.from_bytes(stream.read(4), 'big'))), harness)
harness['serve'](stream)
";
/// A task that could not begin is handed to so many processes.
const HAND_OVERS_MAX: u32 = 3;
const SWITCHES: [&str; 6] = ["-I", "-S", "-E", "-B", "-X", "utf8"];
/// What `zoneinfo` of the standard library reads.
const TIME_ZONES: &str = "/usr/share/zoneinfo";
/// What a task with network needs to find names and to trust certificates.
const NETWORK_FILES: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/usr/share/ca-certificates",
];

/// What holds for every job of a jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailSettings {
    /// The program to be started as the launcher; without it this one, which must call [`init`].
    pub launcher: Option<PathBuf>,
    /// A root file system for the jail, instead of what the interpreter needs of the machine's.
    pub root: Option<PathBuf>,
    /// Tasks at once: so many zygotes are kept.
    pub workers: usize,
    /// Jobs that may wait for a place.
    pub queue_max: usize,
    /// True starts all zygotes at once, false only as many as jobs have needed at a time.
    pub prefork: bool,
    /// True lets jobs that ask for it connect to other machines by TCP.
    pub network: bool,
    /// What such jobs reach besides: of the machine's own addresses, its neighbours' and
    /// link-local ones they reach none that is not named here.
    pub network_allow: Vec<NetworkRule>,
    /// Directories and files shown read-only besides, as if they were the task's own.
    pub read_only_paths: Vec<PathBuf>,
    /// Bytes that the files of a task may take together; they are in memory.
    pub task_bytes: u64,
    /// Files and directories that a task may make.
    pub task_inodes: u64,
    /// A zygote is replaced after so many tasks.
    pub recycle_tasks: u32,
    /// A zygote is replaced at this age.
    pub recycle_age: Duration,
    /// A directory of control groups, version 2, that was delegated to the service.
    pub cgroup: Option<PathBuf>,
    /// Thousandths of a core that a task has at most, all of its threads together; `None` for as
    /// much as the machine has to spare. Needs control groups.
    pub cpu_millicores: Option<u32>,
}

impl Default for JailSettings {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            launcher: None,
            root: None,
            workers,
            queue_max: 1024,
            prefork: true,
            network: false,
            network_allow: Vec::new(),
            read_only_paths: Vec::new(),
            task_bytes: 256 << 20,
            task_inodes: 4096,
            recycle_tasks: 1000,
            recycle_age: Duration::from_mins(10),
            cgroup: None,
            cpu_millicores: None,
        }
    }
}

/// All that it takes to start a zygote.
#[derive(Debug)]
pub(crate) struct ZygoteConfig {
    launcher: PathBuf,
    spec: Spec,
    /// What the zygote is told, once it runs.
    boot_frames: Vec<u8>,
    groups: Option<Groups>,
    recycle_tasks: u32,
    recycle_age: Duration,
    /// Nothing is sent: everything that belongs to the sandbox holds the plan, and the other end
    /// tells when nothing does any more.
    _alive: mpsc::Sender<Infallible>,
}

/// The first frame of a zygote, by the names that the harness reads.
#[derive(Serialize)]
struct HarnessConfig {
    own_pid: u32,
    network: bool,
    landlock: bool,
    /// That of a task which asks for none.
    environment: BTreeMap<String, String>,
}

impl ZygoteConfig {
    fn new(
        interpreter: &Interpreter,
        settings: &JailSettings,
        alive: mpsc::Sender<Infallible>,
    ) -> Result<Self, SandboxError> {
        let needs = interpreter.needs();
        if !needs.has_ctypes {
            let path = interpreter.path().display();
            return Err(SandboxError::unavailable(format!(
                "Python interpreter `{path}` cannot import ctypes, by which a task shuts itself \
                 in; use one that can"
            )));
        }
        // What a child would look up in libraries, each anew, is looked up by the zygote.
        let mut environment = vec!["MALLOC_ARENA_MAX=2".to_owned(), "LD_BIND_NOW=1".to_owned()];
        let libraries: Vec<_> = needs.libraries.iter().filter_map(|dir| dir.to_str()).collect();
        if !libraries.is_empty() {
            // The jail has no index of libraries.
            environment.push(format!("LD_LIBRARY_PATH={}", libraries.join(":")));
        }
        let mut arguments = SWITCHES.map(str::to_owned).to_vec();
        arguments.extend(["-c".to_owned(), BOOTSTRAP.to_owned()]);
        let layout = layout(Some(interpreter), settings)?;
        let program = needs.program.clone();
        let plain = plain_spec(settings, layout, Kind::Zygote);
        Ok(Self {
            launcher: launcher(settings)?,
            spec: Spec { program, arguments, environment, ..plain },
            boot_frames: boot_frames(interpreter, settings.network),
            groups: groups(settings)?,
            recycle_tasks: settings.recycle_tasks,
            recycle_age: settings.recycle_age,
            _alive: alive,
        })
    }

    /// All that a launcher is told.
    fn frames(&self, group: Option<&Group>) -> Vec<u8> {
        let cgroups = group.map(Group::entrances).unwrap_or_default();
        let spec = Spec { cgroups, ..self.spec.clone() };
        let mut out = Vec::new();
        // Paths that are no text cannot be written; such a machine has no jail.
        frames::put(&mut out, &serde_json::to_vec(&spec).unwrap_or_default());
        frames::put(&mut out, &self.boot_frames);
        out
    }
}

/// The control groups, with what the settings demand of them.
fn groups(settings: &JailSettings) -> Result<Option<Groups>, SandboxError> {
    let groups = Groups::find(settings.cgroup.as_deref());
    let Some(millicores) = settings.cpu_millicores else { return Ok(groups) };
    match groups.map(|groups| groups.with_processor(millicores)) {
        Some(Some(groups)) => Ok(Some(groups)),
        Some(None) | None => Err(SandboxError::unavailable(
            "`cpu_millicores` needs control groups that limit the processor, and this service may \
             make none; leave it out, or have a group delegated (systemd: `Delegate=yes`)",
        )),
    }
}

/// The program to be started as the launcher.
fn launcher(settings: &JailSettings) -> Result<PathBuf, SandboxError> {
    if let Some(launcher) = &settings.launcher {
        // It starts in the root directory. A name alone is looked for on the path.
        let is_name = launcher.components().count() == 1 && !launcher.starts_with(".");
        let at = if is_name { Ok(launcher.clone()) } else { std::path::absolute(launcher) };
        return at.map_err(SandboxError::system("find the launcher"));
    }
    if launcher::is_available() {
        return Ok("/proc/self/exe".into());
    }
    Err(SandboxError::unavailable(
        "this program cannot start itself as the launcher of jails: call `gleitzeit::sandbox::init()` \
         first thing in its `main`, or set `launcher` to the path of the `gleitzeit` program",
    ))
}

fn layout(
    interpreter: Option<&Interpreter>,
    settings: &JailSettings,
) -> Result<Layout, SandboxError> {
    if let Some(root) = &settings.root {
        return Layout::of_root(root).map_err(|error| {
            SandboxError::unavailable(format!("root `{}`: {error}", root.display()))
        });
    }
    let mut needed: Vec<&Path> = vec![Path::new(TIME_ZONES)];
    let mut editable: &[PathBuf] = &[];
    if let Some(interpreter) = interpreter {
        let needs = interpreter.needs();
        needed.push(&needs.program);
        needed.extend(needs.loader.as_deref());
        needed.extend(needs.libraries.iter().map(PathBuf::as_path));
        needed.extend(needs.packages.iter().map(PathBuf::as_path));
        editable = &needs.editable;
    }
    if settings.network {
        needed.extend(NETWORK_FILES.map(Path::new));
    }
    let read_only_paths = settings.read_only_paths.iter().chain(editable).map(std::path::absolute);
    let read_only_paths = read_only_paths.collect::<Result<Vec<_>, _>>();
    let mut layout = read_only_paths
        .and_then(|read_only_paths| Layout::of_paths(needed, read_only_paths))
        .map_err(SandboxError::system("lay out the root of the jail"))?;
    layout.listed = interpreter.map(|it| it.needs().projects.clone()).unwrap_or_default();
    Ok(layout)
}

fn boot_frames(interpreter: &Interpreter, network: bool) -> Vec<u8> {
    let filters = if network {
        // What a child waits behind, and what its task gets with and without.
        vec![filter::waiting(true), filter::program(true), filter::program(false)]
    } else {
        vec![filter::program(false)]
    };
    let text = HarnessConfig {
        own_pid: filter::OWN_PID,
        network,
        landlock: kernel::landlock_version().is_some(),
        environment: frames::at_home(&BTreeMap::new()),
    };
    let mut boot_frames = Vec::new();
    frames::put(&mut boot_frames, interpreter.harness());
    frames::put(&mut boot_frames, &serde_json::to_vec(&text).unwrap_or_default());
    for program in &filters {
        frames::put(&mut boot_frames, program);
    }
    boot_frames
}

/// Places with a zygote each. Dropped, all of them are ended.
#[derive(Debug)]
pub(crate) struct Jail {
    shared: Arc<Shared<child::Child>>,
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
        let plan = Arc::new(ZygoteConfig::new(interpreter, settings, alive)?);
        let shared = Arc::new(Shared::new(settings.queue_max));
        // The first one alone: what is wrong is told once, and a task need not wait for the others.
        let first = Zygote::start(Arc::clone(&plan)).await?;
        let slot = ZygoteSlot::new(Arc::clone(&shared), Arc::clone(&plan), first);
        tokio::spawn(slot.keep());
        let level = if settings.root.is_some() { Level::Chroot } else { Level::Process };
        let mut jail = Self {
            shared,
            level,
            self_test: SelfTest::default(),
            slots: ZygoteSlots::new(&plan, settings.workers),
            ended: Mutex::new(Some(ended)),
        };
        jail.self_test = selftest::run(&jail, interpreter, &plan).await?;
        while settings.prefork && jail.slots.add(&jail.shared, usize::MAX) {}
        Ok(jail)
    }

    pub(crate) async fn run(
        &self,
        interpreter: &Interpreter,
        job: &Job,
    ) -> Result<Ended, SandboxError> {
        let busy = self.slots.enter();
        self.slots.add(&self.shared, busy.number);
        let mut tries = 1;
        loop {
            let child = self.shared.next(&self.shared.enter_queue()?).await?;
            match child.run(interpreter, job).await {
                Ok(ended) => return Ok(ended),
                Err(NoEnd::Failed(error)) => return Err(error),
                // Nothing of it has run, so that it does no harm to hand it to another one.
                Err(NoEnd::NotBegun(source)) if tries == HAND_OVERS_MAX => {
                    return Err(SandboxError::System { what: "begin a task", source });
                }
                Err(NoEnd::NotBegun(error)) => {
                    tracing::warn!(%error, "a Python task could not begin; another process gets it");
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
        self.shared.is_serving()
    }

    pub(crate) fn self_test(&self) -> &SelfTest {
        &self.self_test
    }

    /// Ends all zygotes, with what runs in them, and waits until they are gone.
    pub(crate) async fn stop(&self) {
        self.shared.close();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut ended) = ended {
            // Nothing is ever sent: the answer is that nobody is left who could.
            let _ = ended.recv().await;
        }
    }
}

/// How many places there are, and how many jobs need one.
#[derive(Debug)]
struct ZygoteSlots {
    /// Weak, for a sandbox has stopped when nothing holds its plan.
    plan: Weak<ZygoteConfig>,
    most: usize,
    started: AtomicUsize,
    busy: AtomicUsize,
}

/// A job that needs a place, or has one.
struct Busy<'a> {
    slots: &'a ZygoteSlots,
    /// So many there are with it.
    number: usize,
}

impl ZygoteSlots {
    /// One place has started.
    fn new(plan: &Arc<ZygoteConfig>, most: usize) -> Self {
        let (started, busy) = (AtomicUsize::new(1), AtomicUsize::new(0));
        Self { plan: Arc::downgrade(plan), most, started, busy }
    }

    fn enter(&self) -> Busy<'_> {
        Busy { slots: self, number: self.busy.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// Starts one more place where there are fewer than are `needed`; false where there is none to
    /// start.
    fn add(&self, shared: &Arc<Shared<child::Child>>, needed: usize) -> bool {
        let most = self.most.min(needed);
        let one_more = |started: usize| (started < most).then_some(started + 1);
        if self.started.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            return false;
        }
        let Some(plan) = self.plan.upgrade() else { return false };
        tokio::spawn(slot::fill_new_slot(Arc::clone(shared), plan));
        true
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.slots.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Builds a jail with nothing in it, to see that it can be had with these settings here. Takes
/// milliseconds.
///
/// # Errors
/// [`SandboxError::Unavailable`] with what is missing.
pub async fn available(settings: &JailSettings) -> Result<(), SandboxError> {
    let launcher = launcher(settings)?;
    let layout = layout(None, settings)?;
    let asked = ask(settings, plain_spec(settings, layout, Kind::Check), &[]);
    let output = tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .map_err(|_| SandboxError::unavailable(format!("no answer within {PROBE_TIMEOUT:?}")))?
        .map_err(|error| zygote::no_launcher(&launcher, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.lines().last().unwrap_or("it ended without a word");
    Err(SandboxError::unavailable(format!("the launcher failed: {stderr}")))
}

/// Asks the interpreter that is at `path` of the root file system in the settings.
pub(crate) async fn probe(
    path: &Path,
    settings: &JailSettings,
) -> Result<Interpreter, SandboxError> {
    let root = settings.root.as_deref().unwrap_or(Path::new("/"));
    let program = named_in(root, path).ok_or_else(|| SandboxError::Interpreter {
        path: path.to_owned(),
        reason: format!("there is none in the root `{}`", root.display()),
    })?;
    let unusable = |reason: String| SandboxError::Interpreter { path: path.to_owned(), reason };
    let arguments = PROBE_SWITCHES.iter().chain(&["-c", PROBE]).map(ToString::to_string).collect();
    let plain = plain_spec(settings, layout(None, settings)?, Kind::Probe);
    let asked = ask(settings, Spec { program, arguments, ..plain }, HARNESS.as_bytes());
    let output = tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .map_err(|_| unusable(format!("no answer within {PROBE_TIMEOUT:?}")))?
        .map_err(|error| unusable(error.to_string()))?;
    Interpreter::read(path, &output)
}

/// A jail of these settings with no program in it yet.
fn plain_spec(settings: &JailSettings, layout: Layout, program_kind: Kind) -> Spec {
    Spec {
        layout,
        program: PathBuf::new(),
        arguments: Vec::new(),
        environment: Vec::new(),
        task_bytes: settings.task_bytes,
        task_inodes: settings.task_inodes,
        network: settings.network,
        network_allow: settings.network_allow.clone(),
        nameservers: if settings.network { nameservers(settings) } else { Vec::new() },
        cgroups: Vec::new(),
        program_kind,
    }
}

/// Servers of names, as tasks will find them.
fn nameservers(settings: &JailSettings) -> Vec<std::net::IpAddr> {
    let root = settings.root.as_deref().unwrap_or(Path::new("/"));
    let text = std::fs::read_to_string(root.join("etc/resolv.conf"));
    connect::nameservers(&text.unwrap_or_default())
}

/// Runs a launcher to its end; `input` is for its program to read.
async fn ask(
    settings: &JailSettings,
    spec: Spec,
    input: &[u8],
) -> std::io::Result<std::process::Output> {
    let launcher = launcher(settings).map_err(std::io::Error::other)?;
    let mut text = Vec::new();
    frames::put(&mut text, &serde_json::to_vec(&spec)?);
    text.extend_from_slice(input);
    let mut command = tokio::process::Command::new(launcher);
    command.arg(INIT_COMMAND).env_clear().current_dir("/").process_group(0);
    crate::interpreter::converse(command, &text).await
}

/// Where `path`, or a name that is looked for where programs are, is below `root`.
fn named_in(root: &Path, path: &Path) -> Option<PathBuf> {
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    // A link of that root leads somewhere in it, and not here: only its presence is looked at.
    let is_there = |path: &Path| below(path).symlink_metadata().is_ok();
    if path.is_absolute() {
        return is_there(path).then(|| path.to_owned());
    }
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(path))
        .find(|candidate| is_there(candidate))
}
