//! The reply of a task: the task's own word. The first two bytes are how the task ended.

#![no_main]

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use gleitzeit_sandbox::{Status, fuzzing};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((status, reply)) = data.split_first_chunk::<2>() else { return };
    let status = i32::from(u16::from_le_bytes(*status));
    let outcome = fuzzing::reply(reply, 1 << 16, status);
    let ended_well = ExitStatus::from_raw(status).code() == Some(0);
    assert!(ended_well || outcome.status != Status::Ok, "{outcome:?}");
    assert!(outcome.status == Status::Ok || outcome.result.is_null(), "{outcome:?}");
});
