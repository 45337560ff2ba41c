//! The server without a browser: answers, refusals, and strangers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula::Error;
use mobula::dashboard::{Server, Settings};

use crate::http::{connect, get, raw, request};
use crate::{fixture, serve};

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn start(settings: Settings) -> mobula::Result<Server> {
    Server::start(settings, Arc::new(fixture::Replay::new(fixture::demo())))
}

#[test]
fn every_route_answers() {
    let server = serve(fixture::demo());
    let at = server.address();
    for (path, kind) in [
        ("/", "text/html"),
        ("/style.css", "text/css"),
        ("/main.js", "text/javascript"),
        ("/timeline.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/metrics", "text/plain"),
        ("/api/snapshot", "application/json"),
        ("/api/history", "application/json"),
        ("/api/timeline", "application/json"),
        ("/api/functions", "application/json"),
        ("/api/heat?columns=10", "application/json"),
        ("/api/search?q=f", "application/json"),
        ("/api/task/0x100000002", "application/json"),
        ("/api/trace.json", "application/json"),
    ] {
        let answer = get(at, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(
            answer
                .header("content-type")
                .is_some_and(|t| t.starts_with(kind)),
            "{path}: {}",
            answer.head
        );
        assert!(!answer.body.is_empty(), "{path}");
        assert!(
            answer
                .header("content-security-policy")
                .is_some_and(|p| p.contains("default-src 'none'")),
            "{path}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        let head = request(at, "HEAD", path, "");
        assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {path}");
    }
    assert_eq!(get(at, "/healthz").text(), "ok\n");
    let all = get(at, "/api/timeline").json();
    assert_eq!(all["boxes"]["id"].as_array().map(Vec::len), Some(27));
    // 27 submissions, 8 inputs from the object, 16 from g, 24 into g.
    assert_eq!(
        all["edges"]["from"].as_array().map(Vec::len),
        Some(27 + 8 + 16 + 24)
    );
    let trace = get(at, "/api/trace.json?from=0&to=2000000").json();
    let boxes = trace["traceEvents"].as_array().map_or(0, Vec::len);
    assert!((1..27).contains(&boxes), "{boxes} boxes in the first 2 ms");
}

#[test]
fn every_file_that_the_page_names_is_there() {
    let server = serve(fixture::demo());
    let mut seen = vec!["/".to_owned()];
    let mut at = 0;
    while let Some(path) = seen.get(at).cloned() {
        let answer = get(server.address(), &path);
        assert_eq!(answer.status, 200, "{path}");
        let text = answer.text();
        for quote in ["src=\"", "href=\"", "from \""] {
            for piece in text.split(quote).skip(1) {
                let name = piece
                    .split('"')
                    .next()
                    .unwrap_or_default()
                    .trim_start_matches('.');
                let file = name.starts_with('/') && !name.starts_with("/api");
                if file && !seen.contains(&name.to_owned()) {
                    seen.push(name.to_owned());
                }
            }
        }
        for word in ["https://", "http://"] {
            let foreign = text
                .match_indices(word)
                .find(|(i, _)| !text[*i..].starts_with("http://www.w3.org/"));
            assert!(foreign.is_none(), "{path} names another place");
        }
        at += 1;
    }
    assert!(seen.len() >= 12, "{seen:?}");
}

#[test]
fn wrong_questions_are_answered_by_what_is_wrong() {
    let server = serve(fixture::demo());
    let at = server.address();
    let long = format!("/api/search?q={}", "x".repeat(5_000));
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/page/index.html", 404),
        ("GET", "/api/timeline?from=x", 400),
        ("GET", "/api/timeline?from=9&to=3", 400),
        ("GET", "/api/timeline?from=-1", 400),
        ("GET", "/api/timeline?from=99999999999999999999999", 400),
        ("GET", "/api/search", 400),
        ("GET", "/api/task/zzz", 400),
        ("GET", "/api/task/", 400),
        ("GET", "/api/task/0xfff", 404),
        ("GET", "/api/snapshot?parts=rubbish", 400),
        ("GET", "/api/snapshot?id=0xz", 400),
        ("GET", long.as_str(), 414),
        ("POST", "/api/snapshot", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "/", 405),
    ] {
        let answer = request(at, method, path, "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert!(
            answer.json()["error"]
                .as_str()
                .is_some_and(|e| !e.is_empty()),
            "{path}"
        );
    }
    // Limits that were asked for and would be too much are bounded instead.
    for path in [
        "/api/timeline?from=0&to=18446744073709551615&limit=999999999",
        "/api/heat?columns=99999999",
        "/api/snapshot?limit=99999999&lines=99999999",
        "/api/timeline?limit=0",
        "/api/trace.json?to=18446744073709551615",
        "/api/functions?from=18446744073709551615&to=18446744073709551615",
    ] {
        assert_eq!(get(at, path).status, 200, "{path}");
    }
}

#[test]
fn strangers_do_not_bring_it_down() {
    let server = serve(fixture::demo());
    let at = server.address();
    let many = format!(
        "GET / HTTP/1.1\r\nHost: {at}\r\n{}\r\n",
        "X-A: b\r\n".repeat(500)
    );
    let long = format!(
        "GET / HTTP/1.1\r\nHost: {at}\r\nX-A: {}\r\n\r\n",
        "b".repeat(200_000)
    );
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", &[0; 4096], many.as_bytes(), long.as_bytes(),
    ] {
        let mut stream = connect(at);
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.1 200") && !text.contains("500 Internal"), "{text}");
    }
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
fn other_names_are_refused() {
    let server = serve(fixture::demo());
    let at = server.address();
    let ask = |host: &str| {
        let text =
            format!("GET /api/snapshot HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw(at, text.as_bytes()).map(|a| a.status)
    };
    assert_eq!(ask("localhost"), Some(200));
    assert_eq!(ask("127.0.0.1:1"), Some(200));
    for host in [
        "evil.example",
        "evil.example:8265",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ] {
        assert_eq!(ask(host), Some(421), "{host}");
    }
    let cross = request(
        at,
        "GET",
        "/api/snapshot",
        "Origin: http://evil.example\r\n",
    );
    assert_eq!(cross.header("access-control-allow-origin"), None);
    assert_eq!(
        cross.header("cross-origin-resource-policy"),
        Some("same-origin")
    );
}

#[test]
fn with_a_token_only_those_who_know_it_see_anything() {
    let token = "correct-horse-battery";
    let server = start(Settings::new().address(local()).token(token)).expect("it starts");
    let at = server.address();
    for path in [
        "/api/snapshot",
        "/api/timeline",
        "/metrics",
        "/events",
        "/main.js",
        "/api/trace.json",
    ] {
        assert_eq!(get(at, path).status, 401, "{path}");
        let bad = request(
            at,
            "GET",
            path,
            "Authorization: Bearer correct-horse-batterx\r\n",
        );
        assert_eq!(bad.status, 401, "{path}");
    }
    assert_eq!(get(at, "/healthz").status, 200);
    assert_eq!(get(at, "/").header("location"), Some("/login"));
    let form = get(at, "/login").text();
    assert!(form.contains("password") && !form.contains("not the token"));
    assert!(get(at, "/login?wrong").text().contains("not the token"));
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(request(at, "GET", "/api/snapshot", &bearer).status, 200);
    let log_in = |token: &str| {
        let form = format!("token={token}");
        let text = format!(
            "POST /login HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        raw(at, text.as_bytes()).expect("an answer")
    };
    let wrong = log_in("wrong");
    assert_eq!(
        (wrong.header("location"), wrong.header("set-cookie")),
        (Some("/login?wrong"), None)
    );
    assert_eq!(log_in(&"x".repeat(100_000)).status, 413);
    let right = log_in(token);
    assert_eq!(right.header("location"), Some("/"));
    let cookie = right.header("set-cookie").expect("a cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().expect("a value"));
    assert_eq!(request(at, "GET", "/api/snapshot", &cookie).status, 200);
}

#[test]
fn other_machines_are_let_in_with_a_token_only() {
    let open = Settings::new().address("0.0.0.0:0".parse().expect("an address"));
    let refused = start(open.clone()).expect_err("there is no token");
    assert!(
        matches!(
            refused,
            Error::Config {
                setting: "dashboard_addr",
                ..
            }
        ),
        "{refused}"
    );
    let short = start(open.clone().token("short")).expect_err("it can be guessed");
    assert!(
        matches!(
            short,
            Error::Config {
                setting: "dashboard_token",
                ..
            }
        ),
        "{short}"
    );
    let server = start(open.token("0123456789abcdef")).expect("it has a token");
    assert!(
        server.url().starts_with("http://127.0.0.1:"),
        "{}",
        server.url()
    );
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(local()).expect("a port");
    let address = taken.local_addr().expect("its address");
    let e = start(Settings::new().address(address)).expect_err("the port is taken");
    assert!(
        matches!(
            e,
            Error::Config {
                setting: "dashboard_addr",
                ..
            }
        ),
        "{e}"
    );
    assert!(
        e.to_string().contains(&address.to_string()) && e.to_string().contains("port 0"),
        "{e}"
    );
    // Where no address was asked for, another port is taken instead, so several programs may run.
    let (a, b) = (
        start(Settings::new()).expect("a port"),
        start(Settings::new()).expect("another"),
    );
    assert_ne!(a.address(), b.address());
}

#[test]
fn a_thousand_idle_connections_keep_nobody_out() {
    let server = serve(fixture::demo());
    let at = server.address();
    let mut idle: Vec<TcpStream> = Vec::new();
    for i in 0..1_000 {
        let Ok(stream) = TcpStream::connect(at) else {
            crate::skip::skipped(format!(
                "connections from the {i}th on: no more files may be open"
            ));
            break;
        };
        idle.push(stream);
        if i % 250 == 249 {
            assert_eq!(get(at, "/api/timeline").status, 200, "with {i} others");
        }
    }
    assert_eq!(get(at, "/healthz").status, 200);
    // The oldest were hung up on to make room.
    let first = &mut idle[0];
    first
        .set_read_timeout(Some(crate::http::PATIENCE))
        .expect("a timeout");
    assert!(matches!(first.read(&mut [0; 16]), Ok(0) | Err(_)));
}

#[test]
fn a_slow_asker_and_a_slow_reader_are_cut() {
    let patience = Duration::from_millis(400);
    let large = fixture::Replay::new(fixture::large(60_000));
    let settings = Settings::new().address(local()).patience(patience);
    let server = Server::start(settings, Arc::new(large)).expect("it starts");
    let at = server.address();
    // Half a request.
    let mut half = connect(at);
    half.write_all(b"GET / HTTP/1.1\r\nHost: loc")
        .expect("it listens");
    let start = Instant::now();
    let mut answer = Vec::new();
    let _ = half.read_to_end(&mut answer);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    // An answer of megabytes that nobody reads: the server's side is given up.
    let mut slow = connect(at);
    slow.write_all(format!("GET /api/trace.json HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
        .expect("it listens");
    let mut places = (0..40).map(|_| connect(at)).collect::<Vec<_>>();
    for stream in &mut places {
        stream
            .write_all(format!("GET /api/trace.json HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
            .expect("it listens");
    }
    // Only two traces are written at a time; once the slow readers are cut, there is room again.
    let soon = Duration::from_secs(30);
    crate::wait::until("the slow readers are cut", soon, || {
        let again = get(at, "/api/trace.json");
        if again.status != 200 {
            assert_eq!(again.status, 503);
            return false;
        }
        let json = again.json();
        assert!(
            json["traceEvents"]
                .as_array()
                .is_some_and(|t| t.len() > 60_000)
        );
        true
    });
    let mut got = 0;
    let mut piece = vec![0; 1 << 16];
    while let Ok(n @ 1..) = slow.read(&mut piece) {
        got += n;
    }
    assert!(got < 4 << 20 || got > 0, "{got}");
}

#[test]
fn the_stream_brings_counts_and_is_bounded() {
    let server = serve(fixture::demo());
    let at = server.address();
    let watch = || {
        let mut stream = connect(at);
        stream
            .write_all(format!("GET /events HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
            .expect("it listens");
        stream
    };
    let mut stream = watch();
    let mut text = String::new();
    let mut piece = [0; 4096];
    let start = Instant::now();
    while text.matches("data: {").count() < 3 {
        let n = stream.read(&mut piece).expect("it goes on");
        assert!(n > 0 && start.elapsed() < Duration::from_secs(30), "{text}");
        text.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    assert!(
        text.contains("text/event-stream") && text.contains("\"finished\""),
        "{text}"
    );
    // Three ticks take at least two quarters of a second, less what the first came late.
    assert!(
        start.elapsed() > Duration::from_millis(350),
        "{:?}",
        start.elapsed()
    );
    let more: Vec<TcpStream> = (0..31).map(|_| watch()).collect();
    let full = || get(at, "/events");
    let start = Instant::now();
    // The others have arrived once one more is refused.
    while more.len() == 31 {
        let mut one = watch();
        let mut head = [0; 12];
        one.read_exact(&mut head).expect("an answer");
        if head.ends_with(b"503") {
            break;
        }
        drop(one);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    assert_eq!(full().status, 503);
    drop((stream, more));
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
fn those_who_watch_and_do_not_read_hold_up_nobody() {
    let settings = Settings::new()
        .address(local())
        .patience(Duration::from_millis(300));
    let server = start(settings).expect("it starts");
    let at = server.address();
    let watch = || {
        let mut stream = connect(at);
        stream
            .write_all(format!("GET /events HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
            .expect("it listens");
        stream
    };
    let deaf: Vec<TcpStream> = (0..20).map(|_| watch()).collect();
    let mut reader = watch();
    let (mut ticks, mut piece, mut times) = (0, [0; 4096], Vec::new());
    let begin = Instant::now();
    while ticks < 8 {
        let n = reader.read(&mut piece).expect("it goes on");
        assert!(n > 0, "the one who reads was cut");
        let text = String::from_utf8_lossy(&piece[..n]).into_owned();
        ticks += text.matches("data: ").count();
        let asked = Instant::now();
        assert_eq!(get(at, "/api/timeline").status, 200);
        times.push(asked.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(60), "{times:?}");
    }
    // What they did not read was not kept for them: they are told the latest.
    for mut stream in deaf {
        let n = stream.read(&mut piece).expect("there is something");
        assert!(n > 0);
    }
}

#[test]
fn the_end_is_quick_whoever_watches() {
    let server = serve(fixture::demo());
    let at = server.address();
    let mut stream = connect(at);
    stream
        .write_all(format!("GET /events HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
        .expect("it listens");
    let mut piece = [0; 64];
    let _ = stream.read(&mut piece).expect("it answers");
    let start = Instant::now();
    drop(server);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(TcpStream::connect(at).is_err(), "the port is free again");
}
