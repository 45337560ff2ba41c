//! Making connections, answering them, and making them again.
//!
//! Invariant: every handshake has a deadline, and at most so many are under way; of two connections between the same
//! nodes one is used, the same on both sides. Left out: when a node is given up, which the driver says with `forget`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;

use crate::base::NodeId;
use crate::core::session::Claim;
use crate::link::greet::{
    Greeting, MAX_GREETING, Verdict, broken, code, code_of, compare_lists, heard, judge, lost,
    read_message, write_message,
};
use crate::link::peer::{Attached, PeerLink};
use crate::link::serve::serve;
use crate::link::shared::Shared;
use crate::link::{LinkError, join, tls, verify};

/// Far more connections than two nodes ever make, and far below where counting them ends.
const MAX_EPOCH: u64 = 1 << 48;

/// What came of a handshake.
pub(crate) enum Met {
    Used(Box<Used>),
    /// There is another connection with this peer.
    Known,
}

/// A connection that is in use from now on.
pub(crate) struct Used {
    pub peer: Arc<PeerLink>,
    pub serial: u64,
    pub first: bool,
    pub made_here: bool,
    pub connection: Connection,
    pub send: SendStream,
    pub recv: RecvStream,
    pub greeting: Greeting,
}

/// Answers whoever calls, for as long as the endpoint lives.
pub(crate) async fn answer_calls(shared: &Arc<Shared>) {
    while let Some(incoming) = shared.quic.accept().await {
        let addr = incoming.remote_address();
        let Some(turn) = shared.handshakes.begin(addr.ip(), &shared.bounds) else {
            shared.counts.unanswered.fetch_add(1, Relaxed);
            incoming.ignore();
            continue;
        };
        if turn.prove && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            let answered = in_time(&shared, answer(&shared, incoming)).await;
            drop(turn);
            finish(&shared, addr, answered).await;
        });
    }
}

/// Calls an address, once.
pub(crate) async fn call(shared: &Arc<Shared>, addr: SocketAddr, expect: Option<NodeId>) {
    let called = in_time(shared, meet(shared, addr, expect)).await;
    finish(shared, addr, called).await;
}

pub(crate) async fn in_time(
    shared: &Shared,
    handshake: impl Future<Output = Result<Met, LinkError>>,
) -> Result<Met, LinkError> {
    let after = shared.handshake;
    let late = LinkError::Timeout {
        what: "handshake",
        after,
    };
    tokio::time::timeout(after, handshake)
        .await
        .unwrap_or(Err(late))
}

pub(crate) async fn finish(shared: &Arc<Shared>, addr: SocketAddr, met: Result<Met, LinkError>) {
    match met {
        Ok(Met::Used(used)) => {
            // On its own, so that a call is over when there is a connection.
            tokio::spawn(serve(shared.clone(), used));
        }
        Ok(Met::Known) => {}
        Err(why) => {
            shared.counts.refused.fetch_add(1, Relaxed);
            if !shared.is_stopping() {
                shared.handler.refused(addr, &why);
            }
        }
    }
}

/// Closes a connection that is not dropped by accident before it was said why, and keeps nobody who was never met.
struct Closing<'a> {
    shared: &'a Shared,
    connection: Option<Connection>,
}

impl Closing<'_> {
    fn because(mut self, why: LinkError) -> LinkError {
        self.close(code_of(&why), why.to_string().as_bytes());
        why
    }

    fn close(&mut self, code: VarInt, why: &[u8]) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if let Ok(node) = certified(&connection) {
            self.shared.not_met(node);
        }
        connection.close(code, why);
    }

    fn keep(mut self) {
        self.connection = None;
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.close(VarInt::from_u32(code::LATE), b"the handshake took too long");
    }
}

/// The node of the certificate that the handshake has accepted.
fn certified(connection: &Connection) -> Result<NodeId, LinkError> {
    connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| verify::accepted(chain.first()?))
        .ok_or_else(|| LinkError::Certificate("none was shown".to_owned()))
}

pub(crate) async fn meet(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    expect: Option<NodeId>,
) -> Result<Met, LinkError> {
    if let Some(node) = expect {
        if shared.forgotten.has(node) {
            return Err(LinkError::Forgotten(node));
        }
        if shared
            .peer(node)
            .is_some_and(|peer| peer.connection().is_some())
        {
            return Ok(Met::Known);
        }
    }
    let (mut config, members) = tls::calling(&shared.identity, expect, &shared.forgotten)?;
    config.transport_config(shared.transports.to(addr));
    let connecting = shared
        .quic
        .connect_with(config, addr, "member.node.mobula")
        .map_err(|why| LinkError::Io {
            what: format!("call {addr}"),
            why: why.to_string(),
        })?;
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => return Err(members.why.lock().take().unwrap_or_else(|| broken(&error))),
    };
    let closing = Closing {
        shared,
        connection: Some(connection.clone()),
    };
    match greet(shared, &connection).await {
        Ok(Met::Used(used)) => {
            closing.keep();
            Ok(Met::Used(used))
        }
        Ok(Met::Known) => {
            closing.keep();
            connection.close(
                VarInt::from_u32(code::SUPERSEDED),
                b"another connection is used",
            );
            Ok(Met::Known)
        }
        Err(_) if superseded(&connection) => Ok(Met::Known),
        Err(why) => Err(closing.because(why)),
    }
}

/// The caller's side of the first words.
async fn greet(shared: &Arc<Shared>, connection: &Connection) -> Result<Met, LinkError> {
    let node = certified(connection)?;
    let peer = shared.peer_or_new(node)?;
    let (claim, received) = {
        let mut state = peer.state.lock();
        if state.active.is_some() {
            return Ok(Met::Known);
        }
        state.attempts += 1;
        let claim = Claim {
            epoch: state.epoch + 1,
            maker: shared.node,
            attempt: state.attempts,
        };
        (claim, state.session.received())
    };
    let said = |error: LinkError| why_closed(connection, node, shared.node).unwrap_or(error);
    let (mut send, mut recv) = connection
        .open_bi()
        .await
        .map_err(|error| lost(&error, node, shared.node))?;
    let ours = our_greeting(shared, claim, received);
    write_message(&mut send, &ours).await.map_err(said)?;
    let theirs = match read_message(&mut recv, MAX_GREETING, "a greeting").await {
        Ok(theirs) => theirs,
        Err(_) if superseded(connection) => return Ok(Met::Known),
        Err(error) => return Err(said(error)),
    };
    let greeting = match judge(&shared.hello, &theirs, node) {
        Verdict::Fits(greeting) => greeting,
        Verdict::CompareLists => {
            return Err(compare_lists(&mut send, &mut recv, &shared.registry).await);
        }
        Verdict::Refused(why) => return Err(why),
    };
    use_it(shared, peer, connection, claim, greeting, send, recv)
}

async fn answer(shared: &Arc<Shared>, incoming: Incoming) -> Result<Met, LinkError> {
    let newcomer = tls::is_newcomer(&incoming.orig_dst_cid());
    let (crypto, members) = match newcomer {
        true => (shared.answering.newcomers.clone(), None),
        false => {
            let (crypto, members) = shared.answering.members()?;
            (crypto, Some(members))
        }
    };
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config.transport_config(shared.transports.to(incoming.remote_address()));
    let connecting = incoming
        .accept_with(Arc::new(config))
        .map_err(|error| broken(&error))?;
    let connection = connecting.await.map_err(|error| {
        let said = members.and_then(|members| members.why.lock().take());
        said.unwrap_or_else(|| broken(&error))
    })?;
    let closing = Closing {
        shared,
        connection: Some(connection.clone()),
    };
    if newcomer {
        let ca = shared.ca.lock().clone();
        let known = |node| {
            node == shared.node
                || shared.forgotten.has(node)
                || shared.peers.read().contains_key(&node)
        };
        join::admit(&connection, ca, known).await?;
        connection.close(VarInt::from_u32(0), b"");
        closing.keep();
        return Ok(Met::Known);
    }
    match welcome(shared, &connection).await {
        Ok(Met::Used(used)) => {
            closing.keep();
            Ok(Met::Used(used))
        }
        Ok(Met::Known) => {
            closing.keep();
            connection.close(
                VarInt::from_u32(code::SUPERSEDED),
                b"another connection is used",
            );
            Ok(Met::Known)
        }
        Err(_) if superseded(&connection) => Ok(Met::Known),
        Err(why) => Err(closing.because(why)),
    }
}

/// The called side of the first words.
async fn welcome(shared: &Arc<Shared>, connection: &Connection) -> Result<Met, LinkError> {
    let node = certified(connection)?;
    let (mut send, mut recv) = connection
        .accept_bi()
        .await
        .map_err(|error| lost(&error, node, shared.node))?;
    let theirs = read_message(&mut recv, MAX_GREETING, "a greeting").await?;
    let nobody = Claim {
        epoch: 0,
        maker: shared.node,
        attempt: 0,
    };
    let greeting = match judge(&shared.hello, &theirs, node) {
        Verdict::Fits(greeting) => greeting,
        Verdict::CompareLists => {
            write_message(&mut send, &our_greeting(shared, nobody, 0)).await?;
            return Err(compare_lists(&mut send, &mut recv, &shared.registry).await);
        }
        Verdict::Refused(why) => {
            write_message(&mut send, &our_greeting(shared, nobody, 0)).await?;
            heard(&mut send).await;
            return Err(why);
        }
    };
    if !(1..=MAX_EPOCH).contains(&greeting.epoch) {
        let what = format!("epoch {}, of 1 to {MAX_EPOCH}", greeting.epoch);
        return Err(LinkError::Protocol(what));
    }
    let peer = shared.peer_or_new(node)?;
    let claim = Claim {
        epoch: greeting.epoch,
        maker: node,
        attempt: greeting.attempt,
    };
    let met = use_it(shared, peer, connection, claim, greeting, send, recv)?;
    let Met::Used(mut used) = met else {
        return Ok(Met::Known);
    };
    let received = used.peer.state.lock().session.received();
    let ours = our_greeting(shared, claim, received);
    if let Err(why) = write_message(&mut used.send, &ours).await {
        used.peer.detach(used.serial);
        return Err(why);
    }
    Ok(Met::Used(used))
}

fn our_greeting(shared: &Shared, claim: Claim, received: u64) -> Vec<u8> {
    let greeting = Greeting {
        hello: shared.hello.clone(),
        epoch: claim.epoch,
        attempt: claim.attempt,
        received,
    };
    greeting.encode()
}

fn use_it(
    shared: &Shared,
    peer: Arc<PeerLink>,
    connection: &Connection,
    claim: Claim,
    greeting: Greeting,
    send: SendStream,
    recv: RecvStream,
) -> Result<Met, LinkError> {
    let serial = shared.serial.fetch_add(1, Relaxed);
    match peer.attach(connection, claim, greeting.received, serial)? {
        Attached::Superseded => Ok(Met::Known),
        Attached::Used { serial, first } => {
            shared.counts.connections.fetch_add(1, Relaxed);
            Ok(Met::Used(Box::new(Used {
                peer,
                serial,
                first,
                made_here: claim.maker == shared.node,
                connection: connection.clone(),
                send,
                recv,
                greeting,
            })))
        }
    }
}

/// Whether the other side closed the connection in favour of another.
pub(crate) fn superseded(connection: &Connection) -> bool {
    matches!(
        connection.close_reason(),
        Some(ConnectionError::ApplicationClosed(close)) if close.error_code == VarInt::from_u32(code::SUPERSEDED)
    )
}

pub(crate) fn why_closed(connection: &Connection, peer: NodeId, own: NodeId) -> Option<LinkError> {
    connection
        .close_reason()
        .map(|error| lost(&error, peer, own))
}
