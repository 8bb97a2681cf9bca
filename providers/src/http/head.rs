//! Reads the head of an answer and writes it so that `awc` understands it.
//!
//! Pure. Only the fields that decide the end of the body, and those that a provider reads, are
//! passed on, in a normalised spelling.

use std::fmt::Write as _;

/// A head is at most this long; `awc` has the same bound.
pub(super) const HEAD_MAX: usize = 128 << 10;

/// Fields of one head; far beyond what any server sends.
const FIELDS_MAX: usize = 1_024;

/// Fields that a provider reads.
const READ: [&str; 4] = ["content-type", "content-encoding", "retry-after", "location"];

/// The head of an answer, as far as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadParse {
    /// Not all of a head.
    Partial,
    /// One that comes before the answer, such as `103 Early Hints`; this many bytes of it.
    Interim(usize),
    /// That of the answer: how many bytes it has, and how it reads for `awc`.
    Final(usize, Vec<u8>),
    /// No head.
    Malformed,
}

/// Finds out what `bytes` begin with.
pub(super) fn read(bytes: &[u8]) -> HeadParse {
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    parser.ignore_invalid_headers_in_responses(true);
    let length = match parser.parse_response(&mut response, bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return HeadParse::Partial,
        Err(_) => return HeadParse::Malformed,
    };
    let status = response.code.unwrap_or_default();
    match status {
        // 101 switches the protocol, which no request asks for.
        100 | 102..=199 => HeadParse::Interim(length),
        _ => match written(&response, status) {
            Some(head) => HeadParse::Final(length, head.into_bytes()),
            None => HeadParse::Malformed,
        },
    }
}

/// The head for `awc`; `None` where its fields contradict each other about the body's end.
fn written(response: &httparse::Response<'_, '_>, status: u16) -> Option<String> {
    let all = |name: &'static str| {
        let named = response.headers.iter().filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.map(|it| String::from_utf8_lossy(it.value).trim().to_owned())
    };
    let options: Vec<String> = all("connection").flat_map(|it| tokens(&it)).collect();
    let has = |option: &str| options.iter().any(|it| it == option);
    let old = response.version == Some(0);
    let closes = has("close") || (old && !has("keep-alive"));

    let codings: Vec<String> =
        all("transfer-encoding").flat_map(|it| tokens(&it)).filter(|it| it != "identity").collect();
    let mut lengths: Vec<String> = all("content-length").flat_map(|it| tokens(&it)).collect();
    lengths.dedup();
    // RFC 9112, section 6.3, in its order.
    let (version, body) = if matches!(status, 204 | 304) {
        ("1.1", String::new())
    } else if codings == ["chunked"] {
        ("1.1", "transfer-encoding: chunked\r\n".to_owned())
    } else if !codings.is_empty() {
        return None;
    } else {
        match &lengths[..] {
            // To the end of the connection, which `awc` knows of version 1.0 only.
            [] => ("1.0", String::new()),
            [length] => ("1.1", format!("content-length: {length}\r\n")),
            _ => return None,
        }
    };
    let mut head = format!("HTTP/{version} {status:03} \r\n{body}");
    if closes {
        head.push_str("connection: close\r\n");
    }
    for name in READ {
        for value in all(name) {
            // `awc` refuses other bytes, and no provider reads them.
            let value: String = value.chars().filter(|c| matches!(c, ' '..='~')).collect();
            // Writing to a string cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    head.push_str("\r\n");
    Some(head)
}

fn tokens(list: &str) -> Vec<String> {
    list.split(',').map(|it| it.trim().to_ascii_lowercase()).filter(|it| !it.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> String {
        match read(text.as_bytes()) {
            HeadParse::Final(length, head) => {
                assert_eq!(length, text.len());
                String::from_utf8(head).unwrap()
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// Where a body ends is what `awc` has to be told; the same for every spelling.
    #[test]
    fn the_end_of_a_body_is_declared_in_one_way() {
        let ok = "HTTP/1.1 200 \r\n";
        for (text, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                format!("{ok}content-length: 5\r\n\r\n"),
            ),
            ("HTTP/1.1 200\r\ncontent-length:5\r\n\r\n", format!("{ok}content-length: 5\r\n\r\n")),
            ("HTTP/1.1 200 OK\ncontent-length: 5\n\n", format!("{ok}content-length: 5\r\n\r\n")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n",
                format!("{ok}content-length: 5\r\n\r\n"),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 9\r\n\r\n",
                format!("{ok}transfer-encoding: chunked\r\n\r\n"),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 \r\n\r\n".to_owned()),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n",
                "HTTP/1.0 200 \r\nconnection: close\r\n\r\n".to_owned(),
            ),
            ("HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0 200 \r\nconnection: close\r\n\r\n".to_owned()),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n",
                format!("{ok}content-length: 5\r\n\r\n"),
            ),
            ("HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 \r\n\r\n".to_owned()),
        ] {
            assert_eq!(head(text), expected, "{text:?}");
        }
    }

    /// What nobody reads may look as it likes.
    #[test]
    fn odd_fields_are_no_hindrance() {
        let mut many = "HTTP/1.1 200 OK\r\n".to_owned();
        for at in 0..500 {
            let _ = write!(many, "X-H{at}: {}\r\n", "v".repeat(100));
        }
        many.push_str("Retry-After: 3\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(head(&many), "HTTP/1.1 200 \r\ncontent-length: 1\r\nretry-after: 3\r\n\r\n");
        let bytes = b"HTTP/1.1 200 OK\r\nX-Name: gr\xfc\xdfe\r\nLocation: /\xfc\r\n\r\n";
        let HeadParse::Final(length, head) = read(bytes) else { panic!("not read") };
        assert_eq!(
            (length, &head[..]),
            (bytes.len(), &b"HTTP/1.0 200 \r\nlocation: /\r\n\r\n"[..])
        );
    }

    /// Half a head waits for the rest, an interim one is passed over, what contradicts itself refused.
    #[test]
    fn other_beginnings_are_distinguished() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        assert_eq!(
            read(format!("{interim}HTTP/1.1 200").as_bytes()),
            HeadParse::Interim(interim.len())
        );
        assert_eq!(read(b"HTTP/1.1 100 Continue\r\n\r\n"), HeadParse::Interim(25));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Le"), HeadParse::Partial);
        for bad in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ] {
            assert_eq!(read(bad.as_bytes()), HeadParse::Malformed, "{bad:?}");
        }
    }
}
