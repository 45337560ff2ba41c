//! How a machine that has an address and a token becomes a node.
//!
//! The newcomer trusts the server whose authority has the token's fingerprint, and only then proves, bound to this very
//! connection, that it holds the secret. It keeps its private key; the authority signs the public one.
//!
//! Invariant: the secret never travels; a proof is good on the connection on which it was made and nowhere else. Left out:
//! several addresses, which the caller tries in turn.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, TokioRuntime, VarInt};
use rustls::pki_types::CertificateDer;

use crate::base::NodeId;
use crate::link::ca::{Ca, NodeKey, PUBLIC_KEY};
use crate::link::codec::{Reader, Writer};
use crate::link::greet::{broken, read_message, write_message};
use crate::link::tune::{self, Times, Transports};
use crate::link::{Identity, JoinToken, LinkError, tls};

const VERSION: u32 = 1;
const MAX_REQUEST: usize = 1 << 10;
const MAX_ANSWER: usize = 16 << 10;
const GRANTED: u8 = 1;
const DENIED: u8 = 2;

/// Becomes `node` of the cluster whose head is at `addr`; blocks for at most `deadline`.
pub fn join(
    addr: SocketAddr,
    token: &JoinToken,
    node: NodeId,
    deadline: Duration,
) -> Result<Identity, LinkError> {
    let io = |why: std::io::Error| LinkError::Io {
        what: "join".to_owned(),
        why: why.to_string(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io)?;
    runtime.block_on(async {
        let late = LinkError::Timeout {
            what: "answer from the head",
            after: deadline,
        };
        match tokio::time::timeout(deadline, ask(addr, token, node)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(late),
        }
    })
}

async fn ask(addr: SocketAddr, token: &JoinToken, node: NodeId) -> Result<Identity, LinkError> {
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let (socket, buffer) = tune::bind(any)?;
    let endpoint = quinn::Endpoint::new(
        tune::endpoint_config(),
        None,
        socket,
        Arc::new(TokioRuntime),
    )
    .map_err(|why| LinkError::Io {
        what: "join".to_owned(),
        why: why.to_string(),
    })?;
    let (mut config, trusted) = tls::joining(token)?;
    let times = Times {
        idle: Duration::from_secs(5),
        keep_alive: Duration::from_secs(1),
    };
    config.transport_config(Transports::new(times, buffer).to(addr));
    let connecting = endpoint
        .connect_with(config, addr, "head.node.mobula")
        .map_err(|why| LinkError::Io {
            what: format!("call {addr}"),
            why: why.to_string(),
        })?;
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => return Err(trusted.why.lock().take().unwrap_or_else(|| broken(&error))),
    };
    let ca = trusted
        .found
        .lock()
        .take()
        .ok_or_else(|| LinkError::Certificate("none was shown".to_owned()))?;
    let outcome = request(&connection, token, node, ca).await;
    connection.close(VarInt::from_u32(0), b"");
    // The head is told that we are through, so that it need not wait for it.
    let _ = tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    outcome
}

async fn request(
    connection: &Connection,
    token: &JoinToken,
    node: NodeId,
    ca: CertificateDer<'static>,
) -> Result<Identity, LinkError> {
    let key = NodeKey::new()?;
    let proof = token.prove(&[
        &exporter(connection)?,
        &node.get().to_le_bytes(),
        key.public(),
    ]);
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| broken(&error))?;
    let mut out = Writer::default();
    out.u32(VERSION)
        .u64(node.get())
        .bytes(key.public())
        .raw(&proof);
    write_message(&mut send, &out.0).await?;
    let answer = read_message(&mut recv, MAX_ANSWER, "the head's answer").await?;
    let mut from = Reader::new(&answer);
    match from.u8("an answer")? {
        GRANTED => {
            let cert = from.bytes(MAX_ANSWER, "a certificate")?.to_vec();
            key.certified(node, cert.into(), ca)
        }
        _ => Err(LinkError::Denied(
            from.text(MAX_ANSWER, "a reason")?.to_owned(),
        )),
    }
}

/// What both ends of this connection know and nobody else.
fn exporter(connection: &Connection) -> Result<[u8; 32], LinkError> {
    let mut shared = [0; 32];
    connection
        .export_keying_material(&mut shared, b"EXPORTER-mobula-join", b"")
        .map_err(|_| LinkError::Protocol("no key can be derived from the connection".to_owned()))?;
    Ok(shared)
}

/// A newcomer's request.
pub(crate) struct Request<'a> {
    pub node: NodeId,
    pub public: &'a [u8],
    pub proof: [u8; 32],
}

impl<'a> Request<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Request<'a>, LinkError> {
        let mut from = Reader::new(bytes);
        let theirs = from.u32("a version")?;
        if theirs != VERSION {
            let ours = VERSION;
            return Err(LinkError::Version { ours, theirs });
        }
        let node = NodeId::new(from.u64("a node")?)
            .ok_or_else(|| LinkError::Protocol("node 0".to_owned()))?;
        let request = Request {
            node,
            public: from.bytes(PUBLIC_KEY, "a public key")?,
            proof: from.array("a proof")?,
        };
        from.end("a request to join")?;
        Ok(request)
    }
}

/// Answers a newcomer; `known` says which numbers nodes bear already.
pub(crate) async fn admit(
    connection: &Connection,
    ca: Option<Arc<Ca>>,
    known: impl Fn(NodeId) -> bool,
) -> Result<NodeId, LinkError> {
    let (mut send, mut recv) = connection
        .accept_bi()
        .await
        .map_err(|error| broken(&error))?;
    let asked = read_message(&mut recv, MAX_REQUEST, "a request to join").await?;
    let (outcome, answer) = match decide(connection, ca, known, &asked) {
        Ok((node, cert)) => (
            Ok(node),
            Writer::default().u8(GRANTED).bytes(&cert).0.clone(),
        ),
        Err(why) => {
            let said = match &why {
                LinkError::Denied(said) => said.clone(),
                other => other.to_string(),
            };
            (
                Err(why),
                Writer::default()
                    .u8(DENIED)
                    .bytes(said.as_bytes())
                    .0
                    .clone(),
            )
        }
    };
    write_message(&mut send, &answer).await?;
    settle(send, &mut recv).await;
    outcome
}

fn decide(
    connection: &Connection,
    ca: Option<Arc<Ca>>,
    known: impl Fn(NodeId) -> bool,
    asked: &[u8],
) -> Result<(NodeId, CertificateDer<'static>), LinkError> {
    let request = Request::decode(asked)?;
    let denied = |why: &str| Err(LinkError::Denied(why.to_owned()));
    let Some(ca) = ca else {
        return denied("this node does not admit others; join at the address of the head");
    };
    let number = request.node.get().to_le_bytes();
    if !ca.token().proven(
        &[&exporter(connection)?, &number, request.public],
        &request.proof,
    ) {
        return denied(
            "the token's secret is not this cluster's; copy the token from the head that runs now",
        );
    }
    if known(request.node) {
        return denied("another node bears this number; try again, with another");
    }
    let cert = ca.sign(request.node, request.public)?;
    Ok((request.node, cert))
}

/// Waits until the other side has what was said and hangs up.
async fn settle(mut send: SendStream, recv: &mut RecvStream) {
    let _ = send.finish();
    let _ = recv.read_to_end(0).await;
}
