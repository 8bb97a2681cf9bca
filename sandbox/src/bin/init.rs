//! The launcher of jails as a program of its own, for hosts that name it in `launcher`.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a person who started it by mistake reads it")]
fn main() -> ExitCode {
    gleitzeit_sandbox::init();
    eprintln!("this program is started by a sandbox, with `{}`", gleitzeit_sandbox::INIT_COMMAND);
    ExitCode::from(2)
}
