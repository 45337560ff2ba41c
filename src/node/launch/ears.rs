//! What the link brings, as events for one thread.
//!
//! Invariant: the link never waits for that thread. What waits for it is bounded: lines that nodes printed are dropped and
//! counted first, and a peer that floods with anything else is refused from then on. Left out: what events mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::child::Said;
use super::message::{Message, VERSION};
use crate::base::NodeId;
use crate::link::{
    Bytes, Ca, Endpoint, Handler, Identity, Link, LinkError, Peer, Registry, Settings,
};

/// Bytes of lines that may wait.
const LINES: usize = 4 << 20;
/// Bytes of anything that may wait.
const MOST: usize = 64 << 20;
/// Bytes that may wait for a peer to take them.
const UNACKED: usize = 8 << 20;

/// Something happened.
pub enum Event {
    /// A peer is there; whether it is a launcher.
    Here(NodeId, SocketAddr, bool),
    /// It said this.
    Said(NodeId, Message),
    /// It is gone.
    Gone(NodeId, LinkError),
    /// A call of ours came to nothing.
    Refused(SocketAddr, LinkError),
    /// Where the executable of this peer is, if it is here.
    Found(NodeId, Option<PathBuf>),
    /// An executable came whole, or did not.
    Kept(NodeId, Result<PathBuf, String>),
    /// A node's process of this peer's ended.
    Ended(NodeId, u32, String),
    /// This launcher, there, lets others in.
    Leads(NodeId, SocketAddr),
    /// The program ends: it waits for no more than what has been started.
    Last,
    /// It is over.
    Stop,
}

/// See the module.
pub struct Ears {
    events: Sender<Event>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    link: OnceLock<Weak<Endpoint>>,
}

/// The other end.
pub struct Heard {
    events: Receiver<Event>,
    waiting: Arc<AtomicUsize>,
    /// Lines that were dropped since this was looked at.
    pub dropped: Arc<AtomicU64>,
}

impl Heard {
    /// The next event, if there is one within this time.
    pub fn next(&self, within: Duration) -> Option<Event> {
        let event = self.events.recv_timeout(within).ok()?;
        if let Event::Said(_, message) = &event {
            self.waiting.fetch_sub(weight(message), Ordering::AcqRel);
        }
        Some(event)
    }
}

/// About how many bytes it takes.
fn weight(message: &Message) -> usize {
    256 + match message {
        Message::Lines { lines, .. } => lines.iter().map(|l| l.len() + 24).sum(),
        Message::Machines(machines, past) => machines.len() * 1024 + past.len() * 1024,
        _ => 0,
    }
}

/// What launchers and others say of themselves when they meet.
fn hello(launcher: bool) -> Vec<u8> {
    let what = if launcher { "launcher" } else { "guest" };
    format!("mobula {what} {VERSION}").into_bytes()
}

/// Listens as a member of the launchers' cluster.
pub fn listen(
    identity: Identity,
    ca: Option<Arc<Ca>>,
    listen: SocketAddr,
    launcher: bool,
) -> Result<(Arc<Endpoint>, Heard, Sender<Event>), LinkError> {
    let mut settings = Settings::new(listen, identity, Registry::default());
    settings.hello.app = hello(launcher);
    settings.ca = ca;
    settings.max_unacked = UNACKED;
    if !launcher {
        // The shorter of both sides' counts: when a driver dies, launchers know soon. Its nodes know sooner, from each other.
        settings.idle = Duration::from_millis(1600);
        settings.keep_alive = Duration::from_millis(400);
    }
    let (events, heard) = channel();
    let (waiting, dropped) = (Arc::default(), Arc::default());
    let ears = Arc::new(Ears {
        events: events.clone(),
        waiting: Arc::clone(&waiting),
        dropped: Arc::clone(&dropped),
        link: OnceLock::new(),
    });
    let link = Arc::new(Endpoint::start(
        settings,
        Arc::clone(&ears) as Arc<dyn Handler>,
    )?);
    let _ = ears.link.set(Arc::downgrade(&link));
    Ok((
        link,
        Heard {
            events: heard,
            waiting,
            dropped,
        },
        events,
    ))
}

impl Ears {
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

impl Handler for Ears {
    fn connected(&self, peer: &Peer) {
        let addr = peer.hello.reach.unwrap_or(peer.addr);
        self.tell(Event::Here(peer.node, addr, peer.hello.app == hello(true)));
    }

    fn frame(&self, from: NodeId, frame: &[u8]) {
        let refuse = || {
            if let Some(link) = self.link.get().and_then(Weak::upgrade) {
                link.forget(from);
            }
        };
        let Ok(message) = Message::decode(frame) else {
            return refuse();
        };
        let weight = weight(&message);
        let waiting = self.waiting.load(Ordering::Acquire);
        if let Message::Lines { lines, dropped, .. } = &message
            && waiting > LINES
        {
            self.dropped
                .fetch_add(lines.len() as u64 + dropped, Ordering::Relaxed);
            return;
        }
        if waiting > MOST {
            return refuse();
        }
        self.waiting.fetch_add(weight, Ordering::AcqRel);
        self.tell(Event::Said(from, message));
    }

    fn datagram(&self, _: NodeId, _: &[u8]) {}

    fn disconnected(&self, node: NodeId, why: &LinkError) {
        self.tell(Event::Gone(node, why.clone()));
    }

    fn refused(&self, addr: SocketAddr, why: &LinkError) {
        self.tell(Event::Refused(addr, why.clone()));
    }
}

/// Sends a message. False: it cannot be sent, now or ever.
pub fn send(link: &Endpoint, to: NodeId, message: &Message) -> bool {
    link.send(to, Bytes::from(message.encode())).is_ok()
}

/// What sends a node's lines to its driver, without waiting for it.
pub fn forwards(
    link: &Arc<Endpoint>,
    to: NodeId,
    events: &Sender<Event>,
) -> impl Fn(u32, Said) + Send + Clone + 'static {
    let (link, events) = (Arc::downgrade(link), events.clone());
    let lost = Arc::new(AtomicU64::new(0));
    move |pid, said| match said {
        Said::Lines(stderr, lines) => {
            let Some(link) = link.upgrade() else { return };
            let (count, dropped) = (lines.len() as u64, lost.swap(0, Ordering::AcqRel));
            let message = Message::Lines {
                pid,
                stderr,
                dropped,
                lines,
            };
            if !send(&link, to, &message) {
                lost.fetch_add(dropped + count, Ordering::AcqRel);
            }
        }
        Said::Ended(how) => drop(events.send(Event::Ended(to, pid, how))),
    }
}

/// A number that nobody else draws.
pub fn random() -> Result<u64, String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|e| format!("drawing a number: {e}"))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}
