//! The command `mobula`: what Mobula does outside of a program of yours.
//!
//! Each command is a file of its own here. Invariant: an error is one line on standard error and an exit code that
//! scripts can use (see [`Failure`]); with `--json` what a program would want to know is one line of JSON on standard
//! output. Left out: everything the library does.

mod attached;
mod completions;
#[cfg(feature = "dashboard")]
mod dashboard;
mod list;
mod logs;
#[cfg(feature = "cluster")]
mod machines;
mod memory;
mod metrics;
mod progress;
#[cfg(feature = "cluster")]
mod run;
mod screen;
mod show;
mod size;
#[cfg(feature = "cluster")]
mod start;
mod status;
#[cfg(feature = "cluster")]
mod stop;
mod store;
mod timeline;
#[cfg(feature = "cluster")]
mod token;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks, actors and shared objects from one attribute; this command looks at programs that use them, and serves what
/// outlives a program.
#[derive(Parser)]
#[command(name = "mobula", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 all went well, 1 something went wrong, 2 the command line is wrong, \
    3 nothing is running or the program has ended, 130 it was interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "cluster")]
    Start(Box<start::Args>),
    #[cfg(feature = "cluster")]
    Stop(stop::Args),
    #[cfg(feature = "cluster")]
    Run(run::Args),
    #[cfg(feature = "cluster")]
    Token(token::Args),
    Status(status::Args),
    List(list::Args),
    Memory(memory::Args),
    Logs(logs::Args),
    Metrics(metrics::Args),
    Timeline(timeline::Args),
    #[cfg(feature = "dashboard")]
    Dashboard(dashboard::Args),
    Store(store::Args),
    Completions(completions::Args),
}

/// The exit code of a command that somebody stopped, as shells have it.
const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was to do.
#[derive(Debug)]
enum Failure {
    /// Something went wrong: 1.
    Error(String),
    /// There is no program to look at, or it has ended: 3.
    NothingRuns(String),
    /// Somebody stopped it: [`INTERRUPTED`].
    Interrupted,
    /// Nobody reads the output any more, which is nobody's fault: 0.
    Unread,
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Error(why)
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        #[cfg(feature = "cluster")]
        Command::Start(args) => start::run(&args),
        #[cfg(feature = "cluster")]
        Command::Stop(args) => stop::run(&args),
        #[cfg(feature = "cluster")]
        Command::Run(args) => run::run(&args),
        #[cfg(feature = "cluster")]
        Command::Token(args) => token::run(&args),
        Command::Status(args) => status::run(&args),
        Command::List(args) => list::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Metrics(args) => metrics::run(&args),
        Command::Timeline(args) => timeline::run(&args),
        #[cfg(feature = "dashboard")]
        Command::Dashboard(args) => dashboard::run(args),
        Command::Store(args) => store::run(args).map_err(Failure::Error),
        Command::Completions(args) => completions::run(&args),
    };
    let (why, code) = match done {
        Ok(()) | Err(Failure::Unread) => return ExitCode::SUCCESS,
        Err(Failure::Error(why)) => (why, 1),
        Err(Failure::NothingRuns(why)) => (why, 3),
        Err(Failure::Interrupted) => ("interrupted".to_owned(), INTERRUPTED),
    };
    say(&why);
    ExitCode::from(code)
}

/// Says something on standard error, which may be full or gone: the exit code says the same.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "mobula: {what}");
}
