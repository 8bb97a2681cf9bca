//! The engine to test containers with: `GLEITZEIT_TEST_DOCKER`, and an image made on the spot of
//! this machine's Python.

use std::{process::Command, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    query_parameters::{CreateImageOptionsBuilder, ListContainersOptionsBuilder},
};
use futures_util::StreamExt as _;

/// The address of the engine.
pub const ADDRESS: &str = "GLEITZEIT_TEST_DOCKER";
/// Makes the tar of an image.
const IMAGE: &str = include_str!("image.py");

/// The engine's address; `None`, and a word about it, where there is none.
pub fn address(what: &str) -> Option<String> {
    let address = std::env::var(ADDRESS).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        println!("SKIPPED: {what} (no container engine: set {ADDRESS}, such as unix:///PATH)");
    }
    address
}

pub async fn connect(address: &str) -> Docker {
    Docker::connect_with_unix(address, 60, API_DEFAULT_VERSION)
        .unwrap()
        .negotiate_version()
        .await
        .unwrap()
}

/// The name of an image with `python` in it, which is made where it is not there.
pub async fn image(docker: &Docker, python: &str) -> String {
    let version = "import sys; print(*sys.version_info[:3], sep='.')";
    let version = output(Command::new(python).args(["-c", version]));
    let tag = format!("{}-{:x}", String::from_utf8(version).unwrap().trim(), sum(IMAGE));
    let name = format!("gleitzeit-test:{tag}");
    if docker.inspect_image(&name).await.is_ok() {
        return name;
    }
    let tar = output(Command::new(python).args(["-c", IMAGE]));
    let options = CreateImageOptionsBuilder::new().from_src("-").repo("gleitzeit-test").tag(&tag);
    let body = bollard::body_full(tar.into());
    let mut made = docker.create_image(Some(options.build()), Some(body), None);
    while let Some(step) = made.next().await {
        step.unwrap();
    }
    name
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The containers of the process `pid` that are there, in whatever state.
pub async fn containers_of(docker: &Docker, pid: u32) -> Vec<String> {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let found = docker.list_containers(Some(options)).await.unwrap();
    let part = format!(":{pid}:");
    let is_ours = |owner: &String| owner.contains(&part);
    found
        .into_iter()
        .filter(|one| {
            let labels = one.labels.as_ref();
            labels.and_then(|labels| labels.get("gleitzeit.sandbox.owner")).is_some_and(is_ours)
        })
        .filter_map(|one| one.id)
        .collect()
}

/// Waits until nothing of the process `pid` is left.
pub async fn until_none_of(docker: &Docker, pid: u32) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let left = containers_of(docker, pid).await;
        if left.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < end, "containers are left: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
