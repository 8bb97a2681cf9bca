//! The questions to the engine of containers, and what its answers mean.
//!
//! Invariants: nothing is ever pulled; what is gone already is no error of removing or killing it.

use std::{
    collections::HashMap, io, os::unix::process::ExitStatusExt as _, process::ExitStatus,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::AttachContainerResults,
    errors::Error,
    models::{ContainerCreateBody, ContainerState, ContainerUpdateBody},
    query_parameters::{
        AttachContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};

use super::engine_info::EngineInfo;
use crate::SandboxError;

/// The default address of the engine.
pub(super) const ADDRESS: &str = "unix:///var/run/docker.sock";
/// An engine that is busy takes seconds to answer, but not this many.
const ANSWER_SECONDS: u64 = 60;
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
/// How often a container is asked for that is about to be gone, and how long that may take.
const STEP: Duration = Duration::from_millis(20);
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to an engine. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: Docker,
    address: String,
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's message, without the wrapping that every error has.
fn reason(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        // In an error of a connection, only the innermost cause is specific.
        other => {
            let mut cause: &dyn std::error::Error = other;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        }
    }
}

impl Engine {
    /// Finds the engine and the version that both speak.
    pub(super) async fn connect(address: &str) -> Result<Self, SandboxError> {
        let missing = |why: String| {
            SandboxError::unavailable(format!(
                "no container engine answers at `{address}`: {why}; start one there (Debian: \
                 docker.io), let this user reach it (the group `docker`), or name another with \
                 `host` or DOCKER_HOST"
            ))
        };
        let docker = match address.split_once("://") {
            Some(("unix", _)) => {
                Docker::connect_with_unix(address, ANSWER_SECONDS, API_DEFAULT_VERSION)
            }
            Some(("tcp" | "http", _)) => {
                Docker::connect_with_http(address, ANSWER_SECONDS, API_DEFAULT_VERSION)
            }
            _ => {
                return Err(SandboxError::unavailable(format!(
                    "`{address}` is no address of a container engine; write `unix://PATH` or \
                     `tcp://HOST:PORT`"
                )));
            }
        };
        let docker = docker.map_err(|error| missing(reason(&error)))?;
        let docker = tokio::time::timeout(HELLO_TIMEOUT, docker.negotiate_version())
            .await
            .map_err(|_| missing(format!("no answer within {HELLO_TIMEOUT:?}")))?
            .map_err(|error| missing(reason(&error)))?;
        Ok(Self { docker, address: address.to_owned() })
    }

    /// The address of the engine.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(Error) -> SandboxError {
        move |error| SandboxError::Engine {
            what,
            address: self.address.clone(),
            reason: reason(&error),
        }
    }

    /// The engine's description. With `runtime`, checks that the engine has that runtime.
    pub(super) async fn info(&self, runtime: Option<&str>) -> Result<EngineInfo, SandboxError> {
        let info = self.docker.info().await.map_err(self.failed("communicate"))?;
        let runtimes = info.runtimes.unwrap_or_default();
        if let Some(runtime) = runtime
            && !runtimes.contains_key(runtime)
        {
            let mut known: Vec<_> = runtimes.keys().cloned().collect();
            known.sort();
            return Err(SandboxError::unavailable(format!(
                "the container engine at `{}` has no runtime `{runtime}`; it has {}: install it \
                 and name it in the engine's daemon.json",
                self.address,
                known.join(", ")
            )));
        }
        Ok(EngineInfo {
            address: self.address.clone(),
            version: info.server_version.unwrap_or_default(),
            runtime: runtime.map(str::to_owned).or(info.default_runtime).unwrap_or_default(),
            image: None,
        })
    }

    /// That the image is there.
    pub(super) async fn has_image(&self, image: &str) -> Result<(), SandboxError> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(NOT_FOUND) => {
                Err(SandboxError::unavailable(format!(
                    "image `{image}` is not at the container engine at `{0}`, and images are never \
                     pulled for a task: `docker -H {0} pull {image}`, or build it there",
                    self.address
                )))
            }
            Err(error) => Err(self.failed("find an image")(error)),
        }
    }

    /// Makes a container, with its streams at our end; its number.
    pub(super) async fn create(&self, body: ContainerCreateBody) -> Result<String, SandboxError> {
        let made = self.docker.create_container(None, body).await;
        made.map(|made| made.id).map_err(self.failed("make a container"))
    }

    pub(super) async fn attach(&self, id: &str) -> Result<AttachContainerResults, SandboxError> {
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = self.docker.attach_container(id, Some(options)).await;
        attached.map_err(self.failed("attach to a container"))
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), SandboxError> {
        self.docker.start_container(id, None).await.map_err(self.failed("start a container"))
    }

    /// Sets what its memory, files included, may be.
    pub(super) async fn limit_memory(&self, id: &str, bytes: i64) -> Result<(), SandboxError> {
        let body = ContainerUpdateBody {
            memory: Some(bytes),
            memory_swap: Some(bytes),
            ..ContainerUpdateBody::default()
        };
        let done = self.docker.update_container(id, body).await;
        done.map_err(self.failed("limit the memory of a container"))
    }

    /// Kills it, and all that runs in it, at once.
    pub(super) async fn kill(&self, id: &str) -> Result<(), SandboxError> {
        match self.docker.kill_container(id, None).await {
            Err(error) if !matches!(status(&error), Some(NOT_FOUND | CONFLICT)) => {
                Err(self.failed("kill a container")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes it, whatever it does, and waits until it is gone.
    pub(super) async fn remove(&self, id: &str) -> Result<(), SandboxError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let gone = async {
            loop {
                match self.docker.remove_container(id, Some(options.clone())).await {
                    Ok(()) => return Ok(()),
                    Err(error) => match status(&error) {
                        Some(NOT_FOUND) => return Ok(()),
                        // The engine is about it already.
                        Some(CONFLICT) => tokio::time::sleep(STEP).await,
                        _ => return Err(self.failed("remove a container")(error)),
                    },
                }
            }
        };
        tokio::time::timeout(GONE_TIMEOUT, gone).await.unwrap_or_else(|_| {
            Err(SandboxError::Engine {
                what: "remove a container",
                address: self.address.clone(),
                reason: format!("`{id}` is still there after {GONE_TIMEOUT:?}"),
            })
        })
    }

    /// Containers that have this label, each with its value.
    pub(super) async fn labelled(
        &self,
        label: &str,
    ) -> Result<Vec<(String, String)>, SandboxError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await;
        let found = found.map_err(self.failed("list containers"))?;
        Ok(found
            .into_iter()
            .filter_map(|one| Some((one.id?, one.labels?.remove(label)?)))
            .collect())
    }

    /// The state of a container; `None` if it no longer exists.
    async fn state(&self, id: &str) -> Result<Option<ContainerState>, SandboxError> {
        match self.docker.inspect_container(id, None).await {
            Ok(details) => Ok(details.state),
            Err(error) if status(&error) == Some(NOT_FOUND) => Ok(None),
            Err(error) => Err(self.failed("inspect a container")(error)),
        }
    }

    /// The exit status of a container whose output is closed, and whether memory ran out. A
    /// container that still runs is killed, because nothing can be read from it any more.
    pub(super) async fn end_of(&self, id: &str) -> io::Result<(ExitStatus, bool)> {
        const KILLED: i32 = 9;
        let asked = async {
            loop {
                let Some(state) = self.state(id).await? else {
                    return Ok((ExitStatus::from_raw(KILLED), false));
                };
                if state.running != Some(true) {
                    let out_of_memory = state.oom_killed == Some(true);
                    return Ok((ExitStatus::from_raw(KILLED), out_of_memory));
                }
                self.kill(id).await?;
                tokio::time::sleep(STEP).await;
            }
        };
        match tokio::time::timeout(GONE_TIMEOUT, asked).await {
            Ok(ended) => ended.map_err(|error| match error {
                SandboxError::Engine { reason, .. } => io::Error::other(reason),
                other => io::Error::other(other.to_string()),
            }),
            Err(_) => {
                Err(io::Error::other(format!("container `{id}` still running after SIGKILL")))
            }
        }
    }

    /// How a container that ends by itself ended.
    pub(super) async fn exit_code(&self, id: &str) -> Result<i64, SandboxError> {
        use futures_util::StreamExt as _;
        let mut waited = Box::pin(self.docker.wait_container(id, None));
        match waited.next().await {
            Some(Ok(details)) => Ok(details.status_code),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(self.failed("wait for a container")(error)),
            None => Ok(0),
        }
    }
}
