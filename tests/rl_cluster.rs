//! Learning on three processes, of which two are killed.
//!
//! Invariant: collectors are spread over the nodes; those that went down with them are made anew on what is left, and
//! training goes on with all of its steps. Left out: what is learned, and other machines.

mod cluster_common;

use std::time::{Duration, Instant};

use cluster_common::{Node, alone, patient_cluster, until};
use mobula::rl::{Agent, Error, a3c, dqn, es, ppo};
use mobula::{Config, Mobula, remote};

/// Which process this runs in.
#[remote]
fn process() -> u32 {
    std::process::id()
}

/// Trains twice on the head and two nodes, kills these, and trains until members were replaced.
fn survives<A: Agent>(
    head: &Mobula,
    make: impl FnOnce() -> Result<A, Error>,
    each: u64,
    replaced: fn(&A) -> u64,
) -> Result<(), Error> {
    let settings = [("MOBULA_CLUSTER_PACE", "5"), ("MOBULA_SHARE_MEMORY", "0")];
    let nodes = ["one", "two"].map(|name| Node::start(head, name, &settings));
    head.wait_for_nodes(3, Duration::from_secs(30))?;
    // Nodes that have joined are given calls once the head has heard what they have.
    until("calls go to all nodes", Duration::from_secs(30), || {
        let calls: Vec<_> = (0..6)
            .map(|_| process::options().spread().remote())
            .collect();
        let all = mobula::get_timeout(&calls, Duration::from_secs(30));
        let mut all = all.expect("they run");
        all.sort_unstable();
        all.dedup();
        all.len() == 3
    });
    let mut agent = make()?;
    agent.train()?;
    agent.train()?;
    assert_eq!(replaced(&agent), 0);
    // Both: wherever collectors are, some are not on the head.
    drop(nodes);
    let (mut done, killed) = (2, Instant::now());
    // Who waits for nobody in particular, as A3C, goes on with who is left until the death is known.
    while done < 3 || (replaced(&agent) == 0 && killed.elapsed() < Duration::from_secs(30)) {
        let progress = agent.train()?;
        done += 1;
        assert_eq!(
            (progress.training_iteration, progress.steps),
            (done, done * each)
        );
    }
    assert!(replaced(&agent) > 0, "{} lost nobody", agent.algorithm());
    until("the dead are known", Duration::from_secs(30), || {
        head.nodes().len() == 1
    });
    Ok(())
}

#[test]
fn training_goes_on_when_nodes_are_killed() -> Result<(), Error> {
    let _alone = alone();
    let config = Config::new()
        .num_cpus(1)
        .object_store_memory(256 << 20)
        .attach(false);
    let cluster = patient_cluster(config, 0);
    let head = &cluster.head;
    let settings = ppo::Config {
        num_workers: 4,
        num_envs: 2,
        num_steps: 16,
        minibatch_size: 32,
        epochs: 2,
        ..ppo::Config::default()
    };
    let make = || ppo::Ppo::new("CartPole-v1", settings, 1);
    survives(head, make, 128, ppo::Ppo::replaced)?;

    let settings = dqn::Config {
        num_workers: 3,
        num_envs: 2,
        learning_starts: 64,
        updates: 4,
        ..dqn::Config::default()
    };
    let make = || dqn::Dqn::new("CartPole-v1", settings, 1);
    survives(head, make, 96, dqn::Dqn::replaced)?;

    let settings = a3c::Config {
        num_workers: 3,
        num_envs: 2,
        ..a3c::Config::default()
    };
    let make = || a3c::A3c::new("CartPole-v1", settings, 1);
    survives(head, make, 256, a3c::A3c::replaced)?;

    // Nobody is left but the head.
    let mut es = es::Es::new("CartPole-v1", es::Config::default(), 1)?;
    assert_eq!(es.train()?.episodes, 32);
    Ok(())
}
