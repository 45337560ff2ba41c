//! Calls of the very node that takes an actor over, made while its log runs again there.
//!
//! Invariant: none of them comes between two calls of the log. Left out: what else a death brings (the other files).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::cluster_common;

/// So many that they are not all in the mailbox before a call can come.
const LOGGED: u64 = 1000;
/// Which of the two nodes that are left goes on with one of them is chance's.
const ACTORS: usize = 4;

/// A call of a node that had no handle before: it looks where the actor is.
#[remote(num_cpus = 0)]
fn adds(counter: Handle<Counter>) -> Result<u64, String> {
    mobula::get_timeout(&counter.add(1), LONG).map_err(|e| e.to_string())
}

#[test]
fn no_call_of_the_node_that_takes_over_comes_between_those_of_the_log() {
    with(2, |cluster| {
        let dies = called(&cluster.head, "node0");
        let stays = called(&cluster.head, "node1");
        let make = || {
            let options = Counter::options().checkpoint_every(1_000_000);
            options.log_bytes("256M").on_node(dies).remote(0)
        };
        let counters: Vec<_> = (0..ACTORS).map(|_| make()).collect();
        for counter in &counters {
            let all: Vec<_> = (0..LOGGED).map(|_| counter.add(1)).collect();
            assert_eq!(get_all(&all).last(), Some(&LOGGED));
        }
        cluster_common::settled(&cluster.head);
        let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let client = |counter: &Handle<Counter>| {
            let mut told = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let add = adds::options().on_node(stays).remote(counter.clone());
                told.push(get(&add));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            told
        };
        let (client, over) = (&client, &over);
        let told: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let clients = counters.iter().map(|c| scope.spawn(move || client(c)));
            let clients: Vec<_> = clients.collect();
            until("calls are under way", LONG, || {
                answered.load(Ordering::Relaxed) >= 2 * ACTORS
            });
            cluster.nodes[0].kill();
            for counter in &counters {
                get(&counter.node());
            }
            over.store(true, Ordering::Relaxed);
            let told = clients.into_iter().map(|c| c.join().expect("all are told"));
            told.collect()
        });
        for (counter, told) in counters.iter().zip(told) {
            let expected: Vec<u64> = (LOGGED + 1..=LOGGED + told.len() as u64).collect();
            assert_eq!(told, expected, "each counts once, behind all of the log");
            assert_eq!(get(&counter.total()), LOGGED + told.len() as u64);
        }
    });
}
