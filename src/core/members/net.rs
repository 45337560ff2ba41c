//! A network of membership machines in virtual time, for tests and for figures of clusters larger than there are
//! machines.
//!
//! Invariant: the same seed gives the same run. Left out: bandwidth; every datagram takes a latency of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::chance::Chance;
use super::{Effect, Event, Members, Pace, Peer, VIEW_MAX};
use crate::base::NodeId;

/// What happens when.
enum What {
    Arrive { from: usize, bytes: Vec<u8> },
    Wake,
}

/// One simulated process.
pub struct Host {
    /// Its machine.
    pub machine: Members,
    /// Who it is.
    pub peer: Peer,
    /// It was killed.
    pub killed: bool,
    /// It gets no CPU until then.
    pub stopped_until: Duration,
    /// Which part of a split network it is in.
    pub side: u8,
    /// Nothing reaches it.
    pub deaf: bool,
    /// What it was told to do, besides sending, and when.
    pub log: Vec<(Duration, Effect)>,
    /// When it is woken next.
    wake: Duration,
    /// Datagrams and bytes that it sent.
    pub sent: (u64, u64),
}

/// The network.
pub struct Net {
    /// The hosts, in the order in which they were added.
    pub hosts: Vec<Host>,
    /// How much of it is lost, of 1,000 datagrams.
    pub loss: u32,
    /// How much of it comes twice.
    pub twice: u32,
    /// How much of it is held up on the way, so that much of what was sent after it comes before it.
    pub late: u32,
    /// How long that takes at most.
    pub held_up: Duration,
    /// Datagrams that came twice, and that were held up.
    pub odd: (u64, u64),
    /// The shortest way and how much longer the longest is.
    pub latency: (Duration, Duration),
    /// Whether effects other than sending are kept.
    pub keep_log: bool,
    now: Duration,
    serial: u64,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    what: BTreeMap<u64, What>,
    chance: Chance,
    numbers: BTreeMap<NodeId, usize>,
}

impl Net {
    /// An empty network on which datagrams take 0.2 to 1 ms.
    pub fn new(seed: u64) -> Net {
        Net {
            hosts: Vec::new(),
            loss: 0,
            twice: 0,
            late: 0,
            held_up: Duration::from_millis(60),
            odd: (0, 0),
            latency: (Duration::from_micros(200), Duration::from_micros(800)),
            keep_log: true,
            now: Duration::ZERO,
            serial: 0,
            queue: BinaryHeap::new(),
            what: BTreeMap::new(),
            chance: Chance::new(seed),
            numbers: BTreeMap::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Adds a process that joins through these hosts.
    pub fn add(&mut self, pace: Pace, head: bool, join: &[usize]) -> usize {
        let at = self.hosts.len();
        let node = loop {
            let drawn = NodeId::new(self.chance.next());
            if let Some(node) = drawn
                && !self.numbers.contains_key(&node)
            {
                break node;
            }
        };
        let ip = (10 << 24) + at as u32 + 1;
        let peer = Peer {
            node,
            addr: (::core::net::Ipv4Addr::from(ip), 7000).into(),
            head,
        };
        self.numbers.insert(node, at);
        self.hosts.push(Host {
            machine: Members::new(peer, pace, self.chance.next()),
            peer,
            killed: false,
            stopped_until: Duration::ZERO,
            side: 0,
            deaf: false,
            log: Vec::new(),
            wake: Duration::MAX,
            sent: (0, 0),
        });
        let join = join.iter().map(|&n| self.hosts[n].peer).collect();
        self.give(at, Event::Start { join });
        at
    }

    /// Hands an event to a host now.
    pub fn give(&mut self, at: usize, event: Event<'_>) {
        let host = &mut self.hosts[at];
        if host.killed {
            return;
        }
        let mut out = Vec::new();
        let result = host.machine.handle(self.now, event, &mut out);
        debug_assert!(
            matches!(result, Ok(()) | Err(super::BadDatagram::Over)),
            "{result:?}"
        );
        self.carry_out(at, out);
    }

    fn carry_out(&mut self, at: usize, out: Vec<Effect>) {
        for effect in out {
            if let Effect::Send { to, bytes } = effect {
                let host = &mut self.hosts[at];
                host.sent.0 += 1;
                host.sent.1 += bytes.len() as u64;
                debug_assert!(bytes.len() <= super::DATAGRAM_MAX);
                let Some(&target) = self.numbers.get(&to.node) else {
                    continue;
                };
                if (self.chance.below(1000) as u32) < self.loss {
                    continue;
                }
                if self.happens(self.twice) {
                    self.odd.0 += 1;
                    let bytes = bytes.clone();
                    let when = self.arrival();
                    self.push(when, target, What::Arrive { from: at, bytes });
                }
                let when = self.arrival();
                self.push(when, target, What::Arrive { from: at, bytes });
            } else if self.keep_log {
                self.hosts[at].log.push((self.now, effect));
            }
        }
        let host = &mut self.hosts[at];
        if let Some(due) = host.machine.deadline()
            && (due < host.wake || host.wake <= self.now)
        {
            let due = due.max(self.now);
            host.wake = due;
            self.push(due, at, What::Wake);
        }
    }

    /// Draws only if it may happen, so that a seed gives the same run as it did before there was this.
    fn happens(&mut self, share: u32) -> bool {
        share > 0 && (self.chance.below(1000) as u32) < share
    }

    /// When a datagram that is sent now arrives: each goes its own way.
    fn arrival(&mut self) -> Duration {
        let spread = self.chance.below(1 + self.latency.1.as_nanos() as usize);
        let usual = self.now + self.latency.0 + Duration::from_nanos(spread as u64);
        if !self.happens(self.late) {
            return usual;
        }
        self.odd.1 += 1;
        let more = self.chance.below(1 + self.held_up.as_nanos() as usize);
        usual + Duration::from_nanos(more as u64)
    }

    fn push(&mut self, when: Duration, at: usize, what: What) {
        self.serial += 1;
        self.queue.push(Reverse((when, self.serial, at)));
        self.what.insert(self.serial, what);
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Lets time pass until something holds, which is looked at after each event. False if it never did.
    pub fn run_until(&mut self, end: Duration, mut done: impl FnMut(&Net) -> bool) -> bool {
        while let Some(&Reverse((when, serial, at))) = self.queue.peek() {
            if when > end {
                break;
            }
            self.queue.pop();
            let Some(what) = self.what.remove(&serial) else {
                continue;
            };
            self.now = self.now.max(when);
            let host = &self.hosts[at];
            if host.killed {
                continue;
            }
            if host.stopped_until > self.now {
                // It lies in the socket. The clock goes off once the process runs, after what has arrived.
                let mut later = host.stopped_until;
                if matches!(what, What::Wake) {
                    later += Duration::from_nanos(1);
                    self.hosts[at].wake = later;
                }
                self.push(later, at, what);
                continue;
            }
            match what {
                What::Wake => {
                    if self.hosts[at].wake > self.now {
                        continue;
                    }
                    self.give(at, Event::Tick);
                }
                What::Arrive { from, bytes } => {
                    let (sender, host) = (&self.hosts[from], &self.hosts[at]);
                    if sender.side != host.side || host.deaf {
                        continue;
                    }
                    let from = sender.peer.node;
                    self.give(
                        at,
                        Event::Datagram {
                            from,
                            bytes: &bytes,
                        },
                    );
                }
            }
            if done(self) {
                return true;
            }
        }
        self.now = self.now.max(end);
        done(self)
    }

    /// Whether each host that runs knows of exactly the others that run.
    pub fn settled(&self) -> bool {
        let running = self.hosts.iter().filter(|host| !host.killed).count();
        let all = self.hosts.iter().filter(|host| !host.killed);
        all.clone().all(|host| {
            host.machine.living().len() + 1 == running
                && host
                    .machine
                    .living()
                    .all(|peer| !self.hosts[self.numbers[&peer.node]].killed)
        })
    }

    /// When hosts learnt that another is gone.
    pub fn learnt(&self, gone: usize) -> Vec<Duration> {
        let node = self.hosts[gone].peer.node;
        let hears = |(at, effect): &(Duration, Effect)| match effect {
            Effect::Down { peer, .. } if peer.node == node => Some(*at),
            _ => None,
        };
        self.hosts
            .iter()
            .filter_map(|host| host.log.iter().find_map(hears))
            .collect()
    }
}

/// What membership costs and how fresh its views are.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Members in the cluster.
    pub nodes: usize,
    /// Datagrams that each sends a second.
    pub datagrams: f64,
    /// Bytes that each sends a second, without the headers of the link.
    pub bytes: f64,
    /// How old a view is where it is read: half of them are fresher.
    pub age_median: Duration,
    /// 99 of 100 are fresher.
    pub age_p99: Duration,
    /// Of all views of all others, this part was there.
    pub known: f64,
    /// How long it took until each knew all.
    pub joined: Duration,
    /// Until all knew of a death.
    pub death: Duration,
}

/// Runs a cluster of so many nodes for a while, each telling a view of `view` bytes that changes all the time.
pub fn figures(nodes: usize, span: Duration, view: usize, seed: u64) -> Figures {
    let mut net = Net::new(seed);
    net.add(Pace::LAN, true, &[]);
    for n in 1..nodes {
        net.add(Pace::LAN, false, &[n - 1]);
        net.run(Duration::from_millis(1));
    }
    let mut view = vec![0; view.clamp(8, VIEW_MAX)];
    let mut tell = |net: &mut Net| {
        view[..8].copy_from_slice(&(net.now().as_micros() as u64).to_le_bytes());
        for at in 0..net.hosts.len() {
            net.give(at, Event::Tell(&view));
        }
    };
    let start = net.now();
    while !net.settled() && net.now() < start + Duration::from_secs(60) {
        net.run(Duration::from_millis(10));
    }
    let joined = net.now() - start;
    net.keep_log = false;
    let step = Duration::from_millis(50);
    // As long again before it is measured, so that it is as it would always be.
    let mut before = (0, 0);
    for _ in 0..2 {
        before = sent(&net);
        let steps = (span.as_millis() / step.as_millis()).max(1);
        for _ in 0..steps {
            tell(&mut net);
            net.run(step);
        }
    }
    let after = sent(&net);
    let mut ages = Vec::new();
    for host in &net.hosts {
        for peer in host.machine.living() {
            if let Some((_, bytes)) = host.machine.view(peer.node)
                && let Some(told) = bytes.first_chunk::<8>()
            {
                let told = Duration::from_micros(u64::from_le_bytes(*told));
                ages.push(net.now().saturating_sub(told));
            }
        }
    }
    ages.sort_unstable();
    let at = |part: usize| {
        ages.get(ages.len().saturating_sub(1) * part / 100)
            .copied()
            .unwrap_or_default()
    };
    let (age_median, age_p99) = (at(50), at(99));
    net.keep_log = true;
    let killed = net.now();
    net.hosts[nodes - 1].killed = true;
    while net.learnt(nodes - 1).len() < nodes - 1 && net.now() < killed + Duration::from_secs(5) {
        net.run(Duration::from_millis(20));
    }
    let each = |n: u64| n as f64 / nodes as f64 / span.as_secs_f64();
    Figures {
        nodes,
        datagrams: each(after.0 - before.0),
        bytes: each(after.1 - before.1),
        age_median,
        age_p99,
        known: ages.len() as f64 / (nodes * (nodes - 1)) as f64,
        joined,
        death: net.learnt(nodes - 1).into_iter().max().unwrap_or(killed) - killed,
    }
}

fn sent(net: &Net) -> (u64, u64) {
    net.hosts.iter().fold((0, 0), |sum, host| {
        (sum.0 + host.sent.0, sum.1 + host.sent.1)
    })
}
