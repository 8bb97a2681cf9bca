//! The isolation features of this machine, and the remedy for each missing one.
//!
//! `gleitzeit doctor` prints it. Features are tried, not derived from version numbers.

use std::{fs, path::Path};
#[cfg(not(feature = "docker"))]
use std::{io, os::unix::net::UnixStream};

use serde::Serialize;

use crate::{
    Controller, JailSettings,
    jail::{self, cgroup::ControlGroups, kernel},
};

/// Namespaces that a jail is made of, by their files below `/proc/self/ns`.
const NAMESPACES: [(&str, &str); 6] = [
    ("user", "user"),
    ("mount", "mnt"),
    ("process", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("host name", "uts"),
];
/// The default address of a container engine.
#[cfg(not(feature = "docker"))]
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// One thing that the machine has or lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the feature.
    pub name: &'static str,
    /// True when it is there and works.
    pub available: bool,
    /// The version found, or the error.
    pub detail: String,
    /// The remedy; `None` if the feature is available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Finding {
    fn new(name: &'static str, found: Result<String, String>, remedy: &'static str) -> Self {
        match found {
            Ok(detail) => Self { name, available: true, detail, remedy: None },
            Err(detail) => Self { name, available: false, detail, remedy: Some(remedy) },
        }
    }
}

/// An engine of containers to look for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineWanted {
    /// The address; `None` for the default one.
    pub address: Option<String>,
    /// The image that it should have.
    pub image: Option<String>,
}

/// Looks at everything that a level of isolation may need.
pub async fn inspect(settings: &JailSettings, engine: &EngineWanted) -> Vec<Finding> {
    vec![
        kernel_version(),
        namespaces(),
        jail(settings).await,
        landlock(),
        system_calls(),
        control_groups(settings),
        docker(engine).await,
    ]
}

fn kernel_version() -> Finding {
    let found = nix::sys::utsname::uname().map_err(|error| error.to_string()).map(|name| {
        format!(
            "{} {} on {}",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy(),
            name.machine().to_string_lossy()
        )
    });
    Finding::new("kernel", found, "Linux is what jails are made with")
}

fn namespaces() -> Finding {
    let missing: Vec<_> = NAMESPACES
        .iter()
        .filter(|(_, file)| !Path::new("/proc/self/ns").join(file).exists())
        .map(|(name, _)| *name)
        .collect();
    let allowed = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let found = if !missing.is_empty() {
        Err(format!("missing: {}", missing.join(", ")))
    } else if allowed.trim() == "0" {
        Err("user namespaces are switched off".to_owned())
    } else {
        Ok(NAMESPACES.map(|(name, _)| name).join(", "))
    };
    Finding::new(
        "namespaces",
        found,
        "use a kernel that has them, and set the sysctl user.max_user_namespaces above 0",
    )
}

async fn jail(settings: &JailSettings) -> Finding {
    let found = match jail::available(settings).await {
        Ok(()) if jail::has_other_users() => Ok("built one as root".to_owned()),
        Ok(()) if nix::unistd::geteuid().is_root() => {
            Ok("built one as an ordinary user: root here has no other users".to_owned())
        }
        Ok(()) => Ok("built one as an ordinary user".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Finding::new(
        "jail",
        found,
        "Linux 5.14 or newer; outside of a container, or in one that may make namespaces \
         (--security-opt seccomp=unconfined --security-opt apparmor=unconfined, or privileged); \
         sysctl kernel.unprivileged_userns_clone=1 on Debian, \
         kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu",
    )
}

fn landlock() -> Finding {
    let found = kernel::landlock_version()
        .map(|version| format!("version {version}"))
        .ok_or_else(|| "the kernel has none, or has it switched off".to_owned());
    Finding::new(
        "landlock",
        found,
        "Linux 5.13 or newer with `landlock` among the `lsm=` of its command line; jails work \
         without, with one wall less around files",
    )
}

fn system_calls() -> Finding {
    let found = if kernel::filters_system_calls() {
        Ok("filters with error numbers".to_owned())
    } else {
        Err("the kernel cannot filter system calls".to_owned())
    };
    Finding::new("seccomp", found, "use a kernel with CONFIG_SECCOMP_FILTER")
}

fn control_groups(settings: &JailSettings) -> Finding {
    let groups = ControlGroups::find(settings.cgroup.as_deref());
    let found = match groups.as_ref().map(ControlGroups::controllers).as_deref() {
        None => Err("none can be made by this user".to_owned()),
        Some([Controller::Unified, ..]) => Ok("version 2, memory and processes".to_owned()),
        Some(some) => {
            let names = some.iter().map(|controller| match controller {
                Controller::Pids => "processes",
                Controller::Cpu => "processor",
                Controller::Memory | Controller::Unified => "memory",
            });
            Ok(format!("version 1, {}", names.collect::<Vec<_>>().join(", ")))
        }
    };
    Finding::new(
        "cgroups",
        found,
        "run the service as root, or with `Delegate=yes` and `DelegateSubgroup=service` in its \
         systemd unit (systemd 254 or newer); without, memory is limited as address space alone",
    )
}

const DOCKER_REMEDY: &str = "install docker.io, start it, and be in the group `docker`; have the \
                             image there; needed for the level `docker` only";

/// Whether an engine answers, and has the image.
#[cfg(feature = "docker")]
async fn docker(engine: &EngineWanted) -> Finding {
    let settings = crate::DockerSettings {
        host: engine.address.clone(),
        ..crate::DockerSettings::of(String::new())
    };
    let found = crate::engine_at(&settings.address(), engine.image.as_deref()).await;
    let found = match (found, &engine.image) {
        (Ok(info), Some(_)) => Ok(format!("{info} is there")),
        (Ok(info), None) => Ok(info.to_string()),
        (Err(crate::SandboxError::Unavailable { reason }), _) => Err(reason),
        (Err(error), _) => Err(error.to_string()),
    };
    Finding::new("docker", found, DOCKER_REMEDY)
}

/// Whether a process listens on the default socket of a container engine.
#[cfg(not(feature = "docker"))]
#[expect(clippy::unused_async, reason = "that with the feature asks")]
async fn docker(_: &EngineWanted) -> Finding {
    let mut refused = None;
    for socket in DOCKER_SOCKETS {
        match UnixStream::connect(socket) {
            Ok(_) => {
                let found = format!(
                    "an engine listens at {socket}, and this program was built without the feature \
                     `docker`"
                );
                return Finding::new("docker", Ok(found), "");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refused = Some(format!("{socket}: {error}")),
        }
    }
    let why = refused.unwrap_or_else(|| "no engine listens on this machine".to_owned());
    Finding::new("docker", Err(why), DOCKER_REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there needs no remedy, what is missing has one.
    #[tokio::test]
    async fn findings_have_a_remedy() {
        let findings = inspect(&JailSettings::default(), &EngineWanted::default()).await;
        let names: Vec<_> = findings.iter().map(|finding| finding.name).collect();
        let expected = ["kernel", "namespaces", "jail", "landlock", "seccomp", "cgroups", "docker"];
        assert_eq!(names, expected);
        for finding in findings {
            assert_ne!(finding.available, finding.remedy.is_some(), "{finding:?}");
            assert!(!finding.detail.is_empty(), "{finding:?}");
        }
    }

    /// A program that is no launcher of its own gets an error, before anything is tried.
    #[tokio::test]
    async fn a_jail_without_a_launcher_is_not_available() {
        let finding = jail(&JailSettings::default()).await;
        assert!(!finding.available && finding.detail.contains("sandbox::init()"), "{finding:?}");
    }
}
