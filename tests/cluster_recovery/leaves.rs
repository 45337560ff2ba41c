//! Nodes that leave in order, one after the other, while calls go on: what they had goes on elsewhere.
//!
//! Left out: nodes that die (the rest of `tests/cluster_recovery.rs`), and leaving itself (`tests/cluster_members.rs`).

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Calls one after the other until it is over; how many.
fn counts(counter: &Handle<Counter>, over: &AtomicBool) -> u64 {
    let mut n = 0;
    while !over.load(Ordering::Acquire) {
        n += 1;
        assert_eq!(get(&counter.add(1)), n, "each call counts once");
    }
    n
}

#[test]
fn all_nodes_are_replaced_under_load_and_nothing_is_lost() {
    with(2, |cluster| {
        let settings = [
            ("MOBULA_OBJECT_STORE_MEMORY", "128M"),
            ("MOBULA_CLUSTER_PACE", "2"),
            ("MOBULA_DRAIN_SECS", "5"),
        ];
        let counters: Vec<_> = ["node0", "node1"]
            .map(|name| called(&cluster.head, name))
            .map(|node| Counter::options().on_node(node).remote(0))
            .into();
        let over = AtomicBool::new(false);
        let (over, nodes, head) = (&over, &mut cluster.nodes, &cluster.head);
        std::thread::scope(|scope| {
            let clients: Vec<_> = counters
                .iter()
                .map(|counter| scope.spawn(move || counts(counter, over)))
                .collect();
            for round in 0..2 {
                let name = format!("new{round}");
                nodes.push(Node::start(head, &name, &settings));
                head.wait_for_nodes(4, LONG).expect("it joins");
                let began = Instant::now();
                signal(&nodes[round], "TERM");
                until("it ends in order", Duration::from_secs(30), || {
                    let ended = nodes[round].process.try_wait().expect("it is ours");
                    ended.is_some()
                });
                until("it is gone", LONG, || head.nodes().len() == 3);
                println!(
                    "node{round} left {:?} after it was told to",
                    began.elapsed()
                );
            }
            over.store(true, Ordering::Release);
            let made = clients.into_iter().map(|c| c.join().expect("all counted"));
            let made: Vec<u64> = made.collect();
            println!("{made:?} calls");
            for (counter, made) in counters.iter().zip(made) {
                assert_eq!(get(&counter.total()), made);
            }
        });
    });
}
