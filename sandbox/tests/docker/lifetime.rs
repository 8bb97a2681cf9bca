//! No container outlives its task, its sandbox or its service, and an engine that goes away comes
//! back.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bollard::models::ContainerCreateBody;
use gleitzeit_sandbox::{DockerSettings, Job, Sandbox, SandboxError, Status};
use serde_json::json;

use crate::support::{self, docker_settings, engine};

/// Set for the process that plays the service which is killed.
const SERVICE: &str = "SANDBOX_TEST_SERVICE";

async fn start(settings: &DockerSettings) -> Sandbox {
    Sandbox::docker("python3".as_ref(), settings).await.unwrap()
}

/// Tasks that end, crash, hang, flood and are dropped: none leaves a container, and a sandbox that
/// was stopped leaves none at all.
#[tokio::test]
async fn nothing_is_left_of_tasks_and_of_the_sandbox() {
    let Some(settings) = docker_settings().await else { return };
    let docker = engine::connect(settings.host.as_deref().unwrap()).await;
    let image = engine::own_name(&docker, &settings.image, "left").await;
    let sandbox = start(&DockerSettings { image: image.clone(), ..settings }).await;
    let flood = "while True: print('x' * 1000)";
    for (code, status) in [
        ("1", Status::Ok),
        ("import os; os._exit(3)", Status::Error),
        ("import os; os.abort()", Status::Killed),
        ("while True: pass", Status::Timeout),
        (flood, Status::OutputLimit),
        ("x = bytearray(8 << 30)", Status::MemoryLimit),
    ] {
        let limit = Duration::from_secs(if status == Status::Timeout { 1 } else { 20 });
        let outcome = sandbox.run(Job::execute(code).timeout(limit)).await.unwrap();
        assert_eq!(outcome.status, status, "{outcome:?}");
        let hang = sandbox.run(Job::execute("while True: pass"));
        assert!(tokio::time::timeout(Duration::from_millis(100), hang).await.is_err());
    }
    sandbox.stop().await;
    engine::none_is_left_of(&docker, &image).await;
    let error = sandbox.run(Job::execute("1")).await.unwrap_err();
    assert!(matches!(error, SandboxError::Closed), "{error}");
}

/// A service that is killed in mid-task takes its containers with it, without anybody's help.
#[tokio::test]
async fn nothing_is_left_of_a_service_that_is_killed() {
    let Some(settings) = docker_settings().await else { return };
    if std::env::var_os(SERVICE).is_some() {
        let sandbox = start(&settings).await;
        println!("started");
        let job = Job::execute("while True: pass").timeout(Duration::from_mins(2));
        let hang = tokio::time::timeout(Duration::from_millis(300), sandbox.run(job.clone()));
        assert!(hang.await.is_err());
        let begun = tokio::spawn(async move { sandbox.run(job).await.map(drop) });
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("runs");
        begun.await.unwrap().unwrap();
        return;
    }
    let mut service = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifetime::nothing_is_left_of_a_service_that_is_killed", "--nocapture"])
        .env(SERVICE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(service.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("runs")), "it never ran");
    let docker = engine::connect(settings.host.as_deref().unwrap()).await;
    assert!(!engine::containers_of(&docker, service.id()).await.is_empty());
    service.kill().unwrap();
    service.wait().unwrap();
    engine::until_none_of(&docker, service.id()).await;
}

/// What an engine kept of a dead service is removed at the next start; what lives is not touched.
#[tokio::test]
async fn only_orphans_are_swept_at_the_start() {
    let Some(settings) = docker_settings().await else { return };
    let docker = engine::connect(settings.host.as_deref().unwrap()).await;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let numbers = std::fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    let here = format!("{}:{}", boot.trim(), numbers.replace(':', ""));
    let started = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned()
    };
    let mut made = Vec::new();
    for owner in [
        format!("{here}:4194999:1"),
        format!("{here}:1:{}", started(1)),
        "another-machine:pid[1]:1:1".to_owned(),
    ] {
        let labels = [("gleitzeit.sandbox.owner".to_owned(), owner)].into();
        let body = ContainerCreateBody {
            image: Some(settings.image.clone()),
            cmd: Some(vec!["python3".to_owned()]),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        made.push(docker.create_container(None, body).await.unwrap().id);
    }
    let sandbox = start(&settings).await;
    sandbox.stop().await;
    let mut left = Vec::new();
    for id in &made {
        left.push(docker.inspect_container(id, None).await.is_ok());
        let _ = docker.remove_container(id, None).await;
    }
    assert_eq!(left, [false, true, true]);
}

/// An engine that goes away in mid-task is an error that says so; calls fail at once while it is
/// gone, and work again when it is back.
#[tokio::test]
async fn an_engine_that_restarts_is_used_again() {
    let Some(settings) = docker_settings().await else { return };
    let mut way = engine::Way::to(settings.host.as_deref().unwrap());
    let host = Some(way.address());
    let sandbox = Arc::new(start(&DockerSettings { host, ..settings }).await);
    let hang = tokio::spawn({
        let sandbox = Arc::clone(&sandbox);
        async move { sandbox.run(Job::execute("while True: pass")).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    way.cut().await;
    let error = hang.await.unwrap().unwrap_err();
    assert!(matches!(error, SandboxError::Engine { .. }) && error.is_transient(), "{error}");
    let error = tokio::time::timeout(support::AMPLE, async {
        loop {
            match sandbox.run(Job::execute("1")).await {
                // Tasks that were under way when it went tell so, too.
                Err(error @ SandboxError::Unavailable { .. }) => return error,
                other => drop(other),
            }
        }
    });
    let error = error.await.unwrap().to_string();
    assert!(error.contains(&way.address()), "{error}");
    assert!(!sandbox.is_serving());
    way.open();
    support::until("it is back", || sandbox.is_serving()).await;
    let outcome = sandbox.run(Job::execute("1")).await.unwrap();
    assert_eq!(outcome.result, json!(1));
    sandbox.stop().await;
}
