//! The readers of data that tasks, zygotes and supervisors write, for fuzz targets and property
//! tests.
//!
//! Invariant of all of it: whatever comes is read or refused, within bounds, and nothing panics.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    pin::pin,
    process::ExitStatus,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    Level, Mode, Outcome, classify,
    jail::{Message, read_message},
    outcome::Stream,
    reply::{Reply, read_reply},
    watch::{EndCause, Ended, Exit},
};

/// Reads `bytes` as the reply of a task and judges the task, which ended with `status` as `wait`
/// gives it.
pub fn reply(bytes: &[u8], result_max_bytes: usize, status: i32) -> Outcome {
    let exit = Exit {
        status: ExitStatus::from_raw(status),
        cpu_time: None,
        peak_bytes: None,
        out_of_memory: false,
    };
    let ended = Ended {
        exit,
        ending: EndCause::Own,
        reply: read(bytes, result_max_bytes),
        stdout: Stream::default(),
        stderr: Stream::default(),
        execution_time: Duration::ZERO,
    };
    classify::outcome(ended, Mode::Execute, Level::Process)
}

fn read(bytes: &[u8], result_max_bytes: usize) -> Result<Option<Reply>, String> {
    let mut reading = pin!(read_reply(bytes, result_max_bytes));
    match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => Err("bytes that are there need not be waited for".to_owned()),
    }
}

/// Reads `bytes` as a message of a zygote with so many descriptors; true when it is one.
pub fn control(bytes: &[u8], descriptors: usize) -> bool {
    let open = || File::open("/dev/null").map(OwnedFd::from);
    let descriptors = (0..descriptors).map_while(|_| open().ok()).collect();
    read_message(Message { bytes: bytes.to_vec(), descriptors }).is_ok()
}

/// Hears `bytes` as a supervisor, cut into parts of this size; how many bytes of the task's streams
/// were passed on, or why it is not understood.
///
/// # Errors
/// If the bytes are no frame of a supervisor.
#[cfg(feature = "docker")]
pub fn supervisor(bytes: &[u8], part: usize) -> Result<usize, String> {
    use crate::docker::line::{Decoder, Frame};
    let mut decoder = Decoder::default();
    let mut passed = 0;
    for mut part in bytes.chunks(part.max(1)) {
        while !part.is_empty() {
            if let Some(Frame::Data(_, data)) = decoder.next(&mut part)? {
                passed += data.len();
            }
        }
    }
    Ok(passed)
}
