//! The program `gleitzeit`: parses the command line, asks the library, prints.
//!
//! Invariants: with `--json` standard output holds one document and nothing else; the exit status
//! is 0 for success, 1 when the workflow failed, 2 for usage or an invalid file, 3 for
//! infrastructure, standard output that cannot be written included, 130 after Ctrl-C.

mod args;
mod batch;
mod bench;
mod catalog;
mod check;
mod complete;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod db;
mod delete;
#[cfg(feature = "python")]
mod doctor;
#[cfg(test)]
mod documents;
mod exec;
mod find;
mod finish;
mod global;
mod ids;
mod init;
mod interrupt;
mod junit;
mod output;
mod progress;
mod project;
mod protocols;
mod query;
mod report;
mod restart;
mod run;
mod run_session;
mod serve;
mod session;
mod show;
mod source;
mod standing;
mod stored;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod top;
mod version;
mod when;

use std::{env, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};
use gleitzeit_domain::printable;
use serde_json::json;

use args::{Cli, Command, ProviderAction};
use output::{Exit, Failure, Says};
use session::Session;

/// What every command answers.
type Outcome = Result<Exit, Failure>;

/// Many small results are made and dropped on several threads, SQLite's values among them; mimalloc
/// is made for that, and serves the libraries in C, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Started again as the launcher of a jail, the program is nothing else.
    #[cfg(feature = "python")]
    gleitzeit::sandbox::init();
    // Asked by a shell with `COMPLETE` set, the program answers and ends here.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    // For errors before the settings are read.
    if env::var("GLEITZEIT__LOGGING__FORMAT").is_ok_and(|format| format == "json") {
        output::write_json_lines();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let json = cli.global.json;
    let exit = match start(cli) {
        Ok(exit) => exit,
        // The reader closed the output, and a command that could not write more has not failed.
        Err(_) if output::is_reader_gone() => Exit::Success,
        Err(failure) => failure.print(json),
    };
    output::finish(exit).into()
}

/// Prints help and version to standard output, and a usage error to standard error.
fn not_understood(error: &clap::Error) -> ExitCode {
    let rendered = error.render();
    if !error.use_stderr() {
        if output::is_coloured() {
            output::painted(rendered.ansi().to_string().trim_end());
        } else {
            output::raw(&rendered.to_string());
        }
        return output::finish(Exit::Success).into();
    }
    let message = rendered.to_string().trim_end().to_owned();
    let failure = Failure::usage(message.as_str()).text(printable::block(&message));
    let exit = failure.print(false);
    if env::args_os().any(|argument| argument == "--json") {
        let kind = error.kind().to_string();
        output::document(&json!({
            "error": {
                "code": failure.error.code.number(),
                "name": failure.error.code.name(),
                "message": failure.error.message,
                "data": { "kind": kind },
            },
        }));
    }
    output::finish(exit).into()
}

/// Runs the command on a runtime of its own; the library brings the threads for the work.
fn start(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    if let Command::Completions { shell } = command {
        return Ok(completions(shell));
    }
    if matches!(command, Command::Schema) {
        return Ok(schema());
    }
    // Settings that cannot be read must not keep anybody from making new ones.
    if let Command::Init(init) = &command {
        return init::init(init, global.json);
    }
    if let Command::Bench { arguments } = command {
        return Err(bench::become_bench(&global, &arguments));
    }
    let says = match &command {
        Command::Providers { .. } => Says::Warnings,
        Command::Run(_)
        | Command::Resume(_)
        | Command::Retry(_)
        | Command::Exec(_)
        | Command::Batch(_) => Says::Outcomes,
        _ => Says::Nothing,
    };
    let mut session = Session::new(global, says)?;
    // `config` opens no store; it would print a setting that nobody made.
    if !command.may_migrate() && !matches!(command, Command::Config) {
        session = session.migrates_nothing();
    }
    // A worker of its own is woken by the actors without a system call while it is busy.
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::infrastructure(format!("no runtime could be made: {error}")))?;
    let outcome = threads.block_on(dispatch(session, command));
    threads.block_on(run_session::stopped());
    outcome
}

async fn dispatch(session: Session, mut command: Command) -> Outcome {
    if let Some(id) = command.stored_id_mut() {
        *id = ids::resolve(&session, id).await?;
    }
    match command {
        Command::Init(init) => init::init(&init, session.json),
        Command::Run(run) => run::run(session, run).await,
        Command::Submit(submit) => serve::submit(&session, submit).await,
        Command::Serve(serve) => serve::serve(&session, &serve).await,
        Command::Check(file) => check::check(&session, &file).await,
        Command::Graph(graph) => check::graph(&session, &graph),
        Command::Exec(exec) => exec::exec(&session, exec).await,
        Command::Batch(batch) => batch::batch(session, batch).await,
        Command::List(list) => query::list(&session, list).await,
        Command::Show(show) => show::show(&session, &show).await,
        Command::Events(events) => query::events(&session, &events).await,
        Command::Logs(logs) => query::logs(&session, &logs).await,
        Command::Cancel(cancel) => run::cancel(&session, cancel).await,
        Command::Resolve(resolve) => run::resolve(&session, resolve).await,
        Command::Resume(resume) => run::resume(session, resume).await,
        Command::Retry(retry) => run::retry(session, &retry).await,
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        Command::Db(command) => db::db(&session, command).await,
        Command::Protocols(protocols) => protocols::protocols(&session, protocols),
        Command::Providers { action: None } => query::providers(&session).await,
        Command::Providers { action: Some(ProviderAction::Restart { id }) } => {
            restart::restart(&session, id).await
        }
        #[cfg(feature = "python")]
        Command::Doctor => doctor::doctor(&session).await,
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        Command::Top(top) => top::top(&session, &top).await,
        Command::Delete(delete) => delete::delete(&session, delete).await,
        Command::Config => session.show(),
        // They have ended before there was a session.
        Command::Schema | Command::Bench { .. } | Command::Completions { .. } => Ok(Exit::Success),
    }
}

fn schema() -> Exit {
    output::document(&gleitzeit::files::json_schema());
    Exit::Success
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gleitzeit", &mut script);
    output::raw(&String::from_utf8_lossy(&script));
    Exit::Success
}
