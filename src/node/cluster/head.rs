//! The head: the node that others join at, and that keeps the cluster's records unless these are on etcd.
//!
//! A node of a job ends with the head, whose program the job is. One that is told to be patient goes on while the head is
//! gone, calls its address, and is of the same cluster when the head is back: it has the same authority, another number, and knows
//! nobody until it is told. With records on etcd nodes are patient by themselves, any of them lets newcomers in, and a new head,
//! wherever it starts, finds them there.
//!
//! Invariant: without patience nothing here calls anybody. Left out: the head's records (`records`).

use std::net::SocketAddr;
use std::time::Duration;

use super::Cluster;
use super::near::Place;
use crate::base::{Error, NodeId};
use crate::wire::{Reader, Writer};

impl Cluster {
    /// Whether this node is the head.
    pub(super) fn heads(&self) -> bool {
        self.head_addr.get().is_none()
    }

    /// What a node says of itself when it shakes hands.
    pub(super) fn write_app(head: bool, name: &str, place: Option<&Place>) -> Vec<u8> {
        let mut w = Writer::default();
        w.bool(head);
        w.text(name);
        w.option(place, |w, place| place.write(w));
        w.0
    }

    /// Whether the other is the head, what it is called, and where its arena is. What cannot be read was not said.
    pub(super) fn read_app(app: &[u8]) -> (bool, String, Option<Place>) {
        let mut r = Reader(app);
        let head = r.bool().unwrap_or(false);
        let name = r.text().unwrap_or("").to_owned();
        let place = r.bool().unwrap_or(false);
        let place = if place { Place::read(&mut r) } else { None };
        (head, name, place)
    }

    /// Whether every node reaches the records itself, so that none needs a head.
    pub(super) fn needs_no_head(&self) -> bool {
        self.keeper.get().is_some_and(|k| k.shared().is_some())
    }

    /// Whether being the head gives a node the last word in who is dead.
    pub(super) fn matters(&self, head: bool) -> bool {
        head && !self.needs_no_head()
    }

    /// Whether there is no head now.
    pub(super) fn is_headless(&self) -> bool {
        let books = self.books.lock();
        books.head != self.me && !books.peers.values().any(|peer| peer.head)
    }

    /// Calls the head's address while it is gone.
    pub(super) fn look_for_head(&self) {
        let Some(addr) = self.head_addr.get() else {
            return;
        };
        if !self.is_headless() {
            *self.headless.lock() = None;
            return;
        }
        let since = *self.headless.lock().get_or_insert(self.now());
        // With records on etcd it is looked for there, wherever it is now.
        if !self.needs_no_head()
            && self.now().saturating_sub(since) < self.patience_with_head()
            && let Some(link) = self.link.get()
        {
            link.connect(*addr, None);
        }
    }

    /// A node that was declared dead was reached, or this one was refused as such. The head's side is the one that goes on, where
    /// one is needed, so any other node that the rest holds for dead, or that finds the head alive, is done with.
    pub(super) fn on_forgotten(&self, node: NodeId, addr: Option<SocketAddr>) {
        if self.needs_no_head() {
            if node == self.me {
                self.membership.declared_dead();
            }
            return;
        }
        let head = addr.is_some() && self.head_addr.get().copied() == addr;
        let head = head && *self.head_left.lock() != Some(node);
        if !self.heads() && (node == self.me || head) {
            self.membership.declared_dead();
        }
    }

    /// How long this node goes on without a head. Where nobody said so, it goes on if the head was lost and no node needs it,
    /// since each reaches the records itself; a head that left in order has ended its program.
    fn patience_with_head(&self) -> Duration {
        let shared = self.needs_no_head();
        let lost = self.head_left.lock().is_none();
        self.head_patience.unwrap_or(match shared && lost {
            true => Duration::MAX,
            false => Duration::ZERO,
        })
    }

    /// Whether the head is gone and may come back, or another.
    pub(super) fn awaits_head(&self) -> bool {
        let since = self.headless.lock().unwrap_or(self.now());
        let gone = self.now().saturating_sub(since);
        !self.heads() && self.is_headless() && gone < self.patience_with_head()
    }

    /// Waits until the head is gone for good, for a node that serves nobody else; or until `over` says so.
    ///
    /// # Errors
    /// That the others hold this node for dead.
    pub fn serve(&self, over: &dyn Fn() -> bool) -> Result<(), Error> {
        let mut seen = self.change.0.lock();
        loop {
            if let Some(e) = self.fenced_by() {
                return Err(e);
            }
            if over() || (self.is_headless() && !self.awaits_head()) {
                return Ok(());
            }
            self.change.1.wait_for(&mut seen, Duration::from_millis(50));
        }
    }
}
