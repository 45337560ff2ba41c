//! The example `train` on two machines of launchers. Skipped, with a message, where it was not built.

use std::path::PathBuf;
use std::process::Stdio;

use super::*;
use crate::bench::Said;
use crate::skip;

/// Beside the folder of this program's.
fn train() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("a test has a path");
    let train = this.parent()?.parent()?.join("examples/train");
    train.exists().then_some(train)
}

#[test]
fn training_is_brought_to_the_machines_of_launchers() {
    let bench = Bench::new("training");
    let Some(train) = train() else {
        skip::skipped("no example `train` here (cargo build --features full,rl --example train)");
        return;
    };
    let head = bench.head("one", &["--num-cpus", "1"]);
    bench.join(&head, "two", &["--num-cpus", "1"]);
    bench.machines(&head, 2);
    let trains = |address: &str, knows: &str| {
        let mut command = bench.command_of(&train);
        command.env("MOBULA_ATTACH_DIR", bench.dir(knows));
        command.args(["--address", address, "--alg", "PPO", "--env", "CartPole-v1"]);
        command.args(["--num-workers", "4", "--stop-time", "10", "--seed", "1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    // Where no launcher runs, the address alone does not do.
    let said: Said = trains(&head.address, "elsewhere")
        .wait_with_output()
        .unwrap()
        .into();
    assert!(!said.ok && said.err.contains("no token is known"), "{said}");

    let child = trains(&format!("{}?{}", head.address, head.token), "elsewhere");
    // Each collector asks for a node that has few of them.
    until("it has taken both machines", || {
        let status = bench.status(&head);
        let machines = status["machines"].as_array().expect("a list").iter();
        let taken = machines.filter(|m| m["left"]["cpu"] != m["whole"]["cpu"]);
        taken.count() == 2
    });
    let said: Said = child.wait_with_output().unwrap().into();
    assert!(
        said.ok && said.out.contains("ended by --stop-time"),
        "{said}"
    );
    assert!(said.err.contains("2 of 2 nodes are there"), "{said}");
    until("both are free again", || {
        let status = bench.status(&head);
        let mut machines = status["machines"].as_array().expect("a list").iter();
        machines.all(|m| m["left"]["cpu"] == m["whole"]["cpu"])
    });
}
