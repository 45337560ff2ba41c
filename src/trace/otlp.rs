//! Spans of calls as an OpenTelemetry request: OTLP's JSON, as its protocol has it over HTTP.
//!
//! Ids are made of the recording's and the calls' numbers, mixed so that they look drawn by chance: the same call has
//! the same id whenever it is asked for, which is what lets a span name its parent before that one has ended.
//!
//! Invariant: valid JSON whatever the spans say; no id is zero. Left out: sending it.

use super::spans::Span;
use super::text::Out;

/// What the spans come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// `service.name`.
    pub service: String,
    /// Further attributes of the resource.
    pub attributes: Vec<(String, String)>,
    /// The process.
    pub process: u32,
    /// Tells this recording's ids from others'.
    pub seed: u64,
}

/// Mixes a number so that each bit of what comes out depends on all that went in; no two numbers give the same.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn span_id(source: &Source, call: u64) -> String {
    format!("{:016x}", mix(call ^ mix(source.seed)).max(1))
}

fn trace_id(source: &Source, root: u64) -> String {
    let low = mix(!root ^ source.seed);
    format!("{:016x}{:016x}", mix(source.seed), low.max(1))
}

/// The body of a request that hands over `spans`.
pub fn request(source: &Source, spans: &[Span]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut out = Out::new(&mut body);
    out.raw("{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    attribute(&mut out, "service.name").text(&source.service);
    let sdk = [
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "mobula"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let own = source.attributes.iter();
    let own = own.map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in sdk.into_iter().chain(own) {
        out.raw(",");
        attribute(&mut out, key).text(value);
    }
    out.raw(",");
    attribute(&mut out, "process.pid").number(source.process.into());
    out.raw("]},\"scopeSpans\":[{\"scope\":{\"name\":\"mobula\",\"version\":");
    out.string(env!("CARGO_PKG_VERSION")).raw("},\"spans\":[");
    for (i, span) in spans.iter().enumerate() {
        if i > 0 {
            out.raw(",");
        }
        write(&mut out, source, span);
    }
    out.raw("]}]}]}");
    // A Vec takes whatever it is given.
    let _ = out.finish();
    body
}

type To<'a> = Out<&'a mut Vec<u8>>;

fn write(out: &mut To<'_>, source: &Source, span: &Span) {
    let ids = |out: &mut To<'_>, root, call| {
        out.raw("{\"traceId\":\"").raw(&trace_id(source, root));
        out.raw("\",\"spanId\":\"").raw(&span_id(source, call));
        out.raw("\"");
    };
    ids(out, span.root, span.call);
    if span.parent != 0 {
        out.raw(",\"parentSpanId\":\"");
        out.raw(&span_id(source, span.parent)).raw("\"");
    }
    // Those who read them know the function by its last name.
    let short = span.name.rsplit("::").next().unwrap_or(&span.name);
    out.raw(",\"name\":").string(short).raw(",\"kind\":1");
    out.raw(",\"startTimeUnixNano\":\"").number(span.begin);
    out.raw("\",\"endTimeUnixNano\":\"").number(span.end);
    out.raw("\",\"attributes\":[");
    attribute(out, "code.function.name").text(&span.name);
    out.raw(",");
    attribute(out, "mobula.call").text(&format!("{:#x}", span.call));
    let numbers = [
        ("mobula.attempt", u64::from(span.turns.max(1))),
        ("mobula.result_bytes", span.bytes),
        ("mobula.waited_ns", span.waited),
    ];
    for (key, value) in numbers {
        out.raw(",");
        attribute(out, key).number(value);
    }
    if span.actor != 0 {
        out.raw(",");
        attribute(out, "mobula.actor").text(&format!("{:#x}", span.actor));
    }
    if span.cancelled {
        out.raw(",");
        attribute(out, "mobula.cancelled").truth();
    }
    if let Some(error) = &span.error {
        out.raw(",");
        attribute(out, "error.message").text(error);
    }
    out.raw("]");
    if !span.links.is_empty() {
        out.raw(",\"links\":[");
        for (i, (call, root)) in span.links.iter().enumerate() {
            if i > 0 {
                out.raw(",");
            }
            ids(out, *root, *call);
            out.raw("}");
        }
        out.raw("]");
    }
    if !span.ok {
        out.raw(",\"status\":{\"code\":2");
        if let Some(error) = &span.error {
            out.raw(",\"message\":").string(error);
        }
        out.raw("}");
    }
    out.raw("}");
}

/// An attribute, up to its value.
fn attribute<'o, 'v>(out: &'o mut To<'v>, key: &str) -> Value<'o, 'v> {
    out.raw("{\"key\":").string(key).raw(",\"value\":{");
    Value(out)
}

struct Value<'o, 'v>(&'o mut To<'v>);

impl Value<'_, '_> {
    fn text(self, value: &str) {
        self.0.raw("\"stringValue\":").string(value).raw("}}");
    }

    /// As a string, since it is a number of 64 bits.
    fn number(self, value: u64) {
        let value = value.min(i64::MAX as u64);
        self.0.raw("\"intValue\":\"").number(value).raw("\"}}");
    }

    fn truth(self) {
        self.0.raw("\"boolValue\":true}}");
    }
}
