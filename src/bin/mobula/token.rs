//! `mobula token`: what lets nodes into a cluster, made before the cluster runs.
//!
//! Invariant: a folder has one authority; it is made once. Left out: serving the cluster, which a program does with the same folder.

use std::path::PathBuf;

use serde_json::json;

use crate::Failure;
use crate::attached::print;

/// Prints the token of the cluster whose authority is in a folder; makes the authority if there is none.
///
/// For machines that start programs by themselves, as Kubernetes, Slurm and systemd do: one node is started with
/// MOBULA_LISTEN and MOBULA_CLUSTER_DIR, the others with MOBULA_JOIN and MOBULA_TOKEN.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula token --dir ./cluster\n  \
    kubectl create secret generic mobula --from-file=ca.pem=cluster/ca.pem \\\n      \
    --from-literal=token=\"$(mobula token --dir cluster)\"")]
pub struct Args {
    /// The folder; who can read it can let nodes in
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// One line of JSON instead of text for people
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let token = mobula::launch::token(&args.dir)?;
    match args.json {
        true => {
            print(&json!({ "token": token, "dir": args.dir.display().to_string() }).to_string())
        }
        false => print(&token),
    }
}
