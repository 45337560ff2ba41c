//! The limits: bytes and small messages between two processes, without this library.
//!
//! Each peer is a process that listens on the loopback, says on its first line where, and does what it is asked: a request is
//! a number of bytes to send, or 0 for echoing small messages from then on.
//!
//! Invariant: a peer ends when its standard input does. Left out: anything but one connection.

mod quic;
mod sockets;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::report::ROLE;

/// How long a small message is: about what a call's frame is.
pub const SMALL: usize = 64;

/// What all peers can do.
pub trait Peer {
    /// Has the other process send as many bytes as the buffer is long, and receives them into it.
    fn pull(&mut self, into: &mut [u8]);
    /// One small message there and back.
    fn ping(&mut self);
    /// The process at the other end.
    fn pid(&self) -> u32;
}

/// The process at the other end.
struct Other {
    child: Child,
    addr: SocketAddr,
    /// Its certificate, if it has one.
    certificate: Vec<u8>,
}

impl Other {
    fn start(role: &str) -> Other {
        let me = std::env::current_exe().expect("the benchmark knows its own path");
        let mut child = Command::new(me)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a peer starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("it was asked for");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let (addr, hex) = line
            .trim_end_matches('\n')
            .split_once(' ')
            .expect("an address and more");
        let certificate = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).expect("hexadecimal"))
            .collect();
        Other {
            child,
            addr: addr.parse().expect("an address"),
            certificate,
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the other end, and connects to it.
pub fn start(role: &str) -> Box<dyn Peer> {
    let other = Other::start(role);
    match role {
        "quinn" => Box::new(quic::Quic::connect(other)),
        "tls" => Box::new(sockets::Tls::connect(other)),
        _ => Box::new(sockets::Tcp::connect(other)),
    }
}

/// Is the other end.
pub fn serve(role: &str) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    match role {
        "quinn" => quic::serve(),
        "tls" => sockets::serve_tls(),
        "tcp" => sockets::serve_tcp(),
        other => panic!("no such role: {other}"),
    }
}

/// Says where, and by which certificate.
fn announce(addr: SocketAddr, certificate: &[u8]) {
    let hex: String = certificate.iter().map(|b| format!("{b:02x}")).collect();
    println!("{addr} {hex}");
}

/// Keys of a server, and what rustls is told on both sides: TLS 1.3 with AES-128, on aws-lc.
mod keys {
    use std::sync::Arc;

    use rustls::crypto::CryptoProvider;
    use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider};
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use rustls::version::TLS13;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};

    /// The name in the certificate.
    pub const NAME: &str = "peer.bench";

    fn provider() -> Arc<CryptoProvider> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        Arc::new(provider)
    }

    pub fn server() -> (ServerConfig, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let certificate = made.cert.der().to_vec();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the suite is of TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("the key is the certificate's");
        (config, certificate)
    }

    pub fn client(certificate: &[u8]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(certificate.to_vec()))
            .expect("a certificate");
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the suite is of TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}
