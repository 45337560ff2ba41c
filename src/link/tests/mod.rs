//! Endpoints that talk over loopback, and what they were told.
//!
//! Invariant: nothing waits without a deadline. Left out: what is tested, which the files beside this say.

mod basic;
mod bounds;
mod breaks;
mod codecs;
mod floods;
mod hostile;
mod join;
mod memory;
mod near;
mod raw;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::*;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Connected(NodeId),
    Frame(NodeId, Vec<u8>),
    Datagram(NodeId, Vec<u8>),
    Disconnected(NodeId, LinkError),
    Refused(LinkError),
}

/// Keeps what a handler is told.
#[derive(Default)]
pub(crate) struct Heard {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl Heard {
    fn note(&self, event: Event) {
        self.events.lock().push(event);
        self.changed.notify_all();
    }

    /// Waits until `look` finds what it looks for.
    pub fn until<T>(&self, what: &str, look: impl Fn(&[Event]) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut events = self.events.lock();
        loop {
            if let Some(found) = look(&events) {
                return found;
            }
            let late = self.changed.wait_until(&mut events, until).timed_out();
            assert!(
                !late,
                "no {what} in time; heard {:?}",
                &events[events.len().saturating_sub(20)..]
            );
        }
    }

    pub fn connected(&self, node: NodeId) {
        self.until("connection", |events| {
            events.contains(&Event::Connected(node)).then_some(())
        });
    }

    pub fn disconnected(&self, node: NodeId) -> LinkError {
        self.until("end of a connection", |events| {
            events.iter().find_map(|event| match event {
                Event::Disconnected(from, why) if *from == node => Some(why.clone()),
                _ => None,
            })
        })
    }

    pub fn refused(&self) -> LinkError {
        self.until("refusal", |events| {
            events.iter().find_map(|event| match event {
                Event::Refused(why) => Some(why.clone()),
                _ => None,
            })
        })
    }

    pub fn frames(&self, count: usize) -> Vec<Vec<u8>> {
        self.until("frames", |events| {
            let frames: Vec<Vec<u8>> = frames(events);
            (frames.len() >= count).then_some(frames)
        })
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }
}

fn frames(events: &[Event]) -> Vec<Vec<u8>> {
    let frame = |event: &Event| match event {
        Event::Frame(_, frame) => Some(frame.clone()),
        _ => None,
    };
    events.iter().filter_map(frame).collect()
}

impl Handler for Heard {
    fn connected(&self, peer: &Peer) {
        self.note(Event::Connected(peer.node));
    }

    fn frame(&self, from: NodeId, frame: &[u8]) {
        self.note(Event::Frame(from, frame.to_vec()));
    }

    fn datagram(&self, from: NodeId, bytes: &[u8]) {
        self.note(Event::Datagram(from, bytes.to_vec()));
    }

    fn disconnected(&self, node: NodeId, why: &LinkError) {
        self.note(Event::Disconnected(node, why.clone()));
    }

    fn refused(&self, _: SocketAddr, why: &LinkError) {
        self.note(Event::Refused(why.clone()));
    }
}

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn settings(ca: &Ca, number: u64) -> Settings {
    Settings::new(
        loopback(),
        ca.identity(node(number)).unwrap(),
        Registry::default(),
    )
}

/// An endpoint of this cluster, and what it hears.
pub(crate) fn start(settings: Settings) -> (Endpoint, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let endpoint = Endpoint::start(settings, heard.clone()).unwrap();
    (endpoint, heard)
}

/// Two endpoints, the first of which has called the second.
pub(crate) fn pair() -> (Endpoint, Arc<Heard>, Endpoint, Arc<Heard>) {
    let ca = Ca::new().unwrap();
    let (one, heard_one) = start(settings(&ca, 1));
    let (two, heard_two) = start(settings(&ca, 2));
    one.connect(two.local_addr(), Some(node(2)));
    heard_one.connected(node(2));
    heard_two.connected(node(1));
    (one, heard_one, two, heard_two)
}

/// A body that is put together, and how it ended.
#[derive(Clone, Default)]
pub(crate) struct Landed(Arc<(Mutex<(Vec<u8>, Option<Result<(), LinkError>>)>, Condvar)>);

impl Landed {
    pub fn of(len: usize) -> Landed {
        let landed = Landed::default();
        landed.0.0.lock().0 = vec![0; len];
        landed
    }

    pub fn outcome(&self) -> Result<(), LinkError> {
        let mut state = self.0.0.lock();
        let until = Instant::now() + PATIENCE;
        while state.1.is_none() {
            assert!(
                !self.0.1.wait_until(&mut state, until).timed_out(),
                "a body did not end in time"
            );
        }
        state.1.clone().unwrap()
    }

    pub fn body(&self) -> Vec<u8> {
        self.0.0.lock().0.clone()
    }

    pub fn done(&self) -> Done {
        let own = self.clone();
        Box::new(move |outcome| Box::new(own).finish(outcome))
    }
}

impl Landing for Landed {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        self.0.0.lock().0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn finish(self: Box<Self>, outcome: Result<(), LinkError>) {
        let mut state = self.0.0.lock();
        assert!(state.1.is_none(), "ended twice");
        state.1 = Some(outcome);
        self.0.1.notify_all();
    }
}

fn until(what: &str, look: impl Fn() -> bool) {
    crate::base::wait::until(what, PATIENCE, look);
}

/// Hears nothing until it is let.
struct Slow(Mutex<()>, Arc<Heard>);

impl Handler for Slow {
    fn connected(&self, peer: &Peer) {
        Handler::connected(&*self.1, peer);
    }

    fn frame(&self, from: NodeId, frame: &[u8]) {
        drop(self.0.lock());
        Handler::frame(&*self.1, from, frame);
    }

    fn datagram(&self, _: NodeId, _: &[u8]) {}

    fn disconnected(&self, _: NodeId, _: &LinkError) {}

    fn refused(&self, _: SocketAddr, _: &LinkError) {}
}

/// A peer that does not take what is sent to it: sending is refused at the bound, and goes on when it does.
fn flood_is_held_back(
    mut eager: Settings,
    two: Settings,
    ready: impl Fn(&Endpoint, &Endpoint) -> bool,
) {
    eager.max_unacked = 1 << 20;
    let (one, heard_one) = start(eager);
    let slow = Arc::new(Slow(Mutex::new(()), Arc::default()));
    let two = Endpoint::start(two, slow.clone()).unwrap();
    one.connect(two.local_addr(), Some(node(2)));
    heard_one.connected(node(2));
    until("carrier", || ready(&one, &two));
    let held = slow.0.lock();
    let frame = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    let full = loop {
        match one.send(node(2), frame.clone()) {
            Ok(()) => sent += 1,
            Err(full) => break full,
        }
    };
    assert!(
        matches!(full, SendError::Full { held, .. } if held <= 1 << 20),
        "{full}"
    );
    assert!(sent < 200, "{sent} were taken");
    drop(held);
    assert_eq!(slow.1.frames(sent).len(), sent);
    until("end of the flood", || {
        one.send(node(2), frame.clone()).is_ok()
    });
}
