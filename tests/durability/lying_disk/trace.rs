//! What a process did to files, as `strace` wrote it down: writes and flushes, and between them what
//! it said on its standard output.

use std::collections::HashMap;

/// One thing that was done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Write {
        file: String,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        len: u64,
    },
    /// What was written to the file before is on the disk.
    Flush {
        file: String,
    },
    /// A file is gone; that needs no flush here.
    Remove {
        file: String,
    },
    /// A line of standard output.
    Printed(String),
}

/// The system calls that [`read`] understands.
pub(crate) const CALLS: &str = "write,pwrite64,pwritev,pwritev2,writev,ftruncate,truncate,fallocate,fsync,fdatasync,msync,\
     sync_file_range,unlink,unlinkat,rename,renameat,renameat2";

/// Reads what `strace -f -y -xx -s N -e trace=CALLS -o FILE` wrote. What is about files that
/// `is_one` does not accept is left out.
pub(crate) fn read(text: &str, is_one: impl Fn(&str) -> bool) -> Vec<Done> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut done = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, begun.to_owned());
            continue;
        }
        let whole;
        let call = match rest.split_once(" resumed>") {
            Some((name, end)) if name.starts_with("<... ") => {
                let Some(begun) = unfinished.remove(thread) else { continue };
                whole = format!("{begun}{end}");
                whole.as_str()
            }
            _ => rest,
        };
        done.extend(parse(call).filter(|it| match it {
            Done::Printed(_) => true,
            Done::Write { file, .. }
            | Done::Truncate { file, .. }
            | Done::Flush { file }
            | Done::Remove { file } => is_one(file),
        }));
    }
    done
}

/// One call with its answer; `None` for one that failed or is no call.
fn parse(call: &str) -> Option<Done> {
    let (name, rest) = call.split_once('(')?;
    let (args, answer) = rest.rsplit_once(')')?;
    let answer: i64 = answer.trim().strip_prefix('=')?.split_whitespace().next()?.parse().ok()?;
    if answer < 0 {
        return None;
    }
    // What is written is in hexadecimal, and holds no comma.
    let args: Vec<&str> = args.split(", ").collect();
    let file = |at: usize| Some(text(args.get(at)?.split_once('<')?.1.strip_suffix('>')?));
    Some(match name {
        "write" => {
            let line = text(args.get(1)?.trim_matches('"'));
            return args[0].starts_with("1<").then(|| Done::Printed(line.trim().to_owned()));
        }
        "pwrite64" => Done::Write {
            file: file(0)?,
            at: args.get(3)?.parse().ok()?,
            bytes: bytes(args.get(1)?)[..usize::try_from(answer).ok()?].to_vec(),
        },
        "ftruncate" => Done::Truncate { file: file(0)?, len: args.get(1)?.parse().ok()? },
        "fsync" | "fdatasync" => Done::Flush { file: file(0)? },
        "unlink" => Done::Remove { file: text(args.first()?.trim_matches('"')) },
        other => {
            let about = args.first().and_then(|_| file(0)).unwrap_or_default();
            // Another way to change a file would be lost here, and nobody would see it.
            assert!(!about.contains(".db"), "`{other}` of {about} is not understood");
            return None;
        }
    })
}

/// What `-xx` shows as `"\x41\x42"`; with `-y`, paths are so shown as well.
fn bytes(written: &str) -> Vec<u8> {
    assert!(!written.ends_with("..."), "strace cut off what was written: -s is too small");
    let digits = written.trim_matches('"').as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        _ => byte - b'a' + 10,
    };
    digits.chunks_exact(4).map(|it| (digit(it[2]) << 4) | digit(it[3])).collect()
}

fn text(written: &str) -> String {
    if written.starts_with("\\x") {
        return String::from_utf8_lossy(&bytes(written)).into_owned();
    }
    written.to_owned()
}
