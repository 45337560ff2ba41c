//! Links inside one process, for tests: no sockets, no threads of the network, the same contract.
//!
//! A [`Hub`] joins the links made of it. Each link has a thread that calls its handler, as an endpoint has.
//!
//! Invariant: frames of one peer come in order, each once, until it is forgotten or stops; what waits for one link is bounded
//! in bytes. Left out: certificates, and connections that break by themselves: [`Hub::cut`] breaks one, and loses nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::base::NodeId;
use crate::link::{
    Done, Handler, Hello, Landing, Link, LinkError, MAX_DATAGRAM, MAX_FRAME, Peer, Registry,
    SendError, Stats,
};

/// Bytes that may wait for one link.
const LIMIT: usize = 64 << 20;
/// What each waiting thing counts beside its bytes.
const OVERHEAD: usize = 64;

/// What joins the links of one process.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<Members>>);

#[derive(Default)]
struct Members {
    links: HashMap<NodeId, Arc<Inner>>,
    next_port: u16,
}

/// One node's link in a [`Hub`].
pub struct MemoryLink {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    hub: Hub,
    node: NodeId,
    addr: SocketAddr,
    hello: Hello,
    registry: Registry,
    handler: Arc<dyn Handler>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    inbox: VecDeque<Told>,
    held: usize,
    peers: HashSet<NodeId>,
    forgotten: HashSet<NodeId>,
    landings: HashMap<(NodeId, u64), (u64, Box<dyn Landing>)>,
    /// Bodies that nobody expects yet.
    early: HashMap<(NodeId, u64), (Bytes, Done)>,
    stopping: bool,
    stats: Stats,
}

enum Told {
    Connected(Peer),
    Frame(NodeId, Bytes),
    Datagram(NodeId, Bytes),
    Disconnected(NodeId, LinkError),
    Refused(SocketAddr, LinkError),
    Landed(Box<dyn Landing>, Bytes, Done),
    Failed(Option<Box<dyn Landing>>, Option<Done>, LinkError),
}

impl Told {
    fn cost(&self) -> usize {
        match self {
            Told::Frame(_, bytes) | Told::Datagram(_, bytes) => bytes.len() + OVERHEAD,
            _ => 0,
        }
    }
}

impl Hub {
    /// A hub without links.
    pub fn new() -> Hub {
        Hub::default()
    }

    /// A link for this node; its address means something in this hub only.
    pub fn start(&self, hello: Hello, registry: Registry, handler: Arc<dyn Handler>) -> MemoryLink {
        let mut members = self.0.lock();
        members.next_port += 1;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, members.next_port));
        let inner = Arc::new(Inner {
            hub: self.clone(),
            node: hello.node,
            addr,
            hello,
            registry,
            handler,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        members.links.insert(inner.node, inner.clone());
        let of_thread = inner.clone();
        let thread = std::thread::Builder::new()
            .name("mobula-memory".to_owned())
            .spawn(move || of_thread.serve())
            .expect("a test can start a thread");
        MemoryLink {
            inner,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Breaks the connection of these two; they make another at once.
    pub fn cut(&self, one: NodeId, two: NodeId) {
        let why = LinkError::Broken("it was cut".to_owned());
        let pair = (self.get(one), self.get(two));
        let (Some(one), Some(two)) = pair else {
            return;
        };
        for (own, peer) in [(&one, &two), (&two, &one)] {
            if own.state.lock().peers.contains(&peer.node) {
                own.lose(peer.node, &why);
                own.tell(Told::Connected(peer.described()));
            }
        }
    }

    fn get(&self, node: NodeId) -> Option<Arc<Inner>> {
        self.0.lock().links.get(&node).cloned()
    }

    fn at(&self, addr: SocketAddr) -> Option<Arc<Inner>> {
        self.0
            .lock()
            .links
            .values()
            .find(|link| link.addr == addr)
            .cloned()
    }
}

impl Inner {
    fn described(&self) -> Peer {
        Peer {
            node: self.node,
            addr: self.addr,
            hello: self.hello.clone(),
        }
    }

    fn tell(&self, told: Told) {
        let mut state = self.state.lock();
        state.held += told.cost();
        state.inbox.push_back(told);
        drop(state);
        self.changed.notify_one();
    }

    /// Fails what is under way with a peer, and says that it is away.
    fn lose(&self, peer: NodeId, why: &LinkError) {
        let mut state = self.state.lock();
        let of_peer = |key: &&(NodeId, u64)| key.0 == peer;
        let keys: Vec<_> = state.landings.keys().filter(of_peer).copied().collect();
        let landings: Vec<_> = keys
            .iter()
            .filter_map(|key| state.landings.remove(key))
            .collect();
        let keys: Vec<_> = state.early.keys().filter(of_peer).copied().collect();
        let early: Vec<_> = keys
            .iter()
            .filter_map(|key| state.early.remove(key))
            .collect();
        drop(state);
        for (_, landing) in landings {
            self.tell(Told::Failed(Some(landing), None, why.clone()));
        }
        for (_, done) in early {
            self.tell(Told::Failed(None, Some(done), why.clone()));
        }
        self.tell(Told::Disconnected(peer, why.clone()));
    }

    fn serve(&self) {
        loop {
            let mut state = self.state.lock();
            let told = loop {
                if let Some(told) = state.inbox.pop_front() {
                    break told;
                }
                if state.stopping {
                    return;
                }
                self.changed.wait(&mut state);
            };
            state.held -= told.cost();
            // What a forgotten node said before is not heard either.
            if let Told::Frame(from, _) | Told::Datagram(from, _) = &told
                && state.forgotten.contains(from)
            {
                continue;
            }
            match &told {
                Told::Frame(..) => state.stats.frames_in += 1,
                Told::Landed(_, body, _) => state.stats.bulk_in += body.len() as u64,
                Told::Connected(_) => state.stats.connections += 1,
                Told::Refused(..) => state.stats.refused += 1,
                _ => {}
            }
            drop(state);
            self.hand_over(told);
        }
    }

    fn hand_over(&self, told: Told) {
        match told {
            Told::Connected(peer) => self.handler.connected(&peer),
            Told::Frame(from, frame) => self.handler.frame(from, &frame),
            Told::Datagram(from, bytes) => self.handler.datagram(from, &bytes),
            Told::Disconnected(node, why) => self.handler.disconnected(node, &why),
            Told::Refused(addr, why) => self.handler.refused(addr, &why),
            Told::Landed(mut landing, body, done) => {
                if !body.is_empty() {
                    landing.write(0, &body);
                }
                landing.finish(Ok(()));
                done(Ok(()));
            }
            Told::Failed(landing, done, why) => {
                if let Some(landing) = landing {
                    landing.finish(Err(why.clone()));
                }
                if let Some(done) = done {
                    done(Err(why));
                }
            }
        }
    }

    /// Lands a body, if both its ends are here.
    fn land(&self, from: NodeId, transfer: u64) {
        let key = (from, transfer);
        let mut state = self.state.lock();
        if !state.landings.contains_key(&key) || !state.early.contains_key(&key) {
            return;
        }
        let landing = state.landings.remove(&key);
        let early = state.early.remove(&key);
        drop(state);
        if let (Some((len, landing)), Some((body, done))) = (landing, early) {
            self.tell(if body.len() as u64 == len {
                Told::Landed(landing, body, done)
            } else {
                let why = format!("a body of {} bytes where {len} are due", body.len());
                Told::Failed(Some(landing), Some(done), LinkError::Protocol(why))
            });
        }
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Inner>> {
        let state = self.state.lock();
        let known = state.peers.contains(&node) && !state.stopping;
        drop(state);
        self.hub
            .get(node)
            .filter(|peer| known && peer.state.lock().peers.contains(&self.node))
    }
}

impl Link for MemoryLink {
    fn node(&self) -> NodeId {
        self.inner.node
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.addr
    }

    fn connect(&self, addr: SocketAddr, expect: Option<NodeId>) {
        let own = &self.inner;
        let refused = |why: LinkError| own.tell(Told::Refused(addr, why));
        let Some(peer) = own.hub.at(addr) else {
            return refused(LinkError::Broken("nobody is there".to_owned()));
        };
        let found = peer.node;
        if let Some(expected) = expect.filter(|expected| *expected != found) {
            return refused(LinkError::WrongNode { expected, found });
        }
        if own.state.lock().forgotten.contains(&found) {
            return refused(LinkError::Forgotten(found));
        }
        if peer.state.lock().forgotten.contains(&own.node) {
            return refused(LinkError::Forgotten(own.node));
        }
        let both = |why: LinkError, theirs: LinkError| {
            refused(why);
            peer.tell(Told::Refused(own.addr, theirs));
        };
        if let Err(why) = own.hello.check(&peer.hello) {
            let theirs = peer
                .hello
                .check(&own.hello)
                .err()
                .unwrap_or_else(|| why.clone());
            return both(why, theirs);
        }
        if own.hello.registry != peer.hello.registry {
            let why = LinkError::Registry(own.registry.diff(&peer.registry));
            return both(why, LinkError::Registry(peer.registry.diff(&own.registry)));
        }
        // Connected once, however often it is asked for.
        let fresh = own.state.lock().peers.insert(found);
        peer.state.lock().peers.insert(own.node);
        if fresh {
            own.tell(Told::Connected(peer.described()));
            peer.tell(Told::Connected(own.described()));
        }
    }

    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        let (len, limit) = (frame.len(), MAX_FRAME);
        if len > limit {
            return Err(SendError::TooLarge { len, limit });
        }
        let peer = self.inner.peer(to).ok_or(SendError::Gone(to))?;
        let held = peer.state.lock().held;
        if held > 0 && held + len + OVERHEAD > LIMIT {
            return Err(SendError::Full {
                to,
                held,
                limit: LIMIT,
            });
        }
        self.inner.state.lock().stats.frames_out += 1;
        peer.tell(Told::Frame(self.inner.node, frame));
        Ok(())
    }

    fn datagram(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        let (len, limit) = (bytes.len(), MAX_DATAGRAM);
        if len > limit {
            return Err(SendError::TooLarge { len, limit });
        }
        let peer = self.inner.peer(to).ok_or(SendError::Gone(to))?;
        if peer.state.lock().held + len + OVERHEAD <= LIMIT {
            peer.tell(Told::Datagram(
                self.inner.node,
                Bytes::copy_from_slice(bytes),
            ));
        }
        Ok(())
    }

    fn send_bulk(&self, to: NodeId, transfer: u64, body: Bytes, done: Done) {
        let Some(peer) = self.inner.peer(to) else {
            return done(Err(LinkError::Broken(format!("{to} is not connected"))));
        };
        self.inner.state.lock().stats.bulk_out += body.len() as u64;
        let key = (self.inner.node, transfer);
        let twice = peer.state.lock().early.insert(key, (body, done));
        if let Some((_, done)) = twice {
            let why = "its number is used twice".to_owned();
            done(Err(LinkError::Transfer { transfer, why }));
        }
        peer.land(self.inner.node, transfer);
    }

    fn expect_bulk(&self, from: NodeId, transfer: u64, len: u64, landing: Box<dyn Landing>) {
        if self.inner.peer(from).is_none() {
            return landing.finish(Err(LinkError::Broken(format!("{from} is not connected"))));
        }
        let mut state = self.inner.state.lock();
        if state.landings.contains_key(&(from, transfer)) {
            drop(state);
            let why = "it is expected already".to_owned();
            return landing.finish(Err(LinkError::Transfer { transfer, why }));
        }
        state.landings.insert((from, transfer), (len, landing));
        drop(state);
        self.inner.land(from, transfer);
    }

    fn cancel_bulk(&self, from: NodeId, transfer: u64) {
        let taken = self.inner.state.lock().landings.remove(&(from, transfer));
        if let Some((_, landing)) = taken {
            let why = "it is not wanted any more".to_owned();
            landing.finish(Err(LinkError::Transfer { transfer, why }));
        }
    }

    fn forget(&self, node: NodeId) {
        let own = &self.inner;
        own.state.lock().forgotten.insert(node);
        if own.state.lock().peers.remove(&node) {
            own.lose(node, &LinkError::Forgotten(node));
            if let Some(peer) = own.hub.get(node)
                && peer.state.lock().peers.remove(&own.node)
            {
                peer.lose(own.node, &LinkError::Forgotten(node));
            }
        }
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.inner.peer(node).is_some()
    }

    fn is_near(&self, _: NodeId) -> bool {
        false
    }

    fn behind(&self) -> Duration {
        Duration::ZERO
    }

    fn stats(&self) -> Stats {
        let state = self.inner.state.lock();
        Stats {
            connected: state.peers.len(),
            ..state.stats
        }
    }

    fn stop(&self, _: Duration) {
        self.end(LinkError::Left);
    }

    fn retire(&self) {
        self.end(LinkError::Fenced);
    }
}

impl MemoryLink {
    /// Stops; peers hear this of it.
    fn end(&self, why: fn(NodeId) -> LinkError) {
        let own = &self.inner;
        let peers: Vec<NodeId> = own.state.lock().peers.drain().collect();
        own.hub.0.lock().links.remove(&own.node);
        for node in peers {
            if let Some(peer) = own.hub.get(node)
                && peer.state.lock().peers.remove(&own.node)
            {
                peer.lose(own.node, &why(own.node));
            }
            own.lose(node, &LinkError::Stopped);
        }
        own.state.lock().stopping = true;
        own.changed.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
