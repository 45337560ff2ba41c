//! `mobula completions`: what a shell needs to complete this command.
//!
//! Invariant: made from the same description that reads the command line. Left out: installing it.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::attached::print;
use crate::{Cli, Failure};

/// Prints completions for a shell.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula completions bash > ~/.local/share/bash-completion/completions/mobula\n  \
    mobula completions zsh > ~/.zfunc/_mobula\n  \
    mobula completions fish > ~/.config/fish/completions/mobula.fish")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mobula", &mut out);
    print(&String::from_utf8_lossy(&out))
}
