//! Learning: steps of environments, of rollouts and of whole algorithms, and the time to solve CartPole-v1.
//!
//! `cargo bench --no-default-features --features rl --bench rl [-- --json] [--quick] [--only substring]`. Environments run on one core, in batches of
//! 1,024, bodies (feature `mujoco`) on two; algorithms use what the machine has. A time to solve is a run of the command that ends when 100 greedy episodes have a
//! mean of 475, evaluations included, start-up not; each sample is another seed, and how many steps it took is a row of
//! its own. Left out: peers, whose figures are in docs/rl.md.

#[path = "../shared/report.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod report;

use mobula::rl::command::{Arguments, run};
use mobula::rl::{
    Actions, Activation, Mlp, Policy, Rng, Scratch, Steps, Tape, agent, env_names, make_vec, tuned,
};
use report::{Bound, Report};
use std::time::Instant;

// Training makes and drops many small tensors.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 1_024;

/// Steps per second of `n` environments, with actions drawn beforehand.
fn env_steps(name: &str, n: usize, rounds: usize) -> f64 {
    let mut envs = make_vec(name, n).expect("it is there");
    let mut steps = Steps::new(n, envs.observation_space().len());
    envs.reset(1, &mut steps.observations);
    let mut rng = Rng::new(2);
    let mut draw = || {
        let mut actions = Actions::zeros(&envs.action_space(), n);
        match &mut actions {
            Actions::Discrete(choices) => choices.fill_with(|| rng.below(2) as u32),
            Actions::Continuous { numbers, .. } => {
                numbers.fill_with(|| rng.between(-1.0, 1.0) as f32);
            }
        }
        actions
    };
    let actions: Vec<Actions> = (0..16).map(|_| draw()).collect();
    let begin = Instant::now();
    for t in 0..rounds {
        envs.step(&actions[t % actions.len()], &mut steps);
    }
    (rounds * n) as f64 / begin.elapsed().as_secs_f64()
}

fn environments(report: &mut Report) {
    let name = |env: &str| match env {
        "CartPole-v1" => "rl_env_cartpole",
        "MountainCar-v0" => "rl_env_mountaincar",
        "MountainCarContinuous-v0" => "rl_env_mountaincar_cont",
        "Acrobot-v1" => "rl_env_acrobot",
        "Pendulum-v1" => "rl_env_pendulum",
        "Catch-v0" => "rl_env_catch",
        _ => "",
    };
    for env in env_names() {
        let bench = name(env);
        if bench.is_empty() || !report.wants(bench) {
            continue;
        }
        env_steps(env, BATCH, 1_000);
        let values = (0..report.samples(7)).map(|_| env_steps(env, BATCH, 1_000));
        let values = values.collect();
        let bound = (env == "CartPole-v1").then_some(Bound::AtLeast(40e6));
        report.bounded(bench, "1/s", values, None, bound);
    }
}

/// Bodies on two cores: two threads with 8 of them each.
fn bodies(report: &mut Report) {
    for (bench, env, bound) in [
        ("rl_env_hopper", "Hopper-v5", Some(17e3)),
        ("rl_env_walker2d", "Walker2d-v5", None),
        ("rl_env_halfcheetah", "HalfCheetah-v5", Some(31e3)),
        ("rl_env_ant", "Ant-v5", None),
        ("rl_env_humanoid", "Humanoid-v5", Some(5.1e3)),
    ] {
        if !report.wants(bench) {
            continue;
        }
        if !env_names().any(|name| name == env) {
            report.note(&format!(
                "{bench}: skipped: built without the feature mujoco"
            ));
            continue;
        }
        let both = || -> f64 {
            std::thread::scope(|scope| {
                let threads = [0, 1].map(|_| scope.spawn(|| env_steps(env, 8, 500)));
                threads.map(|t| t.join().expect("it plays")).iter().sum()
            })
        };
        both();
        let values = (0..report.samples(7)).map(|_| both()).collect();
        report.bounded(bench, "1/s", values, None, bound.map(Bound::AtLeast));
    }
}

/// CartPole with a policy of 4-64-64 in the loop, on one core.
fn rollout(report: &mut Report, bench: &'static str, n: usize) {
    let mut envs = make_vec("CartPole-v1", n).expect("it is there");
    let mut steps = Steps::new(n, 4);
    envs.reset(1, &mut steps.observations);
    let (seen, done) = (envs.observation_space(), envs.action_space());
    let policy = Policy::new(&seen, &done, &[64, 64], Activation::Tanh);
    let mut rng = Rng::new(3);
    let weights = policy.init(&mut rng, 0.0);
    let (mut scratch, mut actions) = (Scratch::default(), Actions::zeros(&done, n));
    let (mut logs, mut values) = (Vec::new(), Vec::new());
    let rounds = 40_000 / n;
    report.rate(bench, 7, rounds * n, || {
        for _ in 0..rounds {
            logs.clear();
            values.clear();
            let parts = policy.split(&weights).expect("they fit");
            policy.draw(
                parts,
                &steps.observations,
                &mut rng,
                &mut scratch,
                &mut actions,
                &mut logs,
                &mut values,
            );
            envs.step(&actions, &mut steps);
        }
    });
}

/// Forward and backward passes of one network.
fn learner(report: &mut Report, bench: &'static str, sizes: [usize; 4], rows: usize) {
    let [inputs, a, b, outputs] = sizes;
    let net = Mlp::new(inputs, &[a, b], outputs, Activation::Tanh);
    let mut rng = Rng::new(4);
    let weights = net.orthogonal(&mut rng, 1.4, 0.1);
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let (seen, slope) = (numbers(rows * inputs), numbers(rows * outputs));
    let (mut tape, mut by_weights) = (Tape::default(), vec![0.0; net.weights()]);
    let rounds = (40_000_000 / (net.weights() * rows)).max(1);
    report.rate(bench, 7, rounds * rows, || {
        for _ in 0..rounds {
            net.forward(&weights, &seen, &mut tape);
            net.backward(&weights, &seen, &tape, &slope, &mut by_weights, None);
        }
    });
}

/// Steps per second of an algorithm with these settings, learning included.
fn whole(
    report: &mut Report,
    bench: &'static str,
    algorithm: &str,
    settings: &str,
    steps: u64,
    bound: Option<Bound>,
) {
    if !report.wants(bench) {
        return;
    }
    let values = (0..report.samples(5) as u64).map(|seed| {
        let mut agent = agent(algorithm, "CartPole-v1", settings, seed).expect("it is there");
        // The first iteration makes environments, and for DQN does not learn.
        let mut before = 0;
        while before < steps / 4 {
            before = agent.train().expect("it trains").steps;
        }
        let (begin, mut after) = (Instant::now(), before);
        while after < before + steps {
            after = agent.train().expect("it trains").steps;
        }
        (after - before) as f64 / begin.elapsed().as_secs_f64()
    });
    let values = values.collect();
    report.bounded(bench, "1/s", values, None, bound);
}

/// Seconds and steps until CartPole-v1 is solved.
fn solve(report: &mut Report, [bench, steps]: [&'static str; 2], algorithm: &str, bound: f64) {
    if !report.wants(bench) {
        return;
    }
    let (mut times, mut counts) = (Vec::new(), Vec::new());
    for seed in 1..=report.samples(5) {
        let words = format!(
            "--quiet --alg {algorithm} --env CartPole-v1 --stop-reward 475 --stop-time 60 --seed {seed}"
        );
        let told = Arguments::parse(words.split_whitespace()).expect("options");
        let outcome = run(&told).expect("it trains");
        if outcome.evaluation.is_none() {
            report.note(&format!("{bench}: seed {seed} did not come to 475"));
        }
        times.push(outcome.time.as_secs_f64());
        counts.push(outcome.steps as f64);
    }
    report.bounded(bench, "s", times, None, Some(Bound::AtMost(bound)));
    report.bounded(steps, "steps", counts, None, None);
}

fn main() {
    let mut report = Report::from_args();
    environments(&mut report);
    bodies(&mut report);
    rollout(&mut report, "rl_rollout_8", 8);
    rollout(&mut report, "rl_rollout_256", 256);
    learner(&mut report, "rl_learn_4_64_64", [4, 64, 64, 2], 64);
    learner(
        &mut report,
        "rl_learn_376_256_256",
        [376, 256, 256, 17],
        1_024,
    );
    let _mobula = mobula::init().expect("the runtime starts");
    whole(&mut report, "rl_ppo", "PPO", "{}", 20_000, None);
    let zoo = r#"{"epochs":20,"minibatch_size":256,"learning_rate":0.001}"#;
    let bound = Some(Bound::AtLeast(58e3));
    whole(&mut report, "rl_ppo_zoo", "PPO", zoo, 10_000, bound);
    let many = tuned("cartpole-ppo-4096").expect("it is there").config;
    let bound = Some(Bound::AtLeast(434e3));
    whole(&mut report, "rl_ppo_4096", "PPO", many, 1_000_000, bound);
    whole(&mut report, "rl_dqn", "DQN", "{}", 6_000, None);
    whole(&mut report, "rl_a3c", "A3C", "{}", 50_000, None);
    whole(&mut report, "rl_es", "ES", "{}", 400_000, None);
    solve(
        &mut report,
        ["rl_solve_ppo", "rl_solve_ppo_steps"],
        "PPO",
        0.7,
    );
    solve(
        &mut report,
        ["rl_solve_dqn", "rl_solve_dqn_steps"],
        "DQN",
        3.0,
    );
    solve(
        &mut report,
        ["rl_solve_a3c", "rl_solve_a3c_steps"],
        "A3C",
        0.5,
    );
    solve(&mut report, ["rl_solve_es", "rl_solve_es_steps"], "ES", 0.4);
    report.end();
}
