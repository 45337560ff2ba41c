//! A real etcd for tests.
//!
//! Invariant: it ends with the test, and its data is removed. Integration tests include this file as it is. Left out: what is kept
//! there.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::wait;

/// A server that ends with the test.
pub struct Server {
    process: Child,
    folder: PathBuf,
    peers: u16,
    /// Where it listens.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether an etcd there serves: another program may have taken the port.
fn is_healthy(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.contains(r#""health":"true""#))
}

/// Two that nobody has now. Somebody may take one before it is used.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("it has one").port())
}

impl Server {
    /// None: there is no etcd.
    pub fn start() -> Option<Server> {
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            let mut server = match Server::spawn() {
                Ok(server) => server,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
                Err(e) => panic!("etcd cannot be started: {e}"),
            };
            let (port, mut ended) = (server.port, None);
            wait::until("etcd is up, or ended", Duration::from_secs(60), || {
                ended = server.process.try_wait().expect("it was started");
                ended.is_some() || is_healthy(port).is_ok_and(|is| is)
            });
            let Some(status) = ended else {
                return Some(server);
            };
            let said = std::fs::read_to_string(server.log()).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            println!("etcd ended with {status}: {last:#?}");
        }
        panic!("etcd ended {TRIES} times before it was up");
    }

    /// Records of one cluster of several, for `--control` and the like.
    pub fn address(&self, prefix: &str) -> String {
        format!("etcd://127.0.0.1:{}/{prefix}", self.port)
    }

    fn spawn() -> std::io::Result<Server> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = format!("mobula-etcd-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let [port, peers] = free_ports();
        let process = run(&folder, port, peers);
        if process.is_err() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        Ok(Server {
            process: process?,
            folder,
            peers,
            port,
        })
    }

    /// Kills it; what it has is kept.
    #[allow(dead_code, reason = "not every test uses all of it")]
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again where it was, after [`kill`](Server::kill).
    #[allow(dead_code, reason = "not every test uses all of it")]
    pub fn revive(&mut self) {
        self.process = run(&self.folder, self.port, self.peers).expect("it ran before");
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

fn run(folder: &Path, port: u16, peers: u16) -> std::io::Result<Child> {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peers}");
    // etcd itself says so on some machines that it runs on.
    let arch = std::env::consts::ARCH.replace("aarch64", "arm64");
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .env("ETCD_UNSUPPORTED_ARCH", arch)
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("log"))?)
        .spawn()
}
