//! The program `gleitzeit`: the library at the command line.

mod cli;

use std::process::ExitCode;

/// Many small results are made and dropped on several threads, SQLite's values among them; mimalloc
/// is made for that, and serves the libraries in C, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Started again as the launcher of a jail, the program is nothing else.
    #[cfg(feature = "python")]
    gleitzeit::sandbox::init();
    cli::main()
}
