//! Python tasks through the engine, beside others that run Python: a cold interpreter and, if
//! tasks run in containers, `docker run`.
//!
//! Invariant: what is compared is measured in turns, so that a burst of the machine hits all of it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use gleitzeit::{Handle, Settings, providers::python};
use gleitzeit_sandbox::Interpreter;
use serde::Serialize;
use serde_json::json;
use tokio::process::Command;

use crate::{
    figures::{each, percentile, rate},
    options::BenchArgs,
    runner::{self, Measurement},
    work,
};

/// Cold starts, at most.
const COLD_MAX: u64 = 200;
/// Containers of which each takes a fraction of a second.
const DOCKER_RUN_MAX: u64 = 30;
/// Tasks in containers side by side, at most: no stock lasts longer.
const CONTAINERS_MAX: u64 = 40;
/// A container is warmed within this, mostly.
const WARMING: Duration = Duration::from_millis(500);

/// Figures of Python tasks; of times, p50 and p99 in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// The level that tasks ran at.
    pub(crate) sandbox: String,
    /// `python3 -I -S -E -c pass`.
    pub(crate) cold_ms: Option<[f64; 2]>,
    /// A task's p50, of that.
    pub(crate) share_of_cold: Option<f64>,
    /// `docker run` of the same image.
    pub(crate) docker_run_ms: Option<[f64; 2]>,
    /// A task's p50, of that.
    pub(crate) share_of_docker_run: Option<f64>,
    /// Processor time of this process and all below it; of containers, the engine's is not seen.
    pub(crate) cpu_ms_per_task: f64,
    /// Side by side, and how many.
    pub(crate) parallel_per_second: f64,
    pub(crate) parallel: u64,
}

/// The references that tasks are compared with.
#[derive(Debug)]
pub(crate) struct Reference {
    interpreter: Option<PathBuf>,
    /// The engine's address and the image, if tasks run in containers.
    containers: Option<(String, String)>,
    level: String,
}

/// Puts the options of the sandbox over the settings.
pub(crate) fn set(args: &BenchArgs, settings: &mut Settings) -> anyhow::Result<()> {
    use gleitzeit::domain::security::SandboxLevel;
    let providers = settings.providers.values_mut();
    let configs = providers.filter(|provider| provider.kind == "python");
    for config in configs.map(|provider| &mut provider.config.0) {
        if args.sandbox.is_some() {
            config.remove("sandbox");
        }
        if args.sandbox.as_deref() == Some("process") {
            config.remove("docker");
        }
        if let Some(image) = &args.docker_image {
            let docker = config.entry("docker").or_insert_with(|| json!({}));
            let Some(docker) = docker.as_object_mut() else {
                bail!("`docker` in the `config` of a python provider is no table");
            };
            docker.insert("image".to_owned(), json!(image));
        }
    }
    match args.sandbox.as_deref() {
        Some("docker") => settings.security.sandbox = SandboxLevel::Docker,
        Some(_) => settings.security.sandbox = SandboxLevel::Process,
        None => {}
    }
    Ok(())
}

impl Reference {
    /// Finds the references of this machine.
    pub(crate) async fn find(settings: &Settings) -> anyhow::Result<Self> {
        let specs = settings.provider_specs()?;
        let level = specs
            .iter()
            .find_map(|spec| spec.config.get("sandbox"))
            .and_then(|level| level.as_str())
            .unwrap_or("none")
            .to_owned();
        #[cfg(feature = "docker")]
        let containers = specs.iter().find_map(python::containers);
        #[cfg(not(feature = "docker"))]
        let containers = None;
        let named = specs.iter().find_map(python::interpreter);
        // An interpreter of an image is not on this machine: that of the machine stands for it.
        let named = named.filter(|_| containers.is_none()).unwrap_or_else(|| "python3".into());
        let found = Interpreter::probe(&named).await.ok();
        let interpreter = found.map(|interpreter| interpreter.path().to_owned());
        Ok(Self { interpreter, containers, level })
    }

    /// Tasks one at a time, in turns with all else; then tasks side by side.
    ///
    /// # Errors
    /// When a task does not complete, or an interpreter does not start.
    pub(crate) async fn run_workload(
        &self,
        args: &BenchArgs,
        handle: &Handle,
    ) -> anyhow::Result<(Measurement, Figures)> {
        let mut driven =
            Measurement { elapsed: Duration::ZERO, latencies: Vec::new(), sample: None };
        let (mut cold, mut docker_run) = (Vec::new(), Vec::new());
        let step = (args.tasks / COLD_MAX).max(1);
        let mut spent = 0.0;
        let mut done = 0;
        while done < args.tasks {
            // The reading takes time of this process, which must not count: its own is read last and
            // then first.
            let before = seconds_below() + own_seconds();
            for _ in 0..step.min(args.tasks - done) {
                let begun = Instant::now();
                driven.sample = Some(runner::run(handle, work::python()).await?);
                driven.latencies.push(begun.elapsed());
                done += 1;
            }
            spent += own_seconds() + seconds_below() - before;
            if let Some(interpreter) = &self.interpreter {
                cold.push(cold_start(interpreter).await?);
            }
            if self.containers.is_some() {
                if docker_run.len() as u64 <= DOCKER_RUN_MAX {
                    docker_run.extend(self.docker_run().await);
                }
                // The stock is full again: what is measured is a task, and not the warming.
                tokio::time::sleep(WARMING).await;
            }
        }
        driven.elapsed = driven.latencies.iter().sum();
        let parallel =
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let most = if self.containers.is_some() { CONTAINERS_MAX } else { u64::MAX };
        let count = args.tasks.min(most);
        let side_by_side = runner::many(handle, count, parallel, work::python).await?;
        let mut tasks = driven.latencies.clone();
        let p50 = pair(&mut tasks).map_or(0.0, |[p50, _]| p50);
        let (cold, docker_run) = (pair(&mut cold), pair(&mut docker_run));
        let figures = Figures {
            sandbox: self.level.clone(),
            cold_ms: cold,
            share_of_cold: cold.map(|[cold, _]| p50 / cold),
            docker_run_ms: docker_run,
            share_of_docker_run: docker_run.map(|[run, _]| p50 / run),
            cpu_ms_per_task: spent * 1e3 / each(args.tasks.max(1), 1),
            parallel_per_second: rate(count, side_by_side.elapsed),
            parallel,
        };
        Ok((driven, figures))
    }

    /// `None` if there is no `docker` to run.
    async fn docker_run(&self) -> Option<Duration> {
        let (address, image) = self.containers.as_ref()?;
        let begun = Instant::now();
        let mut command = Command::new("docker");
        command.args(["-H", address, "run", "--rm", "--network", "none", image]);
        command.args(["python3", "-I", "-S", "-E", "-c", "pass"]);
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status().await.ok()?;
        ended.success().then(|| begun.elapsed())
    }
}

/// p50 and p99.
fn pair(times: &mut [Duration]) -> Option<[f64; 2]> {
    times.sort_unstable();
    (!times.is_empty()).then(|| [percentile(times, 50), percentile(times, 99)])
}

async fn cold_start(path: &Path) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut command = Command::new(path);
    command.args(["-I", "-S", "-E", "-c", "pass"]).env_clear().stdin(Stdio::null());
    let ended = command.status().await.with_context(|| format!("start {}", path.display()))?;
    if !ended.success() {
        bail!("{} ended with {ended}", path.display());
    }
    Ok(begun.elapsed())
}

/// Processor time of this process, and of those below it that it has waited for, in seconds.
fn own_seconds() -> f64 {
    seconds(ticks(std::process::id()))
}

/// Processor time of all processes below this one, those that they have waited for included, in
/// seconds.
fn seconds_below() -> f64 {
    let mut pids = children(std::process::id());
    let mut sum = 0;
    while let Some(pid) = pids.pop() {
        sum += ticks(pid);
        pids.append(&mut children(pid));
    }
    seconds(sum)
}

fn seconds(ticks: u64) -> f64 {
    // A tick is a hundredth of a second on every Linux that this runs on.
    each(ticks, 100)
}

/// Of a process in user and kernel mode, and of the children that it has waited for.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or("").split(' ');
    fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn children(pid: u32) -> Vec<u32> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children"));
        let children = children.unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    pids
}

impl std::fmt::Display for Figures {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sandbox, cpu_ms_per_task, parallel_per_second, parallel, .. } = self;
        write!(
            out,
            "sandbox {sandbox}: {cpu_ms_per_task:.2} ms of processor time a task, \
             {parallel_per_second:.0} tasks/s {parallel} at a time"
        )?;
        for (name, times, share) in [
            ("python3 -I -S -E -c pass", self.cold_ms, self.share_of_cold),
            ("docker run", self.docker_run_ms, self.share_of_docker_run),
        ] {
            if let (Some([p50, p99]), Some(share)) = (times, share) {
                write!(
                    out,
                    "\n{name}: p50 {p50:.3} ms, p99 {p99:.3} ms; a task takes {share:.3} of it"
                )?;
            }
        }
        Ok(())
    }
}
