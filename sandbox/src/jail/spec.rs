//! The input of the launcher, on its standard input: frames of a length and as many bytes.
//!
//! The first frame is a [`Spec`]; the others are passed to the program unchanged. The program's own
//! standard input follows them.

use std::{
    io::{self, Read},
    net::IpAddr,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{address::NetworkRule, layout::JailLayout};

/// A frame is not longer than this.
const FRAME_MAX_BYTES: usize = 64 << 20;

/// One jail and the program in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The root of the jail.
    pub(crate) layout: JailLayout,
    /// The interpreter, as a path of the jail.
    pub(crate) program: PathBuf,
    /// The arguments of the program.
    pub(crate) arguments: Vec<String>,
    /// The whole environment of the program, as `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// Bytes that the files of tasks may take together.
    pub(crate) task_bytes: u64,
    /// Files and directories that a task may make.
    pub(crate) task_inodes: u64,
    /// True lets tasks connect through the launcher.
    pub(crate) network: bool,
    /// Near addresses that tasks may reach.
    pub(crate) network_allow: Vec<NetworkRule>,
    /// Servers of names.
    pub(crate) nameservers: Vec<IpAddr>,
    /// Files that put a process into a control group when its number is written to them.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The kind of the program, which decides its descriptors.
    pub(crate) program_kind: ProgramKind,
}

/// The program in the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProgramKind {
    /// A zygote: descriptor 3 has its frames, 4 its control socket, and 5 the Landlock rules, if
    /// there are any.
    Zygote,
    /// A question: standard input and output stay its own.
    Probe,
    /// Nothing: the jail is built to see that it can be.
    Check,
}

/// Reads a frame.
///
/// # Errors
/// When the line ends before it does, or its length cannot be true.
pub(crate) fn take_frame(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    source.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut frame = Vec::new();
    if source.take(length as u64).read_to_end(&mut frame)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::put;

    /// Frames come out as they went in, and a line that ends early is an error.
    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut line = Vec::new();
        put(&mut line, b"one");
        put(&mut line, b"");
        line.push(0);
        let mut source = &line[..];
        assert_eq!(take_frame(&mut source).unwrap(), b"one");
        assert_eq!(take_frame(&mut source).unwrap(), b"");
        assert!(take_frame(&mut source).is_err());
        assert!(take_frame(&mut &[0, 0, 0, 5, 1][..]).is_err());
        assert!(take_frame(&mut &u32::MAX.to_be_bytes()[..]).is_err());
    }
}
