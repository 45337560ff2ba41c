//! A cluster whose records are on a real etcd: its first node can be lost. Skipped where there is no etcd.

use std::time::{Duration, Instant};

use super::kept::{Kept, adds};
use super::*;

#[path = "../../src/base/etcd.rs"]
mod server;
use server::Server;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn the_first_node_may_be_lost() {
    let _alone = crate::cluster_common::alone();
    let Some(server) = Server::start() else {
        skip::skipped("no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address("mobula");
    let records = records.as_str();
    let mut head = Head::start(&[("HEAD_CONTROL", records)]);
    let settings = [("MOBULA_CONTROL", records), SLOWER];
    let _node = Node::join(&head.address, &head.token, "node", &settings);
    let address = head.address.parse().expect("an address");
    let mobula = slower().join(address, head.token.clone()).control(records);
    let mobula = mobula.init().expect("it joins");
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    let (first, node) = (called(&mobula, "head"), called(&mobula, "node"));
    let actor = Counter::options()
        .name("kept")
        .detached(true)
        .on_node(node)
        .remote(5);
    assert_eq!(mobula::get(actor.add(1)).unwrap(), 6);
    let lost = Counter::options()
        .name("lost")
        .detached(true)
        .on_node(first)
        .remote(0);
    assert_eq!(mobula::get(lost.add(1)).unwrap(), 1);
    let options = Kept::options().name("goes on").detached(true);
    let kept = options.on_node(first).remote(30);
    assert_eq!(mobula::get(kept.add(1)).unwrap(), 31);
    head.kill();
    until("the first node is gone", Duration::from_secs(5), || {
        mobula.nodes().len() == 2
    });
    // An actor of the first node whose history is kept goes on, and so does its name, though its node's lease is not over yet.
    assert_eq!(adds("goes on", 1), 32);
    drop(actor);
    let asked = Instant::now();
    let found = Counter::named("kept").unwrap();
    assert_eq!(mobula::get(found.add(1)).unwrap(), 7);
    println!(
        "found, and called, {:?} after the first node was known to be dead",
        asked.elapsed()
    );
    // New names too, and those of the dead once their node's lease is over.
    let new = Counter::options().name("new").on_node(node).remote(1);
    assert_eq!(mobula::get(new.add(1)).unwrap(), 2);
    assert!(matches!(
        Counter::named("lost").unwrap_err(),
        Error::NoSuchActor { .. }
    ));
    let again = Counter::options().name("lost").on_node(node).remote(70);
    assert_eq!(mobula::get(again.add(1)).unwrap(), 71);
    // Any other node lets newcomers in, and one that knows only the address of the first finds that.
    let there = mobula.nodes().into_iter().find(|n| n.id == node).unwrap();
    let other = there.address.to_string();
    let _second = Node::join(&other, &head.token, "second", &settings);
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    let _third = Node::join(&head.address, &head.token, "third", &settings);
    mobula.wait_for_nodes(4, Duration::from_secs(30)).unwrap();
    let third = called(&mobula, "third");
    let add = |at| finds::options().on_node(at).remote("kept".to_owned(), 1);
    assert_eq!(mobula::get(add(third)).unwrap(), 8);
    let stranger = Head::start(&[]);
    let mut stranger = Node::join(&other, &stranger.token, "stranger", &settings);
    let refused = stranger.process.wait().expect("it ends");
    assert!(!refused.success(), "not with another cluster's token");

    // And a new first node, at another address, is of the same cluster.
    let started = Instant::now();
    let new = Head::start(&[("HEAD_CONTROL", records)]);
    assert_eq!(new.token, head.token);
    assert_ne!(new.address, head.address);
    mobula.wait_for_nodes(5, Duration::from_secs(30)).unwrap();
    println!("a new first node was there after {:?}", started.elapsed());
    let new = called(&mobula, "head");
    assert_eq!(mobula::get(add(new)).unwrap(), 9);
    assert_eq!(adds("goes on", 1), 33);
}

#[test]
fn a_second_first_node_is_refused() {
    let _alone = crate::cluster_common::alone();
    let Some(server) = Server::start() else {
        skip::skipped("no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address("mobula");
    let records = records.as_str();
    let first = slower().listen(([127, 0, 0, 1], 0).into()).control(records);
    let first = first.init().unwrap();
    let mut second = Head::command(&[("HEAD_CONTROL", records)]);
    let second = second.stderr(Stdio::piped()).output().expect("it ends");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another first node is there"), "{said}");
    // It is over at once when the first leaves in order.
    drop(first);
    let again = Head::start(&[("HEAD_CONTROL", records)]);
    assert!(!again.address.is_empty());
}

#[test]
fn nobody_ends_when_the_first_node_was_stopped_for_a_while() {
    let _alone = crate::cluster_common::alone();
    let Some(server) = Server::start() else {
        skip::skipped("no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address("mobula");
    let records = records.as_str();
    let head = Head::start(&[("HEAD_CONTROL", records)]);
    let settings = [("MOBULA_CONTROL", records), SLOWER];
    let mut nodes: Vec<Node> = ["one", "two"]
        .map(|name| Node::join(&head.address, &head.token, name, &settings))
        .into();
    let address = head.address.parse().expect("an address");
    let mobula = slower().join(address, head.token.clone());
    let mobula = mobula.control(records).init().expect("it joins");
    mobula.wait_for_nodes(4, Duration::from_secs(30)).unwrap();
    signal(&head.process, Signal::STOP);
    until("the first node is gone", Duration::from_secs(20), || {
        mobula.nodes().len() == 3
    });
    signal(&head.process, Signal::CONT);
    // It is the one that was away, and hears so. Its program ends with that, and nobody else's.
    head.end_once_alone();
    let serve = || {
        for name in ["one", "two"] {
            let asked = pid::options().on_node(called(&mobula, name)).remote();
            mobula::get_timeout(asked, LONG).expect("it goes on");
        }
    };
    let ended = Instant::now();
    // Longer than nodes take to look in the records for a head.
    while ended.elapsed() < Duration::from_secs(4) {
        serve();
    }
    // Its lease was given back, and another can be the first.
    let newest = Head::start(&[("HEAD_CONTROL", records)]);
    mobula.wait_for_nodes(4, LONG).unwrap();
    serve();
    // One that leaves in order, as a program does that is done: nodes end with it.
    drop(mobula);
    newest.end();
    until("the nodes end", Duration::from_secs(30), || {
        nodes
            .iter_mut()
            .all(|node| node.process.try_wait().unwrap().is_some())
    });
}
