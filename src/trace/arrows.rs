//! The arrows of a Chrome trace: from submissions to calls, from objects to the calls that take them.
//!
//! An arrow binds to the box that began last on its thread, as Perfetto reads it, whether or not that one has ended. So both
//! ends of an arrow stand right behind the beginning of their boxes, before anything within them; Perfetto draws it
//! from the end of the one to the beginning of the other.
//!
//! Invariant: an arrow is written only if both of its boxes were. Left out: the boxes (`chrome`).

use std::io::Write;

use super::chrome::Writer;

/// Where arrows stand in a box, in nanoseconds from its beginning.
pub(super) const ARROW: u64 = 2;

impl<W: Write> Writer<'_, W> {
    /// Arrows whose both ends were written.
    pub(super) fn arrows(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable();
        let of = |id: u64| {
            let first = places.partition_point(|p| p.id < id);
            let n = places[first..].partition_point(|p| p.id == id);
            &places[first..first + n]
        };
        for (call, at, lane) in std::mem::take(&mut self.submits) {
            if let Some(to) = of(call).first() {
                self.written.submissions += 1;
                self.arrow("submit", call, (lane, at), (to.lane, to.begin + ARROW));
            }
        }
        for (n, to) in std::mem::take(&mut self.there).into_iter().enumerate() {
            let from = of(to.id).iter().rfind(|p| p.begin <= to.begin);
            if let Some(from) = from {
                let from = (from.lane, from.begin + ARROW);
                self.arrow("process", n as u64, from, (to.lane, to.begin + ARROW));
            }
        }
        for (input, call) in std::mem::take(&mut self.inputs) {
            if let (Some(from), Some(to)) = (of(input).last(), of(call).first()) {
                self.written.inputs += 1;
                let id = self.written.inputs;
                self.arrow(
                    "data",
                    id,
                    (from.lane, from.begin + ARROW),
                    (to.lane, to.begin + ARROW),
                );
            }
        }
    }

    fn arrow(&mut self, kind: &str, id: u64, from: (u32, u64), to: (u32, u64)) {
        for (phase, (lane, at)) in [("s\"", from), ("f\",\"bp\":\"e\"", to)] {
            self.open(phase, kind);
            self.out
                .raw(",\"name\":\"")
                .raw(kind)
                .raw("\",\"id\":")
                .id(id);
            self.place(lane, at);
            self.out.raw("}");
        }
    }
}
