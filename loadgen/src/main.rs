//! The program `gleitzeit-bench`: drives the real engine and prints what it measured.
//!
//! The same runtime, actors, store and providers as `gleitzeit run`; only the workload is made up.
//! `executed` counts what the provider was asked, not what was reported. Beside the figures stands
//! what disk and database charge, measured in the same run: the cost of a flush differs by forty
//! times from disk to disk, and from hour to hour on the same one.
//!
//! Invariants: with `--json` standard output holds one document and nothing else; the exit status is
//! 0 for success, 2 for usage or invalid settings, 3 for all else.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod baseline;
mod bench_report;
mod commit_cost;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod database;
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
#[path = "no_database.rs"]
mod database;
mod figures;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod flush;
mod measure;
mod options;
mod output;
#[cfg(feature = "python")]
mod python;
#[cfg(not(feature = "python"))]
#[path = "no_python.rs"]
mod python;
mod recovery;
mod replay;
mod runner;
mod settings;
mod sustained;
mod work;

use std::{env, process::ExitCode};

use clap::Parser as _;

use options::{Options, Workload};
use output::Failure;

/// As in `gleitzeit`: another allocator would measure another program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Started once more as the launcher of a jail, the program is nothing else.
    #[cfg(feature = "python")]
    gleitzeit::sandbox::init();
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let json = env::args_os().any(|argument| argument == "--json");
            return output::usage(&error, json);
        }
    };
    let json = options.json;
    let exit = match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(json),
    };
    output::finish(exit)
}

/// Runs the workload on a runtime of its own; the library brings the threads for the work.
fn start(options: Options) -> Result<(), Failure> {
    let settings = settings::load(&options)?;
    // A worker of its own is woken by the actors without a system call while it is busy.
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no runtime can be made: {error}")))?;
    threads.block_on(run(options, settings))
}

async fn run(options: Options, settings: gleitzeit::Settings) -> Result<(), Failure> {
    let Options { args, json, .. } = options;
    if args.hold {
        return Ok(recovery::hold(&args, settings).await?);
    }
    let report = match args.workload {
        Workload::Recovery | Workload::RecoveryOne => {
            Box::pin(recovery::recoveries(args, &settings)).await?
        }
        _ => Box::pin(measure::measure(args, &settings)).await?,
    };
    if json {
        output::document(&report);
    } else {
        output::text(&report);
    }
    Ok(())
}
