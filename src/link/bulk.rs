//! Bodies on streams of their own.
//!
//! A body is cut into stripes that go side by side. Each stream says which transfer it belongs to, how long the whole is,
//! and which part it carries.
//!
//! Invariant: each byte of a body is written at most once, and only inside the length that was expected; a peer that says
//! otherwise loses its connection. `finish` and `done` are called exactly once, whatever happens. Left out: going on with a body after
//! its connection broke: whoever wants it asks again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, ReadError, ReadExactError, RecvStream, VarInt};

use crate::link::codec::{Reader, Writer};
use crate::link::greet::{broken, write_failed};
use crate::link::peer::PeerLink;
use crate::link::shared::Shared;
use crate::link::{Done, Landing, LinkError, MAX_BULK};

const HEADER: usize = 32;
/// Streams of one body at a time.
const STRIPES: u64 = 4;
/// A stripe is at least this long, but for the last.
const LEAST_STRIPE: u64 = 1 << 20;
/// A stream may take so many times as long to say which body it is of as the body may wait to be expected.
const HEADERS: u32 = 4;
/// How a stream is refused that nobody expects.
const UNEXPECTED: VarInt = VarInt::from_u32(1);

/// Which part of which body a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stripe {
    pub transfer: u64,
    pub total: u64,
    pub offset: u64,
    pub len: u64,
}

impl Stripe {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.transfer)
            .u64(self.total)
            .u64(self.offset)
            .u64(self.len);
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Stripe, LinkError> {
        let mut from = Reader::new(bytes);
        let stripe = Stripe {
            transfer: from.u64("a transfer")?,
            total: from.u64("a length")?,
            offset: from.u64("an offset")?,
            len: from.u64("a stripe's length")?,
        };
        from.end("a stripe's header")?;
        let end = stripe.offset.checked_add(stripe.len);
        if stripe.total > MAX_BULK || end.is_none_or(|end| end > stripe.total) {
            return Err(LinkError::Protocol(format!(
                "bytes {} and {} more of a body of {}, of at most {MAX_BULK}",
                stripe.offset, stripe.len, stripe.total
            )));
        }
        Ok(stripe)
    }

    /// How a body of this length is cut.
    pub fn cut(transfer: u64, total: u64) -> Vec<Stripe> {
        let count = (total / LEAST_STRIPE).clamp(1, STRIPES);
        let at = |index: u64| (u128::from(total) * u128::from(index) / u128::from(count)) as u64;
        (0..count)
            .map(|index| Stripe {
                transfer,
                total,
                offset: at(index),
                len: at(index + 1) - at(index),
            })
            .collect()
    }
}

/// A body that is expected.
pub(crate) struct Transfer {
    number: u64,
    len: u64,
    state: Mutex<Landed>,
}

struct Landed {
    /// Until it is finished.
    landing: Option<Box<dyn Landing>>,
    /// Parts that streams have claimed.
    claimed: Vec<(u64, u64)>,
    missing: u64,
    /// Stripes that were taken whole; only an empty body needs it.
    stripes: u64,
}

impl Transfer {
    pub fn new(number: u64, len: u64, landing: Box<dyn Landing>) -> Transfer {
        Transfer {
            number,
            len,
            state: Mutex::new(Landed {
                landing: Some(landing),
                claimed: Vec::new(),
                missing: len,
                stripes: 0,
            }),
        }
    }

    /// Lets one stream write this part.
    pub fn claim(&self, stripe: &Stripe) -> Result<(), LinkError> {
        if stripe.total != self.len {
            return Err(LinkError::Protocol(format!(
                "a body of {} bytes where {} are due",
                stripe.total, self.len
            )));
        }
        let mut state = self.state.lock();
        let (begin, end) = (stripe.offset, stripe.offset + stripe.len);
        let twice = state.claimed.iter().any(|&(b, e)| begin < e && b < end);
        if twice || state.claimed.len() > 4096 {
            return Err(LinkError::Protocol(format!(
                "bytes {begin} to {end} of a body twice"
            )));
        }
        state.claimed.push((begin, end));
        Ok(())
    }

    /// Writes bytes that a claim covers.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        if let Some(landing) = &mut state.landing {
            landing.write(offset, bytes);
            state.missing -= bytes.len() as u64;
        }
    }

    /// A stripe has come whole; true if the body has.
    pub fn stripe_ended(&self) -> bool {
        let mut state = self.state.lock();
        state.stripes += 1;
        state.missing == 0
    }

    /// Ends it; the first outcome is the one that counts.
    pub fn finish(&self, outcome: Result<(), LinkError>) {
        if let Some(landing) = self.take() {
            landing.finish(outcome);
        }
    }

    /// Where the bytes went, for whoever is the first to end it.
    fn take(&self) -> Option<Box<dyn Landing>> {
        self.state.lock().landing.take()
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let transfer = self.number;
        let why = "the node stopped".to_owned();
        self.finish(Err(LinkError::Transfer { transfer, why }));
    }
}

/// Calls `done` exactly once, even if its task is dropped.
pub(crate) struct Report(Option<Done>);

impl Report {
    pub fn new(done: Done) -> Report {
        Report(Some(done))
    }

    pub fn done(mut self, outcome: Result<(), LinkError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(LinkError::Stopped));
        }
    }
}

/// Sends a body.
pub(crate) async fn send(
    shared: Arc<Shared>,
    connection: Connection,
    transfer: u64,
    body: Bytes,
    report: Report,
) {
    let len = body.len() as u64;
    let mut stripes = tokio::task::JoinSet::new();
    for stripe in Stripe::cut(transfer, len) {
        let part = body.slice(stripe.offset as usize..(stripe.offset + stripe.len) as usize);
        stripes.spawn(send_stripe(connection.clone(), stripe, part));
    }
    drop(body);
    let mut outcome = Ok(());
    while let Some(sent) = stripes.join_next().await {
        outcome = sent.unwrap_or(Err(LinkError::Stopped));
        if outcome.is_err() {
            // The others are of no use any more; dropping resets them.
            break;
        }
    }
    if outcome.is_ok() {
        shared.counts.bulk_out.fetch_add(len, Relaxed);
    }
    report.done(outcome);
}

/// A stream that is given up in the middle says so: quinn would end it as if it were whole.
struct Unfinished(quinn::SendStream);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // An error: it was finished, or refused.
        let _ = self.0.reset(VarInt::from_u32(0));
    }
}

async fn send_stripe(connection: Connection, stripe: Stripe, part: Bytes) -> Result<(), LinkError> {
    let opened = connection.open_uni().await;
    let mut stream = Unfinished(opened.map_err(|error| broken(&error))?);
    let stream = &mut stream.0;
    // Frames go first.
    let _ = stream.set_priority(-1);
    let mut chunks = [Bytes::from(stripe.encode()), part];
    let written = stream.write_all_chunks(&mut chunks).await;
    drop(chunks);
    let refused = |code: VarInt| LinkError::Transfer {
        transfer: stripe.transfer,
        why: match code {
            UNEXPECTED => "the other side does not expect it".to_owned(),
            code => format!("the other side refused it with {code}"),
        },
    };
    match written {
        Err(quinn::WriteError::Stopped(code)) => return Err(refused(code)),
        Err(error) => return Err(write_failed(&error)),
        Ok(()) => {}
    }
    let _ = stream.finish();
    match stream.stopped().await {
        Ok(None) => Ok(()),
        Ok(Some(code)) => Err(refused(code)),
        Err(error) => Err(LinkError::Broken(error.to_string())),
    }
}

/// Takes bulk streams from a peer until the connection ends.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    peer: Arc<PeerLink>,
    serial: u64,
    connection: Connection,
) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let (shared, peer, connection) = (shared.clone(), peer.clone(), connection.clone());
        tokio::spawn(async move {
            match receive(&shared, &peer, serial, &mut stream).await {
                Ok(()) => {}
                Err(LinkError::Transfer { .. }) => {
                    shared.counts.unexpected.fetch_add(1, Relaxed);
                    let _ = stream.stop(UNEXPECTED);
                }
                Err(why) => peer.close(&connection, why),
            }
        });
    }
}

/// Counts the streams of a peer that wait to be expected.
struct Early<'a>(&'a PeerLink);

impl Drop for Early<'_> {
    fn drop(&mut self) {
        self.0.state.lock().early -= 1;
    }
}

/// The transfer, once it is expected.
async fn expected(
    shared: &Shared,
    peer: &PeerLink,
    number: u64,
) -> Result<Arc<Transfer>, LinkError> {
    let refused = |why: String| LinkError::Transfer {
        transfer: number,
        why,
    };
    let limit = shared.bounds.early;
    let _early = {
        let mut state = peer.state.lock();
        if let Some(transfer) = state.landings.get(&number) {
            return Ok(transfer.clone());
        }
        if state.early >= limit {
            let why = format!("nobody expects it, nor {limit} streams that came before");
            return Err(refused(why));
        }
        state.early += 1;
        Early(peer)
    };
    let found = async {
        loop {
            let landed = peer.landed.notified();
            tokio::pin!(landed);
            // Registered before looking, so that nothing is missed between.
            landed.as_mut().enable();
            if let Some(transfer) = peer.state.lock().landings.get(&number) {
                return transfer.clone();
            }
            landed.await;
        }
    };
    let found = tokio::time::timeout(shared.early, found).await;
    found.map_err(|_| refused(format!("nobody expected it within {:?}", shared.early)))
}

async fn receive(
    shared: &Shared,
    peer: &PeerLink,
    serial: u64,
    stream: &mut RecvStream,
) -> Result<(), LinkError> {
    let mut header = [0; HEADER];
    let within = shared.early * HEADERS;
    match tokio::time::timeout(within, stream.read_exact(&mut header)).await {
        Ok(Ok(())) => {}
        Ok(Err(ReadExactError::FinishedEarly(_))) => {
            return Err(LinkError::Protocol(
                "a bulk stream without a header".to_owned(),
            ));
        }
        // The sender gave it up, or the connection is gone, which ends all transfers.
        Ok(Err(ReadExactError::ReadError(_))) => return Ok(()),
        Err(_) => {
            let why = format!("its stream did not say within {within:?} which body it is of");
            return Err(LinkError::Transfer { transfer: 0, why });
        }
    }
    let stripe = Stripe::decode(&header)?;
    let transfer = expected(shared, peer, stripe.transfer).await?;
    if !peer.uses(serial) {
        // What is expected now is for the connection that came after.
        return Ok(());
    }
    let outcome = match transfer.claim(&stripe) {
        Ok(()) => land(&transfer, &stripe, stream).await,
        Err(why) => Err(why),
    };
    match outcome {
        Ok(false) => Ok(()),
        Ok(true) => {
            // Several stripes may find it whole, of which the first ends it.
            unexpect(peer, &transfer);
            if let Some(landing) = transfer.take() {
                shared.counts.bulk_in.fetch_add(transfer.len, Relaxed);
                landing.finish(Ok(()));
            }
            Ok(())
        }
        Err(why) => {
            unexpect(peer, &transfer);
            transfer.finish(Err(why.clone()));
            match why {
                LinkError::Protocol(_) => Err(why),
                _ => Ok(()),
            }
        }
    }
}

/// A transfer is over; its number may be in use for another.
fn unexpect(peer: &PeerLink, transfer: &Arc<Transfer>) {
    let landings = &mut peer.state.lock().landings;
    let own = |other: &Arc<Transfer>| Arc::ptr_eq(other, transfer);
    if landings.get(&transfer.number).is_some_and(own) {
        landings.remove(&transfer.number);
    }
}

/// Writes what the stream carries; true if it was the last of the body.
async fn land(
    transfer: &Transfer,
    stripe: &Stripe,
    stream: &mut RecvStream,
) -> Result<bool, LinkError> {
    let mut left = stripe.len;
    let begin = HEADER as u64;
    loop {
        // Out of order: a lost packet holds nothing up.
        let chunk = match stream.read_chunk(usize::MAX, false).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(ReadError::Reset(_)) => {
                return Err(LinkError::Transfer {
                    transfer: stripe.transfer,
                    why: "the sender gave it up".to_owned(),
                });
            }
            Err(ReadError::ConnectionLost(error)) => return Err(broken(&error)),
            Err(error) => return Err(LinkError::Broken(error.to_string())),
        };
        let len = chunk.bytes.len() as u64;
        let at = chunk.offset.checked_sub(begin);
        match at {
            Some(at) if len <= left && at + len <= stripe.len => {
                transfer.write(stripe.offset + at, &chunk.bytes);
                left -= len;
            }
            _ => {
                return Err(LinkError::Protocol(format!(
                    "a stripe of {} bytes goes on behind them",
                    stripe.len
                )));
            }
        }
    }
    if left > 0 {
        return Err(LinkError::Protocol(format!(
            "a stripe of {} bytes ends {left} bytes early",
            stripe.len
        )));
    }
    Ok(transfer.stripe_ended())
}
