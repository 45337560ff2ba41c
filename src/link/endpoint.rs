//! One UDP port, and the thread that serves it.
//!
//! Everything on the network happens on one thread with a tokio runtime of its own, which is the fastest there is for
//! small frames: no other thread is woken between a packet and its answer. Other threads put things down under a peer's lock
//! and wake it.
//!
//! Invariant: no call here waits for the network, but `stop` up to its deadline. Left out: what happens on the thread, which `dial`,
//! `control` and `bulk` say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quinn::{TokioRuntime, VarInt};
use tokio::sync::Notify;

use crate::base::NodeId;
use crate::link::bounds::Handshakes;
use crate::link::bulk::{self, Report, Transfer};
use crate::link::forgotten::Forgotten;
use crate::link::greet::code;
use crate::link::lag::Lag;
use crate::link::near::{self, Door};
use crate::link::shared::{Counts, Shared};
use crate::link::tls::Answering;
use crate::link::tune::{self, Times, Transports};
use crate::link::{
    Bounds, Ca, Done, Handler, Hello, Identity, Landing, Link, LinkError, MAX_BULK, MAX_DATAGRAM,
    MAX_FRAME, Registry, SendError, Stats, dial,
};

/// How long peers may take to hear that the node stops, after the deadline.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How an endpoint is to be.
pub struct Settings {
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: Identity,
    /// The cluster's authority, if this node is to let others in.
    pub ca: Option<Arc<Ca>>,
    /// What this node says about itself.
    pub hello: Hello,
    /// The functions whose hash is in the hello.
    pub registry: Registry,
    /// Bytes that may wait for one peer to acknowledge them.
    pub max_unacked: usize,
    /// How much of anything else there may be at one time.
    pub bounds: Bounds,
    /// How long a body that came early waits to be expected.
    pub early: Duration,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a peer may be silent before its connection counts as broken.
    pub idle: Duration,
    /// How long the link's thread looks for packets after the last frame before it sleeps. It burns a CPU meanwhile, and
    /// saves the time that waking takes.
    pub spin: Duration,
    /// After how long without traffic a sign of life is sent.
    pub keep_alive: Duration,
    /// Whether frames go over a Unix socket to nodes of the same machine and user that want it, too. A node that cannot listen
    /// on one goes without.
    pub near: bool,
}

impl Settings {
    /// The usual settings.
    pub fn new(listen: SocketAddr, identity: Identity, registry: Registry) -> Settings {
        let hello = Hello::new(identity.cluster(), identity.node, &registry);
        Settings {
            listen,
            identity,
            ca: None,
            hello,
            registry,
            max_unacked: 64 << 20,
            bounds: Bounds::default(),
            early: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            spin: Duration::ZERO,
            near: false,
        }
    }
}

/// A node's place on the network.
pub struct Endpoint {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
}

impl Endpoint {
    /// Listens, and serves on a thread of its own from now on.
    pub fn start(settings: Settings, handler: Arc<dyn Handler>) -> Result<Endpoint, LinkError> {
        let io = |what: &str, why: std::io::Error| LinkError::Io {
            what: what.to_owned(),
            why: why.to_string(),
        };
        let (socket, buffer) = tune::bind(settings.listen)?;
        let addr = socket
            .local_addr()
            .map_err(|why| io("look at the socket", why))?;
        let lag = Arc::new(Lag::new());
        let (rests, works) = (lag.clone(), lag.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .on_thread_park(move || rests.rests())
            .on_thread_unpark(move || works.works())
            .enable_all()
            .build()
            .map_err(|why| io("start a runtime", why))?;
        let forgotten = Arc::new(Forgotten::default());
        let answering = Answering::new(&settings.identity, &forgotten)?;
        let mut server = quinn::ServerConfig::with_crypto(answering.newcomers.clone());
        server
            .max_incoming(settings.bounds.handshakes)
            .incoming_buffer_size(256 << 10)
            .incoming_buffer_size_total(16 << 20);
        let quic = {
            let _inside = runtime.enter();
            quinn::Endpoint::new(
                tune::endpoint_config(),
                Some(server),
                socket,
                Arc::new(TokioRuntime),
            )
            .map_err(|why| io("listen", why))?
        };
        let times = Times {
            idle: settings.idle,
            keep_alive: settings.keep_alive,
        };
        let mut hello = settings.hello;
        hello.node = settings.identity.node;
        hello.reach = hello
            .reach
            .or(Some(addr).filter(|addr| !addr.ip().is_unspecified()));
        hello.app.truncate(crate::link::hello::MAX_APP);
        let shared = Arc::new(Shared {
            node: settings.identity.node,
            identity: settings.identity,
            hello,
            registry: settings.registry,
            door: settings
                .near
                .then(Door::open)
                .and_then(Result::ok)
                .map(Arc::new),
            handshake: settings.handshake,
            max_unacked: settings.max_unacked,
            bounds: settings.bounds,
            early: settings.early,
            ca: Mutex::new(settings.ca),
            answering,
            transports: Transports::new(times, buffer),
            forgotten,
            quic,
            handler,
            peers: RwLock::default(),
            counts: Counts::default(),
            stopping: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            stopped: Notify::new(),
            handshakes: Arc::<Handshakes>::default(),
            calls: AtomicUsize::new(0),
            serial: AtomicU64::new(1),
            runtime: runtime.handle().clone(),
            lag,
            sending: AtomicUsize::new(0),
            addr,
            grace: Mutex::new(Duration::ZERO),
            spin: settings.spin,
            started: Instant::now(),
            busy_at: AtomicU64::new(0),
            busy: Notify::new(),
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("mobula-link".to_owned())
            .spawn(move || serve(runtime, of_thread))
            .map_err(|why| io("start a thread", why))?;
        Ok(Endpoint {
            shared,
            thread_id: thread.thread().id(),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Breaks the socket to a node of this machine, as a fault would.
    #[cfg(test)]
    pub(crate) fn cut_near(&self, node: NodeId, how: rustix::net::Shutdown) {
        if let Some(peer) = self.shared.peer(node)
            && let Some(active) = &peer.state.lock().active
        {
            active.ways.cut(how);
        }
    }

    /// Whether no body is on its way out.
    #[cfg(test)]
    pub(crate) fn all_sent(&self) -> bool {
        self.shared.sending.load(Acquire) == 0
    }

    /// Handshakes that others have begun and not ended.
    #[cfg(test)]
    pub(crate) fn handshakes(&self) -> usize {
        self.shared.handshakes.count()
    }

    /// Lets others in from now on, with the cluster's authority; or no more.
    pub fn hold_ca(&self, ca: Option<Arc<Ca>>) {
        *self.shared.ca.lock() = ca;
    }
}

fn serve(runtime: tokio::runtime::Runtime, shared: Arc<Shared>) {
    runtime.block_on(async {
        if !shared.spin.is_zero() {
            let shared = shared.clone();
            tokio::spawn(async move { shared.spin().await });
        }
        tokio::spawn(near::listen(shared.clone()));
        tokio::select! {
            () = dial::answer_calls(&shared) => {}
            () = shared.stopped.notified() => {}
        }
        let until = Instant::now() + *shared.grace.lock();
        while Instant::now() < until && !all_clear(&shared) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (why, said): (u32, &[u8]) = match shared.fenced.load(Acquire) {
            true => (code::FENCED, b"the node stops: it was declared dead"),
            false => (code::STOPPED, b"the node stops"),
        };
        shared.quic.close(VarInt::from_u32(why), said);
        let nodes: Vec<NodeId> = shared.peers.read().keys().copied().collect();
        for node in nodes {
            shared.give_up(node, &LinkError::Stopped, why);
        }
        // Peers hear of it at once, rather than by silence.
        let _ = tokio::time::timeout(LAST_WORDS, shared.quic.wait_idle()).await;
    });
    // Tasks that still wait are dropped here, and report that.
    runtime.shutdown_background();
}

fn all_clear(shared: &Shared) -> bool {
    let peers = shared.peers.read();
    peers.values().all(|peer| {
        let state = peer.state.lock();
        state.session.is_clear() && !state.session.owes_ack()
    }) && shared.sending.load(Acquire) == 0
}

impl Link for Endpoint {
    fn node(&self) -> NodeId {
        self.shared.node
    }

    fn local_addr(&self) -> SocketAddr {
        self.shared.addr
    }

    fn connect(&self, addr: SocketAddr, expect: Option<NodeId>) {
        let shared = self.shared.clone();
        let limit = shared.bounds.calls;
        if shared.calls.fetch_add(1, AcqRel) >= limit {
            shared.calls.fetch_sub(1, AcqRel);
            let what = "call";
            let why = LinkError::NoRoom { what, limit };
            shared.handler.refused(addr, &why);
            return;
        }
        self.shared.spawn(async move {
            dial::call(&shared, addr, expect).await;
            shared.calls.fetch_sub(1, AcqRel);
        });
    }

    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        let len = frame.len();
        if len > MAX_FRAME {
            let limit = MAX_FRAME;
            return Err(SendError::TooLarge { len, limit });
        }
        let peer = self.shared.peer(to).ok_or(SendError::Gone(to))?;
        let mut state = peer.state.lock();
        // Epoch 0: a handshake began, and nobody knows yet how it ends.
        if state.gone || state.epoch == 0 || self.shared.is_stopping() {
            return Err(SendError::Gone(to));
        }
        state
            .session
            .push(frame, len)
            .map_err(|full| SendError::Full {
                to,
                held: full.held,
                limit: full.limit,
            })?;
        drop(state);
        peer.wake.notify_one();
        self.shared.spin_on();
        Ok(())
    }

    fn datagram(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        let (len, limit) = (bytes.len(), MAX_DATAGRAM);
        if len > limit {
            return Err(SendError::TooLarge { len, limit });
        }
        let connection = self.shared.peer(to).and_then(|peer| peer.connection());
        let connection = connection.ok_or(SendError::Gone(to))?;
        connection
            .send_datagram(Bytes::copy_from_slice(bytes))
            .map_err(|_| SendError::Gone(to))
    }

    fn send_bulk(&self, to: NodeId, transfer: u64, body: Bytes, done: Done) {
        let report = Report::new(done);
        if body.len() as u64 > MAX_BULK {
            let why = format!("{} bytes, of at most {MAX_BULK}", body.len());
            return report.done(Err(LinkError::Transfer { transfer, why }));
        }
        let Some(connection) = self.shared.peer(to).and_then(|peer| peer.connection()) else {
            return report.done(Err(LinkError::Broken(format!("{to} is not connected"))));
        };
        let limit = self.shared.bounds.bodies;
        if self.shared.sending.fetch_add(1, AcqRel) >= limit {
            self.shared.sending.fetch_sub(1, AcqRel);
            let what = "body on its way out";
            return report.done(Err(LinkError::NoRoom { what, limit }));
        }
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            bulk::send(shared.clone(), connection, transfer, body, report).await;
            shared.sending.fetch_sub(1, AcqRel);
        });
    }

    fn expect_bulk(&self, from: NodeId, transfer: u64, len: u64, landing: Box<dyn Landing>) {
        let expected = Arc::new(Transfer::new(transfer, len, landing));
        let Some(peer) = self.shared.peer(from) else {
            return expected.finish(Err(LinkError::Broken(format!("{from} is not connected"))));
        };
        let mut state = peer.state.lock();
        let refused = if state.gone || state.active.is_none() {
            Some(LinkError::Broken(format!("{from} is not connected")))
        } else if len > MAX_BULK || state.landings.contains_key(&transfer) {
            let why = format!("it is expected already, or longer than {MAX_BULK} bytes");
            Some(LinkError::Transfer { transfer, why })
        } else if state.landings.len() >= self.shared.bounds.bodies {
            Some(LinkError::NoRoom {
                what: "body on its way in",
                limit: self.shared.bounds.bodies,
            })
        } else {
            state.landings.insert(transfer, expected.clone());
            None
        };
        drop(state);
        match refused {
            Some(why) => expected.finish(Err(why)),
            None => peer.landed.notify_waiters(),
        }
    }

    fn cancel_bulk(&self, from: NodeId, transfer: u64) {
        let taken = self
            .shared
            .peer(from)
            .and_then(|peer| peer.state.lock().landings.remove(&transfer));
        if let Some(expected) = taken {
            let why = "it is not wanted any more".to_owned();
            expected.finish(Err(LinkError::Transfer { transfer, why }));
        }
    }

    fn forget(&self, node: NodeId) {
        self.shared.forgotten.add(node);
        self.shared
            .give_up(node, &LinkError::Forgotten(node), code::FORGOTTEN);
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.shared
            .peer(node)
            .is_some_and(|peer| peer.state.lock().active.is_some())
    }

    fn is_near(&self, node: NodeId) -> bool {
        let peer = self.shared.peer(node);
        peer.is_some_and(|peer| peer.state.lock().is_near())
    }

    fn behind(&self) -> Duration {
        self.shared.lag.behind()
    }

    fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn stop(&self, deadline: Duration) {
        *self.shared.grace.lock() = deadline;
        self.shared
            .stopping
            .store(true, std::sync::atomic::Ordering::Release);
        self.shared.stopped.notify_one();
        if std::thread::current().id() != self.thread_id
            && let Some(thread) = self.thread.lock().take()
        {
            let _ = thread.join();
        }
    }

    fn retire(&self) {
        self.shared.fenced.store(true, Release);
        self.stop(Duration::ZERO);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
