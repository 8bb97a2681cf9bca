//! The program `gleitzeit`: the library at the command line.

mod cli;

use std::process::ExitCode;

/// Many small results are made and dropped on several threads; mimalloc is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
