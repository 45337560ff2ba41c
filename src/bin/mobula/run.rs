//! `mobula run`: a program on the machines of launchers.
//!
//! Invariant: this process becomes the program, which does the rest itself when it starts: see `mobula::init`. Left out: shipping.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use mobula::launch::{self, Recorded};

use crate::Failure;

/// Runs a program that uses Mobula on several machines: ships its executable to their launchers, which start nodes of it.
///
/// The program itself runs here. What its nodes print comes back, each line behind its node: `(node NAME pid=N) text`. When the
/// program ends, so do its nodes. `MOBULA_ADDRESS=ADDR?TOKEN cargo run` does the same.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula run -- ./target/release/app --epochs 3\n  \
    mobula run --address 10.0.0.1 --token mobula1-... --num-nodes 4 -- ./app\n  \
    mobula run --address 10.0.0.1 --num-cpus 2 --num-gpus 1 --wait 600 -- ./app")]
pub struct Args {
    /// Where the first launcher is [default: that which the launcher of this machine runs or joined]
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,

    /// What the first launcher printed, to be let in [default: that of this machine's launcher; or the variable MOBULA_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// On so many machines, this one included if it has a launcher [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    num_nodes: Option<u32>,

    /// CPUs on each machine [default: all that no other job has]
    #[arg(long, value_name = "N")]
    num_cpus: Option<f64>,

    /// GPUs on each machine
    #[arg(long, value_name = "N")]
    num_gpus: Option<u32>,

    /// An amount of a resource on each machine
    #[arg(long, value_name = "NAME=AMOUNT")]
    resource: Vec<String>,

    /// How long to wait for a machine whose resources other jobs have
    #[arg(long, value_name = "SECS", default_value_t = 10.0)]
    wait: f64,

    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    program: Vec<OsString>,
}

/// Where the first launcher is, with its token, from what was said and what runs here.
pub fn whom(
    address: Option<&str>,
    token: Option<&str>,
) -> Result<(std::net::SocketAddr, String), Failure> {
    let said = address.map(launch::resolve).transpose()?;
    let token = token
        .map(str::to_owned)
        .or_else(|| std::env::var("MOBULA_TOKEN").ok());
    if let (Some(addr), Some(token)) = (said, &token) {
        return Ok((addr, token.clone()));
    }
    let all = Recorded::all(&launch::place()?);
    let own = all.into_iter().filter(|r| r.launcher.runs()).find(|r| {
        said.is_none_or(|addr| {
            r.head == addr || r.head.port() == addr.port() && r.head.ip().is_unspecified()
        })
    });
    match (own, said) {
        (Some(own), said) => {
            let mut head = said.unwrap_or(own.head);
            if head.ip().is_unspecified() {
                head.set_ip([127, 0, 0, 1].into());
            }
            Ok((head, token.unwrap_or(own.token)))
        }
        (None, Some(addr)) => Err(Failure::Error(format!(
            "no token is known for {addr}: say --token"
        ))),
        (None, None) => Err(Failure::NothingRuns(
            "no launcher of yours runs here: say --address, or `mobula start --head`".to_owned(),
        )),
    }
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let (addr, token) = whom(args.address.as_deref(), args.token.as_deref())?;
    let Some((program, rest)) = args.program.split_first() else {
        return Err(Failure::Error("say which program to run".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(rest)
        .env("MOBULA_ADDRESS", format!("{addr}?{token}"))
        .env("MOBULA_RUN_WAIT", args.wait.to_string());
    command.env_remove("MOBULA_TOKEN");
    if let Some(n) = args.num_nodes {
        command.env("MOBULA_RUN_NODES", n.to_string());
    }
    if let Some(n) = args.num_cpus {
        command.env("MOBULA_RUN_CPUS", n.to_string());
    }
    if let Some(n) = args.num_gpus {
        command.env("MOBULA_RUN_GPUS", n.to_string());
    }
    if !args.resource.is_empty() {
        command.env("MOBULA_RUN_RESOURCES", args.resource.join(","));
    }
    let why = command.exec();
    let hint = match why.kind() {
        std::io::ErrorKind::NotFound => ": is the path right, and was it built?",
        std::io::ErrorKind::PermissionDenied => ": is it executable?",
        _ => "",
    };
    Err(Failure::Error(format!(
        "{} cannot be run: {why}{hint}",
        program.to_string_lossy()
    )))
}
