//! A bare stream of quinn's, tuned as the link is: packets of 64 KB without the kernel's segmentation, a fixed window of half
//! the socket's buffer, AES-128, one runtime of one thread on each side.

use std::any::Any;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime, TransportConfig};
use tokio::runtime::{Builder, Runtime};

use super::{Other, Peer, SMALL, announce, keys};

const BUFFER: usize = 8 << 20;
const PACKET: u16 = 65_507;
const WINDOW: u32 = 64 << 20;

/// A congestion window that stays as it is.
#[derive(Clone)]
struct Fixed(u64);

impl Controller for Fixed {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        self.0
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.0
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl ControllerFactory for Fixed {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new((*self).clone())
    }
}

fn transport(buffer: usize) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .initial_mtu(PACKET)
        .min_mtu(16_000)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .stream_receive_window(WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(WINDOW.into())
        .max_idle_timeout(None)
        .congestion_controller_factory(Arc::new(Fixed(buffer as u64 / 2)));
    Arc::new(config)
}

/// A socket with large buffers, and what the kernel holds.
fn socket() -> (UdpSocket, usize) {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a port");
    socket.set_nonblocking(true).expect("a socket takes it");
    // Linux doubles what was asked for, to count its own headers.
    let buffer = socket.recv_buffer_size().expect("a size") / 2;
    (socket.into(), buffer)
}

fn endpoint(socket: UdpSocket, server: Option<quinn::ServerConfig>) -> Endpoint {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(PACKET).expect("a size");
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).expect("an endpoint")
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

pub fn serve() {
    let (tls, certificate) = keys::server();
    let crypto = QuicServerConfig::try_from(tls).expect("an initial suite");
    let (socket, buffer) = socket();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(buffer));
    let addr = socket.local_addr().expect("an address");
    runtime().block_on(async {
        let endpoint = endpoint(socket, Some(config));
        announce(addr, &certificate);
        let incoming = endpoint.accept().await.expect("a caller");
        let connection = incoming.await.expect("a connection");
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(answer(send, recv));
        }
    });
}

async fn answer(mut send: SendStream, mut recv: RecvStream) {
    let mut body = Bytes::new();
    let mut request = [0; 8];
    while recv.read_exact(&mut request).await.is_ok() {
        let len = u64::from_le_bytes(request) as usize;
        if len == 0 {
            let mut small = [0; SMALL];
            recv.read_exact(&mut small).await.expect("a message");
            send.write_all(&small).await.expect("a message");
            continue;
        }
        if body.len() < len {
            body = vec![7; len].into();
        }
        send.write_chunk(body.slice(..len)).await.expect("bytes");
    }
}

/// The caller's side.
pub struct Quic {
    other: Other,
    runtime: Runtime,
    send: SendStream,
    recv: RecvStream,
    _endpoint: Endpoint,
}

impl Quic {
    pub fn connect(other: Other) -> Quic {
        let runtime = runtime();
        let tls = keys::client(&other.certificate);
        let crypto = QuicClientConfig::try_from(tls).expect("an initial suite");
        let (socket, buffer) = socket();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(buffer));
        let (endpoint, send, recv) = runtime.block_on(async {
            let endpoint = endpoint(socket, None);
            let calling = endpoint.connect_with(config, other.addr, keys::NAME);
            let connection = calling.expect("an address").await.expect("a connection");
            let (send, recv) = connection.open_bi().await.expect("a stream");
            (endpoint, send, recv)
        });
        Quic {
            other,
            runtime,
            send,
            recv,
            _endpoint: endpoint,
        }
    }
}

impl Peer for Quic {
    fn pull(&mut self, into: &mut [u8]) {
        let (send, recv) = (&mut self.send, &mut self.recv);
        self.runtime.block_on(async {
            let request = (into.len() as u64).to_le_bytes();
            send.write_all(&request).await.expect("a request");
            let mut at = 0;
            while at < into.len() {
                let chunk = recv.read_chunk(usize::MAX, true).await;
                let bytes = chunk.expect("bytes").expect("more of them").bytes;
                into[at..at + bytes.len()].copy_from_slice(&bytes);
                at += bytes.len();
            }
        });
    }

    fn ping(&mut self) {
        let (send, recv) = (&mut self.send, &mut self.recv);
        self.runtime.block_on(async {
            let mut message = [0; 8 + SMALL];
            send.write_all(&message).await.expect("a message");
            recv.read_exact(&mut message[8..]).await.expect("a message");
        });
    }

    fn pid(&self) -> u32 {
        self.other.child.id()
    }
}
