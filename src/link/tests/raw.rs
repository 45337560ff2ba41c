//! Peers that do not behave, and a network between that does as it is told.
//!
//! Invariant: everything here is bounded by the test's own deadlines. Left out: what is expected of the other side.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use quinn::{Connection, ConnectionError, SendStream, TokioRuntime};
use tokio::runtime::Runtime;

use super::*;
use crate::link::forgotten::Forgotten;
use crate::link::greet::{Greeting, write_message};
use crate::link::tune::{self, Times, Transports};

/// A client that says what the test wants.
pub(crate) struct Raw {
    pub runtime: Runtime,
    pub quic: quinn::Endpoint,
}

impl Raw {
    pub fn new() -> Raw {
        Raw::at(loopback())
    }

    /// One whose packets come from this address.
    pub fn at(addr: SocketAddr) -> Raw {
        // Its packets go and come also while the test does something else.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (socket, _) = tune::bind(addr).unwrap();
        let inside = runtime.enter();
        let quic = quinn::Endpoint::new(
            tune::endpoint_config(),
            None,
            socket,
            Arc::new(TokioRuntime),
        );
        drop(inside);
        let quic = quic.unwrap();
        Raw { runtime, quic }
    }

    pub fn connect(
        &self,
        config: quinn::ClientConfig,
        addr: SocketAddr,
    ) -> Result<Connection, ConnectionError> {
        self.runtime.block_on(async {
            self.quic
                .connect_with(config, addr, "raw.node.mobula")
                .unwrap()
                .await
        })
    }

    /// A connection with this identity, as a member makes it.
    pub fn member(&self, identity: &Identity, addr: SocketAddr) -> Connection {
        self.connect(member_config(identity, addr), addr).unwrap()
    }

    /// Waits until the other side closes the connection, and says how.
    pub fn closed(&self, connection: &Connection) -> ConnectionError {
        let closed = async { tokio::time::timeout(PATIENCE, connection.closed()).await };
        self.runtime
            .block_on(closed)
            .expect("the other side closes it in time")
    }
}

pub(crate) fn member_config(identity: &Identity, addr: SocketAddr) -> quinn::ClientConfig {
    let (mut config, _) = tls::calling(identity, None, &Arc::new(Forgotten::default())).unwrap();
    let times = Times {
        idle: PATIENCE,
        keep_alive: Duration::from_secs(1),
    };
    config.transport_config(Transports::new(times, 1 << 20).to(addr));
    config
}

/// A greeting that fits.
pub(crate) fn greeting(ca: &Ca, number: u64) -> Greeting {
    Greeting {
        hello: Hello::new(ca.cluster(), node(number), &Registry::default()),
        epoch: 1,
        attempt: 1,
        received: 0,
    }
}

/// Greets, then says this on the control stream, and never reads.
pub(crate) async fn greet_and_say(connection: &Connection, greeting: &Greeting, bytes: &[u8]) {
    let mut send = greet(connection, greeting).await;
    // The other side may have had enough before the end.
    let _ = send.write_all(bytes).await;
    std::mem::forget(send);
}

/// Greets, and never reads what comes after the answer.
pub(crate) async fn greet(connection: &Connection, greeting: &Greeting) -> SendStream {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    write_message(&mut send, &greeting.encode()).await.unwrap();
    let theirs = crate::link::greet::read_message(&mut recv, 1 << 20, "a greeting")
        .await
        .unwrap();
    Greeting::decode(&theirs).unwrap();
    std::mem::forget(recv);
    send
}

/// A member that anybody may call, and that says nothing. It ends with its runtime.
pub(crate) fn silent(identity: &Identity) -> (Runtime, SocketAddr) {
    let raw = Raw::new();
    let answering = tls::Answering::new(identity, &Arc::new(Forgotten::default())).unwrap();
    let (crypto, _) = answering.members().unwrap();
    let config = quinn::ServerConfig::with_crypto(crypto);
    raw.quic.set_server_config(Some(config));
    let addr = raw.quic.local_addr().unwrap();
    let quic = raw.quic;
    raw.runtime.spawn(async move {
        let mut held = Vec::new();
        while let Some(incoming) = quic.accept().await {
            held.push(incoming.await);
        }
    });
    (raw.runtime, addr)
}

/// Carries packets between whoever talks to it and one address.
pub(crate) struct Wire {
    pub addr: SocketAddr,
    cut: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    /// What went towards the address.
    pub seen: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub fn to(target: SocketAddr) -> Wire {
        let socket = UdpSocket::bind(loopback()).unwrap();
        let addr = socket.local_addr().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let (cut, ended) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (is_cut, has_ended, sees) = (cut.clone(), ended.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let mut caller = None;
            let mut packet = vec![0; 1 << 16];
            while !has_ended.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                let to = if from == target {
                    caller
                } else {
                    caller = Some(from);
                    sees.lock().push(packet[..len].to_vec());
                    Some(target)
                };
                if let Some(to) = to.filter(|_| !is_cut.load(Ordering::Relaxed)) {
                    let _ = socket.send_to(&packet[..len], to);
                }
            }
        });
        Wire {
            addr,
            cut,
            ended,
            seen,
            thread: Some(thread),
        }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}
