//! Sizes, windows and sockets.
//!
//! What was measured decides here. On one machine packets of 64 KB carry three times as much as those of an Ethernet, and a
//! fixed window that fits the receive buffer beats every congestion controller; but such packets must not be
//! segmented by the kernel, which drops them silently. On a network the packets are an Ethernet's, segmented by the kernel,
//! under the usual controller.
//!
//! Invariant: every window is bounded. The connection's window is larger than all bulk streams' together, so that bulk that
//! waits never holds up frames. Left out: jumbo frames, which measured slower.

use std::any::Any;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::link::LinkError;

/// What the kernel is asked to hold for us.
const SOCKET_BUFFER: usize = 8 << 20;
/// The largest packet: what a UDP datagram over IPv4 can hold.
const BIG_PACKET: u16 = 65_507;
/// To this size quinn falls back when many packets are lost, and pads those of a handshake, whose lengths have 14 bits.
const LEAST_BIG_PACKET: u16 = 16_000;
/// What an Ethernet carries, beside the headers of IPv6 and UDP.
const PLAIN_PACKET: u16 = 1_452;
/// What one stream may have under way.
const STREAM_WINDOW: u32 = 8 << 20;
/// Bulk streams of one peer at a time.
pub(crate) const BULK_STREAMS: u32 = 32;
/// What is sent before the network is known.
const FIRST_WINDOW: u64 = 256 << 10;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub idle: Duration,
    pub keep_alive: Duration,
}

/// A window that stays as it is.
#[derive(Clone, Debug)]
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

/// How packets go to peers on this machine, and to others.
pub(crate) struct Transports {
    near: Arc<TransportConfig>,
    far: Arc<TransportConfig>,
}

impl Transports {
    /// For a socket whose kernel holds this many bytes.
    pub fn new(times: Times, buffer: usize) -> Transports {
        let mut near = common(times);
        near.initial_mtu(BIG_PACKET)
            .min_mtu(LEAST_BIG_PACKET)
            .mtu_discovery_config(None)
            .enable_segmentation_offload(false)
            .congestion_controller_factory(Arc::new(Fixed(near_window(buffer))));
        let mut far = common(times);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(PLAIN_PACKET);
        let mut cubic = CubicConfig::default();
        cubic.initial_window(FIRST_WINDOW);
        far.mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(cubic));
        Transports {
            near: Arc::new(near),
            far: Arc::new(far),
        }
    }

    /// For this peer.
    pub fn to(&self, peer: SocketAddr) -> Arc<TransportConfig> {
        match is_near(peer.ip()) {
            true => self.near.clone(),
            false => self.far.clone(),
        }
    }
}

/// Half of what the kernel holds: it counts its own headers too, and acknowledgements come the same way.
fn near_window(buffer: usize) -> u64 {
    (buffer as u64 / 2).clamp(u64::from(BIG_PACKET) * 3, 4 << 20)
}

fn is_near(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn common(times: Times) -> TransportConfig {
    let mut config = TransportConfig::default();
    let all = u64::from(STREAM_WINDOW) * (u64::from(BULK_STREAMS) + 2);
    config
        .max_idle_timeout(IdleTimeout::try_from(times.idle).ok())
        .keep_alive_interval(Some(times.keep_alive))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(BULK_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u64(all).expect("far below 2^62"))
        .send_window(u64::from(STREAM_WINDOW) * 4)
        .initial_rtt(Duration::from_millis(20))
        .datagram_receive_buffer_size(Some(1 << 20))
        .datagram_send_buffer_size(1 << 20);
    config
}

/// What concerns the port as a whole.
pub(crate) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(BIG_PACKET)
        .expect("above the least that is allowed");
    config
}

/// A socket with large buffers, and what the kernel will hold of what comes.
pub(crate) fn bind(listen: SocketAddr) -> Result<(UdpSocket, usize), LinkError> {
    let failed = |why: std::io::Error| LinkError::Io {
        what: format!("listen on UDP {listen}"),
        why: why.to_string(),
    };
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )
    .map_err(failed)?;
    // The kernel may grant less; what it grants decides the window.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&listen.into()).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    // Linux doubles what was asked for, to count its own headers.
    let buffer = socket.recv_buffer_size().map_err(failed)? / 2;
    Ok((socket.into(), buffer))
}
