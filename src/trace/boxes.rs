//! The boxes of a Chrome trace for what calls and objects do: submissions, runs with their phases, what is done with objects.
//!
//! Readers turn microseconds into nanoseconds and may lose one: what must stay in order is two apart.
//!
//! Invariant: a phase lies inside its box. Left out: arrows between boxes (`arrows`), all else that is in a trace (`chrome`).

use std::io::Write;

use super::arrows::ARROW;
use super::chrome::{Place, Writer};
use super::event::{Deed, Outcome, Ran, Submitted};
use super::pool::Whose;

/// What a box keeps free of phases, at its beginning and at its end.
const EDGE: u64 = 4;
/// The shortest box.
pub(super) const SHORTEST: u64 = 2 * EDGE;
/// The shortest phase that is drawn; numbers of shorter ones are in the box's arguments.
const PHASE: u64 = 100;

impl<W: Write> Writer<'_, W> {
    pub(super) fn submit(&mut self, lane: u32, s: &Submitted) {
        let (begin, end) = self.span(s.begin, s.end);
        let name = self.name(s.name);
        self.complete(lane, "submit", &name.submit, begin, end);
        self.out.raw(",\"args\":{\"call\":").id(s.call);
        self.out.raw(",\"function\":").raw(&name.whole);
        self.out.raw(",\"caller\":").id(s.caller);
        if s.actor != 0 {
            self.out.raw(",\"actor\":").id(s.actor);
        }
        self.out.raw(",\"bytes\":").number(s.bytes.into());
        self.out
            .raw(",\"inputs\":")
            .number(s.inputs.into())
            .raw("}}");
        self.submits.push((s.call, begin + ARROW, lane));
        let inputs = &s.first[..usize::from(s.inputs.min(2))];
        self.inputs.extend(inputs.iter().map(|i| (*i, s.call)));
    }

    pub(super) fn ran(&mut self, whose: Whose, r: &Ran) {
        let running = r.outcome == Outcome::Running;
        let there = u64::from(whose.process) != self.process;
        let lost = running && there && self.is_gone(whose.process);
        let begin = self.scale.nanos(r.begin);
        let end = match self.last.get(&whose.lane) {
            Some(last) if lost => *last,
            _ if running => self.now,
            _ => self.scale.nanos(r.end),
        };
        let place = Place {
            id: r.call,
            begin,
            end: end.max(begin + SHORTEST),
            lane: whose.lane,
        };
        let end = place.end;
        if there {
            self.there.push(place);
        } else {
            self.places.push(place);
            self.written.boxes += 1;
        }
        let name = self.name(r.name);
        let category = match r.actor {
            _ if there => "process",
            0 => "task",
            _ => "method",
        };
        self.complete(whose.lane, category, &name.short, begin, end);
        self.out.raw(",\"args\":{\"call\":").id(r.call);
        self.out.raw(",\"function\":").raw(&name.whole);
        let outcome = match r.outcome {
            Outcome::Running if lost => "lost with its process",
            Outcome::Running => "running",
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Again => "tried again",
            Outcome::Pending => "pending",
        };
        self.out.raw(",\"outcome\":\"").raw(outcome).raw("\"");
        self.out.raw(",\"attempt\":").number(r.turn.into());
        if r.actor != 0 {
            self.out.raw(",\"actor\":").id(r.actor);
        }
        self.out.raw(",\"bytes\":").number(r.bytes);
        let reading = self.scale.length(r.reading.into());
        let storing = self.scale.length(r.storing.into());
        self.out.raw(",\"arguments_ns\":").number(reading);
        self.out.raw(",\"store_ns\":").number(storing);
        self.what_was_said(r.call, "error");
        self.out.raw("}}");
        let reading = reading.min(end - begin - SHORTEST);
        if reading >= PHASE {
            let to = begin + reading;
            self.complete(whose.lane, "phase", "\"arguments\"", begin + EDGE, to);
            self.out.raw("}");
        }
        let storing = storing.min(end - begin - SHORTEST - reading);
        if storing >= PHASE {
            let from = end - storing;
            self.complete(whose.lane, "phase", "\"store\"", from, end - EDGE);
            self.out.raw("}");
        }
    }

    pub(super) fn object(
        &mut self,
        lane: u32,
        deed: Deed,
        (name, line): (u32, u32),
        (begin, end): (u64, u64),
        object: u64,
        bytes: u64,
    ) {
        let (begin, end) = self.span(begin, end);
        let what = match deed {
            Deed::Put => "\"put\"",
            Deed::Create => "\"create\"",
            Deed::Seal => "\"seal\"",
            Deed::Free => "\"free\"",
            Deed::Join => "\"join\"",
            Deed::Spill => "\"spilled\"",
            Deed::Restore => "\"restore\"",
            Deed::Segment => "\"spill\"",
            Deed::Transfer => "\"transfer\"",
            Deed::Checkpoint | Deed::Revive | Deed::Replay => {
                return self.history(lane, deed, (name, line), (begin, end), (object, bytes));
            }
        };
        if deed == Deed::Segment {
            self.complete(lane, "store", what, begin, end);
            self.out.raw(",\"args\":{\"objects\":").number(line.into());
            self.out.raw(",\"bytes\":").number(bytes).raw("}}");
            return;
        }
        if deed == Deed::Spill {
            self.instant_at(lane, "store", what, begin);
        } else {
            self.complete(lane, "object", what, begin, end);
        }
        self.out.raw(",\"args\":{\"object\":").id(object);
        self.out.raw(",\"bytes\":").number(bytes);
        if name != 0 && deed == Deed::Transfer {
            let name = self.name(name);
            self.out.raw(",\"from\":").raw(&name.whole);
        } else if name != 0 {
            let name = self.name(name);
            self.out.raw(",\"where\":").raw(&name.whole);
            self.out.raw(",\"line\":").number(line.into());
        }
        self.out.raw("}}");
        if matches!(deed, Deed::Put | Deed::Seal) {
            self.places.push(Place {
                id: object,
                begin,
                end,
                lane,
            });
        }
    }

    /// What is done for an actor whose state is kept.
    fn history(
        &mut self,
        lane: u32,
        deed: Deed,
        (name, calls): (u32, u32),
        (begin, end): (u64, u64),
        (actor, bytes): (u64, u64),
    ) {
        let (does, what) = match deed {
            Deed::Checkpoint => ("checkpoint", "after"),
            Deed::Replay => ("replay", "calls"),
            _ => ("restore", "after"),
        };
        let name = self.name(name);
        let name = format!("{} {does}\"", &name.last[..name.last.len() - 1]);
        self.complete(lane, "actor", &name, begin, end);
        self.out.raw(",\"args\":{\"actor\":").id(actor);
        self.out
            .raw(",\"")
            .raw(what)
            .raw("\":")
            .number(calls.into());
        self.out.raw(",\"bytes\":").number(bytes).raw("}}");
    }
}
