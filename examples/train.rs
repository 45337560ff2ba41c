//! Trains an agent, or evaluates one: `--help` shows how.
//!
//! `cargo run --release --features rl --example train -- --alg PPO --env CartPole-v1 --stop-reward 475 --seed 1`

use std::os::unix::process::CommandExt;
use std::process::Command;

use mobula::rl::Error;
use mobula::rl::command::{Arguments, HELP, run};

/// Where launchers are, for the runtime.
const ADDRESS: &str = "MOBULA_ADDRESS";

// Training makes and drops many small tensors.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = Arguments::parse(words.clone()).and_then(|arguments| {
        if arguments.help {
            print!("{HELP}");
            return Ok(());
        }
        if let Some(address) = arguments.address.as_deref()
            && std::env::var(ADDRESS).as_deref() != Ok(address)
        {
            // The runtime is told by its environment, which is a process's from its beginning.
            let this = std::env::current_exe().map_err(|e| Error::Usage(e.to_string()))?;
            let error = Command::new(this).args(&words).env(ADDRESS, address).exec();
            return Err(Error::Usage(format!("--address {address}: {error}")));
        }
        let _mobula = mobula::init()?;
        run(&arguments).map(drop)
    });
    if let Err(error) = done {
        eprintln!("train: {error}");
        std::process::exit(1);
    }
}
