//! The command `mobula`: what Mobula does outside of a program of yours.
//!
//! Each command is a file of its own here. Invariant: an error is one line on standard error and exit
//! code 1 (2 for a command line that is wrong); with `--json` what a program would want to know is one
//! line of JSON on standard output. Left out: everything the library does.

mod size;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks, actors and shared objects from one attribute; this command serves what outlives a program.
#[derive(Parser)]
#[command(name = "mobula", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Store(store::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Store(args) => store::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mobula: {why}");
            ExitCode::FAILURE
        }
    }
}
