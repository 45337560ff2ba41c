//! Spans of calls for OpenTelemetry: read from the recording as calls end, sent to a collector over HTTP.
//!
//! One thread reads four times a second, gathers up to 512 spans to a request and sends it on a connection of its own. A collector that
//! is not there, or too slow, costs nobody else anything: requests are tried again with growing pauses while calls go on, up to
//! a bound of spans that wait; those beyond it are dropped and counted.
//!
//! Invariant: the thread ends with the node, at most the timeout later, having tried to send what had ended; only the system's
//! look-up of the collector's name may take it longer. Left out: HTTPS, which a collector beside the program is for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::{Error, Result};
use crate::exec::events::Recording;
use crate::trace::{Recorder, Source, Span, Spans, request};

/// Spans of one request.
const REQUEST: usize = 512;
/// Spans that wait to be sent, some 300 bytes each.
const WAITING: usize = 128 * REQUEST;
/// Between two readings.
const INTERVAL: Duration = Duration::from_millis(250);
/// Between two attempts to send, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest answer that is read.
const ANSWER: u64 = 16 << 10;

/// Where spans go: [`Config::otel`](crate::Config::otel).
///
/// What is not set here is taken from the environment, under the names that OpenTelemetry gives: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or
/// `OTEL_EXPORTER_OTLP_ENDPOINT` (else `http://localhost:4318`), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT` in milliseconds,
/// `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`; `OTEL_SDK_DISABLED=true` sends nothing.
#[derive(Clone, Debug, Default)]
pub struct Otel {
    endpoint: Option<String>,
    service: Option<String>,
}

impl Otel {
    /// As the environment says.
    pub fn new() -> Otel {
        Otel::default()
    }

    /// The collector, as in `http://localhost:4318`; spans go to `/v1/traces` there. HTTPS is not spoken: a collector beside
    /// the program passes them on.
    pub fn endpoint(mut self, url: impl Into<String>) -> Otel {
        self.endpoint = Some(url.into());
        self
    }

    /// What the program is called. Default: the name of its file.
    pub fn service(mut self, name: impl Into<String>) -> Otel {
        self.service = Some(name.into());
        self
    }
}

/// What a collector is told, and where it is.
struct Target {
    url: String,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

fn wrong(why: String) -> Error {
    Error::Config {
        setting: "otel",
        why,
    }
}

/// The value of a variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Pairs of `key=value`, separated by commas, as the variables have them; what is no pair is left out.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((key.trim().to_owned(), unescaped(value.trim())))
    };
    text.split(',').filter_map(pair).collect()
}

/// Text with its `%20`s taken back.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Target {
    fn find(otel: &Otel, variable: &impl Fn(&str) -> Option<String>) -> Result<Target> {
        let base = || {
            otel.endpoint
                .clone()
                .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
        };
        let whole = match otel.endpoint {
            Some(_) => None,
            None => variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        };
        let url = whole.unwrap_or_else(|| {
            let base = base().unwrap_or_else(|| "http://localhost:4318".into());
            format!("{}/v1/traces", base.trim_end_matches('/'))
        });
        let bad = |what: &str| wrong(format!("{url}: {what}"));
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(bad(
                "only http:// is spoken: let a collector beside the program pass spans on",
            ));
        };
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        if host.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("is no address: give one like http://localhost:4318"));
        }
        let named = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if named {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let headers = variable("OTEL_EXPORTER_OTLP_HEADERS");
        let headers = pairs(&headers.unwrap_or_default());
        let odd = |text: &str| text.chars().any(char::is_control);
        if headers
            .iter()
            .any(|(k, v)| odd(k) || odd(v) || k.contains(' '))
        {
            return Err(wrong(
                "OTEL_EXPORTER_OTLP_HEADERS has what no header may have".into(),
            ));
        }
        let timeout = variable("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|ms| ms.parse().ok());
        Ok(Target {
            host,
            path: path.to_owned(),
            headers,
            timeout: Duration::from_millis(timeout.unwrap_or(10_000).clamp(1, 600_000)),
            url,
        })
    }

    /// Hands over a body; an error says whether it is worth trying again.
    fn post(&self, body: &[u8], until: Instant) -> std::result::Result<(), (bool, String)> {
        let answer = self
            .exchange(body, until)
            .map_err(|e| (true, e.to_string()))?;
        let status = answer
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5));
        match status.and_then(|s| s.parse::<u16>().ok()) {
            Some(200..=299) => Ok(()),
            Some(status @ (429 | 502 | 503 | 504)) => Err((true, format!("it answered {status}"))),
            Some(status) => Err((false, format!("it answered {status}"))),
            None => Err((true, "it answered nothing that is HTTP".into())),
        }
    }

    fn exchange(&self, body: &[u8], until: Instant) -> io::Result<String> {
        let left = || {
            let left = until.saturating_duration_since(Instant::now());
            (!left.is_zero())
                .then_some(left)
                .ok_or(io::Error::from(io::ErrorKind::TimedOut))
        };
        let mut failed = io::Error::other("its name has no address");
        let mut found = None;
        for address in self.host.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left()?) {
                Ok(stream) => {
                    found = Some(stream);
                    break;
                }
                Err(e) => failed = e,
            }
        }
        let mut stream = found.ok_or(failed)?;
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n",
            self.path,
            self.host,
            body.len()
        );
        for (key, value) in &self.headers {
            head += &format!("{key}: {value}\r\n");
        }
        head += "\r\n";
        for mut piece in [head.as_bytes(), body] {
            while !piece.is_empty() {
                stream.set_write_timeout(Some(left()?))?;
                let n = stream.write(piece)?;
                piece = &piece[n..];
            }
        }
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while (answer.len() as u64) < ANSWER && !answer.windows(4).any(|w| w == b"\r\n\r\n") {
            stream.set_read_timeout(Some(left()?))?;
            match stream.read(&mut piece)? {
                0 => break,
                n => answer.extend_from_slice(&piece[..n]),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// What the settings ask for.
pub(super) fn start(
    otel: Option<&Otel>,
    recording: Option<&Recording>,
) -> Result<Option<Exporter>> {
    match (otel, recording) {
        (None, _) => Ok(None),
        (Some(otel), Some(recording)) => Exporter::start(otel, &recording.recorder).map(Some),
        (Some(_), None) => Err(wrong(
            "needs a recording: use Trace::Adaptive or Trace::Full".into(),
        )),
    }
}

/// The thread that sends.
#[derive(Debug)]
pub(super) struct Exporter {
    /// It is told when it was asked to end.
    thread: Option<(Sender<Instant>, JoinHandle<()>)>,
}

impl Exporter {
    /// Begins to send what `recorder` is told.
    pub fn start(otel: &Otel, recorder: &Arc<Recorder>) -> Result<Exporter> {
        if variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(Exporter { thread: None });
        }
        let target = Target::find(otel, &variable)?;
        let mut attributes = pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        let named = attributes.iter().position(|(key, _)| key == "service.name");
        let named = named.map(|at| attributes.remove(at).1);
        let program = || {
            let path = std::env::current_exe().ok()?;
            Some(path.file_name()?.to_string_lossy().into_owned())
        };
        let service = otel.service.clone();
        let service = service.or_else(|| variable("OTEL_SERVICE_NAME")).or(named);
        let source = Source {
            service: service.or_else(program).unwrap_or_else(|| "mobula".into()),
            attributes,
            process: std::process::id(),
            seed: recorder.date(),
        };
        Exporter::spawn(target, source, Arc::clone(recorder))
    }

    fn spawn(target: Target, source: Source, recorder: Arc<Recorder>) -> Result<Exporter> {
        let (stop, stopped) = channel();
        let mut sending = Sending {
            target,
            source,
            spans: Spans::default(),
            waiting: VecDeque::new(),
            dropped: 0,
            why: String::new(),
            pause: Duration::ZERO,
            next: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("mobula-otel".into());
        let thread = thread.spawn(move || {
            let mut pause = INTERVAL;
            let asked = loop {
                match stopped.recv_timeout(pause) {
                    Ok(asked) => break asked,
                    Err(RecvTimeoutError::Disconnected) => break Instant::now(),
                    Err(RecvTimeoutError::Timeout) => {
                        sending.read(&recorder);
                        pause = sending.send_for(INTERVAL);
                    }
                }
            };
            sending.end(&recorder, asked);
        });
        let thread = thread.map_err(|e| Error::Os {
            what: "starting the thread that sends spans",
            source: Arc::new(e),
        })?;
        Ok(Exporter {
            thread: Some((stop, thread)),
        })
    }

    /// Sends what has ended, and ends.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            let _ = stop.send(Instant::now());
            let _ = thread.join();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Sending {
    target: Target,
    source: Source,
    spans: Spans,
    waiting: VecDeque<Span>,
    dropped: u64,
    /// What went wrong last.
    why: String,
    pause: Duration,
    /// No attempt before.
    next: Instant,
}

impl Sending {
    fn read(&mut self, recorder: &Recorder) {
        let (waiting, dropped) = (&mut self.waiting, &mut self.dropped);
        self.spans.read(recorder, &mut |span| {
            waiting.push_back(span);
            if waiting.len() > WAITING {
                waiting.pop_front();
                *dropped += 1;
            }
        });
    }

    /// Sends what waits for about so long, or until something goes wrong; how long to wait for more then.
    fn send_for(&mut self, long: Duration) -> Duration {
        let begun = Instant::now();
        while !self.waiting.is_empty() && Instant::now() >= self.next {
            if begun.elapsed() >= long {
                // What is recorded meanwhile must be read before it is overwritten.
                return Duration::ZERO;
            }
            if !self.post(Instant::now() + self.target.timeout) {
                self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
                self.next = Instant::now() + self.pause;
            }
        }
        INTERVAL
    }

    /// Sends a request; false if it is to be tried again later.
    fn post(&mut self, until: Instant) -> bool {
        let n = self.waiting.len().min(REQUEST);
        let body = request(&self.source, &self.waiting.make_contiguous()[..n]);
        match self.target.post(&body, until) {
            Ok(()) => self.pause = Duration::ZERO,
            Err((again, why)) => {
                self.why = why;
                if again {
                    return false;
                }
                self.dropped += n as u64;
            }
        }
        self.waiting.drain(..n);
        true
    }

    fn end(mut self, recorder: &Recorder, asked: Instant) {
        // The second reading takes those whose submissions the first had not seen.
        self.read(recorder);
        self.read(recorder);
        // A request that was under way when this was asked has used up some of the time already.
        let until = asked + self.target.timeout;
        while !self.waiting.is_empty() && self.post(until) {}
        let lost = self.dropped + self.waiting.len() as u64;
        if lost > 0 {
            let (url, why) = (&self.target.url, &self.why);
            eprintln!("mobula: {lost} spans could not be sent to {url}: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_what_the_program_does_not() {
        let of = |otel: &Otel, set: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Target::find(otel, &variable)
        };
        let url = |otel: &Otel, set: &[(&str, &str)]| of(otel, set).unwrap().url;
        let (base, whole) = (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        );
        let none = Otel::new();
        assert_eq!(url(&none, &[]), "http://localhost:4318/v1/traces");
        assert_eq!(url(&none, &[(base, "http://a:1/")]), "http://a:1/v1/traces");
        assert_eq!(
            url(&none, &[(base, "http://a:1"), (whole, "http://b/x")]),
            "http://b/x"
        );
        let own = Otel::new().endpoint("http://c");
        assert_eq!(url(&own, &[(whole, "http://b/x")]), "http://c/v1/traces");
        let target = of(
            &own,
            &[
                (
                    "OTEL_EXPORTER_OTLP_HEADERS",
                    "api-key=a%20b,nonsense, other = c",
                ),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ],
        );
        let target = target.unwrap();
        assert_eq!(
            (target.host.as_str(), target.path.as_str()),
            ("c:80", "/v1/traces")
        );
        assert_eq!(target.timeout, Duration::from_millis(250));
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(target.headers, [pair("api-key", "a b"), pair("other", "c")]);
        let bad = of(&own, &[("OTEL_EXPORTER_OTLP_HEADERS", "key=a%0d%0ab")]);
        assert!(bad.is_err(), "a line of its own is no header");
    }

    #[test]
    fn a_collector_that_never_answers_holds_up_the_end_for_one_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = Target {
            timeout: Duration::from_secs(3),
            ..Target::find(&Otel::new().endpoint(url), &|_| None).unwrap()
        };
        let source = Source {
            service: "a test".into(),
            attributes: Vec::new(),
            process: 1,
            seed: 2,
        };
        let mode = crate::trace::Mode::Full;
        let recording = super::super::timeline::recording(mode, crate::trace::SMALLEST);
        let recorder = recording.unwrap().unwrap().recorder;
        let lane = crate::trace::Lane::new(&recorder, crate::trace::Part::Driver);
        lane.pen().unwrap().enter(0, 3, 0, 1);
        let done = crate::trace::Outcome::Done;
        lane.pen().unwrap().exit(3, done, 0, None);
        let timeout = target.timeout;
        let mut exporter = Exporter::spawn(target, source, recorder).unwrap();
        // A request is under way when the end comes.
        let (mut asked, _) = listener.accept().unwrap();
        asked.read_exact(&mut [0; 64]).unwrap();
        let begun = Instant::now();
        exporter.stop();
        let took = begun.elapsed();
        assert!(took < timeout + timeout * 3 / 4, "{took:?}");
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped("100%"), "100%");
        assert_eq!(unescaped("%zz%41%4"), "%zzA%4");
        assert_eq!(unescaped("%c3%a9"), "\u{e9}");
    }
}
