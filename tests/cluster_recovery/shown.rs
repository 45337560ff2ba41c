//! What is shown of an actor that outlives its node: in listings, and in the timeline of the node that goes on with it.
//!
//! Left out: how the command prints it (`tests/cli.rs`), and how the timeline's file is made (`tests/timeline.rs`).

use mobula::inspect::{Actor, Part, Query, snapshot};

use super::*;

/// Actors of this node whose history others keep, as JSON, and the timeline.
#[mobula::remote]
fn looks() -> (String, String) {
    let look = snapshot(&Query::of(&[Part::Actors])).expect("a node can be looked at");
    let kept: Vec<&Actor> = look
        .actors
        .items
        .iter()
        .filter(|a| a.kept.is_some())
        .collect();
    let name = format!("mobula-shown-{}.json", std::process::id());
    let path = std::env::temp_dir().join(name);
    mobula::timeline(&path).expect("what happened is written");
    let timeline = std::fs::read_to_string(&path).expect("it is there");
    let _ = std::fs::remove_file(path);
    (serde_json::to_string(&kept).expect("JSON"), timeline)
}

/// What the node that has the actor shows of it.
fn shown(mobula: &Mobula) -> Option<(Actor, String)> {
    let looks = |node: &mobula::NodeInfo| looks::options().on_node(node.id).remote();
    let all: Vec<_> = mobula.nodes().iter().map(looks).collect();
    let mut found = all.iter().filter_map(|looked| {
        let (kept, timeline) = get(looked);
        let mut kept: Vec<Actor> = serde_json::from_str(&kept).expect("what it said");
        Some((kept.pop()?, timeline))
    });
    found.next()
}

#[test]
fn who_keeps_an_actor_and_what_befell_it_is_shown() {
    with(2, |cluster| {
        let there = called(&cluster.head, "node0");
        let counter = Counter::options().checkpoint_every(4).name("seen");
        let counter = counter.on_node(there).remote(5);
        for n in 1..=6 {
            assert_eq!(get(&counter.add(1)), 5 + n);
        }
        let mut seen = None;
        until("its backup is shown", LONG, || {
            seen = shown(&cluster.head);
            let kept = seen.as_ref().and_then(|(actor, _)| actor.kept.as_ref());
            kept.is_some_and(|kept| kept.backups.len() == 1 && kept.saved_at.is_some())
        });
        let (actor, timeline) = seen.expect("it was seen");
        let (kept, history) = (
            actor.kept.expect("it is kept"),
            actor.history.expect("a log"),
        );
        assert_eq!((actor.restarts, kept.incarnation, kept.replicas), (0, 1, 1));
        assert_eq!((history.order, history.saved, history.logged), (6, 4, 2));
        assert_eq!(kept.last_death, None);
        assert!(timeline.contains("Counter seen checkpoint\""), "{timeline}");
        assert!(!timeline.contains("taken over"));

        cluster.nodes[0].kill();
        assert_eq!(get(&counter.add(1)), 12);
        let (actor, timeline) = shown(&cluster.head).expect("it goes on");
        let kept = actor.kept.expect("it is kept");
        assert_eq!((actor.restarts, kept.incarnation), (1, 2));
        let death = kept.last_death.expect("one died");
        assert!(death.contains(&there.to_string()), "{death}");
        for befell in ["taken over", "restore", "replay"] {
            let event = format!(" {befell}\"");
            assert!(timeline.contains(&event), "no {event}: {timeline}");
        }
    });
}

#[test]
fn a_checkpoint_can_be_asked_for_from_another_node() {
    with(2, |cluster| {
        let there = called(&cluster.head, "node0");
        let counter = Counter::options().on_node(there).remote(0);
        let calls: Vec<_> = (0..10).map(|_| counter.add(1)).collect();
        // After the calls that were made before it.
        get(&counter.checkpoint());
        assert_eq!(get_all(&calls).last(), Some(&10));
        let (actor, _) = shown(&cluster.head).expect("it is kept");
        let history = actor.history.expect("a log");
        assert_eq!((history.order, history.saved, history.logged), (10, 10, 0));
        // Asked of a node that dies, it is one of whoever goes on.
        let calls: Vec<_> = (0..50).map(|_| counter.add(1)).collect();
        let kept = counter.checkpoint();
        cluster.nodes[0].kill();
        get(&kept);
        assert_eq!(get_all(&calls).last(), Some(&60));
        let (actor, _) = shown(&cluster.head).expect("it is kept");
        let history = actor.history.expect("a log");
        assert_eq!((history.order, history.saved, history.logged), (60, 60, 0));
        let there = called(&cluster.head, "node1");
        let none = Counter::options().replicas(0).on_node(there).remote(0);
        let e = fails(&none.checkpoint()).to_string();
        assert!(e.contains("keeps no history"), "{e}");
    });
}
