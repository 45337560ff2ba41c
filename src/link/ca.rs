//! The cluster's authority: who signs the certificates by which nodes know each other.
//!
//! Invariant: only a holder of a [`Ca`] can make a certificate that other nodes accept; a node's certificate names exactly
//! one node. Left out: where the authority's text is kept, renewal and revocation: a certificate outlives its process, whose
//! number nobody bears again, and a node that was declared dead is refused by number.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::base::NodeId;
use crate::link::token::sha256;
use crate::link::{JoinToken, LinkError};

/// How long the authority's own certificate is good for.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a node's certificate is good for: longer than a process runs.
const NODE_LIFE: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(24 * 3600);
/// A point of P-256, uncompressed.
pub(crate) const PUBLIC_KEY: usize = 65;

/// Which cluster: the beginning of its authority's fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {self}")
    }
}

/// The name under which certificates know a node.
pub(crate) fn dns_name(node: NodeId) -> String {
    format!("{node}.node.mobula")
}

/// The node that a certificate's name is of.
pub(crate) fn node_of(name: &str) -> Option<NodeId> {
    name.strip_suffix(".node.mobula")?.parse().ok()
}

/// The cluster's authority, with its key and the secret of its join token.
pub struct Ca {
    cert: CertificateDer<'static>,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
    token: JoinToken,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({:?})", self.token)
    }
}

fn failed(what: &str) -> impl FnOnce(rcgen::Error) -> LinkError {
    move |why| LinkError::Io {
        what: what.to_owned(),
        why: why.to_string(),
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "mobula cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (SystemTime::now() - SKEW).into();
    params.not_after = (SystemTime::now() + CA_LIFE).into();
    params
}

/// A public key that came from elsewhere.
struct Foreign<'a>(&'a [u8]);

impl PublicKeyData for Foreign<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Ca {
    /// A new cluster.
    pub fn new() -> Result<Ca, LinkError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
        let params = authority();
        let cert = params
            .self_signed(&key)
            .map_err(failed("make the authority"))?;
        let mut secret = [0; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| failed("draw a secret")(rcgen::Error::RingUnspecified))?;
        let token = JoinToken::new(sha256(cert.der()), secret);
        Ok(Ca {
            cert: cert.der().clone(),
            cert_pem: cert.pem(),
            issuer: Issuer::new(params, key),
            token,
        })
    }

    /// The authority as text, key and secret included: for a file that nobody else can read.
    pub fn to_pem(&self) -> String {
        let key = self.issuer.key().serialize_pem();
        format!("{}\n{}{key}", self.token, self.cert_pem)
    }

    /// The authority from its text.
    pub fn from_pem(text: &str) -> Result<Ca, LinkError> {
        let bad = |what: &str| LinkError::Certificate(format!("the authority's file: {what}"));
        let token: JoinToken = text
            .lines()
            .find(|line| line.starts_with("mobula1-"))
            .ok_or_else(|| bad("no join token in it"))?
            .parse()?;
        let cert = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| bad("no certificate in it"))?;
        if sha256(&cert) != token.fingerprint {
            return Err(bad("its token is of another certificate"));
        }
        let key =
            PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| bad("no key in it"))?;
        let key = KeyPair::try_from(&key).map_err(|_| bad("its key is of another kind"))?;
        let begin = text
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or_else(|| bad("no certificate in it"))?;
        const END: &str = "-----END CERTIFICATE-----";
        let end = text[begin..]
            .find(END)
            .ok_or_else(|| bad("its certificate is cut off"))?;
        let ca = Ca {
            cert,
            cert_pem: format!("{}\n", &text[begin..begin + end + END.len()]),
            issuer: Issuer::new(authority(), key),
            token,
        };
        // A key of another authority would sign what nobody accepts: better said here than by everyone else.
        let probe = ca.identity(NodeId::new(1).expect("not 0"))?;
        crate::link::verify::check_issued(&probe.chain[0], &ca.cert, probe.node)
            .map_err(|_| bad("its key is not its certificate's"))?;
        Ok(ca)
    }

    /// The token with which machines join.
    pub fn token(&self) -> JoinToken {
        self.token.clone()
    }

    /// Which cluster it is.
    pub fn cluster(&self) -> ClusterId {
        cluster_of(&self.token.fingerprint)
    }

    /// The authority's certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// An identity for this very process.
    pub fn identity(&self, node: NodeId) -> Result<Identity, LinkError> {
        let key = NodeKey::new()?;
        let cert = self.sign(node, key.public())?;
        key.certified(node, cert, self.cert.clone())
    }

    /// A certificate for a node's public key.
    pub(crate) fn sign(
        &self,
        node: NodeId,
        public: &[u8],
    ) -> Result<CertificateDer<'static>, LinkError> {
        self.issue(node, public, SystemTime::now() + NODE_LIFE)
    }

    /// A certificate good until then.
    pub(crate) fn issue(
        &self,
        node: NodeId,
        public: &[u8],
        until: SystemTime,
    ) -> Result<CertificateDer<'static>, LinkError> {
        if public.len() != PUBLIC_KEY || public[0] != 4 {
            return Err(LinkError::Protocol(format!(
                "a public key of {} bytes where an uncompressed point of {PUBLIC_KEY} is due",
                public.len()
            )));
        }
        let mut params =
            CertificateParams::new(vec![dns_name(node)]).map_err(failed("name a node"))?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("mobula node {node}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (SystemTime::now() - SKEW).into();
        params.not_after = until.into();
        let cert = params
            .signed_by(&Foreign(public), &self.issuer)
            .map_err(failed("sign a certificate"))?;
        Ok(cert.der().clone())
    }
}

/// The cluster that an authority's fingerprint stands for.
pub(crate) fn cluster_of(fingerprint: &[u8; 32]) -> ClusterId {
    ClusterId(fingerprint[..16].try_into().expect("16 bytes"))
}

/// A key pair for which there is no certificate yet.
pub(crate) struct NodeKey(KeyPair);

impl NodeKey {
    pub fn new() -> Result<NodeKey, LinkError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(NodeKey)
            .map_err(failed("make a key"))
    }

    pub fn public(&self) -> &[u8] {
        self.0.der_bytes()
    }

    #[cfg(test)]
    pub fn der(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der())
    }

    /// The identity, once there is a certificate; refused if it is not for this key and node.
    pub fn certified(
        self,
        node: NodeId,
        cert: CertificateDer<'static>,
        ca: CertificateDer<'static>,
    ) -> Result<Identity, LinkError> {
        crate::link::verify::check_issued(&cert, &ca, node)?;
        let identity = Identity {
            node,
            chain: vec![cert, ca],
            key: PrivatePkcs8KeyDer::from(self.0.serialize_der()),
        };
        crate::link::tls::check_key(&identity)?;
        Ok(identity)
    }
}

/// Who a node is: its certificate, that of the authority, and its key.
pub struct Identity {
    /// Which node.
    pub node: NodeId,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Which cluster it belongs to.
    pub fn cluster(&self) -> ClusterId {
        cluster_of(&sha256(self.authority()))
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.chain[1]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity {
            node: self.node,
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?} of {:?})", self.node, self.cluster())
    }
}
