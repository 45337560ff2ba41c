//! Whom a handshake accepts.
//!
//! Invariant: what is decided about a peer's certificate is decided here, inside the handshake: that the cluster's
//! authority signed it, that it is in date, that it names one node, that this is the node that was called, and that it was
//! not declared dead. Left out: what the peer says about itself afterwards, which `greet` compares with this.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::base::NodeId;
use crate::link::LinkError;
use crate::link::ca::node_of;
use crate::link::forgotten::Forgotten;
use crate::link::token::{sha256, short};

/// The one provider of cryptography, chosen by hand so that the process's default is left alone.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // The fastest of them first; all are sound.
        use rustls::crypto::aws_lc_rs::cipher_suite::{
            TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
        };
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
        Arc::new(provider)
    })
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Ours, as rustls carries it.
fn refuse(why: LinkError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

fn webpki_error(error: webpki::Error) -> LinkError {
    LinkError::Certificate(match error {
        webpki::Error::CertExpired { .. } => "it has expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => {
            "it is not valid yet; compare the clocks of the two machines".to_owned()
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            "the cluster's authority did not sign it".to_owned()
        }
        other => other.to_string(),
    })
}

/// The node that a certificate of this authority names.
fn check(
    cert: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    now: UnixTime,
    usage: KeyUsage,
) -> Result<NodeId, LinkError> {
    let anchor = anchor_from_trusted_cert(ca).map_err(webpki_error)?;
    let parsed = EndEntityCert::try_from(cert).map_err(webpki_error)?;
    parsed
        .verify_for_usage(algorithms().all, &[anchor], &[], now, usage, None, None)
        .map_err(webpki_error)?;
    let mut names = parsed.valid_dns_names();
    match (names.next().and_then(node_of), names.next()) {
        (Some(node), None) => Ok(node),
        _ => Err(LinkError::Certificate(
            "it does not name one node".to_owned(),
        )),
    }
}

/// Whether this certificate would be accepted as that node's.
pub(crate) fn check_issued(
    cert: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    node: NodeId,
) -> Result<(), LinkError> {
    let found = check(cert, ca, UnixTime::now(), KeyUsage::client_auth())?;
    if found != node {
        return Err(LinkError::WrongNode {
            expected: node,
            found,
        });
    }
    Ok(())
}

/// The node that a certificate names that a handshake has accepted.
pub(crate) fn accepted(cert: &CertificateDer<'_>) -> Option<NodeId> {
    EndEntityCert::try_from(cert)
        .ok()?
        .valid_dns_names()
        .next()
        .and_then(node_of)
}

/// Accepts nodes of one cluster.
pub(crate) struct Members {
    /// The authority's certificate.
    pub ca: CertificateDer<'static>,
    /// Who is called, when we call.
    pub expect: Option<NodeId>,
    pub forgotten: Arc<Forgotten>,
    /// What was refused and why, for whoever made the connection.
    pub why: Mutex<Option<LinkError>>,
}

impl Members {
    fn decide(
        &self,
        cert: &CertificateDer<'_>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let decided = check(cert, &self.ca, now, usage).and_then(|found| match self.expect {
            Some(expected) if expected != found => Err(LinkError::WrongNode { expected, found }),
            _ if self.forgotten.has(found) => Err(LinkError::Forgotten(found)),
            _ => Ok(()),
        });
        decided.map_err(|why| {
            *self.why.lock() = Some(why.clone());
            refuse(why)
        })
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("expect", &self.expect)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Members {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.decide(end_entity, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.decide(end_entity, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Accepts a node of the cluster whose authority has this fingerprint, and keeps the authority's certificate.
pub(crate) struct Fingerprint {
    pub expected: [u8; 32],
    pub found: Mutex<Option<CertificateDer<'static>>>,
    pub why: Mutex<Option<LinkError>>,
}

impl Fingerprint {
    fn decide(
        &self,
        cert: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), LinkError> {
        let Some(ca) = rest.last() else {
            return Err(LinkError::Certificate(
                "no authority's certificate came with it".to_owned(),
            ));
        };
        let found = sha256(ca);
        if found != self.expected {
            return Err(LinkError::OtherCluster {
                expected: short(&self.expected),
                found: short(&found),
            });
        }
        check(cert, ca, now, KeyUsage::server_auth())?;
        *self.found.lock() = Some(ca.clone().into_owned());
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({}..)", short(&self.expected))
    }
}

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.decide(end_entity, intermediates, now).map_err(|why| {
            *self.why.lock() = Some(why.clone());
            refuse(why)
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
