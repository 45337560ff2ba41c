//! A dead actor stays dead: whatever is still in the queues for it when it dies wakes nothing.
//!
//! Invariant: calls after a kill fail, and no method runs on a state that is gone. Left out: how actors die.

use mobula::prelude::*;

#[remote]
struct List {
    items: Vec<u64>,
}

#[remote]
impl List {
    pub fn new(first: u64) -> Self {
        List { items: vec![first] }
    }

    pub fn add(&mut self, item: u64) -> u64 {
        self.items.push(item);
        self.items.len() as u64
    }
}

/// A kill queues the actor once more than its mailbox does. The entry that came too late used to turn the closed mailbox
/// into an idle one, and the next call ran on a null state.
#[test]
fn calls_after_a_kill_fail() {
    let _mobula = mobula::init().unwrap();
    for i in 0..300 {
        let list = List::remote(10);
        if i % 2 == 0 {
            assert_eq!(mobula::get(&list.add(1)).unwrap(), 2);
        }
        list.kill();
        for call in 0..20 {
            let died = mobula::get(&list.add(1)).unwrap_err();
            assert!(
                matches!(died, mobula::Error::ActorDied { .. }),
                "{call}: {died}"
            );
            if i % 3 == 0 {
                std::thread::yield_now();
            }
        }
    }
}
