//! Trains an agent, or evaluates one: `--help` shows how.
//!
//! `cargo run --release --features rl --example train -- --alg PPO --env CartPole-v1 --stop-reward 475 --seed 1`

use mobula::rl::command::{Arguments, HELP, run};

// Training makes and drops many small tensors.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let done = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| {
        if arguments.help {
            print!("{HELP}");
            return Ok(());
        }
        let _mobula = mobula::init()?;
        run(&arguments).map(drop)
    });
    if let Err(error) = done {
        eprintln!("train: {error}");
        std::process::exit(1);
    }
}
