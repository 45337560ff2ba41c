//! A cluster whose records are on a real etcd: its first node can be lost. Skipped where there is no etcd.

use std::time::{Duration, Instant};

use super::*;

#[path = "../cluster_common/etcd.rs"]
mod server;
use server::Server;

#[test]
fn the_first_node_may_be_lost() {
    let _alone = crate::cluster_common::alone();
    let Some(server) = Server::start() else {
        println!("skipped: no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address.as_str();
    let mut head = Head::start(&[("HEAD_CONTROL", records)]);
    let settings = [("MOBULA_HEAD_PATIENCE", "600"), ("MOBULA_CONTROL", records)];
    let _node = Node::join(&head.address, &head.token, "node", &settings);
    let address = head.address.parse().expect("an address");
    let mobula = config()
        .join(address, head.token.clone())
        .control(records)
        .head_patience(Duration::from_secs(600));
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
    head.kill();
    until("the first node is gone", Duration::from_secs(5), || {
        mobula.nodes().len() == 2
    });
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
}
