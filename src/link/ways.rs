//! The socket beside one connection, and which of the two the frames take.
//!
//! Invariant: reader and writer go by the same books, and whichever of them finds the socket broken tells the other; bytes that
//! were read before that are handed over whole frames only, and what was not is sent again. Left out: the books themselves
//! (`core::carrier`), and how the socket came to be (`near`).

use std::io::{ErrorKind, IoSlice};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::control::lied;
use crate::core::carrier::{Carrier, Misplaced, Turn, Way};
use crate::link::LinkError;
use crate::link::codec::{Reader, Writer};
use crate::link::near::Offer;
use crate::link::peer::PeerLink;

/// What is read at once.
const PIECE: usize = 128 << 10;
/// Parts that are written at once.
const PARTS: usize = 16;

/// A word about the socket is at most this long.
pub(crate) const MAX_WORD: usize = 256;

/// What is said about the socket, on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Offer(Offer),
    Move,
    /// With the number up to which frames have come.
    Back(u64),
}

impl Word {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Word::Offer(offer) => offer.encode(out.u8(0)),
            Word::Move => drop(out.u8(1)),
            Word::Back(received) => drop(out.u8(2).u64(*received)),
        }
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Word, LinkError> {
        let mut from = Reader::new(bytes);
        let word = match from.u8("a word")? {
            0 => Word::Offer(Offer::decode(&mut from)?),
            1 => Word::Move,
            2 => Word::Back(from.u64("a count of frames")?),
            other => return Err(LinkError::Protocol(format!("word {other} about a socket"))),
        };
        from.end("a word")?;
        Ok(word)
    }
}

/// See the file.
#[derive(Default)]
pub(crate) struct Ways {
    books: Mutex<Carrier>,
    socket: OnceLock<UnixStream>,
    /// For the reader: something about the socket has changed.
    changed: Notify,
}

fn misplaced(what: Misplaced) -> LinkError {
    LinkError::Protocol(what.0.to_owned())
}

impl Ways {
    /// Lets the books change, and wakes both sides to look at them.
    fn change<R>(&self, peer: &PeerLink, change: impl FnOnce(&mut Carrier) -> R) -> R {
        let result = change(&mut self.books.lock());
        self.changed.notify_one();
        peer.wake.notify_one();
        result
    }

    /// There is a socket, and it leads to the peer.
    pub fn opened(&self, peer: &PeerLink, stream: UnixStream) {
        if self.socket.set(stream).is_ok() {
            self.change(peer, Carrier::opened);
        }
    }

    /// There is none, or no more.
    pub fn broke(&self, peer: &PeerLink) {
        self.change(peer, Carrier::broke);
        if let Some(socket) = self.socket.get() {
            // The other side sees it at once.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }

    pub fn offered(&self) -> Result<(), LinkError> {
        self.books.lock().offered().map_err(misplaced)
    }

    pub fn turn(&self) -> Turn {
        self.books.lock().turn()
    }

    pub fn check(&self, way: Way) -> Result<(), LinkError> {
        self.books.lock().check(way).map_err(misplaced)
    }

    /// Whether frames go over the socket.
    pub fn uses_socket(&self) -> bool {
        self.books.lock().writes_socket()
    }

    /// The peer said *move* or *back*.
    pub fn peer_said(self: &Arc<Ways>, peer: &PeerLink, word: &Word) -> Result<(), LinkError> {
        match word {
            Word::Move => self.change(peer, Carrier::peer_moved).map_err(misplaced),
            Word::Back(has) => {
                // Whether this side has moved or not, it says what an acknowledgement would.
                let said = peer.state.lock().session.acknowledged(*has);
                said.map_err(|lie| lied(lie.said, lie.highest))?;
                self.change(peer, |books| books.peer_back(*has))
                    .map_err(misplaced)?;
                self.broke(peer);
                Ok(())
            }
            Word::Offer(_) => self.offered(),
        }
    }

    /// The next bytes that come over the socket. `None`: something has changed, look again.
    pub async fn read(&self, peer: &PeerLink, into: &mut BytesMut) -> Option<Bytes> {
        let reads = self.books.lock().reads_socket();
        let (true, Some(socket)) = (reads, self.socket.get()) else {
            self.changed.notified().await;
            return None;
        };
        tokio::select! {
            biased;
            () = self.changed.notified() => return None,
            ready = socket.readable() => if ready.is_err() {
                self.broke(peer);
                return None;
            },
        }
        into.reserve(PIECE);
        match socket.try_read_buf(into) {
            Ok(len) if len > 0 => Some(into.split().freeze()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            // The end counts as broken too: the connection goes on.
            _ => {
                self.broke(peer);
                None
            }
        }
    }

    /// Writes all of this over the socket, or less if it breaks.
    pub async fn write(&self, peer: &PeerLink, out: &mut [Bytes]) {
        let Some(socket) = self.socket.get() else {
            return;
        };
        let mut first = 0;
        while self.uses_socket() {
            while out.get(first).is_some_and(Bytes::is_empty) {
                first += 1;
            }
            let Some(rest) = out.get_mut(first..).filter(|rest| !rest.is_empty()) else {
                return;
            };
            let parts: Vec<IoSlice<'_>> =
                rest.iter().take(PARTS).map(|b| IoSlice::new(b)).collect();
            match socket.try_write_vectored(&parts) {
                Ok(mut written) => {
                    for part in rest {
                        let of_this = written.min(part.len());
                        part.advance(of_this);
                        written -= of_this;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        _ = socket.writable() => {}
                        // It may have broken.
                        () = peer.wake.notified() => {}
                    }
                }
                Err(_) => self.broke(peer),
            }
        }
    }

    /// Breaks the socket, as a fault would.
    #[cfg(test)]
    pub fn cut(&self, how: rustix::net::Shutdown) {
        if let Some(socket) = self.socket.get() {
            let _ = rustix::net::shutdown(socket, how);
        }
    }
}
