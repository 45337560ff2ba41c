//! A cluster whose records are on a real etcd: its first node can be lost. Skipped where there is no etcd.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// A server that ends with the test.
struct Server {
    process: Child,
    folder: PathBuf,
    address: String,
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
    fn start() -> Option<Server> {
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
                until("etcd is up", Duration::from_secs(60), up);
                Some(server)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn the_first_node_may_be_lost() {
    let _alone = alone();
    let Some(server) = Server::start() else {
        println!("skipped: no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address.as_str();
    let mut head = Head::start(&[("HEAD_CONTROL", records)]);
    let settings = [("MOBULA_HEAD_PATIENCE", "600"), ("MOBULA_CONTROL", records)];
    let _node = Node::join(&head.address, &head.token, "node", &settings);
    let address = head.address.parse().expect("an address");
    let mobula = config()
        .join(address, head.token.clone())
        .control(records)
        .head_patience(Duration::from_secs(600));
    let mobula = mobula.init().expect("it joins");
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    let (first, node) = (called(&mobula, "head"), called(&mobula, "node"));
    let actor = Counter::options()
        .name("kept")
        .detached(true)
        .on_node(node)
        .remote(5);
    assert_eq!(mobula::get(actor.add(1)).unwrap(), 6);
    let lost = Counter::options()
        .name("lost")
        .detached(true)
        .on_node(first)
        .remote(0);
    assert_eq!(mobula::get(lost.add(1)).unwrap(), 1);
    head.kill();
    until("the first node is gone", Duration::from_secs(5), || {
        mobula.nodes().len() == 2
    });
    drop(actor);
    let asked = Instant::now();
    let found = Counter::named("kept").unwrap();
    assert_eq!(mobula::get(found.add(1)).unwrap(), 7);
    println!(
        "found, and called, {:?} after the first node was known to be dead",
        asked.elapsed()
    );
    // New names too, and those of the dead once their node's lease is over.
    let new = Counter::options().name("new").on_node(node).remote(1);
    assert_eq!(mobula::get(new.add(1)).unwrap(), 2);
    assert!(matches!(
        Counter::named("lost").unwrap_err(),
        Error::NoSuchActor { .. }
    ));
    let again = Counter::options().name("lost").on_node(node).remote(70);
    assert_eq!(mobula::get(again.add(1)).unwrap(), 71);
}
