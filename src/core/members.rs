//! Who is in the cluster, who died, and what each says of itself: SWIM, by foca, driven as the pure machine that it is.
//!
//! A driver owns one [`Members`]. It hands in what arrives ([`Event`]), comes back when [`Members::deadline`] says,
//! reads its sockets before it ticks, and carries out each [`Effect`]. The link knows whom a datagram is from; its
//! word is taken.
//!
//! **Time.** A death is found by the two that watch the node (see `doubt`) and floods from there: with [`Pace::LAN`]
//! everybody knows within 400 ms, and sooner if the driver lost its connection.
//!
//! **No false deaths under load.** A process that has no CPU for a while looks dead to others, and others look dead
//! to it. The second is excluded here: `clock` leaves out all time in which this process did not run, and a doubt
//! after stalls takes up to three times as long. Against the first, a doubt asks every 30 ms by four ways for 240 ms,
//! after 100 ms of silence: a node that runs its driver for one moment in 340 ms lives. For that the driver's thread
//! is to be one of its own that runs nothing else; its priority is to be raised where the system lets it (`SCHED_RR`
//! at 1, else nice -10), which on a full CPU turns tens of milliseconds of waiting into none. Where it does not, and
//! the CPU is overcommitted tenfold, scale [`Pace`]. Somebody who comes shakes hands with all, which keeps links busy for a
//! while, above all in a program without optimization: for two seconds after, a doubt takes four times as long.
//!
//! **Partitions.** Each side finds the other dead, and both go on: whoever holds the control records decides what
//! that means. One of each side's lost is knocked at every second, for ten minutes. Once a knock arrives, the sides
//! compare their [`Rank`]s: the one with the head goes on, else the larger, else the one with the lowest number. On
//! the other each process hears [`Effect::Dead`], ends, and may be started anew, under a new number. Nobody who was
//! declared dead is heard again.
//!
//! **Leaving.** [`Event::Drain`] says so to all in the view; [`Event::Leave`] says goodbye for six gossips, then goes:
//! others see [`Why::Left`], and no one looks for it.
//!
//! Invariant: [`Effect::Up`] and [`Effect::Down`] of a node alternate, and end with `Down`: nobody comes twice. A
//! datagram that is refused changes nothing. At most [`MEMBERS_MAX`] members and what `graves` bounds are kept. Left
//! out: carrying datagrams, and the number of refutations of one process, which SWIM bounds at 65,535: after those it
//! is declared dead.

mod arrive;
mod chance;
mod clock;
mod codec;
mod doubt;
mod event;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod graves;
#[allow(dead_code, reason = "for tests, benchmarks and the simulator")]
pub mod net;
mod news;
mod pace;
mod peer;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;
use std::time::Duration;

use foca::{Foca, Member, NoCustomBroadcast, OwnedNotification, Runtime, Timer};

use crate::base::NodeId;
use chance::Chance;
use clock::Clock;
use codec::Codec;
use frame::Frame;
use graves::Graves;
use views::Views;

pub use codec::BadDatagram;
pub use event::{Death, Effect, Event, Why};
pub use frame::Rank;
pub use pace::Pace;
pub use peer::Peer;
pub use views::Duty;

/// The most bytes of a datagram: what the link carries, less some for the driver's own.
pub const DATAGRAM_MAX: usize = 1096;

/// The most bytes of a view.
pub const VIEW_MAX: usize = super::view::MAX_BYTES;
// One fits into a page, which has the longest header.
const _: () =
    assert!(VIEW_MAX + frame::PAGE_HEADER + frame::PEER_LEN + frame::VIEW_HEADER <= DATAGRAM_MAX);

/// The most members besides oneself.
pub const MEMBERS_MAX: usize = 16_384;

/// How long those who failed are looked for, in gossips.
const SOUGHT: u32 = 12_000;

/// What is due later.
#[derive(Debug)]
enum Job {
    Foca(Timer<Peer>),
    Join,
    Watch,
    Ask(NodeId, u64),
    Judge(NodeId, u64),
    Gossip,
    Pull,
    Knock,
    Recover,
    Depart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Member,
    Leaving,
    Over,
}

/// One node's knowledge of the cluster.
pub struct Members {
    me: Peer,
    pace: Pace,
    phase: Phase,
    foca: Foca<Peer, Codec, Chance, NoCustomBroadcast>,
    chance: Chance,
    clock: Clock<Job>,
    living: BTreeMap<NodeId, Peer>,
    /// The same, to draw from.
    list: Vec<NodeId>,
    join: Vec<Peer>,
    /// The own incarnation, as messages said it last.
    incarnation: u16,
    /// Those that are watched, and when they were heard last.
    watched: BTreeMap<NodeId, Duration>,
    heard_any: Duration,
    /// Until when doubts take longer: somebody came.
    settling: Duration,
    doubts: BTreeMap<NodeId, doubt::Doubt>,
    doubt_serial: u64,
    /// How many stalls are held against oneself.
    unwell: u32,
    views: Views,
    own: Vec<u8>,
    own_changed: bool,
    duty: Duty,
    version: u64,
    tell_from: Duration,
    retell_at: Duration,
    retold: u32,
    /// Where the next pull begins, and whether it is the first round.
    cursor: u64,
    syncing: bool,
    /// How many gossips until the next.
    pulls: u32,
    graves: Graves,
}

/// What foca asked for during one call.
#[derive(Default)]
struct Asked {
    sends: Vec<(Peer, Vec<u8>)>,
    timers: Vec<(Timer<Peer>, Duration)>,
    notes: Vec<OwnedNotification<Peer>>,
}

impl Runtime<Peer> for Asked {
    fn notify(&mut self, note: foca::Notification<'_, Peer>) {
        self.notes.push(note.to_owned());
    }

    fn send_to(&mut self, to: Peer, bytes: &[u8]) {
        self.sends.push((to, bytes.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Peer>, after: Duration) {
        self.timers.push((timer, after));
    }
}

impl Members {
    /// A node that has not begun. The seed is to differ between nodes.
    pub fn new(me: Peer, pace: Pace, seed: u64) -> Members {
        let pace = pace.sound();
        let mut chance = Chance::new(seed);
        let own = Chance::new(chance.next());
        Members {
            me,
            pace,
            phase: Phase::New,
            foca: Foca::new(me, pace.foca(0), own, Codec),
            chance,
            clock: Clock::new(pace.stall, pace.ask / 2),
            living: BTreeMap::new(),
            list: Vec::new(),
            join: Vec::new(),
            incarnation: 0,
            watched: BTreeMap::new(),
            heard_any: Duration::ZERO,
            settling: Duration::ZERO,
            doubts: BTreeMap::new(),
            doubt_serial: 0,
            unwell: 0,
            views: Views::default(),
            own: Vec::new(),
            own_changed: false,
            duty: Duty::Serving,
            version: 0,
            tell_from: Duration::ZERO,
            retell_at: Duration::MAX,
            retold: 1,
            cursor: 0,
            syncing: true,
            pulls: 1,
            graves: Graves::default(),
        }
    }

    /// Takes an event at `now`, a time since whatever start, and appends what is to be done.
    ///
    /// # Errors
    ///
    /// A datagram that is refused, or a view that is too long; nothing changed then.
    pub fn handle(
        &mut self,
        now: Duration,
        event: Event<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), BadDatagram> {
        if self.phase == Phase::Over {
            let refused = matches!(event, Event::Datagram { .. });
            return if refused {
                Err(BadDatagram::Over)
            } else {
                Ok(())
            };
        }
        if self.clock.observe(now).is_some() {
            self.stalled();
        }
        match event {
            Event::Start { join } => self.start(join),
            Event::Datagram { from, bytes } => return self.datagram(from, bytes, out),
            Event::Tick => self.tick(out),
            Event::Tell(view) => {
                if view.len() > VIEW_MAX {
                    return Err(BadDatagram::Value("view's length", view.len() as u64));
                }
                if self.own != view || self.version == 0 {
                    self.own = view.to_vec();
                    self.own_changed = true;
                }
            }
            Event::Drain => self.turn(Duty::Draining),
            Event::Leave => self.leave(out),
            Event::Meet(peer) => self.meet(peer, out),
            Event::Left(node) => self.left(node, out),
            Event::Heard(node) => self.answered(node, out),
            Event::ConnectionLost(node) => {
                self.doubt(node, 2, out);
                self.suspect(node, out);
            }
        }
        Ok(())
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.clock.deadline()
    }

    /// Whether somebody came a moment ago, so that doubts take longer.
    pub fn is_settling(&self) -> bool {
        self.clock.now() < self.settling
    }

    /// The other members, by number.
    pub fn living(&self) -> impl ExactSizeIterator<Item = &Peer> {
        self.living.values()
    }

    /// A member by its number.
    pub fn get(&self, node: NodeId) -> Option<&Peer> {
        self.living.get(&node)
    }

    /// What a member said last of itself.
    pub fn view(&self, node: NodeId) -> Option<(Duty, &[u8])> {
        self.views.get(node).map(|(_, duty, bytes)| (duty, bytes))
    }

    /// Whether it was declared dead, as far as that is remembered.
    pub fn buried(&self, node: NodeId) -> bool {
        self.graves.has(node)
    }

    /// For how long in all this process had been stopped.
    pub fn stopped(&self) -> Duration {
        self.clock.lost()
    }

    /// How good the side of this node is, should there be another.
    pub fn rank(&self) -> Rank {
        let first = self
            .living
            .keys()
            .next()
            .map_or(self.me.node, |&first| first.min(self.me.node));
        Rank {
            head: self.me.head || self.living.values().any(|peer| peer.head),
            living: self.living.len() as u32 + 1,
            lowest: !first.get(),
        }
    }

    fn start(&mut self, join: Vec<Peer>) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Member;
        self.join = join;
        self.join.retain(|peer| peer.node != self.me.node);
        self.clock.after(Duration::ZERO, Job::Join);
        // Members do not look all at the same moment.
        let offset = self.pace.watch * self.chance.below(1000) as u32 / 1000;
        self.clock.after(offset, Job::Watch);
        self.clock.after(offset, Job::Gossip);
        self.clock.after(self.pace.gossip + offset, Job::Pull);
        self.clock.after(self.pace.gossip * 20 + offset, Job::Knock);
    }

    fn tick(&mut self, out: &mut Vec<Effect>) {
        while let Some(job) = self.clock.pop() {
            match job {
                Job::Foca(timer) => {
                    // Its one error says that a probe was cut short, which it makes up for.
                    self.with_foca(out, |foca, asked| drop(foca.handle_timer(timer, asked)));
                }
                Job::Join => self.join_again(out),
                Job::Watch => self.watch(out),
                Job::Ask(node, id) => self.ask_again(node, id, out),
                Job::Judge(node, id) => self.judge(node, id, out),
                Job::Gossip => self.gossip(out),
                Job::Pull => self.pull(out),
                Job::Knock => self.knock(out),
                Job::Recover => self.unwell = self.unwell.saturating_sub(1),
                Job::Depart => {
                    self.with_foca(out, |foca, asked| drop(foca.leave_cluster(asked)));
                    self.end(out, Effect::Left);
                }
            }
        }
    }

    /// Announces itself until somebody answers.
    fn join_again(&mut self, out: &mut Vec<Effect>) {
        if !self.living.is_empty() || self.join.is_empty() {
            return;
        }
        self.clock.after(self.pace.probe, Job::Join);
        for peer in self.join.clone() {
            if !self.graves.has(peer.node) {
                self.with_foca(out, |foca, asked| drop(foca.announce(peer, asked)));
                self.send(peer, &Frame::Pull { from: 0 }, out);
            }
        }
    }

    /// Announces itself to one that is reached and no member: a head that came back, or somebody whom news missed.
    fn meet(&mut self, peer: Peer, out: &mut Vec<Effect>) {
        let stranger = self.is_new(peer.node) && self.has_room();
        if self.phase == Phase::Member && stranger {
            self.join.retain(|known| known.node != peer.node);
            self.join.truncate(15);
            self.join.push(peer);
            self.with_foca(out, |foca, asked| drop(foca.announce(peer, asked)));
            self.send(peer, &Frame::Pull { from: 0 }, out);
        }
    }

    /// One said goodbye by another way.
    fn left(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let known = self
            .foca
            .iter_members()
            .find(|member| member.id().node == node);
        let Some(known) = known else { return };
        let news = Member::new(*known.id(), known.incarnation(), foca::State::Down);
        self.views.leaves(node);
        self.apply(news, true, out);
    }

    fn turn(&mut self, duty: Duty) {
        if duty > self.duty {
            self.duty = duty;
            self.tell_now();
        }
    }

    fn leave(&mut self, out: &mut Vec<Effect>) {
        if self.phase == Phase::Leaving {
            return;
        }
        self.turn(Duty::Leaving);
        self.phase = Phase::Leaving;
        if self.living.is_empty() {
            self.end(out, Effect::Left);
        } else {
            self.clock.after(self.pace.gossip * 6, Job::Depart);
        }
    }

    fn end(&mut self, out: &mut Vec<Effect>, last: Effect) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.clock.clear();
            out.push(last);
        }
    }

    /// Up to `n` random members, other than this one.
    fn some(&mut self, n: usize, besides: NodeId) -> Vec<Peer> {
        let mut chosen: Vec<Peer> = Vec::with_capacity(n);
        // Some draws hit one that was chosen before; few enough that three times as many suffice.
        for _ in 0..n * 3 {
            if chosen.len() == n || self.list.is_empty() {
                break;
            }
            let node = self.list[self.chance.below(self.list.len())];
            let peer = self.living.get(&node).filter(|peer| peer.node != besides);
            chosen.extend(peer.filter(|peer| !chosen.contains(peer)));
        }
        chosen
    }

    fn send(&self, to: Peer, frame: &Frame<'_>, out: &mut Vec<Effect>) {
        let bytes = frame::write(frame);
        out.push(Effect::Send { to, bytes });
    }

    /// Gives foca a piece of news.
    fn apply(&mut self, news: Member<Peer>, spread: bool, out: &mut Vec<Effect>) {
        self.with_foca(out, |foca, asked| {
            // A vector has room for what it writes.
            drop(foca.apply_many([news].into_iter(), spread, asked));
        });
    }

    /// Calls foca, and does what it asks for.
    fn with_foca<T>(
        &mut self,
        out: &mut Vec<Effect>,
        call: impl FnOnce(&mut Foca<Peer, Codec, Chance, NoCustomBroadcast>, &mut Asked) -> T,
    ) -> T {
        let mut asked = Asked::default();
        let answer = call(&mut self.foca, &mut asked);
        self.carry_out(asked, out);
        answer
    }

    fn carry_out(&mut self, asked: Asked, out: &mut Vec<Effect>) {
        for (to, bytes) in asked.sends {
            if let Some(incarnation) = codec::incarnation(&bytes) {
                self.incarnation = incarnation;
            }
            let to = self.living.get(&to.node).copied().unwrap_or(to);
            if to.addr.port() != 0 {
                let mut bytes = frame::swim(&bytes);
                self.views.fill(&mut bytes);
                out.push(Effect::Send { to, bytes });
            }
        }
        for (timer, after) in asked.timers {
            match timer {
                // A failed probe. foca would wait and then declare; `doubt` asks first.
                Timer::ChangeSuspectToDown { member_id, .. } => {
                    self.doubt(member_id.node, 1, out);
                    self.suspect(member_id.node, out);
                }
                timer => self.clock.after(after, Job::Foca(timer)),
            }
        }
        for note in asked.notes {
            match note {
                OwnedNotification::MemberUp(peer) => self.up(peer, out),
                OwnedNotification::MemberDown(peer) => self.down(peer, out),
                OwnedNotification::Defunct if self.phase != Phase::Leaving => {
                    self.end(out, Effect::Dead(Death::Declared));
                }
                // Peers of one node are equal, so nobody is renamed or rejoins; the others are seen in `living`.
                _ => {}
            }
        }
    }

    fn up(&mut self, peer: Peer, out: &mut Vec<Effect>) {
        if self.living.insert(peer.node, peer).is_none() {
            self.list.push(peer.node);
        }
        self.settling = self.clock.now() + self.pace.watch * doubt::SETTLING;
        self.resize();
        out.push(Effect::Up(peer));
    }

    fn down(&mut self, peer: Peer, out: &mut Vec<Effect>) {
        let peer = self.living.remove(&peer.node).unwrap_or(peer);
        let node = peer.node;
        self.list.retain(|other| *other != node);
        let why = if self.views.duty(node) == Duty::Leaving {
            Why::Left
        } else {
            Why::Failed
        };
        self.doubts.remove(&node);
        self.watched.remove(&node);
        self.views.remove(node);
        self.graves.bury(node);
        if why == Why::Failed {
            self.graves
                .seek(peer, self.clock.now() + self.pace.gossip * SOUGHT);
        }
        self.resize();
        out.push(Effect::Down { peer, why });
        // A death is passed on at once by everybody who learns it: it takes hops, not gossips.
        self.with_foca(out, |foca, asked| drop(foca.gossip(asked)));
    }

    /// News is repeated as often as so many members need.
    fn resize(&mut self) {
        drop(self.foca.set_config(self.pace.foca(self.living.len())));
    }

    fn is_new(&self, node: NodeId) -> bool {
        node != self.me.node && !self.living.contains_key(&node) && !self.graves.has(node)
    }

    /// Whether another member can be taken. foca also keeps the dead, for ten minutes.
    fn has_room(&self) -> bool {
        self.living.len() < MEMBERS_MAX && self.foca.iter_membership_state().len() < 2 * MEMBERS_MAX
    }
}
