//! Membership, driven: who came, who died, and what each says of itself, with packets in the link's datagrams.
//!
//! One thread drives the machine and does nothing else, so that a busy node still answers; what follows from its word is
//! done by a second one. Both are put before others where the system lets them.
//!
//! Invariant: what the machine says is carried out in its order. A node that it declared dead is forgotten by the link, so that
//! it is never heard again; a node that was declared dead by others ends its part in the cluster. Left out: the deciding
//! (`core::members`), and what follows from a death (`peers`).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Cluster;
use crate::base::{Error, NodeId};
use crate::core::members::{Death, Duty, Effect, Event, Members, Peer, Why};
use crate::core::view;
use crate::exec::Local;
use crate::shm;

/// The datagrams of this room begin with what they are; this is membership's.
const PACKET: u8 = 1;
/// And this says that the sender lives, and is behind with its answers.
const BEHIND: u8 = 2;
/// Being behind for so long is nothing.
const PROMPT: Duration = Duration::from_millis(20);
/// How long nobody's silence is held against him while this node is behind; one that is behind for longer would find no death.
const EXCUSED: Duration = Duration::from_secs(2);
/// How often others are told that this node is behind, for how long, and how many of them.
const BEAT: Duration = Duration::from_millis(40);
const BEATS_FOR: Duration = Duration::from_secs(10);
const BEATS_TO: usize = 64;
/// How many packets wait for the machine at most; more are lost, as on any network.
const INBOX: usize = 8192;
/// How often those who are reached and no members, or the other way round, are looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Time as the machine has it: it stands while the link is behind, since what others said may be unread.
#[derive(Default)]
struct ReadTime {
    now: Duration,
    clock: Duration,
}

impl ReadTime {
    fn go(&mut self, clock: Duration, behind: Duration) -> Duration {
        let passed = clock.saturating_sub(self.clock);
        self.clock = clock;
        if !(PROMPT..EXCUSED).contains(&behind) {
            self.now += passed;
        }
        self.now
    }
}

/// Sees to it that the link's thread gets to run: one that is behind and has no CPU goes before all others until it has had half of
/// one. A raised nice value does not do: it counts only among the threads of one session or container.
#[derive(Default)]
struct Spur {
    on: bool,
    at: Duration,
    had: Duration,
}

impl Spur {
    fn look(&mut self, thread: i32, now: Duration, behind: Duration) {
        let wall = now.saturating_sub(self.at);
        let idle = behind < PROMPT && !self.on;
        if thread == 0 || idle || wall < PROMPT {
            return;
        }
        let Some(had) = shm::cpu_time(thread) else {
            return;
        };
        let busy = wall < BEAT * 3 && had.saturating_sub(self.had) * 2 > wall;
        (self.at, self.had) = (now, had);
        let on = behind >= PROMPT && !busy;
        if on != self.on {
            self.on = on;
            shm::hurry(thread, on);
        }
    }
}

/// What is for the machine.
enum Input {
    Start(Vec<Peer>),
    Datagram(NodeId, Vec<u8>),
    Tell(Vec<u8>),
    Meet(Peer),
    Lost(NodeId),
    Heard(NodeId),
    Left(NodeId),
    Drain,
    Leave,
}

/// What the threads share.
#[derive(Default)]
pub(super) struct Membership {
    inbox: (Mutex<VecDeque<Input>>, Condvar),
    news: (Mutex<VecDeque<Effect>>, Condvar),
    /// The members, as far as what follows from their coming and going is done.
    living: Mutex<HashMap<NodeId, SocketAddr>>,
    /// The link's thread.
    link: AtomicI32,
    /// Somebody came a moment ago.
    settling: AtomicBool,
}

impl Membership {
    fn put(&self, input: Input) {
        let mut inbox = self.inbox.0.lock();
        if inbox.len() >= INBOX && matches!(input, Input::Datagram(..)) {
            return;
        }
        inbox.push_back(input);
        self.inbox.1.notify_one();
    }

    /// Begins, with those who are there already.
    pub fn start(&self, join: Vec<Peer>) {
        self.put(Input::Start(join));
    }

    /// What this node says of itself from now on.
    pub fn tell(&self, view: Vec<u8>) {
        self.put(Input::Tell(view));
    }

    /// The connection to this node broke.
    pub fn lost(&self, node: NodeId) {
        self.put(Input::Lost(node));
    }

    /// This node said that it goes.
    pub fn left(&self, node: NodeId) {
        self.put(Input::Left(node));
    }

    /// This node takes no more work.
    pub fn drain(&self) {
        self.put(Input::Drain);
    }

    /// This node goes.
    pub fn leave(&self) {
        self.put(Input::Leave);
    }

    /// A packet came; `None`: the datagram is none.
    pub fn packet(&self, from: NodeId, bytes: &[u8]) -> Option<()> {
        match bytes.split_first()? {
            (&PACKET, packet) => self.put(Input::Datagram(from, packet.to_vec())),
            (&BEHIND, []) => self.put(Input::Heard(from)),
            _ => return None,
        }
        Some(())
    }

    /// This is the link's thread.
    pub fn link_is_here(&self) {
        self.link.store(
            rustix::thread::gettid().as_raw_nonzero().get(),
            Ordering::Relaxed,
        );
    }

    /// The others say by other ways that this node is dead.
    pub fn declared_dead(&self) {
        self.news.0.lock().push_back(Effect::Dead(Death::Declared));
        self.news.1.notify_one();
    }

    /// It is a member no more, which the machine is about to say.
    pub fn forget(&self, node: NodeId) {
        self.living.lock().remove(&node);
    }

    /// Whether it is a member: then it is for the machine to say when it is dead.
    pub fn has(&self, node: NodeId) -> bool {
        self.living.lock().contains_key(&node)
    }

    /// The members, but this node.
    pub fn others(&self) -> Vec<NodeId> {
        self.living.lock().keys().copied().collect()
    }

    /// Whether somebody came a moment ago, so that deaths take longer to be noticed.
    pub fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Relaxed)
    }

    /// Wakes the threads, so that they see that the node stops.
    pub fn wake(&self) {
        drop(self.inbox.0.lock());
        self.inbox.1.notify_all();
        drop(self.news.0.lock());
        self.news.1.notify_all();
    }
}

impl Cluster {
    /// A life of driving the machine.
    pub(super) fn drive_members(self: &Arc<Cluster>, mut machine: Members) {
        super::SERVES.set(true);
        shm::come_first(true);
        let (inbox, bell) = &self.membership.inbox;
        let (mut inputs, mut out) = (VecDeque::new(), Vec::new());
        let mut spur = Spur::default();
        let (mut time, mut beaten) = (ReadTime::default(), Duration::ZERO);
        loop {
            {
                let mut inbox = inbox.lock();
                let due = machine
                    .deadline()
                    .map_or(BEAT, |at| at.saturating_sub(time.now));
                if inbox.is_empty() && !due.is_zero() && !self.stopped() {
                    bell.wait_for(&mut inbox, due.min(BEAT));
                }
                std::mem::swap(&mut inputs, &mut inbox);
            }
            if self.stopped() {
                return;
            }
            let behind = self.link.get().map_or(Duration::ZERO, |link| link.behind());
            let now = time.go(self.now(), behind);
            self.beat(&mut beaten, behind);
            spur.look(
                self.membership.link.load(Ordering::Relaxed),
                self.now(),
                behind,
            );
            for input in inputs.drain(..) {
                let event = match &input {
                    Input::Start(join) => Event::Start { join: join.clone() },
                    Input::Datagram(from, bytes) => Event::Datagram { from: *from, bytes },
                    Input::Tell(view) => Event::Tell(view),
                    Input::Meet(peer) => Event::Meet(*peer),
                    Input::Heard(node) => Event::Heard(*node),
                    Input::Lost(node) => Event::ConnectionLost(*node),
                    Input::Left(node) => Event::Left(*node),
                    Input::Drain => Event::Drain,
                    Input::Leave => Event::Leave,
                };
                // What is refused changed nothing: it was late, or a lie.
                let _ = machine.handle(now, event, &mut out);
            }
            if machine.deadline().is_some_and(|at| at <= now) {
                let _ = machine.handle(now, Event::Tick, &mut out);
            }
            self.membership
                .settling
                .store(machine.is_settling(), Ordering::Relaxed);
            self.send_packets(&mut out);
        }
    }

    /// Tells others that this node lives, while it is behind with its answers.
    fn beat(&self, beaten: &mut Duration, behind: Duration) {
        let Some(link) = self.link.get() else { return };
        let now = self.now();
        if !(BEAT..BEATS_FOR).contains(&behind) || now.saturating_sub(*beaten) < BEAT {
            return;
        }
        *beaten = now;
        let mut to: Vec<NodeId> = self.membership.living.lock().keys().copied().collect();
        to.sort_unstable();
        // Those who watch this node are those before it.
        let before = to.partition_point(|node| *node < self.me);
        to.rotate_left(before);
        for node in to.iter().rev().take(BEATS_TO) {
            let _ = link.datagram(*node, &[BEHIND]);
        }
    }

    /// Sends what is to be sent, and hands on the rest.
    fn send_packets(&self, out: &mut Vec<Effect>) {
        let Some(link) = self.link.get() else {
            return out.clear();
        };
        let mut datagram = Vec::with_capacity(crate::link::MAX_DATAGRAM);
        for effect in out.drain(..) {
            if let Effect::Send { to, bytes } = effect {
                datagram.clear();
                datagram.push(PACKET);
                datagram.extend_from_slice(&bytes);
                // May be lost; those who are not connected are called by the other thread.
                let _ = link.datagram(to.node, &datagram);
            } else {
                self.membership.news.0.lock().push_back(effect);
                self.membership.news.1.notify_one();
            }
        }
    }

    /// A life of doing what follows.
    pub(super) fn follow_members(self: &Arc<Cluster>) {
        super::SERVES.set(true);
        shm::come_first(false);
        let (news, bell) = &self.membership.news;
        let mut looked = self.now();
        while !self.stopped() {
            let effect = {
                let mut news = news.lock();
                if news.is_empty() {
                    bell.wait_for(&mut news, LOOK);
                }
                news.pop_front()
            };
            if let Some(effect) = effect {
                let _ = crate::exec::local::with(|local| self.member_news(local, effect));
            }
            if self.now().saturating_sub(looked) >= LOOK {
                looked = self.now();
                self.look_around();
            }
        }
    }

    fn member_news(self: &Arc<Cluster>, local: &Local, effect: Effect) {
        match effect {
            Effect::Up(peer) => {
                self.membership.living.lock().insert(peer.node, peer.addr);
                if let Some(link) = self.link.get()
                    && !link.is_connected(peer.node)
                {
                    link.connect(peer.addr, Some(peer.node));
                }
            }
            Effect::Down { peer, why } => {
                self.membership.living.lock().remove(&peer.node);
                let why = match why {
                    Why::Left => "it left",
                    Why::Failed => "it did not answer any more",
                };
                self.bury(local, peer.node, why);
            }
            Effect::View { node, duty, bytes } => {
                self.hear_view(local, node, duty != Duty::Serving, &bytes)
            }
            Effect::Dead(death) => self.fence(local, &declared(death)),
            Effect::Suspected(node) => drop(self.suspected.lock().insert(node)),
            Effect::Cleared(node) => drop(self.suspected.lock().remove(&node)),
            Effect::Left | Effect::Send { .. } => {}
        }
    }

    /// A node is dead, whether it was ever connected or not.
    fn bury(self: &Arc<Cluster>, local: &Local, node: NodeId, why: &str) {
        self.suspected.lock().remove(&node);
        self.died(local, node, why);
        self.books.lock().view.remove(node);
        if let Some(link) = self.link.get() {
            link.forget(node);
        }
    }

    /// Calls members that are not connected, and announces this node to those that are and are no members.
    fn look_around(self: &Arc<Cluster>) {
        let Some(link) = self.link.get() else { return };
        let unreached: Vec<(NodeId, SocketAddr)> = {
            let living = self.membership.living.lock();
            living
                .iter()
                .filter(|(node, _)| !link.is_connected(**node))
                .map(|(n, a)| (*n, *a))
                .collect()
        };
        for (node, addr) in unreached {
            link.connect(addr, Some(node));
        }
        let strangers: Vec<Peer> = {
            let books = self.books.lock();
            let peers = books
                .peers
                .iter()
                .filter(|(node, _)| !self.membership.has(**node));
            peers
                .map(|(node, p)| Peer {
                    node: *node,
                    addr: p.addr,
                    head: self.matters(p.head),
                })
                .collect()
        };
        for peer in strangers {
            self.membership.put(Input::Meet(peer));
        }
        self.look_for_head();
    }

    /// The others hold this node for dead: it has no part in the cluster any more, and whoever waits for them is told.
    pub(super) fn fence(self: &Arc<Cluster>, local: &Local, why: &str) {
        if self.stopping() || self.fenced.set(Arc::from(why)).is_err() {
            return;
        }
        self.with(local, |books, todo| self.leave_durables(books, todo));
        self.abandon(local, &|| Error::Cluster {
            why: Arc::from(why),
        });
        let peers: Vec<NodeId> = self.books.lock().peers.keys().copied().collect();
        // Those who take this node for one of theirs hear of it before anything else: not that they were declared dead, nor
        // that it leaves in order, with which a program would end.
        if let Some(link) = self.link.get() {
            link.retire();
        }
        for node in peers {
            self.died(local, node, why);
        }
        self.abandon(local, &|| Error::Cluster {
            why: Arc::from(why),
        });
        self.changed();
    }

    /// Why this node is of the cluster no more.
    pub(super) fn fenced_by(&self) -> Option<Error> {
        self.fenced.get().map(|why| Error::Cluster {
            why: Arc::clone(why),
        })
    }

    /// What another node says of itself.
    pub(super) fn hear_view(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        leaves: bool,
        bytes: &[u8],
    ) {
        if let Ok((node, mut told)) = view::decode(bytes, self.now())
            && node == from
        {
            told.draining |= leaves;
            let drains = told.draining;
            self.books.lock().view.merge(node, told);
            if drains {
                self.with(local, |books, todo| {
                    books.replicas.peer_leaves(node, &mut todo.replicas);
                });
            }
        }
    }
}

fn declared(death: Death) -> String {
    let why = match death {
        Death::Declared => {
            "the others found it dead: it was cut off, or stopped for too long".to_owned()
        }
        Death::Outvoted { by, theirs, ours } => format!(
            "it was cut off from the rest, and node {by} is of the side that goes on, with {} nodes to {} of this one",
            theirs.living, ours.living
        ),
    };
    format!("this node is of it no more: {why}; start its process anew")
}
