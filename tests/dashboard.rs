//! The dashboard: what it answers to those who ask well and to those who do not, and the page in a real browser.
//!
//! **Invariant:** the browser's tests are skipped, with a word, where there is no Chromium; pictures of what it showed are
//! kept below `target/tmp/dashboard`. Left out: what the questions compute, which `src/dashboard/tests` shows.
#![cfg(feature = "dashboard")]

#[path = "../src/base/skip.rs"]
mod skip;
#[path = "../src/base/wait.rs"]
mod wait;

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

/// Takes docs/rl.md's picture of an iteration of PPO, which this process trains: `cargo test --features dashboard,rl --test dashboard -- --ignored
/// iteration`. It goes to the folder in `PICTURES` (such as `docs`), or to `target/tmp/dashboard`.
#[cfg(feature = "rl")]
#[test]
#[ignore = "takes a picture"]
fn an_iteration() {
    use mobula::rl::agent;
    let Some(program) = browser::installed() else {
        panic!("no chromium is installed");
    };
    let free: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let config = mobula::Config::new().num_cpus(2.0).dashboard_addr(free);
    let mobula = config.init().expect("the runtime starts");
    let settings = r#"{"num_workers": 2, "num_envs": 64, "num_steps": 64, "epochs": 2, "minibatch_size": 2048}"#;
    let mut ppo = agent("PPO", "CartPole-v1", settings, 1).expect("it is there");
    for _ in 0..6 {
        ppo.train().expect("it trains");
    }
    let mut b = browser::Browser::start(&program, 1440, 520);
    let url = mobula.dashboard_url().expect("it is on");
    b.open(&format!("{url}#timeline"));
    b.until("mobula.stats().recorded >= 12");
    // The last iteration but one: from its first call of a collector to that of the next iteration.
    b.eval(
        "(async () => { const t = mobula.timeline; t.set(mobula.stats().begin, mobula.stats().last); })()",
    );
    b.until("mobula.stats().loadedDense === 0 && mobula.stats().boxes >= 12");
    b.eval(
        "(() => { const t = mobula.timeline, d = t.data.boxes, n = mobula.names(); \
         const at = [...d.id.keys()].filter((i) => n[d.fn[i]].endsWith('collect')).map((i) => d.start[i]).sort((a, b) => a - b); \
         const a = at[at.length - 4], z = at[at.length - 2]; t.set(a - (z - a) / 10, z + (z - a) / 3); })()",
    );
    b.until("mobula.timeline.data.from <= mobula.stats().from && mobula.timeline.data.to >= mobula.stats().to && mobula.stats().loadedDense === 0");
    b.picture("ppo-iteration");
}

/// Takes the README's pictures of `cargo run --example dashboard`, which this starts: `cargo test --features dashboard --test
/// dashboard -- --ignored pictures`. They go to the folder in `PICTURES` (such as `docs`), or to `target/tmp/dashboard`.
#[test]
#[ignore = "takes pictures for half a minute"]
fn pictures() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let Some(program) = browser::installed() else {
        panic!("no chromium is installed");
    };
    let mut example = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--features",
            "dashboard",
            "--example",
            "dashboard",
            "45",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo runs the example");
    let mut url = String::new();
    let said = example.stdout.take().expect("it is piped");
    BufReader::new(said)
        .read_line(&mut url)
        .expect("it says where it listens");
    let url = url.trim();
    let mut b = browser::Browser::start(&program, 1440, 900);
    for (scheme, suffix) in [("light", ""), ("dark", "-dark")] {
        b.prefer(scheme);
        b.open("about:blank");
        b.size(1440, 860);
        b.open(&format!("{url}#overview"));
        b.until("mobula.stats().history >= 20 && document.querySelectorAll('#origins .meter, #origins .quiet').length > 0");
        b.size(1440, 760);
        b.until("innerHeight === 760");
        b.picture(&format!("dashboard-overview{suffix}"));
        b.size(1440, 860);
        b.press("2");
        b.until("mobula.stats().recorded > 500");
        // Some rounds, and one of their ends with what led to it.
        b.eval("mobula.timeline.set(mobula.stats().last - 9e7, mobula.stats().last - 2e7)");
        b.until("mobula.stats().loadedDense === 0 && mobula.stats().boxes > 10");
        b.eval("document.getElementById('timeline').focus({ focusVisible: false })");
        // Of the ends of rounds that show, the one with the longest way to it.
        b.eval(
            "(async () => { const t = mobula.timeline, d = t.data.boxes, n = mobula.names(); let best = [0]; \
             for (const i of [...d.id.keys()].filter((i) => n[d.fn[i]].endsWith('best')).slice(-24)) { \
             const about = await (await fetch('/api/task/' + d.id[i])).json(); best = [[about.recorded.path.length, d.id[i]], best].sort((a, b) => b[0] - a[0])[0]; } \
             await t.select(best[1]); })()",
        );
        b.until("mobula.stats().path > 1");
        b.eval("(() => { const t = mobula.timeline, p = t.task.path, a = p[Math.min(p.length, 9) - 1].start, z = p[0].end; t.set(a - (z - a) / 12, z + (z - a) / 12); })()");
        b.until("mobula.timeline.data.from <= mobula.stats().from && mobula.timeline.data.to >= mobula.stats().to && mobula.stats().loadedDense === 0");
        b.picture(&format!("dashboard-timeline{suffix}"));
    }
    drop(b);
    let _ = example.kill();
    let _ = example.wait();
}
