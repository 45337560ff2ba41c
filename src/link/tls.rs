//! What rustls and quinn are told about keys and protocols.
//!
//! One port serves two protocols. A newcomer marks its first packet, and only then is a handshake without a certificate
//! possible; it can lead to `mobula-join/1` and nothing else. Any other handshake asks for a member's certificate and leads
//! to `mobula/1`.
//!
//! Invariant: no session is resumed and no data goes early, so every connection is checked whole. Left out: whom to
//! accept, which `verify` says, and windows and sizes, which `tune` says.

use std::sync::Arc;

use parking_lot::Mutex;
use quinn::ConnectionId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::base::NodeId;
use crate::link::ca::Identity;
use crate::link::forgotten::Forgotten;
use crate::link::verify::{Fingerprint, Members, provider};
use crate::link::{JoinToken, LinkError};

/// Between nodes.
const ALPN: &[u8] = b"mobula/1";
/// Between a newcomer and who signs.
const ALPN_JOIN: &[u8] = b"mobula-join/1";
/// How a newcomer's first packet begins to name its connection.
const JOIN_MARK: &[u8; 8] = b"mobjoin1";

fn tls(error: rustls::Error) -> LinkError {
    LinkError::Certificate(error.to_string())
}

/// The key with its certificates, parsed once.
fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, LinkError> {
    let key = provider()
        .key_provider
        .load_private_key(identity.key())
        .map_err(tls)?;
    let certified = CertifiedKey::new(identity.chain.clone(), key);
    certified.keys_match().map_err(tls)?;
    Ok(Arc::new(certified))
}

fn server(
    key: &Arc<CertifiedKey>,
    members: Option<Arc<Members>>,
) -> Result<Arc<QuicServerConfig>, LinkError> {
    let builder = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?;
    let join = members.is_none();
    let builder = match members {
        Some(members) => builder.with_client_cert_verifier(members),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from((**key).clone())));
    config.alpn_protocols = vec![if join { ALPN_JOIN } else { ALPN }.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    quic(QuicServerConfig::try_from(config))
}

fn quic<C, E: std::fmt::Display>(config: Result<C, E>) -> Result<Arc<C>, LinkError> {
    config
        .map(Arc::new)
        .map_err(|why| LinkError::Certificate(why.to_string()))
}

fn client(mut config: ClientConfig, alpn: &[u8]) -> Result<quinn::ClientConfig, LinkError> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(quinn::ClientConfig::new(quic(QuicClientConfig::try_from(
        config,
    ))?))
}

/// What a node shows to whoever calls.
pub(crate) struct Answering {
    key: Arc<CertifiedKey>,
    ca: CertificateDer<'static>,
    forgotten: Arc<Forgotten>,
    /// To newcomers.
    pub newcomers: Arc<QuicServerConfig>,
}

impl Answering {
    pub fn new(identity: &Identity, forgotten: &Arc<Forgotten>) -> Result<Answering, LinkError> {
        let key = certified(identity)?;
        Ok(Answering {
            newcomers: server(&key, None)?,
            key,
            ca: identity.authority().clone(),
            forgotten: forgotten.clone(),
        })
    }

    /// For a call of a member, and where to look for why it was refused here.
    pub fn members(&self) -> Result<(Arc<QuicServerConfig>, Arc<Members>), LinkError> {
        let members = members(&self.ca, None, &self.forgotten);
        Ok((server(&self.key, Some(members.clone()))?, members))
    }
}

fn members(
    ca: &CertificateDer<'static>,
    expect: Option<NodeId>,
    forgotten: &Arc<Forgotten>,
) -> Arc<Members> {
    Arc::new(Members {
        ca: ca.clone(),
        expect,
        forgotten: forgotten.clone(),
        why: Mutex::new(None),
    })
}

/// For a call from member to member, and where to look for why it was refused here.
pub(crate) fn calling(
    identity: &Identity,
    expect: Option<NodeId>,
    forgotten: &Arc<Forgotten>,
) -> Result<(quinn::ClientConfig, Arc<Members>), LinkError> {
    let members = members(identity.authority(), expect, forgotten);
    let config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(members.clone())
        .with_client_auth_cert(identity.chain.clone(), identity.key())
        .map_err(tls)?;
    Ok((client(config, ALPN)?, members))
}

/// For a newcomer's call, and where to look for whom it trusts.
pub(crate) fn joining(
    token: &JoinToken,
) -> Result<(quinn::ClientConfig, Arc<Fingerprint>), LinkError> {
    let fingerprint = Arc::new(Fingerprint {
        expected: token.fingerprint,
        found: Mutex::new(None),
        why: Mutex::new(None),
    });
    let config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(fingerprint.clone())
        .with_no_client_auth();
    let mut config = client(config, ALPN_JOIN)?;
    config.initial_dst_cid_provider(Arc::new(|| {
        let mut name = [0; 20];
        name[..8].copy_from_slice(JOIN_MARK);
        // Without randomness the handshake itself fails, and says so.
        let _ = aws_lc_rs::rand::fill(&mut name[8..]);
        ConnectionId::new(&name)
    }));
    Ok((config, fingerprint))
}

/// Whether who calls by this name is a newcomer.
pub(crate) fn is_newcomer(called: &ConnectionId) -> bool {
    called.starts_with(JOIN_MARK)
}

/// Whether the key is the certificate's.
pub(crate) fn check_key(identity: &Identity) -> Result<(), LinkError> {
    certified(identity).map(|_| ())
}
