//! What a zygote tells over the control channel. The first byte is how many descriptors come along.

#![no_main]

use gleitzeit_sandbox::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((count, message)) = data.split_first() else { return };
    fuzzing::control(message, usize::from(count % 4));
});
