//! Plain TCP, and TLS 1.3 over it: blocking sockets, one thread on each side.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::{Other, Peer, SMALL, announce, keys};

/// What is written at a time.
const PIECE: usize = 1 << 20;

fn listen(certificate: &[u8]) -> TcpStream {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    announce(listener.local_addr().expect("an address"), certificate);
    let (stream, _) = listener.accept().expect("a caller");
    stream.set_nodelay(true).expect("a socket takes it");
    stream
}

fn call(other: &Other) -> TcpStream {
    let stream = TcpStream::connect(other.addr).expect("the peer listens");
    stream.set_nodelay(true).expect("a socket takes it");
    stream
}

/// Does what is asked until the caller is gone.
fn answer(mut stream: impl Read + Write) {
    let piece = vec![7; PIECE];
    let mut request = [0; 8];
    while stream.read_exact(&mut request).is_ok() {
        let mut left = u64::from_le_bytes(request) as usize;
        if left == 0 {
            let mut small = [0; SMALL];
            stream.read_exact(&mut small).expect("a message");
            stream.write_all(&small).expect("a message");
        }
        while left > 0 {
            let part = left.min(PIECE);
            stream.write_all(&piece[..part]).expect("bytes");
            left -= part;
        }
        stream.flush().expect("bytes");
    }
}

pub fn serve_tcp() {
    answer(listen(&[]));
}

pub fn serve_tls() {
    let (config, certificate) = keys::server();
    let stream = listen(&certificate);
    let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
    answer(StreamOwned::new(connection, stream));
}

/// A caller's side.
struct Caller<S> {
    other: Other,
    stream: S,
}

impl<S: Read + Write> Peer for Caller<S> {
    fn pull(&mut self, into: &mut [u8]) {
        let request = (into.len() as u64).to_le_bytes();
        self.stream.write_all(&request).expect("a request");
        self.stream.read_exact(into).expect("bytes");
    }

    fn ping(&mut self) {
        let mut message = [0; 8 + SMALL];
        self.stream.write_all(&message).expect("a message");
        self.stream
            .read_exact(&mut message[8..])
            .expect("a message");
    }

    fn pid(&self) -> u32 {
        self.other.child.id()
    }
}

/// Plain TCP.
pub struct Tcp;

impl Tcp {
    pub fn connect(other: Other) -> impl Peer {
        let stream = call(&other);
        Caller { other, stream }
    }
}

/// TLS 1.3 over TCP.
pub struct Tls;

impl Tls {
    pub fn connect(other: Other) -> impl Peer {
        let config = keys::client(&other.certificate);
        let name = keys::NAME.try_into().expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let stream = StreamOwned::new(connection, call(&other));
        Caller { other, stream }
    }
}
