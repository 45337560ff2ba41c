//! Results of actors' calls that are lost with the actor's node, and had once more from whoever goes on.
//!
//! Invariant: nodes are processes that are killed; the state has each call once, whatever is asked for again; each method notes in a
//! file that it ran; every wait has a deadline. Left out: rarer orders of events, which the simulator tries (`tests/sim/history`).

mod cluster_common;

use std::time::{Duration, Instant};

use cluster_common::files::{Gate, Notes, note, pass};
use cluster_common::{Cluster, called, cluster_with, until, within};
use mobula::prelude::*;
use mobula::{Config, Error, NodeId, ObjectRef, Strategy};

/// Longer than anything takes but what hangs.
const LONG: Duration = Duration::from_secs(30);
/// More numbers than travel with the news that a call has ended: 9.6 MB of them.
const MANY: u64 = 1_200_000;

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .attach(false)
}

/// Deaths are found later than usual: many processes of unoptimised code share two CPUs, and a test may not lose a node that it did not
/// kill.
const PACE: u32 = 3;

/// A cluster of a head and so many other nodes.
fn with(others: usize, test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    let pace = PACE.to_string();
    let settings = [("MOBULA_CLUSTER_PACE", pace.as_str())];
    let mut cluster = cluster_with(config().cluster_pace(PACE), others, &settings);
    test(&mut cluster);
}

fn get<T: mobula::Value>(object: &ObjectRef<T>) -> T {
    within(object).expect("it ends well")
}

/// Waits until they have ended, without reading them.
fn done<T: mobula::Value>(objects: &[ObjectRef<T>]) {
    let all = mobula::wait(objects).num_returns(objects.len());
    let (_, rest) = all.timeout(LONG).run().expect("one can wait");
    assert!(rest.is_empty(), "they end");
}

#[remote(max_restarts = 5)]
struct Maker {
    file: String,
    made: u64,
}

#[remote]
impl Maker {
    pub fn new(file: String) -> Self {
        Maker { file, made: 0 }
    }

    /// So many numbers from how many there were before.
    pub fn makes(&mut self, many: u64) -> Vec<u64> {
        note(&self.file);
        let from = self.made;
        self.made += many;
        (from..self.made).collect()
    }

    /// Waits at a gate, if there is one.
    pub fn counts(&mut self, gate: Option<String>) -> u64 {
        note(&self.file);
        gate.iter().for_each(|gate| pass(gate));
        self.made += 1;
        self.made
    }

    /// The sum of these, and one more.
    pub fn takes(&mut self, of: Vec<u64>) -> u64 {
        self.made += 1;
        of.iter().sum::<u64>() + 1
    }

    pub fn made(&self) -> u64 {
        self.made
    }

    /// The same numbers, without a change of the state.
    pub fn shows(&self, many: u64) -> Vec<u64> {
        (0..many).collect()
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

/// An actor on a node whose first backup is the node where this runs.
#[remote]
fn makes_one(on: String, file: String, replicas: u32, every: u32) -> Result<Handle<Maker>, String> {
    let node: NodeId = on.parse().expect("a node");
    let began = Instant::now();
    loop {
        // Nodes that came last may not be connected yet.
        let options = Maker::options().replicas(replicas).on_node(node);
        let options = match every {
            0 => options,
            every => options.checkpoint_every(every),
        };
        match options.try_remote(file.clone()) {
            Ok(maker) => {
                let there = mobula::get_timeout(&maker.made(), LONG);
                return there.map(|_| maker).map_err(|e| e.to_string());
            }
            Err(e) if began.elapsed() > LONG => return Err(e.to_string()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}

/// An actor on `node0` whose first backup is the node of that name.
fn backed_by(
    cluster: &Cluster,
    name: &str,
    notes: &Notes,
    (replicas, every): (u32, u32),
) -> Handle<Maker> {
    let on = called(&cluster.head, "node0").to_string();
    let makes = makes_one::options().on_node(called(&cluster.head, name));
    get(&makes.remote(on, notes.path(), replicas, every))
}

fn is_from(numbers: &[u64], from: u64, many: u64) {
    assert_eq!(numbers.len() as u64, many);
    let ends = (numbers[0], numbers[numbers.len() - 1]);
    assert_eq!(ends, (from, from + many - 1));
}

#[test]
fn a_result_of_32_mib_that_its_killed_host_had_is_read_from_whoever_goes_on() {
    let all = [("node1", 4 << 20), ("head", MANY)]
        .map(|(name, many)| (name, many, Notes::new(&format!("results-{name}"))));
    with(2, |cluster| {
        // The backup of the first is another node, that of the second the one that has the references.
        let made = all.each_ref().map(|(name, many, notes)| {
            let maker = backed_by(cluster, name, notes, (1, 0));
            let small = maker.counts(None);
            let (large, next) = (maker.makes(*many), maker.makes(MANY));
            assert_eq!(get(&small), 1);
            done(&[large.clone(), next.clone()]);
            // All are settled by now, as far as the log says.
            assert_eq!(get(&maker.counts(None)), many + MANY + 2);
            (maker, large, next)
        });
        cluster.nodes[0].kill();
        for ((maker, large, next), (_, many, notes)) in made.iter().zip(&all) {
            is_from(&get(large), 1, *many);
            is_from(&get(next), many + 1, MANY);
            let total = many + MANY + 2;
            assert_eq!(get(&maker.made()), total, "each call counts once");
            assert_eq!(notes.runs(), 8, "four calls, each twice");
            // They are here now.
            is_from(&get(large), 1, *many);
            assert_eq!(notes.runs(), 8);
        }
    });
}

#[test]
fn who_reads_while_the_host_dies_has_the_result_too() {
    let notes = Notes::new("results-pending");
    with(2, |cluster| {
        let maker = backed_by(cluster, "node1", &notes, (1, 0));
        let results: Vec<_> = (0..4).map(|_| maker.makes(MANY)).collect();
        done(&results);
        let readers: Vec<_> = results
            .iter()
            .map(|result| {
                let result = result.clone();
                std::thread::spawn(move || within(&result))
            })
            .collect();
        // Some may have come before.
        cluster.nodes[0].kill();
        for (at, reader) in readers.into_iter().enumerate() {
            let numbers = reader.join().expect("it ends").expect("it ends well");
            is_from(&numbers, at as u64 * MANY, MANY);
        }
        assert_eq!(get(&maker.made()), 4 * MANY);
    });
}

#[remote]
fn adds(file: String, to: &[u64], n: u64) -> Vec<u64> {
    note(&file);
    to.iter().map(|x| x + n).collect()
}

#[test]
fn chains_of_tasks_and_methods_are_made_again() {
    let (notes, tasks) = (
        Notes::new("results-chain"),
        Notes::new("results-chain-tasks"),
    );
    with(2, |cluster| {
        let maker = backed_by(cluster, "node1", &notes, (1, 0));
        let node = called(&cluster.head, "node0");
        let there = || adds::options().strategy(Strategy::Node { node, soft: true });
        let made = maker.makes(MANY);
        let first = there().remote(tasks.path(), &made, 10);
        let second = there().remote(tasks.path(), &first, 10);
        done(&[made.clone(), first.clone(), second.clone()]);
        // Only the lineage keeps them.
        drop((made, first));
        cluster.nodes[0].kill();
        // A method's argument, which is a lost result of a task, which was made of a lost result of a method.
        let sum: u64 = (20..MANY + 20).sum();
        assert_eq!(get(&maker.takes(&second)), sum + 1);
        is_from(&get(&second), 20, MANY);
        assert_eq!(tasks.runs(), 4, "two calls, each twice");
        assert_eq!(get(&maker.made()), MANY + 1);
    });
}

#[test]
fn a_result_that_a_checkpoint_has_cut_goes_along_with_it() {
    let all = ["node1", "head"].map(|name| (name, Notes::new(&format!("cut-{name}"))));
    with(2, |cluster| {
        let made = all.each_ref().map(|(name, notes)| {
            let maker = backed_by(cluster, name, notes, (1, 1));
            let large = maker.makes(MANY);
            done(std::slice::from_ref(&large));
            assert_eq!(get(&maker.counts(None)), MANY + 1);
            mobula::get_timeout(&maker.checkpoint(), LONG).expect("it is kept");
            (maker, large)
        });
        cluster.nodes[0].kill();
        for ((maker, large), (_, notes)) in made.iter().zip(&all) {
            is_from(&get(large), 0, MANY);
            assert_eq!(get(&maker.made()), MANY + 1);
            assert_eq!(notes.runs(), 2, "nothing ran again");
        }
    });
}

#[test]
fn a_result_goes_along_with_checkpoints_once() {
    let _alone = cluster_common::alone();
    let notes = Notes::new("results-once");
    let cluster = &mut cluster_common::patient_cluster(config(), 1);
    let maker = backed_by(cluster, "head", &notes, (1, 1));
    let large = maker.makes(MANY);
    done(std::slice::from_ref(&large));
    let before = cluster.head.network().bytes_in;
    for n in 1..=15 {
        assert_eq!(get(&maker.counts(None)), MANY + n);
    }
    mobula::get_timeout(&maker.checkpoint(), LONG).expect("it is kept");
    let came = cluster.head.network().bytes_in - before;
    assert!(came < 3 * 8 * MANY, "{came} bytes came");
    cluster.nodes[0].kill();
    is_from(&get(&large), 0, MANY);
    assert_eq!(notes.runs(), 16);
}

#[test]
fn a_host_that_dies_in_the_middle_of_the_replay_is_followed_by_the_next() {
    let (notes, gate) = (
        Notes::new("results-replay"),
        Gate::new("results-replay-gate"),
    );
    with(3, |cluster| {
        let maker = backed_by(cluster, "node1", &notes, (2, 0));
        gate.open();
        let at_gate = || maker.counts(Some(gate.path()));
        let held: Vec<_> = (0..4).map(|_| at_gate()).collect();
        let large = maker.makes(MANY);
        assert_eq!(get(&held[3]), 4);
        done(std::slice::from_ref(&large));
        assert_eq!(get(&maker.counts(None)), MANY + 5);
        assert_eq!(notes.runs(), 6);
        gate.shut();
        cluster.nodes[0].kill();
        let result = large.clone();
        let reader = std::thread::spawn(move || within(&result));
        until("somebody runs the log again", LONG, || notes.runs() > 6);
        // The first backup is the node that made it; it has the log before it, and the gate is shut.
        cluster.nodes[1].kill();
        gate.open();
        is_from(
            &reader.join().expect("it ends").expect("it ends well"),
            4,
            MANY,
        );
        assert_eq!(get(&maker.made()), MANY + 5, "each call counts once");
        let host = get(&maker.process());
        assert!(host == std::process::id() || host == cluster.nodes[2].process.id());
    });
}

/// Reads an object.
#[remote]
fn reads(of: Vec<ObjectRef<Vec<u64>>>) -> Result<u64, String> {
    let all = mobula::get_timeout(&of[0], LONG).map_err(|e| e.to_string())?;
    Ok(all[all.len() - 1])
}

#[test]
fn a_result_is_made_again_after_one_death_and_the_next_for_whoever_borrows_it() {
    let notes = Notes::new("results-deaths");
    with(3, |cluster| {
        let maker = backed_by(cluster, "node1", &notes, (1, 0));
        let third = called(&cluster.head, "node2");
        let large = maker.makes(MANY);
        done(std::slice::from_ref(&large));
        cluster.nodes[0].kill();
        let read = reads::options().on_node(third).remote(vec![large.clone()]);
        assert_eq!(get(&read), MANY - 1);
        assert_eq!(get(&maker.counts(None)), MANY + 1);
        let host = get(&maker.process());
        let at = cluster.nodes.iter().position(|n| n.process.id() == host);
        // It came to the node that made it.
        cluster.nodes[at.expect("a node has it")].kill();
        is_from(&get(&large), 0, MANY);
        assert_eq!(get(&maker.made()), MANY + 1);
    });
}

/// Keeps what it was given, and a copy of that.
#[remote]
struct Keeps {
    of: Vec<ObjectRef<Vec<u64>>>,
}

#[remote]
impl Keeps {
    pub fn new(of: Vec<ObjectRef<Vec<u64>>>) -> Self {
        Keeps { of }
    }

    pub fn last(&self) -> Result<u64, String> {
        let all = mobula::get_timeout(&self.of[0], LONG).map_err(|e| e.to_string())?;
        Ok(all[all.len() - 1])
    }
}

fn lost_with(node: NodeId, object: &ObjectRef<Vec<u64>>, says: &[&str]) {
    match within(object) {
        Err(Error::NodeLost { node: named, what }) => {
            assert_eq!(named, node);
            for part in says {
                assert!(what.contains(part), "{part}: {what}");
            }
        }
        Err(other) => panic!("{other}"),
        Ok(all) => panic!("{} numbers came", all.len()),
    }
}

#[test]
fn what_is_not_made_again_names_the_method_and_the_remedy() {
    let notes = Notes::new("results-why");
    with(2, |cluster| {
        let node = called(&cluster.head, "node0");
        let third = called(&cluster.head, "node1");
        let options = || Maker::options().on_node(node);
        let alone = options().replicas(0).remote(notes.path());
        let few = options().log_bytes(100_000).remote(notes.path());
        let kept = options().remote(notes.path());
        let (of_alone, cut) = (alone.makes(MANY), few.makes(MANY));
        let (read, shown) = (few.makes(MANY), kept.shows(MANY));
        done(&[of_alone.clone(), cut.clone(), read.clone(), shown.clone()]);
        // A copy that survives is read, whatever became of the call.
        let keeps = Keeps::options().on_node(third).remote(vec![read.clone()]);
        assert_eq!(get(&keeps.last()), 2 * MANY - 1);
        mobula::get_timeout(&few.checkpoint(), LONG).expect("it is kept");
        cluster.nodes[0].kill();
        let not_again = [
            "a method of an actor",
            "max_restarts",
            "put it with replicas",
        ];
        lost_with(
            node,
            &of_alone,
            &[&["Maker::makes"], &not_again[..]].concat(),
        );
        lost_with(node, &shown, &[&["Maker::shows"], &not_again[..]].concat());
        lost_with(
            node,
            &cut,
            &[
                "Maker::makes",
                "bytes that the call gave",
                "a checkpoint had cut",
                "log_bytes",
                "no more than 100000 bytes of such results go along",
            ],
        );
        is_from(&get(&read), MANY, MANY);
        assert_eq!(get(&few.made()), 2 * MANY);
    });
}

/// Bytes of objects in the store of the node where this runs.
#[remote]
fn stored() -> u64 {
    use mobula::inspect::{Part, Query, snapshot};
    let look = snapshot(&Query::of(&[Part::Objects])).expect("a node can be looked at");
    look.origins.items.iter().map(|o| o.bytes).sum()
}

#[test]
fn results_that_were_read_or_dropped_are_kept_by_nobody() {
    let notes = Notes::new("results-dropped");
    with(2, |cluster| {
        let [first, second] = ["node0", "node1"].map(|name| called(&cluster.head, name));
        let has_one = |node: NodeId| {
            until("it keeps one result", LONG, || {
                let bytes = get(&stored::options().on_node(node).remote());
                (8 * MANY..12 * MANY).contains(&bytes)
            });
        };
        let maker = backed_by(cluster, "node1", &notes, (1, 0));
        let kept = maker.makes(MANY);
        for round in 1..=4 {
            let large = maker.makes(MANY);
            match round % 2 {
                0 => is_from(&get(&large), round * MANY, MANY),
                _ => done(&[large]),
            }
        }
        has_one(first);
        cluster.nodes[0].kill();
        assert_eq!(get(&maker.made()), 5 * MANY);
        has_one(second);
        is_from(&get(&kept), 0, MANY);
    });
}
