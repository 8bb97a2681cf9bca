//! The reply of a task: the task's own word. The first two bytes are how the task ended.

#![no_main]

use gleitzeit_sandbox::{Status, fuzzing};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((status, reply)) = data.split_first_chunk::<2>() else { return };
    let status = i32::from(u16::from_le_bytes(*status));
    let outcome = fuzzing::reply(reply, 1 << 16, status);
    assert!(status == 0 || outcome.status != Status::Ok, "{outcome:?}");
    assert!(outcome.status == Status::Ok || outcome.result.is_null(), "{outcome:?}");
});
