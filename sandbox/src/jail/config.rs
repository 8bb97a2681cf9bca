//! Everything that a zygote is started with.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    cgroup::{ControlGroup, ControlGroups},
    connect, filter, kernel, launcher,
    layout::JailLayout,
    settings::JailSettings,
    spec::{ProgramKind, Spec},
};
use crate::{Interpreter, SandboxError, frames};

/// Reads the harness from the frames, which are descriptor 3, and hands over to it.
const BOOTSTRAP: &str = "\
import marshal
stream = open(3, 'rb', closefd=False)
harness = {'__name__': 'gleitzeit'}
exec(marshal.loads(stream.read(int.from_bytes(stream.read(4), 'big'))), harness)
harness['serve'](stream)
";
const SWITCHES: [&str; 6] = ["-I", "-S", "-E", "-B", "-X", "utf8"];
/// The time zone files that `zoneinfo` of the standard library reads.
const TIME_ZONES: &str = "/usr/share/zoneinfo";
/// Files that a task with network needs for name resolution and certificates.
const NETWORK_FILES: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/usr/share/ca-certificates",
];

/// All that it takes to start a zygote.
#[derive(Debug)]
pub(crate) struct ZygoteConfig {
    pub(super) launcher: PathBuf,
    pub(super) spec: Spec,
    /// The frames that the zygote reads once it runs.
    boot_frames: Vec<u8>,
    pub(super) groups: Option<ControlGroups>,
    pub(super) recycle_tasks: u32,
    pub(super) recycle_age: Duration,
    /// Nothing is sent. Every part of the sandbox holds this sender, and the receiver returns once
    /// all of them are dropped.
    _alive: mpsc::Sender<Infallible>,
}

/// The first frame of a zygote, by the names that the harness reads.
#[derive(Serialize)]
struct ZygoteHarnessConfig {
    own_pid: u32,
    network: bool,
    landlock: bool,
    /// That of a task which asks for none.
    environment: BTreeMap<String, String>,
}

impl ZygoteConfig {
    pub(super) fn new(
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
        // The zygote resolves symbols of libraries at its start; else each child would resolve them
        // again.
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
        let plain = plain_spec(settings, layout, ProgramKind::Zygote);
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

    /// The whole input of a launcher.
    pub(super) fn frames(&self, group: Option<&ControlGroup>) -> Vec<u8> {
        let cgroups = group.map(ControlGroup::entrances).unwrap_or_default();
        let spec = Spec { cgroups, ..self.spec.clone() };
        let mut out = Vec::new();
        // Paths that are no text cannot be written; such a machine has no jail.
        frames::put(&mut out, &serde_json::to_vec(&spec).unwrap_or_default());
        frames::put(&mut out, &self.boot_frames);
        out
    }
}

/// The control groups, with what the settings demand of them.
fn groups(settings: &JailSettings) -> Result<Option<ControlGroups>, SandboxError> {
    let groups = ControlGroups::find(settings.cgroup.as_deref());
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
pub(super) fn launcher(settings: &JailSettings) -> Result<PathBuf, SandboxError> {
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

pub(super) fn layout(
    interpreter: Option<&Interpreter>,
    settings: &JailSettings,
) -> Result<JailLayout, SandboxError> {
    if let Some(root) = &settings.root {
        return JailLayout::of_root(root).map_err(|error| {
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
        .and_then(|read_only_paths| JailLayout::of_paths(needed, read_only_paths))
        .map_err(SandboxError::system("lay out the root of the jail"))?;
    layout.listed = interpreter.map(|it| it.needs().projects.clone()).unwrap_or_default();
    Ok(layout)
}

fn boot_frames(interpreter: &Interpreter, network: bool) -> Vec<u8> {
    let filters = if network {
        // The filter of a waiting child, and those of a task with and without network.
        vec![filter::waiting(true), filter::program(true), filter::program(false)]
    } else {
        vec![filter::program(false)]
    };
    let text = ZygoteHarnessConfig {
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

/// A jail of these settings with no program in it yet.
pub(super) fn plain_spec(
    settings: &JailSettings,
    layout: JailLayout,
    program_kind: ProgramKind,
) -> Spec {
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
