//! Any bytes, sent to a served store over its socket: it goes on serving others.
//!
//! The first byte says whether a hello goes first. Left out: what the bytes come to; the tests say.
#![no_main]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mobula::store::{Client, Server};

struct Served {
    _server: Server,
    client: Client,
    socket: std::path::PathBuf,
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let socket = std::env::temp_dir().join(format!("mobula-fuzz-{}", std::process::id()));
        let server = Server::options().capacity(1 << 20).start(&socket).unwrap();
        let client = Client::connect(&socket).unwrap();
        Served {
            _server: server,
            client,
            socket,
        }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let served = served();
    let Some((greeted, bytes)) = bytes.split_first() else {
        return;
    };
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    if greeted & 1 == 1 {
        let mut hello = vec![22, 0, 0, 0, 1];
        hello.extend_from_slice(b"mobula/s");
        hello.extend_from_slice(&1u32.to_le_bytes());
        hello.extend_from_slice(&5u32.to_le_bytes());
        hello.extend_from_slice(b"0.0.0");
        stream.write_all(&hello).unwrap();
    }
    // The server may have had enough before the end.
    let _ = stream.write_all(bytes);
    drop(stream);
    served.client.stats().unwrap();
});
