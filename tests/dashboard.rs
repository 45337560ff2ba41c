//! The dashboard: what it answers to those who ask well and to those who do not, and the page in a real browser.
//!
//! **Invariant:** the browser's tests are skipped, with a word, where there is no Chromium; pictures of what it showed are
//! kept below `target/tmp/dashboard`. Left out: what the questions compute, which `src/dashboard/tests` shows.
#![cfg(feature = "dashboard")]

#[path = "dashboard/browser.rs"]
mod browser;
#[path = "dashboard/fixture.rs"]
mod fixture;
#[path = "dashboard/http.rs"]
mod http;
#[path = "dashboard/node.rs"]
mod node;
#[path = "dashboard/page.rs"]
mod page;
#[path = "dashboard/server.rs"]
mod server;

use std::sync::Arc;

use mobula::dashboard::{Recording, Server, Settings};

/// A server of a replayed recording, on a free port.
fn serve(recording: Recording) -> Server {
    let free = "127.0.0.1:0".parse().expect("an address");
    let settings = Settings::new().address(free);
    Server::start(settings, Arc::new(fixture::Replay::new(recording)))
        .expect("the dashboard starts")
}

/// Serves the large recording until it is stopped, to work on the page: `cargo test --test dashboard -- --ignored --nocapture`.
#[test]
#[ignore = "serves until it is stopped"]
fn serve_by_hand() {
    let calls = std::env::var("CALLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000);
    let recording = if calls == 0 {
        fixture::demo()
    } else {
        fixture::large(calls)
    };
    let server = serve(recording);
    println!("{}", server.url());
    loop {
        std::thread::park();
    }
}
