//! A trace read as a viewer would read one that is larger than its memory: event by event, keeping only counts.
//!
//! Invariant: it is a parser of JSON, not of the lines that this crate happens to write.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What was counted.
#[derive(Debug, Default)]
pub struct Found {
    pub events: u64,
    /// Boxes of calls.
    pub tasks: u64,
    /// Boxes of submissions.
    pub submits: u64,
    /// Beginnings and ends of arrows, by kind.
    ends: BTreeMap<String, (u64, u64)>,
}

impl Found {
    /// How many arrows of a kind begin, and how many end.
    pub fn arrows(&self, kind: &str) -> (u64, u64) {
        self.ends.get(kind).copied().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Event {
    ph: String,
    cat: String,
}

/// Reads a trace.
pub fn read(from: impl Read) -> serde_json::Result<Found> {
    let mut found = Found::default();
    let mut json = serde_json::Deserializer::from_reader(from);
    Whole(&mut found).deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

struct Whole<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a trace")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "traceEvents" {
                map.next_value_seed(Events(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Events<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("events")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(event) = events.next_element::<Event>()? {
            self.0.events += 1;
            match (event.ph.as_str(), event.cat.as_str()) {
                ("X", "task") => self.0.tasks += 1,
                ("X", "submit") => self.0.submits += 1,
                ("s", _) => self.0.ends.entry(event.cat).or_default().0 += 1,
                ("f", _) => self.0.ends.entry(event.cat).or_default().1 += 1,
                _ => {}
            }
        }
        Ok(())
    }
}
