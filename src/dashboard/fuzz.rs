//! Any bytes as what a browser sends.
//!
//! Invariant: every connection ends, and no answer says that the server made a mistake. Left out: many connections at a time, and
//! what is asked (`tests`).

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::listen::talk_alone;
use super::state::State;
use super::{Call, Lane, Outcome, Recording, Run, Settings, Source, Window};
use crate::base::query::Query;
use crate::base::snapshot::Snapshot;

struct Small;

impl Source for Small {
    fn snapshot(&self, _: &Query) -> io::Result<Snapshot> {
        Ok(Snapshot::default())
    }

    fn recording(&self) -> io::Result<Recording> {
        let call = |id, inputs| Call {
            id,
            submitted: id * 10,
            inputs,
            outcome: Outcome::Done,
            ..Call::default()
        };
        let run = |call, start| Run {
            call,
            start,
            end: start + 50,
            turn: 1,
            outcome: Outcome::Done,
            ..Run::default()
        };
        Ok(Recording {
            now: 1_000,
            lanes: vec![Lane::default()],
            names: vec!["app::f".into()],
            calls: vec![call(1, (0, 0)), call(2, (0, 1))],
            runs: vec![run(0, 100), run(1, 200)],
            inputs: vec![1],
            ..Recording::default()
        })
    }

    fn trace(&self, _: Window, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"[]")
    }

    fn metrics(&self) -> io::Result<String> {
        Ok(String::new())
    }
}

/// True ones.
pub fn samples() -> Vec<Vec<u8>> {
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
            .into_bytes()
    };
    let paths = [
        "/",
        "/api/snapshot?parts=nodes,tasks&limit=5&lines=3&state=running&function=f&id=0x2",
        "/api/history",
        "/api/timeline?from=0&to=1000&limit=18446744073709551615",
        "/api/functions?from=5",
        "/api/heat?columns=18446744073709551615",
        "/api/search?q=0x2",
        "/api/task/0x2",
        "/api/trace.json?from=1&to=9",
        "/metrics",
        "/healthz",
        "/style.css",
    ];
    let mut all: Vec<Vec<u8>> = paths.into_iter().map(get).collect();
    let form = format!("token={TOKEN}");
    all.push(
        format!(
            "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        )
        .into_bytes(),
    );
    all.push(
        b"POST /login HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntok\r\n0\r\n\r\n"
            .to_vec(),
    );
    all
}

const TOKEN: &str = "0123456789abcdef";

/// A thread's own server.
struct Served {
    runtime: tokio::runtime::Runtime,
    state: Arc<State>,
}

thread_local! {
    static SERVED: Served = Served {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime"),
        state: Arc::new(State::new(
            &Settings::new().token(TOKEN.to_owned()),
            Arc::new(Small),
        )),
    };
}

/// See the file.
pub fn requests(bytes: &[u8]) {
    let answer = SERVED.with(|served| {
        let talk = async {
            let (here, there) = UnixStream::pair().expect("two sockets");
            let here = here.into_std().expect("a socket");
            let ours = async move {
                // In one piece, then the end; what a socket does not take is left out.
                let _ = (&here).write(bytes);
                let _ = here.shutdown(std::net::Shutdown::Write);
                let here = UnixStream::from_std(here).expect("a socket");
                let mut answer = Vec::new();
                loop {
                    here.readable().await.expect("a socket");
                    match here.try_read_buf(&mut answer) {
                        Ok(0) => return answer,
                        Ok(_) => {}
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return answer,
                    }
                }
            };
            let theirs = talk_alone(there, served.state.clone());
            futures_util::future::join(ours, theirs).await.0
        };
        let within = Duration::from_secs(20);
        let talk = async { tokio::time::timeout(within, talk).await };
        served.runtime.block_on(talk)
    });
    let answer = answer.expect("the connection ends");
    assert!(
        !answer.starts_with(b"HTTP/1.1 500"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_requests_are_answered_or_refused() {
        spoiled(13, 1_000, &samples(), requests);
    }
}
