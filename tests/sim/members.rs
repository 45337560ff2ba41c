//! Membership under a plan of joins, deaths, departures, stalls, splits, and datagrams that are lost, come twice and overtake each
//! other, each from a seed.
//!
//! Invariant: nobody is taken for dead who runs and is reached; who died or left is known to be gone by all, as what it did;
//! nobody comes twice; a cluster that was split comes down to the side with the head; what a member says of itself last is
//! what all know of it in the end. Left out: the machines of calls and objects, which have a network of their own here.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::NodeId;
use crate::chance::Chance;
use crate::core::members::net::Net;
use crate::core::members::{Effect, Event, Pace, Why};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How long a cluster may take to agree once nothing happens any more, in milliseconds of its pace.
const QUIET: u64 = 20_000;

/// What happened in all runs, so that it is seen that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    pub joins: u64,
    pub deaths: u64,
    pub goodbyes: u64,
    pub stalls: u64,
    pub splits: u64,
    pub outvoted: u64,
    pub doubled: u64,
    pub held_up: u64,
}

impl Happened {
    pub fn add(&mut self, more: Happened) {
        self.joins += more.joins;
        self.deaths += more.deaths;
        self.goodbyes += more.goodbyes;
        self.stalls += more.stalls;
        self.splits += more.splits;
        self.outvoted += more.outvoted;
        self.doubled += more.doubled;
        self.held_up += more.held_up;
    }

    pub fn counts(&self) -> [u64; 8] {
        [
            self.joins,
            self.deaths,
            self.goodbyes,
            self.stalls,
            self.splits,
            self.outvoted,
            self.doubled,
            self.held_up,
        ]
    }
}

/// A fault planted in the network, to show that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    /// Somebody is unreachable without anybody having said so.
    Deaf,
    /// Somebody stops for longer than a doubt lasts.
    LongStop,
}

struct Run {
    net: Net,
    chance: Chance,
    happened: Happened,
    /// What became of hosts that are gone.
    gone: BTreeMap<usize, Why>,
    /// What each told of itself last.
    told: BTreeMap<usize, u64>,
    /// Who has a connection with whom and does not know it as a member yet.
    connected: Vec<(usize, usize)>,
}

/// How often a driver says whom it has a connection with that is no member yet.
const MEET: Duration = ms(200);

/// One life of a cluster. What is wrong is said.
pub fn run(seed: u64, planted: Planted) -> Result<Happened, String> {
    let mut chance = Chance::new(seed ^ 0x006d_656d_6265_7273);
    let mut net = Net::new(chance.next());
    let first = chance.between(2, 12) as usize;
    net.loss = if chance.permille(400) {
        chance.between(1, 80) as u32
    } else {
        0
    };
    if chance.permille(500) {
        net.twice = chance.between(1, 300) as u32;
        net.late = chance.between(1, 100) as u32;
    }
    net.add(Pace::LAN, true, &[]);
    let mut run = Run {
        net,
        chance,
        happened: Happened::default(),
        gone: BTreeMap::new(),
        told: BTreeMap::new(),
        connected: Vec::new(),
    };
    for _ in 1..first {
        run.join();
    }
    run.settles("at the start")?;
    let splits = planted == Planted::Nothing && run.chance.permille(250);
    for _ in 0..run.chance.between(4, 16) {
        run.acts();
        // The next fault does not meet the doubts that this one caused.
        let pause = run.chance.between(900, 2_500);
        run.pass(ms(pause));
    }
    match planted {
        Planted::Nothing => {}
        Planted::Deaf => {
            if let Some(at) = run.any_but_head() {
                run.net.hosts[at].deaf = true;
            }
        }
        Planted::LongStop => {
            if let Some(at) = run.any_but_head() {
                run.net.hosts[at].stopped_until = run.net.now() + ms(4_000);
            }
        }
    }
    run.settles("after the faults")?;
    run.check(false)?;
    if splits && run.running().count() >= 3 {
        run.split()?;
        run.check(true)?;
    }
    (run.happened.doubled, run.happened.held_up) = run.net.odd;
    Ok(run.happened)
}

impl Run {
    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        let hosts = self.net.hosts.iter().enumerate();
        hosts.filter(|(_, host)| !host.killed).map(|(at, _)| at)
    }

    fn any_but_head(&mut self) -> Option<usize> {
        let others: Vec<usize> = self.running().filter(|at| *at != 0).collect();
        self.chance.pick(&others)
    }

    fn join(&mut self) {
        let there: Vec<usize> = self.running().collect();
        let by = self.chance.pick(&there).expect("the head is there");
        let at = self.net.add(Pace::LAN, false, &[by]);
        // Whoever joins is let in by the head, and keeps that connection.
        for other in [by, 0] {
            self.connected.extend([(at, other), (other, at)]);
        }
        self.happened.joins += 1;
    }

    /// Lets time pass, in which drivers do what they do.
    fn pass(&mut self, span: Duration) {
        let end = self.net.now() + span;
        while self.net.now() < end {
            let net = &mut self.net;
            self.connected.retain(|&(at, other)| {
                let (host, peer) = (&net.hosts[at], net.hosts[other].peer);
                let known = host.machine.living().any(|known| known.node == peer.node);
                if known || host.killed || net.hosts[other].killed {
                    return false;
                }
                net.give(at, Event::Meet(peer));
                true
            });
            let step = MEET.min(end - self.net.now());
            self.net.run(step);
        }
    }

    /// Something that may happen to a cluster that works.
    fn acts(&mut self) {
        match self.chance.below(6) {
            0 if self.running().count() < 24 => self.join(),
            1 => {
                if let Some(at) = self.any_but_head() {
                    self.net.hosts[at].killed = true;
                    self.gone.insert(at, Why::Failed);
                    self.happened.deaths += 1;
                }
            }
            2 => {
                if let Some(at) = self.any_but_head() {
                    self.net.give(at, Event::Leave);
                    self.pass(ms(700));
                    self.net.hosts[at].killed = true;
                    self.gone.insert(at, Why::Left);
                    self.happened.goodbyes += 1;
                }
            }
            3 => {
                let there: Vec<usize> = self.running().collect();
                if let Some(at) = self.chance.pick(&there) {
                    let span = self.chance.between(20, 200);
                    self.net.hosts[at].stopped_until = self.net.now() + ms(span);
                    self.happened.stalls += 1;
                }
            }
            _ => {
                let there: Vec<usize> = self.running().collect();
                if let Some(at) = self.chance.pick(&there) {
                    let says = self.chance.next();
                    self.net.give(at, Event::Tell(&says.to_le_bytes()));
                    self.told.insert(at, says);
                }
            }
        }
    }

    /// The network falls in two, and is one again.
    fn split(&mut self) -> Result<(), String> {
        self.happened.splits += 1;
        let there: Vec<usize> = self.running().collect();
        let count = self.chance.between(1, there.len() as u64 - 1) as usize;
        // The head stays on side 0.
        let apart: Vec<usize> = there.iter().rev().take(count).copied().collect();
        for &at in &apart {
            self.net.hosts[at].side = 1;
        }
        // Until both sides hold each other for dead: before, whoever one side holds for dead may hear so from a member that
        // its own still trusts.
        let apart_now = |net: &Net| {
            let sides: BTreeMap<NodeId, u8> = (net.hosts.iter())
                .map(|host| (host.peer.node, host.side))
                .collect();
            there.iter().all(|&at| {
                let host = &net.hosts[at];
                let mut known = host.machine.living();
                known.all(|peer| sides[&peer.node] == host.side)
            })
        };
        let end = self.net.now() + Duration::from_secs(60);
        while !apart_now(&self.net) {
            if self.net.now() >= end {
                return Err("the sides do not find each other dead in a minute".to_owned());
            }
            self.net.run(ms(100));
        }
        let span = self.chance.between(0, 3_000);
        self.net.run(ms(span));
        self.net.hosts.iter_mut().for_each(|host| host.side = 0);
        // The lost are knocked at one after the other, those who are dead among them.
        let hears = |net: &Net, at: usize| {
            let log = &net.hosts[at].log;
            log.iter().any(|(_, e)| matches!(e, Effect::Dead(_)))
        };
        let end = self.net.now() + Duration::from_secs(120);
        while self.net.now() < end && !apart.iter().all(|at| hears(&self.net, *at)) {
            self.net.run(Duration::from_secs(1));
        }
        // Whoever hears that it is dead ends, as its driver would end it.
        for &at in &there {
            let (dead, apart) = (hears(&self.net, at), apart.contains(&at));
            if dead != apart {
                return Err(format!(
                    "host {at}, apart: {apart}, heard that it is dead: {dead}"
                ));
            }
            if dead {
                self.net.hosts[at].killed = true;
                self.gone.insert(at, Why::Failed);
                self.happened.outvoted += 1;
            }
        }
        self.settles("after the split")
    }

    /// Lets time pass until all agree.
    fn settles(&mut self, when: &str) -> Result<(), String> {
        let end = self.net.now() + ms(QUIET);
        while !self.net.settled() && self.net.now() < end {
            self.pass(MEET);
        }
        if !self.net.settled() {
            let know: Vec<usize> = self
                .running()
                .map(|at| self.net.hosts[at].machine.living().len())
                .collect();
            return Err(format!(
                "{when}: no agreement in {QUIET} ms, they know {know:?}"
            ));
        }
        self.pass(ms(3_000));
        if self.net.settled() {
            Ok(())
        } else {
            Err(format!("{when}: what was agreed on did not last"))
        }
    }

    fn check(&self, was_split: bool) -> Result<(), String> {
        let numbers: BTreeMap<NodeId, usize> = (self.net.hosts.iter().enumerate())
            .map(|(at, host)| (host.peer.node, at))
            .collect();
        for (at, host) in self.net.hosts.iter().enumerate() {
            let mut seen: BTreeMap<usize, bool> = BTreeMap::new();
            for (when, effect) in &host.log {
                match effect {
                    Effect::Up(peer) => {
                        let other = numbers[&peer.node];
                        if seen.insert(other, true).is_some() {
                            return Err(format!("host {at} saw {other} come twice, at {when:?}"));
                        }
                    }
                    Effect::Down { peer, why } => {
                        let other = numbers[&peer.node];
                        if seen.insert(other, false) != Some(true) {
                            return Err(format!("host {at} saw {other} go that was not there"));
                        }
                        // While it is apart, each side finds the other dead, and is right as far as it can see.
                        match self.gone.get(&other) {
                            None if !was_split => {
                                return Err(format!(
                                    "host {at} took {other} for dead at {when:?}, which runs"
                                ));
                            }
                            Some(Why::Failed) if *why == Why::Left => {
                                return Err(format!("host {at}: {other} never said goodbye"));
                            }
                            _ => {}
                        }
                    }
                    Effect::Dead(how) if !was_split => {
                        return Err(format!("host {at} is to be dead: {how:?}"));
                    }
                    _ => {}
                }
            }
        }
        for at in self.running() {
            for (&of, says) in &self.told {
                let other = &self.net.hosts[of];
                if of == at || other.killed {
                    continue;
                }
                let known = self.net.hosts[at].machine.view(other.peer.node);
                if known.is_none_or(|(_, bytes)| bytes != says.to_le_bytes()) {
                    return Err(format!("host {at} does not know what {of} said last"));
                }
            }
        }
        Ok(())
    }
}

/// So many nodes join one after the other, a millisecond apart, each through one that joined before; how long it takes, after
/// the last, until each knows all.
pub fn joins(nodes: usize, seed: u64) -> Result<Duration, String> {
    let mut net = Net::new(seed);
    net.keep_log = false;
    let mut chance = Chance::new(seed);
    net.add(Pace::LAN, true, &[]);
    for n in 1..nodes {
        let by = chance.below(n as u64) as usize;
        net.add(Pace::LAN, false, &[by]);
        net.run(ms(1));
    }
    let last = net.now();
    let end = last + Duration::from_secs(30);
    while net.now() < end {
        if net.settled() {
            return Ok(net.now() - last);
        }
        net.run(ms(10));
    }
    let knows = |host: &crate::core::members::net::Host| host.machine.living().len();
    let least = net.hosts.iter().map(knows).min();
    Err(format!("after 30 s one of {nodes} knows {least:?} others"))
}
