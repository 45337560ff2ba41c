//! What the tasks and the callers of an endpoint share.
//!
//! Invariant: a peer is in the table exactly as long as something may go to it or come from it; whoever takes it out also
//! drops what was kept for it. Left out: the tasks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use quinn::VarInt;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::base::NodeId;
use crate::core::session::Session;
use crate::link::bounds::{Bounds, Handshakes};
use crate::link::forgotten::Forgotten;
use crate::link::lag::Lag;
use crate::link::near::Door;
use crate::link::peer::PeerLink;
use crate::link::tls::Answering;
use crate::link::tune::Transports;
use crate::link::{Ca, Handler, Hello, Identity, LinkError, Registry, Stats};

/// Counts that any thread adds to.
#[derive(Default)]
pub(crate) struct Counts {
    pub frames_out: AtomicU64,
    pub frames_in: AtomicU64,
    pub frames_near: AtomicU64,
    pub frames_resent: AtomicU64,
    pub bulk_out: AtomicU64,
    pub bulk_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub bytes_in: AtomicU64,
    pub lost: AtomicU64,
    pub connections: AtomicU64,
    pub refused: AtomicU64,
    pub unanswered: AtomicU64,
    pub unexpected: AtomicU64,
}

/// All other tasks together did nothing if a spinning one's turn comes again so soon.
const IDLE_TURN: Duration = Duration::from_micros(20);

/// What the tasks of an endpoint share.
pub(crate) struct Shared {
    pub node: NodeId,
    pub identity: Identity,
    pub hello: Hello,
    pub registry: Registry,
    /// Where nodes of this machine may come to.
    pub door: Option<Arc<Door>>,
    pub handshake: Duration,
    pub max_unacked: usize,
    pub bounds: Bounds,
    pub early: Duration,
    pub ca: Mutex<Option<Arc<Ca>>>,
    pub answering: Answering,
    pub transports: Transports,
    pub forgotten: Arc<Forgotten>,
    pub quic: quinn::Endpoint,
    pub handler: Arc<dyn Handler>,
    pub peers: RwLock<HashMap<NodeId, Arc<PeerLink>>>,
    pub counts: Counts,
    pub stopping: AtomicBool,
    /// Whether it stops since others hold it for dead.
    pub fenced: AtomicBool,
    pub stopped: Notify,
    pub handshakes: Arc<Handshakes>,
    pub calls: AtomicUsize,
    pub serial: AtomicU64,
    pub runtime: Handle,
    pub lag: Arc<Lag>,
    pub sending: AtomicUsize,
    pub addr: SocketAddr,
    pub grace: Mutex<Duration>,
    pub spin: Duration,
    pub started: Instant,
    /// When a frame last came or went, in microseconds since the start.
    pub busy_at: AtomicU64,
    pub busy: Notify,
}

impl Shared {
    pub fn peer(&self, node: NodeId) -> Option<Arc<PeerLink>> {
        self.peers.read().get(&node).cloned()
    }

    /// The peer, known from now on if it was not.
    pub fn peer_or_new(&self, node: NodeId) -> Result<Arc<PeerLink>, LinkError> {
        if node == self.node {
            return Err(LinkError::Denied(
                "this is the address of this very node".to_owned(),
            ));
        }
        let mut peers = self.peers.write();
        if self.forgotten.has(node) {
            return Err(LinkError::Forgotten(node));
        }
        if let Some(peer) = peers.get(&node) {
            return Ok(peer.clone());
        }
        let limit = self.bounds.peers;
        if peers.len() >= limit {
            let what = "peer";
            return Err(LinkError::NoRoom { what, limit });
        }
        let peer = Arc::new(PeerLink::new(node, self.max_unacked));
        peers.insert(node, peer.clone());
        Ok(peer)
    }

    /// A handshake with it came to nothing: whoever was never met is not kept.
    pub fn not_met(&self, node: NodeId) {
        let mut peers = self.peers.write();
        // Others that have it took it from the table, which is locked now.
        let unmet = |peer: &Arc<PeerLink>| {
            let state = peer.state.lock();
            Arc::strong_count(peer) == 1 && state.epoch == 0 && state.active.is_none()
        };
        if peers.get(&node).is_some_and(unmet) {
            peers.remove(&node);
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// A frame came or goes: an answer may be near.
    pub fn spin_on(&self) {
        if !self.spin.is_zero() {
            let now = self.started.elapsed().as_micros() as u64;
            self.busy_at.store(now, Relaxed);
            self.busy.notify_one();
        }
    }

    /// Keeps the thread awake while frames come and go: a task that is always ready makes it look at the socket instead of
    /// sleeping on it.
    pub async fn spin(&self) {
        loop {
            let busy = Duration::from_micros(self.busy_at.load(Relaxed));
            if self.started.elapsed().saturating_sub(busy) < self.spin {
                // Others of this machine may need the CPU to make the next frame.
                std::thread::yield_now();
                let before = Instant::now();
                tokio::task::yield_now().await;
                if before.elapsed() < IDLE_TURN {
                    self.lag.works();
                }
            } else {
                self.busy.notified().await;
            }
        }
    }

    /// Runs a task on the link's thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Drops all that is kept for a peer; its bodies fail for this reason.
    pub fn give_up(&self, node: NodeId, why: &LinkError, code: u32) {
        let Some(peer) = self.peers.write().remove(&node) else {
            return;
        };
        let landings = {
            let mut state = peer.state.lock();
            state.gone = true;
            self.counts
                .frames_resent
                .fetch_add(state.session.resent(), Relaxed);
            state.session = Session::new(0);
            if let Some(active) = state.active.take() {
                self.count_traffic(&active.connection);
                // Closed before anybody can notice that it is not in use any more, and closes it for that reason.
                let reason = why.to_string();
                active
                    .connection
                    .close(VarInt::from_u32(code), reason.as_bytes());
                state.fault = Some((active.connection.stable_id(), why.clone()));
            }
            std::mem::take(&mut state.landings)
        };
        peer.wake.notify_one();
        for transfer in landings.into_values() {
            transfer.finish(Err(why.clone()));
        }
    }

    /// Adds the traffic of a connection that is used no more.
    pub fn count_traffic(&self, connection: &quinn::Connection) {
        let stats = connection.stats();
        self.counts.bytes_out.fetch_add(stats.udp_tx.bytes, Relaxed);
        self.counts.bytes_in.fetch_add(stats.udp_rx.bytes, Relaxed);
        self.counts.lost.fetch_add(stats.path.lost_packets, Relaxed);
    }

    /// Everything so far.
    pub fn stats(&self) -> Stats {
        let counts = &self.counts;
        let mut stats = Stats {
            bytes_out: counts.bytes_out.load(Relaxed),
            bytes_in: counts.bytes_in.load(Relaxed),
            frames_out: counts.frames_out.load(Relaxed),
            frames_in: counts.frames_in.load(Relaxed),
            frames_near: counts.frames_near.load(Relaxed),
            frames_resent: counts.frames_resent.load(Relaxed),
            packets_lost: counts.lost.load(Relaxed),
            bulk_out: counts.bulk_out.load(Relaxed),
            bulk_in: counts.bulk_in.load(Relaxed),
            connections: counts.connections.load(Relaxed),
            refused: counts.refused.load(Relaxed),
            unanswered: counts.unanswered.load(Relaxed),
            unexpected: counts.unexpected.load(Relaxed),
            connected: 0,
            near: 0,
        };
        for peer in self.peers.read().values() {
            let state = peer.state.lock();
            stats.frames_resent += state.session.resent();
            stats.near += usize::from(state.is_near());
            if let Some(active) = &state.active {
                let now = active.connection.stats();
                stats.connected += 1;
                stats.bytes_out += now.udp_tx.bytes;
                stats.bytes_in += now.udp_rx.bytes;
                stats.packets_lost += now.path.lost_packets;
            }
        }
        stats
    }
}
