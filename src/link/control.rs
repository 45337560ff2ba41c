//! Frames on the control stream.
//!
//! A record is a length, a number and a body. Number 0 is an acknowledgement, whose body is the number up to which every
//! frame has come; the highest number there is says something about the socket beside the connection (`ways`). What waits is written in one go, so that many small frames share a packet and one alone does not wait for
//! company.
//!
//! Invariant: a record is never longer than its bound, and memory grows as bytes come, not as a length promises. Left out:
//! what the frames mean.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream};

use crate::core::carrier::{Turn, Way};
use crate::core::session::Arrival;
use crate::link::greet::{lost, write_failed};
use crate::link::near::{self, Offer};
use crate::link::peer::PeerLink;
use crate::link::shared::Shared;
use crate::link::ways::{MAX_WORD, Ways, Word};
use crate::link::{LinkError, MAX_FRAME};

const HEADER: usize = 12;
/// The number of a record that is a word about the socket.
const WORD: u64 = u64::MAX;
/// What is gathered before it is written.
const BATCH: usize = 256 << 10;
/// Frames longer than this are not copied.
const COPIED: usize = 8 << 10;
/// How long an acknowledgement waits for a frame to go with.
const ACK_DELAY: Duration = Duration::from_millis(20);

fn put_header(out: &mut BytesMut, len: usize, number: u64) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
}

/// Gathers what is to be written; `with_ack` if an acknowledgement should go even alone.
fn gather(peer: &PeerLink, with_ack: bool, copied: &mut BytesMut, out: &mut Vec<Bytes>) -> u64 {
    let mut state = peer.state.lock();
    let session = &mut state.session;
    let (mut frames, mut bytes) = (0, 0);
    while bytes < BATCH {
        let Some((number, frame)) = session.next() else {
            break;
        };
        put_header(copied, frame.len(), number);
        bytes += HEADER + frame.len();
        frames += 1;
        if frame.len() <= COPIED {
            copied.extend_from_slice(frame);
        } else {
            out.push(copied.split().freeze());
            out.push(frame.clone());
        }
    }
    if (frames > 0 || with_ack || session.ack_due())
        && let Some(upto) = session.take_ack()
    {
        put_header(copied, 8, 0);
        copied.extend_from_slice(&upto.to_le_bytes());
    }
    if !copied.is_empty() {
        out.push(copied.split().freeze());
    }
    frames
}

/// Writes what there is to write, until the connection ends or is no longer the one in use. What is to be said first is the
/// offer of a socket.
pub(crate) async fn write(
    shared: &Arc<Shared>,
    peer: &Arc<PeerLink>,
    serial: u64,
    (ways, offer): (&Arc<Ways>, Option<&Offer>),
    send: &mut SendStream,
) -> LinkError {
    let why = write_all(shared, peer, serial, (ways, offer), send).await;
    // Two wait for the same bell while one connection takes another's place, and the one that goes may have been woken for a
    // frame that the other is to write.
    peer.wake.notify_one();
    why
}

async fn write_all(
    shared: &Arc<Shared>,
    peer: &Arc<PeerLink>,
    serial: u64,
    (ways, offer): (&Arc<Ways>, Option<&Offer>),
    send: &mut SendStream,
) -> LinkError {
    let mut copied = BytesMut::with_capacity(BATCH);
    let mut out = Vec::new();
    let mut with_ack = false;
    if let Some(offer) = offer {
        put_word(&mut copied, &Word::Offer(offer.clone()));
    }
    while peer.uses(serial) {
        let (way, frames) = match ways.turn() {
            Turn::Write(way) => (way, gather(peer, with_ack, &mut copied, &mut out)),
            Turn::Move => {
                put_word(&mut copied, &Word::Move);
                (Way::Network, 0)
            }
            Turn::Back => {
                let mut state = peer.state.lock();
                // This says what an acknowledgement would.
                let _ = state.session.take_ack();
                put_word(&mut copied, &Word::Back(state.session.received()));
                (Way::Network, 0)
            }
            Turn::Resume(has) => {
                if let Err(lie) = peer.state.lock().session.attach(has) {
                    return lied(has, lie.highest);
                }
                continue;
            }
            Turn::Wait => {
                peer.wake.notified().await;
                continue;
            }
        };
        if !copied.is_empty() {
            out.push(copied.split().freeze());
        }
        if !out.is_empty() {
            shared.counts.frames_out.fetch_add(frames, Relaxed);
            match way {
                Way::Network => {
                    if let Err(error) = send.write_all_chunks(&mut out).await {
                        return write_failed(&error);
                    }
                }
                Way::Socket => {
                    shared.counts.frames_near.fetch_add(frames, Relaxed);
                    ways.write(peer, &mut out).await;
                }
            }
            out.clear();
            with_ack = false;
            continue;
        }
        let owes = peer.state.lock().session.owes_ack();
        if owes {
            with_ack = tokio::time::timeout(ACK_DELAY, peer.wake.notified())
                .await
                .is_err();
        } else {
            with_ack = false;
            peer.wake.notified().await;
        }
    }
    LinkError::Broken("another connection is used".to_owned())
}

fn put_word(out: &mut BytesMut, word: &Word) {
    let word = word.encode();
    put_header(out, word.len(), WORD);
    out.extend_from_slice(&word);
}

pub(super) fn lied(said: u64, highest: u64) -> LinkError {
    LinkError::Protocol(format!(
        "it says it has frame {said}, of {highest} that were sent"
    ))
}

/// Takes records out of what comes in pieces.
#[derive(Default)]
pub(crate) struct Records {
    held: BytesMut,
}

/// A record that is whole.
pub(crate) struct Record {
    /// 0 for an acknowledgement.
    pub number: u64,
    pub body: Bytes,
}

impl Records {
    /// Takes a piece; whole records go to `each`.
    pub fn take(
        &mut self,
        mut piece: Bytes,
        mut each: impl FnMut(Record) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        // What is left of the last piece is completed first, and only by as much as it lacks.
        while !self.held.is_empty() && !piece.is_empty() {
            let need = match length(&self.held)? {
                None => HEADER - self.held.len(),
                Some(len) => HEADER + len - self.held.len(),
            };
            let part = piece.split_to(need.min(piece.len()));
            self.held.extend_from_slice(&part);
            if length(&self.held)?.is_some_and(|len| self.held.len() == HEADER + len) {
                each(record(self.held.split().freeze()))?;
            }
        }
        while let Some(len) = length(&piece)? {
            if piece.len() < HEADER + len {
                break;
            }
            each(record(piece.split_to(HEADER + len)))?;
        }
        self.held.extend_from_slice(&piece);
        Ok(())
    }
}

fn length(bytes: &[u8]) -> Result<Option<usize>, LinkError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(header[..4].try_into().expect("4 bytes")) as usize;
    let number = u64::from_le_bytes(header[4..].try_into().expect("8 bytes"));
    if len > MAX_FRAME || (number == 0 && len != 8) || (number == WORD && len > MAX_WORD) {
        return Err(LinkError::Protocol(format!(
            "a record of {len} bytes, of at most {MAX_FRAME}, {MAX_WORD} for a word, and 8 for an acknowledgement"
        )));
    }
    Ok(Some(len))
}

fn record(mut whole: Bytes) -> Record {
    whole.advance(4);
    let number = whole.get_u64_le();
    Record {
        number,
        body: whole,
    }
}

/// Reads frames and hands them over, until the connection ends or the peer breaks the protocol.
pub(crate) async fn read(
    shared: &Arc<Shared>,
    peer: &Arc<PeerLink>,
    ways: &Arc<Ways>,
    recv: &mut RecvStream,
) -> LinkError {
    let (mut network, mut socket) = (Records::default(), Records::default());
    let mut buffer = BytesMut::new();
    loop {
        let taken = tokio::select! {
            chunk = recv.read_chunk(usize::MAX, true) => {
                let chunk = match chunk {
                    Ok(Some(chunk)) => chunk.bytes,
                    Ok(None) => return LinkError::Broken("it ended the control stream".to_owned()),
                    Err(ReadError::ConnectionLost(error)) => return lost(&error, peer.node, shared.node),
                    Err(error) => return LinkError::Broken(error.to_string()),
                };
                shared.spin_on();
                network.take(chunk, |record| from_network(shared, peer, ways, record))
            }
            piece = ways.read(peer, &mut buffer) => {
                let Some(piece) = piece else { continue };
                shared.spin_on();
                let taken = socket.take(piece, |record| from_socket(shared, peer, ways, record));
                // A peer that never pauses does not keep the others waiting.
                tokio::task::yield_now().await;
                taken
            }
        };
        if let Err(why) = taken {
            return why;
        }
        // A frame handed over may have been answered already; that wakes the writer itself.
        if peer.state.lock().session.owes_ack() {
            peer.wake.notify_one();
        }
    }
}

fn from_network(
    shared: &Arc<Shared>,
    peer: &Arc<PeerLink>,
    ways: &Arc<Ways>,
    record: Record,
) -> Result<(), LinkError> {
    if record.number != WORD {
        ways.check(Way::Network)?;
        return arrived(shared, peer, record);
    }
    let word = Word::decode(&record.body)?;
    ways.peer_said(peer, &word)?;
    if let Word::Offer(offer) = word {
        match &shared.door {
            Some(_) => drop(tokio::spawn(near::visit(peer.clone(), ways.clone(), offer))),
            None => ways.broke(peer),
        }
    }
    Ok(())
}

fn from_socket(
    shared: &Shared,
    peer: &PeerLink,
    ways: &Ways,
    record: Record,
) -> Result<(), LinkError> {
    if record.number == WORD {
        let what = "a word on the socket it is about".to_owned();
        return Err(LinkError::Protocol(what));
    }
    match ways.check(Way::Socket) {
        Ok(()) => arrived(shared, peer, record),
        // It broke meanwhile, and this comes again.
        Err(_) => Ok(()),
    }
}

fn arrived(shared: &Shared, peer: &PeerLink, record: Record) -> Result<(), LinkError> {
    let mut state = peer.state.lock();
    if record.number == 0 {
        let upto = u64::from_le_bytes(record.body[..8].try_into().expect("8 bytes"));
        let said = state.session.acknowledged(upto);
        return said.map_err(|lie| lied(upto, lie.highest));
    }
    if state.gone {
        return Err(LinkError::Forgotten(peer.node));
    }
    let arrival = state.session.receive(record.number, record.body.len());
    drop(state);
    match arrival {
        Arrival::Duplicate => Ok(()),
        Arrival::Gap { expected } => Err(LinkError::Protocol(format!(
            "frame {} came where {expected} was due",
            record.number
        ))),
        Arrival::Deliver => {
            shared.counts.frames_in.fetch_add(1, Relaxed);
            shared.handler.frame(peer.node, &record.body);
            Ok(())
        }
    }
}
