//! The other nodes: who is there, what they say, and what follows when one is not there any more.
//!
//! Invariant: a node that was taken for dead is never heard again. Left out: frames' meaning, which the other files have.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Cluster;
use super::books::{Books, Peer};
use super::effects::Todo;
use crate::base::{Error, NodeId};
use crate::core::owners::{Effect, Message};
use crate::core::view;
use crate::exec::{Local, actor, cell};
use crate::link::{self, Handler, LinkError};
use crate::wire::Frame;

/// What the link tells.
pub(super) struct Ears(pub std::sync::Weak<Cluster>);

impl Ears {
    fn with(&self, f: impl FnOnce(&Arc<Cluster>, &Local)) {
        if let Some(cluster) = self.0.upgrade() {
            if !super::LINKS.replace(true) {
                crate::shm::come_first(false);
                cluster.membership.link_is_here();
            }
            let _ = crate::exec::local::with(|local| f(&cluster, local));
        }
    }
}

impl Handler for Ears {
    fn connected(&self, peer: &link::Peer) {
        self.with(|cluster, local| cluster.on_connected(local, peer));
    }

    fn frame(&self, from: NodeId, frame: &[u8]) {
        self.with(|cluster, local| cluster.on_frame(local, from, frame));
    }

    fn datagram(&self, from: NodeId, bytes: &[u8]) {
        self.with(|cluster, _| cluster.on_datagram(from, bytes));
    }

    fn disconnected(&self, node: NodeId, why: &LinkError) {
        self.with(|cluster, local| cluster.on_disconnected(local, node, why));
    }

    fn refused(&self, addr: SocketAddr, why: &LinkError) {
        self.with(|cluster, _| cluster.on_refused(addr, why));
    }
}

/// What a node died of that was told so by others than this one.
const FENCED: &str = "others found it dead";

impl Cluster {
    fn on_connected(self: &Arc<Cluster>, local: &Local, peer: &link::Peer) {
        let addr = peer.hello.reach.unwrap_or(peer.addr);
        let (head, name, place) = Cluster::read_app(&peer.hello.app);
        self.come_near(peer.node, place.as_ref());
        self.with(local, |books, todo| {
            if books.view.is_gone(peer.node) {
                return; // it was declared dead while its connection was made: the link is about to hear of it
            }
            books.peers.insert(peer.node, Peer { addr, name, head });
            books.gone_since.remove(&peer.node);
            let near = books.near.contains_key(&peer.node);
            books.replicas.peer_up(peer.node, near, &mut todo.replicas);
            let led = |books: &Books| books.peers.get(&books.head).is_some_and(|p| p.head);
            if head {
                *self.head_left.lock() = None;
            }
            if head && self.me != books.head && !led(books) {
                books.head = peer.node;
            }
            let version = books.version();
            let view = self.own_view(books, version, books.draining);
            self.send_surely(
                books,
                peer.node,
                &Frame::View {
                    view: self.spell(&view),
                },
            );
            self.free_names(books);
        });
        self.kept_connected(local, peer.node);
        self.changed();
    }

    fn note_refusal(&self, addr: SocketAddr, why: &LinkError) {
        const KEPT: usize = 64;
        let mut refusals = self.refusals.lock();
        if refusals.len() == KEPT {
            refusals.remove(0);
        }
        refusals.push((addr, why.clone()));
        drop(refusals);
        self.changed();
    }

    fn on_refused(&self, addr: SocketAddr, why: &LinkError) {
        if let LinkError::Forgotten(node) = why {
            self.on_forgotten(*node, Some(addr));
        }
        self.note_refusal(addr, why);
    }

    fn on_disconnected(self: &Arc<Cluster>, local: &Local, node: NodeId, why: &LinkError) {
        match why {
            LinkError::Left(..) => self.said_goodbye(local, node),
            // Others found it dead, which this node has not heard yet. It did not leave in order: where it was the head, that
            // is lost, and no program has ended.
            LinkError::Fenced(..) => {
                // Nobody calls it meanwhile: that a member is refused as dead would say that this node is on the wrong side.
                self.membership.forget(node);
                self.died(local, node, FENCED);
                self.membership.left(node);
            }
            LinkError::Forgotten(of) if *of == self.me => self.on_forgotten(*of, None),
            _ => {
                self.membership.lost(node);
                // The link tries to make another connection. Whether it is dead is for the members to say; one that never
                // became a member is taken for dead if there is no connection in time.
                let now = self.now();
                self.books.lock().gone_since.insert(node, now);
            }
        }
    }

    fn on_datagram(&self, from: NodeId, bytes: &[u8]) {
        // What is no packet of membership's is of a later version, or noise.
        let _ = self.membership.packet(from, bytes);
    }

    pub(super) fn spell(&self, view: &view::NodeView) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What this node has was checked to be short enough when it started.
        let _ = view::encode(self.me, view, &mut bytes);
        bytes
    }

    /// What is due.
    pub(super) fn tick(self: &Arc<Cluster>, local: &Local) {
        let now = self.now();
        let (deaf, dead): (Vec<_>, Vec<NodeId>) = self.with(local, |books, todo| {
            self.flush(books);
            books.owners.tick(now, &mut todo.effects);
            self.let_go_of_the_dead(books, todo);
            books.replicas.tick(now, &mut todo.replicas);
            let late = books
                .gone_since
                .iter()
                .filter(|(_, since)| now.saturating_sub(**since) > self.patience);
            let late = late.map(|(node, _)| *node);
            let late = late.filter(|node| !self.membership.has(*node));
            (books.backlog.deaf(), late.collect())
        });
        for (node, why) in deaf {
            self.died(local, node, &why.to_string());
        }
        for node in dead {
            self.died(local, node, "no connection could be made to it");
        }
        self.end_forsaken();
        self.resume(local);
        self.tick_kept(local);
        if let Some(groups) = self.groups.get() {
            groups.tick(local);
        }
        self.tell_view(now);
    }

    /// Has the members told what is free here, if that has changed.
    fn tell_view(self: &Arc<Cluster>, now: std::time::Duration) {
        let view = {
            let mut books = self.books.lock();
            let view = self.own_view(&books, 0, books.draining);
            let changed = (&view.free, view.queued, view.draining)
                != (&books.told.free, books.told.queued, books.told.draining);
            let since = now.saturating_sub(books.told.seen);
            // Who sent something here has taken it off what it was told, and waits to be told anew.
            let took = books.took != books.told_took;
            if since < TELL || !(changed || took) {
                return;
            }
            books.told_took = books.took;
            let view = view::NodeView {
                version: books.version(),
                ..view
            };
            books.told = view.clone();
            let me = self.me;
            books.view.merge(me, view.clone());
            self.spell(&view)
        };
        self.membership.tell(view);
    }

    /// A node is dead, or as good as.
    pub(super) fn died(self: &Arc<Cluster>, local: &Local, node: NodeId, why: &str) {
        let now = self.now();
        let sent = self.with(local, |books, todo| {
            books.gone_since.remove(&node);
            // Whoever looks for replicas waits for members that were never connected, too.
            books.replicas.peer_died(now, node, &mut todo.replicas);
            let Peer { name, head, .. } = books.peers.remove(&node)?;
            // One that another followed, since its lease was over, ends its own program alone.
            let followed = books.peers.values().any(|peer| peer.head);
            if head && !followed && why == super::notices::LEFT {
                *self.head_left.lock() = Some(node);
            }
            if books.head == node
                && let Some((other, _)) = books.peers.iter().find(|(_, peer)| peer.head)
            {
                books.head = *other;
            }
            books.view.remove(node);
            books.near.remove(&node);
            let shown: Vec<_> = books
                .shown
                .keys()
                .filter(|(to, _)| *to == node)
                .copied()
                .collect();
            for key in shown {
                books
                    .shown
                    .remove(&key)
                    .into_iter()
                    .for_each(|p| todo.later.pin(p));
            }
            books.backlog.remove(node);
            books.leasing.died(node);
            books.owners.peer_died(now, node, &mut todo.effects);
            let replicated = |key| books.replicas.knows(key);
            books.pulls.peer_died_but(node, replicated, &mut todo.pulls);
            let numbers: Vec<u64> = books
                .sent
                .iter()
                .filter(|(_, s)| s.to == node)
                .map(|(n, _)| *n)
                .collect();
            let sent: Vec<_> = numbers
                .iter()
                .filter_map(|n| books.sent.remove(n))
                .collect();
            let running: Vec<_> = books
                .running
                .keys()
                .filter(|(of, _)| *of == node)
                .copied()
                .collect();
            let running: Vec<_> = running
                .iter()
                .filter_map(|key| books.running.remove(key))
                .collect();
            // What it handed on to this node is registered by now.
            for &to in books.peers.keys() {
                let message = Message::Buried { node };
                todo.effects.push(Effect::Send { to, message });
            }
            self.let_go_of_the_dead(books, todo);
            Some((name, sent, running))
        });
        let Some((name, sent, running)) = sent else {
            return;
        };
        if let Some(link) = self.link.get() {
            link.forget(node);
        }
        self.asks_died(node);
        self.names_died(node);
        self.values_died(local, node);
        self.kept_died(local, node);
        self.actors_died(local, node);
        if let Some(groups) = self.groups.get() {
            groups.died(local, node);
        }
        self.calls_died(local, node, sent);
        // Nobody waits for these any more, nor for what they called.
        for record in &running {
            self.forsake(local, record);
        }
        let methods = running.into_iter().filter(|r| r.target().is_some());
        let methods = methods.map(|record| (node, record));
        self.books.lock().forsaken.extend(methods);
        self.end_forsaken();
        self.tell_death(node, name, why);
        self.changed();
    }

    /// Ends the processes of actors that run methods for nodes that are dead, once nobody has a handle.
    fn end_forsaken(&self) {
        let (mut methods, called) = {
            let mut books = self.books.lock();
            let methods = std::mem::take(&mut books.forsaken);
            if methods.is_empty() {
                return;
            }
            let targets = books.running.values().filter_map(|call| call.target());
            let called: HashSet<u64> = targets.map(|actor| actor.id()).collect();
            (methods, called)
        };
        methods.retain(|(node, record)| {
            let Some(actor) = record.target() else {
                return false;
            };
            // Calls of others come first: they were made while it had handles.
            if called.contains(&actor.id()) {
                return !cell::finished(record.state());
            }
            let cause = || format!("node {node} died, which had its last handle");
            actor::forsake(actor, record, cause)
        });
        if !methods.is_empty() {
            self.books.lock().forsaken.extend(methods);
        }
    }

    /// Lets go of what dead nodes had, once all others have buried them. Somebody who came a moment ago may not be known here.
    fn let_go_of_the_dead(&self, books: &mut Books, todo: &mut Todo) {
        if books.owners.has_dying() && !self.membership.is_settling() {
            let living = self.membership.others().into_iter();
            let living = living.chain(books.peers.keys().copied()).collect();
            books.owners.let_go_of_the_dead(&living, &mut todo.effects);
        }
    }

    /// A node said that it leaves.
    fn said_goodbye(self: &Arc<Cluster>, local: &Local, node: NodeId) {
        self.membership.left(node);
        self.died(local, node, super::notices::LEFT);
    }

    /// A node says what no node says: it is not of this program, or lies.
    pub(super) fn misbehaves(self: &Arc<Cluster>, node: NodeId, what: &str) {
        let why = format!("it broke the protocol: {what}");
        let cluster = Arc::clone(self);
        self.errand(move |local| cluster.died(local, node, &why));
    }

    fn on_frame(self: &Arc<Cluster>, local: &Local, from: NodeId, bytes: &[u8]) {
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(e) => return self.misbehaves(from, &e.to_string()),
        };
        match frame {
            Frame::Call {
                number,
                lease,
                terms,
                call,
            } => self.on_call(local, from, (number, lease), terms, call),
            Frame::Ended {
                number,
                ran,
                outcome,
            } => self.on_ended(local, from, (number, ran), outcome),
            Frame::Cancel { number } => self.on_cancel(local, from, number),
            Frame::Create {
                number,
                kind,
                terms,
                call,
            } => self.on_create(local, from, (number, kind), terms, call),
            Frame::Method {
                actor,
                caller,
                number,
                call,
            } => self.on_method(local, from, actor, (caller, number), call),
            Frame::Kill { actor, restart } => self.on_kill(actor, restart),
            Frame::ActorEnded { actor, cause } => self.on_actor_ended(local, from, actor, &cause),
            Frame::Owning {
                message: Message::Buried { node },
                ..
            } => self.with(local, |books, todo| {
                let lives = books.peers.contains_key(&node);
                books.owners.buried(from, node, lives);
                self.let_go_of_the_dead(books, todo);
            }),
            Frame::Owning { message, beside } => self.with(local, |books, todo| {
                let key = match &message {
                    Message::Settled { key, .. } | Message::Borrowed { key, .. } => Some(*key),
                    _ => None,
                };
                self.hear(books, todo, from, message);
                if let Some(key) = key {
                    self.learn(books, todo, key, beside, 0);
                }
            }),
            Frame::Replica { message } => self.with(local, |books, todo| {
                let now = self.now();
                books
                    .replicas
                    .handle(now, from, message, &mut todo.replicas);
            }),
            Frame::Fetch {
                key,
                transfer,
                near,
            } => self.on_fetch(local, from, key, (transfer, near)),
            Frame::Lies {
                transfer,
                offset,
                len,
            } => self.on_lies(local, from, transfer, offset, len),
            Frame::Read { transfer } => self.on_read(from, transfer),
            Frame::Fetched { transfer, value } => self.on_fetched(local, from, transfer, value),
            Frame::Ask { ask, question } => self.on_ask(from, ask, question),
            Frame::Answer { ask, found } => self.on_answer(from, ask, found),
            Frame::View { view } => self.hear_view(local, from, false, &view),
            Frame::Leave => self.said_goodbye(local, from),
            Frame::Lease { message } => self.on_lease(local, from, &message),
            Frame::Recover { message } => self.on_recovering(local, from, *message),
            Frame::Group { message } => {
                if let Some(groups) = self.groups.get() {
                    groups.heard(local, from, message);
                }
            }
        }
    }

    /// Everything that this node waits for from others fails: it ends.
    pub(super) fn abandon(self: &Arc<Cluster>, local: &Local, why: &dyn Fn() -> Error) {
        let (sent, parked, keys) = self.with(local, |books, todo| {
            let mut sent: Vec<_> = books.sent.drain().map(|(_, s)| s.record).collect();
            sent.extend(books.leasing.abandon());
            Cluster::abandon_lineages(books, todo);
            let parked = std::mem::take(&mut books.parked);
            books.asks.clear();
            books.values.clear();
            books.putting.clear();
            // Who waits for bytes finds the other end gone.
            for (_, want) in books.wants.drain() {
                want.draft
                    .into_iter()
                    .for_each(|draft| todo.later.draft(draft));
            }
            (sent, parked, self.proxies.keys())
        });
        self.abandon_kept(local, why);
        for record in parked {
            if record.claim_waiting() {
                local.engine.settle_error(local, &record, why());
            }
        }
        for record in sent {
            local.engine.settle_error(local, &record, why());
        }
        for key in keys {
            self.fail_proxy(local, key, why());
        }
    }
}

/// How often the others are told at most.
const TELL: std::time::Duration = std::time::Duration::from_millis(10);
