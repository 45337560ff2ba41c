//! A counter whose machine is killed in mid-stream, and that goes on counting: three nodes, one of them killed with SIGKILL.
//!
//! `cargo run --release --example survivor` starts two processes of itself as nodes. It prints what the counter should have said and
//! what it said, how long the gap was, and writes a timeline to `survivor.json` (open it at <https://ui.perfetto.dev>).

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mobula::Config;
use mobula::prelude::*;

/// How many calls there are, and after how many the node is killed.
const CALLS: u64 = 2000;
const KILL_AT: u64 = 1000;
/// How many are on their way at a time.
const AHEAD: u64 = 32;

#[remote(max_restarts = 3, checkpoint_every = 500)]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new() -> Self {
        Counter { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// A node of the cluster: this very program, which with these variables never reaches its `main`.
fn node(mobula: &mobula::Mobula, name: &str) -> std::io::Result<Child> {
    let address = mobula.address().map(|a| a.to_string()).unwrap_or_default();
    Command::new(std::env::current_exe()?)
        .env("MOBULA_JOIN", address)
        .env("MOBULA_TOKEN", mobula.join_token().unwrap_or_default())
        .env("MOBULA_NODE_NAME", name)
        .env("MOBULA_NUM_CPUS", "2")
        .stdin(Stdio::null())
        .spawn()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mobula = Config::new()
        .listen(([127, 0, 0, 1], 0).into())
        .node_name("head")
        .init()?;
    let mut victim = node(&mobula, "victim")?;
    let mut other = node(&mobula, "other")?;
    mobula.wait_for_nodes(3, Duration::from_secs(30))?;
    let nodes = mobula.nodes();
    let there = nodes.iter().find(|n| n.name == "victim");
    let there = there.ok_or("the victim joined")?.id;

    let counter = Counter::options().on_node(there).remote();
    let mut received = Vec::new();
    let (mut slowest, mut killed) = (Duration::ZERO, None);
    let mut pending = std::collections::VecDeque::new();
    let mut last = Instant::now();
    for n in 1..=CALLS + AHEAD {
        if n <= CALLS {
            pending.push_back(counter.add(1));
        }
        if n == KILL_AT {
            // Calls are on their way there, and some of their results on the way back.
            victim.kill()?;
            killed = Some(Instant::now());
        }
        if n > AHEAD
            && let Some(next) = pending.pop_front()
        {
            let before = received.len();
            received.push(mobula::get_timeout(&next, Duration::from_secs(30))?);
            if killed.is_some() && before > 0 {
                slowest = slowest.max(last.elapsed());
            }
            last = Instant::now();
        }
    }
    victim.wait()?;

    let expected: Vec<u64> = (1..=CALLS).collect();
    let show = |all: &[u64]| {
        let (first, last) = (&all[..3], &all[all.len() - 3..]);
        let sum: u64 = all.iter().sum();
        format!("{first:?} .. {last:?}, {} numbers, sum {sum}", all.len())
    };
    println!("expected: {}", show(&expected));
    println!("received: {}", show(&received));
    println!("equal: {}", expected == received);
    println!("the longest gap between two answers: {slowest:?}");
    mobula::timeline("survivor.json")?;
    println!("timeline: survivor.json");
    other.kill()?;
    other.wait()?;
    if expected == received {
        Ok(())
    } else {
        Err("the counter lost or repeated a call".into())
    }
}
