//! What the supervisor of a container says, as the engine passes it on. The first byte is the size
//! of the parts that it comes in.

#![no_main]

use gleitzeit_sandbox::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((part, line)) = data.split_first() else { return };
    let whole = fuzzing::supervisor(line, line.len());
    assert_eq!(fuzzing::supervisor(line, usize::from(*part)), whole);
    assert!(whole.is_err() || whole.is_ok_and(|passed| passed <= line.len()));
});
