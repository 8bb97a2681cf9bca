//! The engine to test containers with: `GLEITZEIT_TEST_DOCKER`, and an image made on the spot of
//! this machine's Python.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]
#![expect(clippy::print_stdout, reason = "what was skipped is told")]

use std::{path::PathBuf, process::Command, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    query_parameters::{
        CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveImageOptions,
        TagImageOptionsBuilder,
    },
};
use futures_util::StreamExt as _;
use tokio::net::{UnixListener, UnixStream};

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
    // One of the tests that run at once makes it.
    let lock = std::fs::File::create(std::env::temp_dir().join("gleitzeit-test-image")).unwrap();
    lock.lock().unwrap();
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

/// A name of its own for an image, by which the containers of one test are told from others of the
/// same process.
pub async fn own_name(docker: &Docker, image: &str, test: &str) -> String {
    let tag = format!("{test}-{}", std::process::id());
    let options = TagImageOptionsBuilder::new().repo("gleitzeit-test").tag(&tag).build();
    docker.tag_image(image, Some(options)).await.unwrap();
    format!("gleitzeit-test:{tag}")
}

/// Takes the name away again; there must be no container of it.
pub async fn none_is_left_of(docker: &Docker, name: &str) {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let found = docker.list_containers(Some(options)).await.unwrap();
    let left: Vec<_> = found.iter().filter(|one| one.image.as_deref() == Some(name)).collect();
    assert!(left.is_empty(), "containers are left: {left:?}");
    docker.remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
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

/// A way to the engine that can be cut.
pub struct Way {
    folder: tempfile::TempDir,
    to: PathBuf,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Way {
    pub fn to(address: &str) -> Self {
        let to = address.trim_start_matches("unix://").into();
        let mut way = Self { folder: tempfile::tempdir().unwrap(), to, running: None };
        way.open();
        way
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("engine")
    }

    pub fn address(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    pub fn open(&mut self) {
        let (listener, to) = (UnixListener::bind(self.path()).unwrap(), self.to.clone());
        self.running = Some(tokio::spawn(async move {
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let mut to = UnixStream::connect(&to).await.unwrap();
                passing.spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        }));
    }

    /// All that passes is cut off, and nothing new begins.
    pub async fn cut(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        let _ = running.await;
        let _ = std::fs::remove_file(self.path());
    }
}
