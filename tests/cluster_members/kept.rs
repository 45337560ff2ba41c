//! A named actor on the first node itself, which is lost and started again: another node goes on with it.

use super::*;

/// Its history is kept by other nodes.
#[remote(max_restarts = 5)]
pub struct Kept {
    total: u64,
}

#[remote]
impl Kept {
    pub fn new(total: u64) -> Self {
        Kept { total }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// The answer of one with this name, which may be about to be taken over.
pub fn adds(name: &str, n: u64) -> u64 {
    let kept = Kept::named(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    mobula::get_timeout(kept.add(n), Duration::from_secs(60)).expect("it goes on")
}

#[test]
fn a_named_actor_of_the_first_node_outlives_it() {
    let _alone = cluster_common::alone();
    let folder = std::env::temp_dir().join(format!("mobula-kept-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let dir = folder.to_str().expect("text");
    let mut head = Head::start(&[("HEAD_DIR", dir)]);
    let patience = [("MOBULA_HEAD_PATIENCE", "60"), SLOWER];
    let _node = Node::join(&head.address, &head.token, "node", &patience);
    let mobula = slower()
        .join(
            head.address.parse().expect("an address"),
            head.token.clone(),
        )
        .node_name("own")
        .head_patience(Duration::from_secs(60));
    let mobula = mobula.init().expect("it joins");
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    let old = called(&mobula, "head");
    let options = Kept::options().name("kept").detached(true).on_node(old);
    let kept = options.remote(5);
    assert_eq!(mobula::get(kept.add(1)).unwrap(), 6);
    head.kill();
    until("the head is gone", Duration::from_secs(5), || {
        mobula.nodes().iter().all(|n| n.id != old)
    });
    let again = Head::start(&[("HEAD_DIR", dir), ("HEAD_LISTEN", &head.address)]);
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    let answer = mobula::get_timeout(kept.add(1), Duration::from_secs(60));
    assert_eq!(answer.expect("its handle goes on"), 7);
    drop(kept);
    assert_eq!(adds("kept", 1), 8);
    drop((mobula, again));
    let _ = std::fs::remove_dir_all(&folder);
}
