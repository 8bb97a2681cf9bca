//! Whatever a task, a zygote or a supervisor says is read or refused, within bounds: the properties
//! that the targets in `fuzz/` look for exceptions from.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use gleitzeit_sandbox::{Status, fuzzing};
use proptest::{collection::vec, prelude::*};

const RESULT_MAX_BYTES: usize = 1024;

/// A frame around a body, whose length may be a lie.
fn framed(body: &[u8], lie: i64) -> Vec<u8> {
    let length = i64::try_from(body.len()).unwrap_or(0) + lie;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat()
}

/// JSON that is nearly a reply, and what is nearly its result.
fn reply() -> impl Strategy<Value = (String, String)> {
    let status = prop_oneof![
        Just("\"ok\""),
        Just("\"error\""),
        Just("\"timeout\""),
        Just("\"great\""),
        Just("1"),
    ];
    let number = prop_oneof![Just("0.5"), Just("-1"), Just("1e999"), Just("null"), Just("\"x\"")];
    let result = prop_oneof![
        Just("1".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        "[\\[{\\]}\":,0-9a-z]{0,40}",
        (0..300_usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
    ];
    (status, number, result, any::<bool>()).prop_map(|(status, number, result, has_result)| {
        let reply_text = format!(
            "{{\"status\":{status},\"cpu_seconds\":{number},\"peak_bytes\":{number},\"has_result\":{has_result}}}"
        );
        (reply_text, result)
    })
}

proptest! {
    /// The kernel's word stands over every reply: a task that was killed is never one that succeeded.
    #[test]
    fn no_reply_outweighs_the_kernel(
        (reply_text, result) in reply(),
        lie in -3..3_i64,
        status in 0..0x1_0000_i32,
    ) {
        let frames = [framed(reply_text.as_bytes(), lie), framed(result.as_bytes(), lie)].concat();
        let outcome = fuzzing::reply(&frames, RESULT_MAX_BYTES, status);
        if ExitStatus::from_raw(status).code() != Some(0) {
            prop_assert_ne!(outcome.status, Status::Ok);
        }
        prop_assert!(outcome.status == Status::Ok || outcome.result.is_null());
    }

    /// Bytes at random are refused, not believed.
    #[test]
    fn noise_is_no_reply(bytes in vec(any::<u8>(), 4..200)) {
        let outcome = fuzzing::reply(&bytes, RESULT_MAX_BYTES, 0);
        prop_assert_eq!(outcome.status, Status::Error);
        prop_assert_eq!(outcome.error.unwrap().kind, "BrokenReply");
    }

    /// A message of a zygote goes with its descriptors or not at all.
    #[test]
    fn messages_go_with_their_descriptors(pid in any::<u64>(), count in 0..4_usize) {
        let message = format!("{{\"child\":{pid}}}");
        prop_assert_eq!(fuzzing::control(message.as_bytes(), count), count >= 2);
    }

    #[test]
    fn noise_is_no_message(bytes in vec(any::<u8>(), 0..200), count in 0..3_usize) {
        prop_assert!(!fuzzing::control(&bytes, count));
    }

    /// What is passed on does not depend on how the engine cuts it.
    #[test]
    fn a_supervisor_is_decoded_however_it_is_cut(
        parts in vec((prop_oneof![Just(b'o'), Just(b'e'), Just(b'a'), Just(b'r'), any::<u8>()],
            vec(any::<u8>(), 0..40)), 0..8),
        size in 1..50_usize,
    ) {
        let line: Vec<u8> = parts
            .iter()
            .flat_map(|(kind, body)| [&[*kind][..], &framed(body, 0)].concat())
            .collect();
        let whole = fuzzing::supervisor(&line, line.len());
        prop_assert_eq!(&fuzzing::supervisor(&line, size), &whole);
        prop_assert!(whole.is_err() || whole.is_ok_and(|passed| passed <= line.len()));
    }
}
