//! Clusters of 2 to 100 in virtual time: joins, deaths, loss, stalls, partitions, departures, and hostile bytes.

use std::time::Duration;

use super::codec;
use super::frame::{self, Frame};
use super::net::Net;
use super::*;
use proptest::prelude::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A cluster that has come together.
fn cluster(nodes: usize, seed: u64) -> Net {
    let mut net = Net::new(seed);
    net.add(Pace::LAN, false, &[]);
    for n in 1..nodes {
        net.add(Pace::LAN, false, &[n / 2]);
    }
    assert!(
        net.run_until(ms(5000), Net::settled),
        "{nodes} nodes, seed {seed}"
    );
    // Until those who came last are no news any more.
    net.run(ms(2500));
    net
}

fn downs(net: &Net) -> usize {
    let is_down = |effect: &Effect| matches!(effect, Effect::Down { .. } | Effect::Dead(_));
    net.hosts
        .iter()
        .flat_map(|host| &host.log)
        .filter(|(_, effect)| is_down(effect))
        .count()
}

#[test]
fn all_find_each_other() {
    for (nodes, within) in [(2, 300), (3, 300), (10, 1000), (100, 2500)] {
        for seed in 0..if nodes == 100 { 1 } else { 3 } {
            let net = cluster(nodes, seed);
            assert!(
                net.now() < ms(within + 2500),
                "{nodes} nodes took {:?}",
                net.now()
            );
            assert_eq!(downs(&net), 0);
        }
    }
}

#[test]
fn a_death_is_known_everywhere_within_the_pace() {
    for nodes in [2, 3, 5, 20, 100] {
        let mut times = Vec::new();
        for seed in 0..if nodes == 100 { 2 } else { 10 } {
            let mut net = cluster(nodes, seed);
            // Not always at the same point of the watch.
            net.run(ms(7) * seed as u32);
            let killed = net.now();
            let gone = seed as usize % nodes;
            net.hosts[gone].killed = true;
            net.run(ms(1000));
            let learnt = net.learnt(gone);
            assert_eq!(learnt.len(), nodes - 1, "{nodes} nodes, seed {seed}");
            assert_eq!(downs(&net), nodes - 1, "nobody else is taken for dead");
            times.extend(learnt.iter().map(|at| *at - killed));
        }
        times.sort_unstable();
        let worst = *times.last().unwrap();
        assert!(
            worst < Pace::LAN.worst() + ms(10),
            "{nodes} nodes: {worst:?}"
        );
        assert!(worst < ms(500));
    }
}

#[test]
fn a_lost_connection_is_a_hint_that_makes_it_faster() {
    let mut net = cluster(5, 1);
    let killed = net.now();
    net.hosts[2].killed = true;
    let node = net.hosts[2].peer.node;
    net.give(4, Event::ConnectionLost(node));
    net.run(ms(500));
    let worst = net.learnt(2).into_iter().max().unwrap() - killed;
    assert!(worst < ms(140), "{worst:?}");

    // If it was only the connection, it is suspected and refutes.
    let alive = net.hosts[1].peer.node;
    net.give(4, Event::ConnectionLost(alive));
    net.run(ms(500));
    let log = &net.hosts[4].log;
    assert!(
        log.iter()
            .any(|(_, e)| matches!(e, Effect::Suspected(n) if *n == alive))
    );
    assert!(
        log.iter()
            .any(|(_, e)| matches!(e, Effect::Cleared(n) if *n == alive))
    );
    assert!(net.learnt(1).is_empty());
    let incarnation = |at: usize| {
        let mut known = net.hosts[at].machine.foca.iter_members();
        known
            .find(|member| member.id().node == alive)
            .map(|m| (m.incarnation(), m.state()))
    };
    for at in [0, 3, 4] {
        assert_eq!(
            incarnation(at),
            Some((1, foca::State::Alive)),
            "the refutation spread"
        );
    }
}

#[test]
fn losing_a_tenth_of_everything_for_ten_minutes_kills_nobody() {
    for (nodes, seed) in [(3, 1), (10, 2)] {
        let mut net = cluster(nodes, seed);
        net.loss = 100;
        net.run(Duration::from_secs(600));
        assert_eq!(downs(&net), 0);
        // And a death is still found.
        let killed = net.now();
        net.hosts[0].killed = true;
        net.run(ms(2000));
        let learnt = net.learnt(0);
        assert_eq!(learnt.len(), nodes - 1);
        assert!(learnt.iter().all(|at| *at - killed < ms(700)), "{learnt:?}");
    }
}

#[test]
fn a_node_that_stops_for_a_moment_is_not_taken_for_dead() {
    let mut net = cluster(5, 3);
    for turn in 0..50 {
        let at = turn % 5;
        net.hosts[at].stopped_until = net.now() + ms(250);
        net.run(ms(600));
    }
    assert_eq!(downs(&net), 0);
    // For longer than a doubt takes, it is; and it hears so when it wakes.
    net.hosts[1].stopped_until = net.now() + ms(3000);
    net.run(ms(2500));
    assert_eq!(net.learnt(1).len(), 4);
    net.run(ms(1500));
    let last = net.hosts[1].log.last().map(|(_, e)| e);
    assert!(
        matches!(last, Some(Effect::Dead(Death::Declared))),
        "{last:?}"
    );
    assert_eq!(downs(&net), 5, "the one that slept takes nobody for dead");
    assert!(net.hosts[1].machine.stopped() > ms(2900));
}

#[test]
fn a_node_that_was_stopped_blames_nobody() {
    // All but one stop and wake at different times; nobody's wake-up kills others.
    let mut net = cluster(8, 4);
    for turn in 0..40u64 {
        for at in 0..8 {
            net.hosts[at].stopped_until = net.now() + ms((turn * 37 + at as u64 * 61) % 230);
        }
        net.run(ms(300));
    }
    assert_eq!(downs(&net), 0);
}

#[test]
fn full_cpus_kill_nobody() {
    // Each runs for some milliseconds and then waits for up to 150 ms until it gets a CPU again, for two minutes; every
    // second one of them waits for 250 ms.
    let mut net = cluster(8, 14);
    let mut chance = Chance::new(14);
    for turn in 0..12_000 {
        let net_now = net.now();
        for host in &mut net.hosts {
            if host.stopped_until <= net_now && chance.below(4) == 0 {
                host.stopped_until = net_now + ms(10 + chance.below(140) as u64);
            }
        }
        if turn % 100 == 0 {
            net.hosts[chance.below(8)].stopped_until = net_now + ms(250);
        }
        net.run(ms(10));
    }
    assert_eq!(downs(&net), 0);
    // A death is found, if later.
    let killed = net.now();
    net.hosts[3].killed = true;
    net.run(ms(2000));
    let worst = net.learnt(3).into_iter().max().unwrap() - killed;
    assert!(net.learnt(3).len() == 7 && worst < ms(1200), "{worst:?}");
}

#[test]
fn a_machine_may_move_to_its_drivers_thread() {
    fn is_send<T: Send>() {}
    is_send::<Members>();
    is_send::<Effect>();
}

#[test]
fn who_hears_nobody_is_found_dead_before_it_blames_others() {
    let mut net = cluster(6, 5);
    net.hosts[2].deaf = true;
    net.run(ms(3000));
    for at in [0, 1, 3, 4, 5] {
        assert_eq!(net.hosts[at].machine.living().len(), 4, "host {at}");
    }
    assert_eq!(net.learnt(2).len(), 5);
}

#[test]
fn of_a_split_cluster_the_larger_side_goes_on_and_the_other_hears_of_it() {
    let mut net = cluster(9, 6);
    for host in &mut net.hosts[..3] {
        host.side = 1;
    }
    net.run(ms(3000));
    // Each side found the other dead, and goes on.
    for (at, host) in net.hosts.iter().enumerate() {
        assert_eq!(host.machine.living().len(), if at < 3 { 2 } else { 5 });
    }
    for host in &mut net.hosts {
        host.side = 0;
    }
    net.run(Duration::from_secs(10));
    for (at, host) in net.hosts.iter().enumerate() {
        let dead = host.log.iter().any(|(_, e)| matches!(e, Effect::Dead(_)));
        assert_eq!(dead, at < 3, "host {at}");
    }
    // Started anew, under new numbers, they are members again.
    for host in &mut net.hosts[..3] {
        host.killed = true;
    }
    for _ in 0..3 {
        net.add(Pace::LAN, false, &[5]);
    }
    let end = net.now() + ms(3000);
    assert!(net.run_until(end, Net::settled));
}

#[test]
fn the_side_of_the_head_goes_on_however_small() {
    let mut net = Net::new(7);
    net.add(Pace::LAN, true, &[]);
    for _ in 1..7 {
        net.add(Pace::LAN, false, &[0]);
    }
    net.run(ms(2000));
    net.hosts[0].side = 1;
    net.hosts[1].side = 1;
    net.run(ms(3000));
    net.hosts.iter_mut().for_each(|host| host.side = 0);
    net.run(Duration::from_secs(20));
    for (at, host) in net.hosts.iter().enumerate() {
        let dead = host.log.iter().any(|(_, e)| matches!(e, Effect::Dead(_)));
        assert_eq!(dead, at >= 2, "host {at}");
    }
}

#[test]
fn who_leaves_is_not_said_to_have_failed() {
    for seed in 0..20 {
        who_leaves(cluster(10, seed));
    }
}

fn who_leaves(mut net: Net) {
    net.give(3, Event::Drain);
    net.run(ms(1000));
    let node = net.hosts[3].peer.node;
    for at in [0, 1, 2, 4, 9] {
        assert_eq!(net.hosts[at].machine.view(node).unwrap().0, Duty::Draining);
    }
    let asked = net.now();
    net.give(3, Event::Leave);
    net.run(ms(1000));
    assert!(matches!(net.hosts[3].log.last(), Some((_, Effect::Left))));
    net.hosts[3].killed = true;
    assert!(net.settled());
    for at in [0, 1, 2, 4, 9] {
        let left =
            |e: &Effect| matches!(e, Effect::Down { peer, why: Why::Left } if peer.node == node);
        assert!(net.hosts[at].log.iter().any(|(_, e)| left(e)), "host {at}");
    }
    let worst = net.learnt(3).into_iter().max().unwrap() - asked;
    assert!(worst < ms(500), "{worst:?}");
}

#[test]
fn views_reach_all_and_the_newest_stands() {
    let mut net = cluster(30, 9);
    for round in 0..20u8 {
        for at in 0..30 {
            net.give(at, Event::Tell(&[round, at as u8, 7]));
        }
        net.run(ms(100));
    }
    net.run(ms(5000));
    for host in &net.hosts {
        for peer in host.machine.living() {
            let (duty, view) = host.machine.view(peer.node).expect("it was told");
            let at = net
                .hosts
                .iter()
                .position(|h| h.peer.node == peer.node)
                .unwrap();
            assert_eq!((duty, view), (Duty::Serving, &[19, at as u8, 7][..]));
        }
        // Each view that was handed out was newer than the one before.
        for other in &net.hosts {
            let rounds = host.log.iter().filter_map(|(_, e)| match e {
                Effect::View { node, bytes, .. } if *node == other.peer.node => bytes.first(),
                _ => None,
            });
            assert!(rounds.is_sorted());
        }
    }
    // One that comes late learns them at once.
    let late = net.add(Pace::LAN, false, &[0]);
    net.run(ms(500));
    let machine = &net.hosts[late].machine;
    assert_eq!(
        machine
            .living()
            .filter(|peer| machine.view(peer.node).is_some())
            .count(),
        30
    );
    let too_long = [0; VIEW_MAX + 1];
    let mut out = Vec::new();
    let now = net.now();
    let refused = net.hosts[late]
        .machine
        .handle(now, Event::Tell(&too_long), &mut out);
    assert_eq!(
        refused,
        Err(BadDatagram::Value("view's length", VIEW_MAX as u64 + 1))
    );
}

#[test]
fn a_quiet_cluster_says_little_and_dies_out() {
    let mut net = cluster(10, 10);
    net.run(ms(10_000));
    let before: u64 = net.hosts.iter().map(|host| host.sent.1).sum();
    net.run(ms(10_000));
    let after: u64 = net.hosts.iter().map(|host| host.sent.1).sum();
    let each = (after - before) / 10 / 10;
    assert!(each < 10_000, "{each}");
    for host in &mut net.hosts[1..] {
        host.killed = true;
    }
    // All at once: nobody is left to be heard, which must not keep the last from noticing.
    net.run(ms(3000));
    assert_eq!(net.hosts[0].machine.living().len(), 0);
}

#[test]
fn what_is_due_is_bounded() {
    let mut net = cluster(20, 11);
    net.loss = 300;
    net.run(Duration::from_secs(60));
    for host in &net.hosts {
        let due = host.machine.clock.len();
        assert!(due < 200, "{due}");
    }
}

/// One machine that knows one other, and that other.
fn pair() -> (Net, NodeId) {
    let net = cluster(2, 12);
    let other = net.hosts[1].peer.node;
    (net, other)
}

#[test]
fn bytes_that_are_no_datagram_are_refused_by_name() {
    let (mut net, other) = pair();
    let me = net.hosts[0].peer;
    let them = net.hosts[1].peer;
    let stranger = NodeId::new(77).unwrap();
    let now = net.now();
    let mut try_bytes = |from: NodeId, bytes: &[u8]| {
        let mut out = Vec::new();
        let result = net.hosts[0]
            .machine
            .handle(now, Event::Datagram { from, bytes }, &mut out);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| out.len())
    };
    assert_eq!(try_bytes(other, &[]), Err(BadDatagram::Short("kind")));
    assert_eq!(try_bytes(other, &[99]), Err(BadDatagram::Value("kind", 99)));
    assert_eq!(
        try_bytes(other, &[0; 1201]),
        Err(BadDatagram::TooLong(1201))
    );
    assert_eq!(
        try_bytes(other, &[1, 0, 9, 1]),
        Err(BadDatagram::Short("message"))
    );
    let ask = frame::write(&Frame::Ask {
        origin: them,
        target: me,
        suspected: None,
    });
    assert_eq!(try_bytes(other, &ask), Ok(1), "it is answered");
    assert_eq!(try_bytes(stranger, &ask), Ok(0), "a stranger is not");
    assert_eq!(
        try_bytes(other, &ask[..ask.len() - 1]),
        Err(BadDatagram::Short("suspicion"))
    );
    let long = [&ask[..], &[0]].concat();
    assert_eq!(try_bytes(other, &long), Err(BadDatagram::Trailing(1)));
    // Nobody speaks for another.
    use foca::{Codec as _, Header, Message};
    let mut swim = Vec::new();
    let header = Header {
        src: them,
        src_incarnation: 0,
        dst: me,
        message: Message::Gossip,
    };
    Codec.encode_header(&header, &mut swim).unwrap();
    let swim = frame::swim(&swim);
    assert_eq!(try_bytes(other, &swim), Ok(0));
    assert_eq!(
        try_bytes(stranger, &swim),
        Err(BadDatagram::Forged {
            says: other,
            from: stranger
        })
    );
    assert_eq!(
        try_bytes(me.node, &swim),
        Err(BadDatagram::Forged {
            says: other,
            from: me.node
        })
    );
    // A page that lists too many, a view that is too long, an address that is none.
    assert_eq!(
        try_bytes(other, &[6, 1, 41]),
        Err(BadDatagram::Value("count", 41))
    );
    let mut view = vec![4];
    view.extend(other.get().to_be_bytes());
    view.extend(1u64.to_be_bytes());
    view.push(0);
    view.extend((VIEW_MAX as u16 + 1).to_be_bytes());
    view.extend([0; VIEW_MAX + 1]);
    assert_eq!(
        try_bytes(other, &view),
        Err(BadDatagram::Value("view's length", VIEW_MAX as u64 + 1))
    );
    let nowhere = frame::write(&Frame::Page {
        members: vec![codec::named(stranger)],
        last: true,
    });
    assert_eq!(
        try_bytes(other, &nowhere),
        Err(BadDatagram::Value("address", 0))
    );
}

#[test]
fn the_dead_are_told_so_and_not_heard() {
    let mut net = cluster(4, 13);
    net.hosts[3].side = 1;
    net.run(ms(3000));
    // The one that was cut off has nobody; what it sends in the name of the living is refused by those who buried it.
    let (dead, me) = (net.hosts[3].peer, net.hosts[0].peer);
    let ask = frame::write(&Frame::Ask {
        origin: dead,
        target: me,
        suspected: Some(9),
    });
    let mut out = Vec::new();
    let now = net.now();
    let given = Event::Datagram {
        from: dead.node,
        bytes: &ask,
    };
    net.hosts[0].machine.handle(now, given, &mut out).unwrap();
    let [Effect::Send { to, bytes }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(to.node, dead.node);
    assert!(matches!(
        frame::read(bytes, me.node, dead.node),
        Ok((Frame::Verdict(_), _))
    ));
    assert!(net.hosts[0].machine.buried(dead.node));
    assert_eq!(
        net.hosts[0].machine.incarnation, 0,
        "its suspicion was not heard"
    );
}

proptest! {
    /// Whatever arrives, the machine stays bounded and neither stops nor panics.
    #[test]
    fn garbage_changes_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0u8..10,
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
    ) {
        let (mut net, other) = pair();
        let now = net.now();
        let mut out = Vec::new();
        let mut first = bytes.clone();
        if let Some(b) = first.first_mut() {
            *b = kind;
        }
        let (me, them) = (net.hosts[0].peer, net.hosts[1].peer);
        let frames = [
            Frame::Ask { origin: them, target: me, suspected: Some(3) },
            Frame::Alive { origin: me, who: them, incarnation: 5 },
            Frame::Page { members: vec![them, me, them], last: false },
            Frame::Pull { from: 5 },
        ];
        let mut all = vec![bytes, first];
        for frame in &frames {
            let mut bytes = frame::write(frame);
            for (at, with) in &flips {
                let at = usize::from(*at) % bytes.len();
                bytes[at] ^= with;
            }
            all.push(bytes);
        }
        for bytes in &all {
            let machine = &mut net.hosts[0].machine;
            let before = (machine.living.len(), machine.doubts.len(), machine.views.len());
            let result = machine.handle(now, Event::Datagram { from: other, bytes }, &mut out);
            if result.is_err() {
                prop_assert_eq!(before, (machine.living.len(), machine.doubts.len(), machine.views.len()));
            }
        }
        prop_assert!(net.hosts[0].machine.living.len() <= 40);
    }
}
// Each is seconds of a cluster: 64 unless `PROPTEST_CASES` says otherwise. `tests/sim` runs many more.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    /// Any mix of stalls, losses and deaths: whoever lives is known to live, whoever died is known to be dead.
    #[test]
    fn a_cluster_comes_to_agree(seed in any::<u64>(), loss in 0u32..150, kill in 0usize..4) {
        let mut net = cluster(8, seed % 1000);
        net.loss = loss;
        for at in 0..kill {
            net.hosts[at].killed = true;
            net.run(ms(seed % 300));
        }
        let stopped = 5 + (seed % 3) as usize;
        net.hosts[stopped].stopped_until = net.now() + ms(seed % 200);
        net.run(ms(6000));
        prop_assert!(net.settled());
    }
}

#[test]
fn figures_of_a_hundred() {
    let figures = super::net::figures(100, ms(2000), 64, 1);
    assert!(figures.known > 0.999 && figures.death < Pace::LAN.worst() + ms(10));
    assert!(figures.bytes < 200_000.0, "{figures:?}");
}

#[test]
fn a_head_that_came_back_is_met_and_a_goodbye_is_no_failure() {
    let mut net = cluster(3, 11);
    let old = net.hosts[0].peer.node;
    net.hosts[0].killed = true;
    net.run(ms(1000));
    assert_eq!(net.learnt(0).len(), 2);
    // It starts anew, under another number, and knows nobody: the others reach it.
    let new = net.add(Pace::LAN, true, &[]);
    let peer = net.hosts[new].peer;
    assert_ne!(peer.node, old);
    net.give(1, Event::Meet(peer));
    net.run(ms(1000));
    for at in [1, 2, new] {
        assert_eq!(net.hosts[at].machine.living().count(), 2, "host {at}");
    }
    // Somebody tells one of them that it goes, and goes at once.
    let gone = net.hosts[2].peer.node;
    net.hosts[2].killed = true;
    net.give(1, Event::Left(gone));
    let left = |e: &Effect| matches!(e, Effect::Down { peer, why: Why::Left } if peer.node == gone);
    assert!(net.hosts[1].log.iter().any(|(_, e)| left(e)), "at once");
    net.run(ms(100));
    assert_eq!(net.learnt(2).len(), 2);
}
