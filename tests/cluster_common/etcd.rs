//! A real etcd for tests.
//!
//! Invariant: it ends with the test, and its data is removed. Left out: what is kept there.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait;

/// A server that ends with the test.
pub struct Server {
    process: Child,
    folder: PathBuf,
    /// For `--control` and the like.
    pub address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("it has one")
        .port()
}

impl Server {
    /// None: there is no etcd.
    pub fn start() -> Option<Server> {
        let (port, peers) = (free_port(), free_port());
        let folder = std::env::temp_dir().join(format!("mobula-etcd-{}", std::process::id()));
        let (client, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peers}"),
        );
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(&folder)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match process {
            Ok(process) => {
                let server = Server {
                    process,
                    folder,
                    address: format!("etcd://127.0.0.1:{port}/mobula"),
                };
                let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                wait::until("etcd is up", Duration::from_secs(60), up);
                Some(server)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => panic!("{e}"),
        }
    }
}
