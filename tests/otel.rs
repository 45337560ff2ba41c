//! Spans of calls, as a collector of OpenTelemetry's gets them.
//!
//! The collector is a socket of this test's, which checks what it is sent against the protocol's JSON. Invariant: what should
//! arrive is waited for; the end of the node is the last that anything may take. Left out: gRPC and HTTPS, which are not spoken.
#![cfg(feature = "otel")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{alone, until};
use mobula::prelude::*;
use mobula::{Error, Otel};
use serde_json::Value;

/// What a collector was sent, and how it answers.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
    busy: Arc<AtomicBool>,
}

impl Collector {
    fn start() -> Collector {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", socket.local_addr().expect("it is bound"));
        let (bodies, busy) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let (all, refuses) = (Arc::clone(&bodies), Arc::clone(&busy));
        // It ends with the test program.
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert_ne!(stream.read_line(&mut head).expect("a line"), 0, "{head}");
                }
                let lower = head.to_lowercase();
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                assert!(
                    lower.contains("content-type: application/json\r\n"),
                    "{head}"
                );
                let length = lower
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "));
                let length = length.expect("a length").parse().expect("a number");
                let mut body = vec![0; length];
                stream.read_exact(&mut body).expect("the body");
                let answer = if refuses.load(Ordering::SeqCst) {
                    "503 Service Unavailable"
                } else {
                    let body = serde_json::from_slice(&body).expect("it is JSON");
                    all.lock().expect("no panics").push(body);
                    "200 OK"
                };
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 2\r\n\r\n{{}}");
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        });
        Collector { url, bodies, busy }
    }

    /// All spans so far, by name, in the order in which they came.
    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().expect("no panics");
        let lists = bodies.iter().flat_map(|body| {
            let scope = &body["resourceSpans"][0]["scopeSpans"][0];
            assert_eq!(scope["scope"]["name"], "mobula");
            scope["spans"].as_array().expect("spans").clone()
        });
        lists.map(Span::read).collect()
    }

    fn resource(&self) -> HashMap<String, String> {
        let bodies = self.bodies.lock().expect("no panics");
        attributes(&bodies[0]["resourceSpans"][0]["resource"])
    }
}

/// Attributes as text, of whatever type they are.
fn attributes(of: &Value) -> HashMap<String, String> {
    let all = of["attributes"].as_array().expect("attributes").iter();
    all.map(|a| {
        let value = a["value"].as_object().expect("a value");
        let (kind, value) = value.iter().next().expect("of one type");
        let text = match kind.as_str() {
            "stringValue" | "intValue" => value.as_str().expect("text").to_owned(),
            "boolValue" => value.as_bool().expect("a truth").to_string(),
            other => panic!("{other} is no type used here"),
        };
        (a["key"].as_str().expect("a key").to_owned(), text)
    })
    .collect()
}

#[derive(Clone, Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: Option<String>,
    begin: u64,
    end: u64,
    attributes: HashMap<String, String>,
    links: Vec<(String, String)>,
    status: Value,
}

impl Span {
    fn read(span: Value) -> Span {
        let text = |of: &Value, key: &str| of[key].as_str().map(str::to_owned);
        let hex = |of: &Value, key: &str, digits: usize| {
            let id = text(of, key).unwrap_or_else(|| panic!("{of} has no {key}"));
            let plain = id.len() == digits && id.chars().all(|c| c.is_ascii_hexdigit());
            assert!(plain && id.chars().any(|c| c != '0'), "{key} {id}");
            id
        };
        let time = |key: &str| {
            text(&span, key)
                .expect("a time")
                .parse()
                .expect("nanoseconds")
        };
        assert_eq!(span["kind"], 1);
        let links = span["links"].as_array().cloned().unwrap_or_default();
        Span {
            name: text(&span, "name").expect("a name"),
            trace: hex(&span, "traceId", 32),
            id: hex(&span, "spanId", 16),
            parent: span
                .get("parentSpanId")
                .map(|_| hex(&span, "parentSpanId", 16)),
            begin: time("startTimeUnixNano"),
            end: time("endTimeUnixNano"),
            attributes: attributes(&span),
            links: links
                .iter()
                .map(|l| (hex(l, "traceId", 32), hex(l, "spanId", 16)))
                .collect(),
            status: span["status"].clone(),
        }
    }
}

fn config(to: &Collector) -> Config {
    let otel = Otel::new().endpoint(&to.url).service("a test \"of spans\"");
    let config = Config::new().num_cpus(2.0).on_unobserved_failure(|_| {});
    config.trace(mobula::Trace::Full).otel(otel)
}

#[remote]
fn leaf(x: u64) -> u64 {
    x + 1
}

#[remote]
fn middle(x: u64) -> u64 {
    let both = [leaf::remote(x), leaf::remote(x + 1)];
    mobula::get(&both).unwrap().iter().sum()
}

#[remote]
fn top(x: u64) -> u64 {
    mobula::get(middle::remote(x)).unwrap()
}

#[remote(retry_panics = true, max_retries = 2)]
fn fails(_x: u64) -> u64 {
    panic!("no \"luck\" today")
}

#[remote]
struct Sum {
    of: u64,
}

#[remote]
impl Sum {
    pub fn new() -> Self {
        Sum { of: 0 }
    }
    pub fn add(&mut self, n: u64) -> u64 {
        self.of += n;
        self.of
    }
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut all = spans.iter().filter(|s| s.name == name);
    let first = all.next().unwrap_or_else(|| panic!("{name} in {spans:?}"));
    assert!(all.next().is_none(), "{name} is there twice");
    first
}

#[test]
fn calls_are_spans_with_parents_links_and_errors() {
    let collector = Collector::start();
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_nanos() as u64
    };
    let before = now();
    alone(config(&collector), |_| {
        assert_eq!(mobula::get(top::remote(1)).unwrap(), 5);
        let first = leaf::remote(10);
        assert_eq!(mobula::get(middle::remote(&first)).unwrap(), 25);
        assert!(mobula::get(fails::remote(1)).is_err());
        let sum = Sum::remote();
        assert_eq!(mobula::get(sum.add(3)).unwrap(), 3);
    });
    let spans = collector.spans();
    let after = now();
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "a test \"of spans\"");
    assert_eq!(resource["process.pid"], std::process::id().to_string());

    let ids: HashMap<&str, &Span> = spans.iter().map(|s| (s.id.as_str(), s)).collect();
    assert_eq!(ids.len(), spans.len(), "no id twice");
    for span in &spans {
        let times = [before, span.begin, span.end, after];
        assert!(times.is_sorted(), "{times:?} of {span:?}");
        if let Some(parent) = &span.parent {
            let parent = ids[parent.as_str()];
            assert_eq!(parent.trace, span.trace, "{span:?} in {parent:?}");
        }
    }
    let parent = |span: &Span| span.parent.as_deref().map(|p| ids[p].name.as_str());
    let top = one(&spans, "top");
    assert_eq!(top.parent, None);
    assert_eq!(top.attributes["code.function.name"], "otel::top");
    let in_top: Vec<_> = spans.iter().filter(|s| s.trace == top.trace).collect();
    assert_eq!(in_top.len(), 4, "{in_top:?}");
    let middles: Vec<_> = spans.iter().filter(|s| s.name == "middle").collect();
    assert_eq!(middles.len(), 2);
    let (under, alone): (Vec<&Span>, Vec<&Span>) =
        middles.iter().partition(|s| parent(s) == Some("top"));
    assert_eq!((under.len(), alone.len()), (1, 1));
    assert!(under[0].begin >= top.begin && under[0].end <= top.end);

    // What the second `middle` took came from a call in a trace of its own.
    assert_eq!(alone[0].parent, None);
    assert_eq!(alone[0].links.len(), 1, "{alone:?}");
    let (trace, id) = &alone[0].links[0];
    let taken = ids[id.as_str()];
    assert_eq!((&taken.name[..], &taken.trace), ("leaf", trace));
    assert!(taken.end <= alone[0].begin);

    let failed = one(&spans, "fails");
    assert_eq!(failed.status["code"], 2);
    let message = failed.status["message"].as_str().unwrap();
    assert!(message.contains("no \"luck\" today"), "{message}");
    assert_eq!(failed.attributes["error.message"], message);
    assert_eq!(failed.attributes["mobula.attempt"], "3");
    let added = one(&spans, "add");
    assert!(added.attributes["mobula.actor"].starts_with("0x"));
    assert_eq!(added.status, Value::Null);
}

#[test]
fn spans_go_out_while_the_program_runs() {
    let collector = Collector::start();
    alone(config(&collector), |_| {
        assert_eq!(mobula::get(leaf::remote(1)).unwrap(), 2);
        until(|| collector.spans().len() == 1);
        assert_eq!(mobula::get(leaf::remote(2)).unwrap(), 3);
        until(|| collector.spans().len() == 2);
    });
    assert_eq!(collector.spans().len(), 2, "none is sent twice");
}

#[test]
fn a_collector_that_is_busy_gets_them_later() {
    let collector = Collector::start();
    collector.busy.store(true, Ordering::SeqCst);
    alone(config(&collector), |_| {
        for i in 0..2_000 {
            assert_eq!(mobula::get(leaf::remote(i)).unwrap(), i + 1);
        }
        collector.busy.store(false, Ordering::SeqCst);
    });
    assert_eq!(collector.spans().len(), 2_000);
    assert!(
        collector.bodies.lock().unwrap().len() >= 4,
        "512 at most in one"
    );
}

#[test]
fn addresses_that_cannot_be_meant_are_refused() {
    let refused = |url: &str| {
        let config = Config::new().num_cpus(1.0).otel(Otel::new().endpoint(url));
        let e = common::serial(|| config.init().expect_err(url));
        assert!(
            matches!(
                e,
                Error::Config {
                    setting: "otel",
                    ..
                }
            ),
            "{e}"
        );
        e.to_string()
    };
    assert!(refused("https://collector:4318").contains("only http://"));
    refused("collector:4318");
    refused("http://");
    refused("http://a b:4318");
    let off = Config::new().trace(mobula::Trace::Off).otel(Otel::new());
    let e = common::serial(|| off.init().expect_err("there is nothing to send"));
    assert!(e.to_string().contains("Trace::Full"), "{e}");
}
