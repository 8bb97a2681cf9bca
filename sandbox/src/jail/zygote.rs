//! A zygote, on the service's side: start, messages, end.
//!
//! Its slot owns it. Invariant: the jail is dead when this value is dropped. The launcher reads the
//! end of its input and kills the first process of the namespace, and with it all others.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStderr, ChildStdin, Command},
};

use super::{
    cgroup::ControlGroup,
    channel::{self, Channel, Message},
    child::seconds,
    config::ZygoteConfig,
    launcher::INIT_COMMAND,
};
use crate::{SandboxError, watch::Exit};

/// A slow machine has started Python by then.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// All of a jail is gone this soon after it was killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of bytes kept of the end of a launcher's output.
const LOG_MAX_BYTES: usize = 4096;

/// A message of a zygote.
#[derive(Debug)]
pub(crate) enum ZygoteMessage {
    /// It has a child that waits: its number, its process, its line.
    Child(u64, OwnedFd, OwnedFd),
    /// A child has ended.
    Ended(ChildReport),
}

/// How a child ended, and how its zygote is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct ChildReport {
    /// The child's number.
    pub(crate) ended: u64,
    /// The wait status, as the kernel encodes it.
    status: i32,
    cpu_seconds: f64,
    peak_bytes: u64,
    /// False when files of the task could not be removed.
    pub(crate) clean: bool,
    /// Most memory that the zygote itself has had.
    pub(crate) own_bytes: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireMessage {
    Child { child: u64 },
    Ended(ChildReport),
}

impl ChildReport {
    /// True when it was killed, by us or by the kernel.
    pub(crate) fn was_killed(&self) -> bool {
        ExitStatus::from_raw(self.status).signal() == Some(libc::SIGKILL)
    }

    pub(crate) fn exit(&self, out_of_memory: bool) -> Exit {
        Exit {
            status: ExitStatus::from_raw(self.status),
            cpu_time: seconds(self.cpu_seconds),
            peak_bytes: Some(self.peak_bytes),
            out_of_memory,
        }
    }
}

/// Decodes a message of a zygote. The zygote runs our code, but is not trusted.
pub(crate) fn read(message: Message) -> io::Result<ZygoteMessage> {
    let odd = |why: &str| {
        let text = String::from_utf8_lossy(&message.bytes).into_owned();
        io::Error::other(format!("invalid message {text:?}: {why}"))
    };
    let line = serde_json::from_slice(&message.bytes).map_err(|error| odd(&error.to_string()))?;
    let mut descriptors = message.descriptors.into_iter();
    match (line, descriptors.next(), descriptors.next()) {
        (WireMessage::Child { child }, Some(process), Some(line)) => {
            Ok(ZygoteMessage::Child(child, process, line))
        }
        (WireMessage::Ended(report), None, None) => Ok(ZygoteMessage::Ended(report)),
        _ => Err(io::Error::other("message and descriptors do not match")),
    }
}

/// The launcher cannot be started.
pub(super) fn no_launcher(path: &Path, error: &io::Error) -> SandboxError {
    SandboxError::unavailable(format!("launcher `{}` cannot be started: {error}", path.display()))
}

/// A jail with its zygote.
#[derive(Debug)]
pub(crate) struct Zygote {
    pub(crate) control: Arc<Channel>,
    launcher: Option<tokio::process::Child>,
    /// The input of the launcher; closing it ends the jail.
    input: Option<ChildStdin>,
    log: Option<ChildStderr>,
    pub(crate) group: Option<Arc<ControlGroup>>,
    pub(crate) started_at: Instant,
    config: Arc<ZygoteConfig>,
}

impl Zygote {
    /// Starts one and asks it for its first child.
    pub(crate) async fn start(
        config: Arc<ZygoteConfig>,
    ) -> Result<(Self, ZygoteMessage), SandboxError> {
        let group = config.groups.as_ref().map(|groups| groups.create().map(Arc::new)).transpose();
        let group = group.map_err(SandboxError::system("make a control group"))?;
        let mut zygote = Self::spawn(Arc::clone(&config), group)
            .map_err(|error| no_launcher(&config.launcher, &error))?;
        let frames = config.frames(zygote.group.as_deref());
        match tokio::time::timeout(START_TIMEOUT, zygote.first_child(&frames)).await {
            Ok(Ok(message)) => Ok((zygote, message)),
            Ok(Err(error)) => Err(SandboxError::unavailable(zygote.last_words(&error).await)),
            Err(_) => Err(SandboxError::unavailable(format!("no answer within {START_TIMEOUT:?}"))),
        }
    }

    fn spawn(config: Arc<ZygoteConfig>, group: Option<Arc<ControlGroup>>) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        let mut launcher = Command::new(&config.launcher)
            .arg(INIT_COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::piped())
            // An interrupt at the terminal is the service's to answer.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            control: Arc::new(Channel::new(ours)?),
            input: launcher.stdin.take(),
            log: launcher.stderr.take(),
            launcher: Some(launcher),
            group,
            started_at: Instant::now(),
            config,
        })
    }

    async fn first_child(&mut self, frames: &[u8]) -> io::Result<ZygoteMessage> {
        if let Some(input) = &mut self.input {
            input.write_all(frames).await?;
        }
        self.control.send(b"fork")?;
        self.receive().await
    }

    /// The next message. An error means that the zygote has ended.
    pub(crate) async fn receive(&self) -> io::Result<ZygoteMessage> {
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed its line");
        let message = self.control.receive().await?.ok_or_else(closed)?;
        read(message)
    }

    /// Passes on what it prints from here on, until it ends.
    pub(crate) fn log(&mut self) {
        let Some(mut log) = self.log.take() else { return };
        tokio::spawn(async move {
            let mut chunk = [0; LOG_MAX_BYTES];
            while let Ok(length @ 1..) = log.read(&mut chunk).await {
                let line = String::from_utf8_lossy(&chunk[..length]);
                tracing::warn!(line = line.trim(), "Python zygote output");
            }
        });
    }

    /// The reason of a failed start: the launcher's output, or else `error`.
    async fn last_words(&mut self, error: &io::Error) -> String {
        self.input = None;
        let mut words = Vec::new();
        if let Some(log) = &mut self.log {
            let mut log = log.take(LOG_MAX_BYTES as u64);
            let _ = tokio::time::timeout(END_TIMEOUT, log.read_to_end(&mut words)).await;
        }
        let words = String::from_utf8_lossy(&words);
        match words.trim() {
            "" => format!("the launcher ended without output: {error}"),
            words => words.lines().last().unwrap_or(words).to_owned(),
        }
    }

    /// Ends the jail, with whatever runs in it, and waits until it is gone.
    pub(crate) async fn end(mut self) {
        if let Some(burial) = self.burial() {
            burial.await;
        }
    }

    /// Ends the jail; what is to be waited for then.
    fn burial(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        self.input = None;
        let (mut launcher, group) = (self.launcher.take()?, self.group.take());
        // The sandbox counts as stopped once every clone of the configuration is dropped.
        let config = Arc::clone(&self.config);
        Some(async move {
            if tokio::time::timeout(END_TIMEOUT, launcher.wait()).await.is_err() {
                tracing::warn!(launcher = ?launcher.id(), "jail still running after kill");
                let _ = launcher.start_kill();
            }
            if let Some(group) = group {
                group.remove().await;
            }
            drop(config);
        })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if let (Some(burial), Ok(runtime)) = (self.burial(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(burial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: &str =
        r#"{"ended":7,"status":9,"cpu_seconds":0.5,"peak_bytes":1,"clean":true,"own_bytes":2}"#;

    fn read_one(bytes: &[u8], count: usize) -> io::Result<ZygoteMessage> {
        let (one, two) = channel::pair()?;
        let descriptors = [one, two].into_iter().take(count).collect();
        read(Message { bytes: bytes.to_vec(), descriptors })
    }

    /// What a zygote says is read as it was meant, with its descriptors or not at all.
    #[test]
    fn messages_go_with_their_descriptors() {
        assert!(matches!(read_one(br#"{"child":3}"#, 2), Ok(ZygoteMessage::Child(3, ..))));
        let Ok(ZygoteMessage::Ended(report)) = read_one(ENDED.as_bytes(), 0) else {
            panic!("it is a report")
        };
        assert_eq!((report.ended, report.exit(false).status.code()), (7, None));
        assert!(read_one(br#"{"child":3}"#, 1).is_err() && read_one(ENDED.as_bytes(), 2).is_err());
        assert!(read_one(b"", 0).is_err() && read_one(br#"{"child":-1}"#, 2).is_err());
    }

    /// Whatever comes over the line is a message or an error, and never a panic.
    #[test]
    fn damaged_messages_are_errors() {
        // A generator of its own: the same damage each time, and no crate for it.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = ENDED.as_bytes().to_vec();
            for _ in 0..next() % 4 {
                let at = usize::try_from(next() % bytes.len() as u64).unwrap_or(0);
                match next() % 3 {
                    0 => bytes[at] = next().to_le_bytes()[0],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, next().to_le_bytes()[0]),
                }
            }
            match read_one(&bytes, 0) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
        }
        assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
    }
}
