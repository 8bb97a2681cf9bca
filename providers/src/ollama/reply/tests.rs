//! Replies of Ollama, whole and in parts, as results.

use super::*;

fn about() -> About {
    About { provider_id: "local".to_owned(), base_url: "http://host:1".to_owned() }
}

/// The pieces of a stream add up to the text, and the last one tells the rest.
#[test]
fn a_stream_adds_up() {
    let mut reply = OllamaReply::default();
    for (line, last) in [
        (r#"{"message":{"content":"Hel","thinking":"hm"},"done":false}"#, false),
        (r#"{"message":{"content":"lo"},"done":false}"#, false),
        (
            r#"{"message":{"content":""},"done":true,"done_reason":"length","eval_count":3,
               "prompt_eval_count":4,"total_duration":1500000000}"#,
            true,
        ),
    ] {
        assert_eq!(reply.take_line(line.as_bytes()).unwrap(), last);
    }
    let result = reply.into_result("m", &about()).unwrap();
    let expected = json!({
        "response": "Hello", "model": "m", "tokens_used": 7, "finish_reason": "length",
        "metadata": {
            "provider": "ollama", "provider_id": "local", "base_url": "http://host:1",
            "prompt_eval_count": 4, "eval_count": 3, "durations": { "total": 1.5 },
            "thinking": "hm",
        },
    });
    assert_eq!(result, expected);
}

/// Half an answer that passes for a whole one would be a wrong result.
#[test]
fn what_is_not_done_is_no_result() {
    let mut reply = OllamaReply::default();
    assert!(!reply.take_line(br#"{"message":{"content":"Hel"},"done":false}"#).unwrap());
    assert_eq!(reply.into_result("m", &about()), None);
    let whole = |body: &str| OllamaReply::default().take_whole(body.as_bytes());
    assert!(matches!(whole(r#"{"response":"x","done":false}"#), Err(PieceError::CutOff)));
    assert!(matches!(whole(r#"{"response":"x","do"#), Err(PieceError::CutOff)));
    assert!(matches!(whole(r#"{"done":true}"#), Err(PieceError::Malformed { .. })));
    assert!(matches!(whole("<html>"), Err(PieceError::Malformed { .. })));
}

/// Servers that imitate Ollama get the fields wrong that only tell of the work; the reply is good.
#[test]
fn odd_but_good_replies_are_taken() {
    let good = r#""message":{"role":"assistant","content":"good"},"done":true"#;
    for (odd, tokens) in [
        (r#""total_duration":5043500667.5,"eval_duration":1.5,"eval_count":2.0"#, 2),
        (r#""eval_count":-1,"prompt_eval_count":-1"#, 0),
        (r#""total_duration":"5ms","eval_count":null,"done_reason":null"#, 0),
        (r#""total_duration":1180591620717411303424,"eval_count":1e300"#, 0),
        (r#""error":"","logprobs":null,"created_at":5"#, 0),
        (r#""error":null,"done_reason":"","new_field":{"a":[1]}"#, 0),
        (r#""message":{"content":"good","tool_calls":null,"thinking":null,"images":null}"#, 0),
    ] {
        for body in [format!("{{{good},{odd}}}"), format!("\u{feff}\n{{{good},{odd}}}\n")] {
            let mut reply = OllamaReply::default();
            reply.take_whole(body.as_bytes()).unwrap_or_else(|error| panic!("{odd}: {error:?}"));
            let result = reply.into_result("m", &about()).unwrap();
            assert_eq!(result["response"], "good", "{odd}");
            assert_eq!(result["tokens_used"], tokens, "{odd}");
            assert_eq!(result["finish_reason"], "stop", "{odd}");
        }
    }
}

/// Half an emoji, where a server cut between two units or a model was stopped, costs one
/// character and not the reply.
#[test]
fn text_that_is_no_unicode_is_mended() {
    for (content, expected) in [
        (&br"good \ud83d"[..], "good \u{fffd}"),
        (br"\ude00 good", "\u{fffd} good"),
        (br"\ud83d\ude00 \ud83d", "\u{1f600} \u{fffd}"),
        (br"\ud83dx\u0041\ud83d\ud83d\ude00", "\u{fffd}xA\u{fffd}\u{1f600}"),
        (br#"\\ud83d \" \ud83d"#, "\\ud83d \" \u{fffd}"),
        (b"gr\xfc\xdfe", "gr\u{fffd}\u{fffd}e"),
    ] {
        let body = [br#"{"response":""#, content, br#"","done":true}"#].concat();
        let mut reply = OllamaReply::default();
        reply.take_whole(&body).unwrap();
        assert_eq!(reply.into_result("m", &about()).unwrap()["response"], expected);
    }
    assert!(matches!(
        OllamaReply::default().take_whole(br#"{"response":"\ud83"#),
        Err(PieceError::CutOff)
    ));
}

/// A small text of very many values must not become a large tree.
#[test]
fn a_flood_of_values_is_refused() {
    let flood = format!(
        r#"{{"done":true,"response":"x","message":{{"tool_calls":[{}]}}}}"#,
        vec!["{\"\":0}"; 400_000].join(",")
    );
    let refused = OllamaReply::default().take_whole(flood.as_bytes());
    let Err(PieceError::Malformed { problem, .. }) = refused else { panic!("{refused:?}") };
    assert!(problem.contains("memory"), "{problem}");
}

/// A model's runner dies in the middle of an answer whose status was already 200.
#[test]
fn an_error_within_a_stream_is_one() {
    let mut reply = OllamaReply::default();
    let error = reply.take_line(br#"{"error":"CUDA out of memory"}"#).unwrap_err();
    let error = error.into_error("POST x", 1);
    assert!(error.is_retryable() && error.message.contains("CUDA"), "{error}");
}

/// Both generations of the API, and nothing that is neither.
#[test]
fn embeddings_of_both_generations_are_read() {
    for body in [r#"{"embeddings":[[0.5,-1]]}"#, r#"{"embedding":[0.5,-1]}"#] {
        let result = embedding(body.as_bytes(), "m", &about()).unwrap();
        assert_eq!(result["embedding"], json!([0.5, -1.0]));
        assert_eq!(result["dimensions"], 2);
    }
    for body in ["{}", r#"{"embeddings":[]}"#, r#"{"embedding":[]}"#, r#"{"embedding":["a"]}"#] {
        assert!(embedding(body.as_bytes(), "m", &about()).is_err(), "{body}");
    }
}
