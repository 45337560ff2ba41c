//! What a driver does while its program runs: it shows what nodes print, and finds the head again that was started anew.
//!
//! A head that comes back is another node at the same address, with the same authority. It knows nothing of what was held, so
//! the driver says again what it is and what it has, and has its node there started again. Where another launcher takes over as
//! the head, its own launchers tell it, and it says to that what it is.
//!
//! Invariant: this ends with the program. Left out: the first start (`driver`); another machine's launcher that was started
//! again, whose nodes the program goes on without.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::driver::Plan;
use super::ears::Event;
use super::message::{Message, Start};
use super::sites::{Printer, Site, Stage, watched};
use crate::base::NodeId;
use crate::core::jobs::Ask;
use crate::link::Link;

/// How often a head is called that is gone.
const AGAIN: Duration = Duration::from_secs(1);

impl Plan {
    /// Until the program ends, and its nodes.
    pub(super) fn watch(mut self, mut sites: Vec<Site>, start: &Start, mut out: Printer) -> Plan {
        let mut last = false;
        // It may have been lost before anybody watched.
        let lost = !self.guest.link.is_connected(self.guest.head);
        let mut gone = lost.then(Instant::now);
        // Another leads, that is to be reached.
        let mut lead = None;
        let runs = |s: &Site| matches!(s.stage, Stage::Joined | Stage::Started(_));
        while !last || sites.iter().any(runs) {
            let within = if gone.is_some() {
                AGAIN
            } else {
                Duration::from_secs(3600)
            };
            match self.guest.heard.next(within) {
                Some(Event::Stop) => break,
                Some(Event::Last) => last = true,
                Some(Event::Said(from, Message::Leads(node, addr)))
                    if self.knows(from, &sites) && lead.unwrap_or(self.guest.head) != node =>
                {
                    self.guest.addr = addr;
                    if self.guest.link.is_connected(node) {
                        (lead, gone) = (None, None);
                        self.led_by(node);
                    } else {
                        (lead, gone) = (Some(node), Some(Instant::now()));
                        self.guest.link.connect(addr, Some(node));
                    }
                }
                Some(Event::Here(node, _, true)) if lead == Some(node) => {
                    (lead, gone) = (None, None);
                    self.led_by(node);
                }
                Some(Event::Here(node, _, true))
                    if gone.is_some() && !last && self.may_lead(node, &sites) =>
                {
                    gone = None;
                    self.found_again(node, &mut sites);
                }
                Some(event) => {
                    if matches!(&event, Event::Here(node, ..) if *node == self.guest.head) {
                        gone = None;
                    }
                    if matches!(&event, Event::Gone(node, _) if *node == self.guest.head) {
                        gone = Some(Instant::now());
                    }
                    self.heard(&mut sites, event, start, &mut out);
                }
                None => {}
            }
            if let Some(called) = &mut gone
                && !last
                && called.elapsed() >= AGAIN
            {
                *called = Instant::now();
                self.guest.link.connect(self.guest.addr, None);
            }
            out.dropped(self.guest.heard.dropped.swap(0, Ordering::Relaxed));
        }
        self
    }

    /// Whether this may be the head, started again: it is nobody that is known as somebody else.
    fn may_lead(&self, node: NodeId, sites: &[Site]) -> bool {
        let head = self.guest.head;
        let own = self.own.as_ref().map(|own| own.node);
        node != head && own != Some(node) && sites.iter().all(|s| s.machine.node != node)
    }

    /// Whether this is a launcher that has something of this program.
    fn knows(&self, node: NodeId, sites: &[Site]) -> bool {
        let own = self.own.as_ref().is_some_and(|own| own.node == node);
        own || sites.iter().any(|s| s.machine.node == node)
    }

    /// Another machine's launcher lets others in, and keeps a record of what runs.
    fn led_by(&mut self, head: NodeId) {
        self.guest.head = head;
        self.tell_head();
    }

    /// The head was started again, as this node.
    fn found_again(&mut self, head: NodeId, sites: &mut [Site]) {
        let before = std::mem::replace(&mut self.guest.head, head);
        self.guest.link.forget(before);
        self.tell_head();
        if let (Some(own), Some(holds)) = (&mut self.own, &self.holds)
            && own.node == before
        {
            own.node = head;
            let ask = Ask::Exactly(holds.clone());
            self.send_ask(head, ask, None);
        }
        if let Some(site) = sites.iter_mut().find(|s| s.machine.node == before) {
            site.machine.node = head;
            site.stage = Stage::Called;
            self.send_ask(head, self.ask.clone(), Some(self.program.clone()));
        }
    }

    fn heard(&self, sites: &mut [Site], event: Event, start: &Start, out: &mut Printer) {
        let own = self.own.as_ref().map(|own| (own.node, &own.name));
        match event {
            Event::Said(from, Message::Refused(why))
                if own.is_some_and(|(node, _)| node == from) =>
            {
                let name = own.map_or("", |(_, name)| name);
                out.note(&format!(
                    "machine {name} was started again, and does not count this program: {why}"
                ));
            }
            // A node is being started again.
            Event::Said(from, message)
                if sites
                    .iter()
                    .any(|s| s.machine.node == from && matches!(s.stage, Stage::Called)) =>
            {
                self.on(sites, Event::Said(from, message), start, out);
                let site = sites.iter().find(|s| s.machine.node == from);
                if let Some((site, Stage::Failed(why))) = site.map(|s| (s, &s.stage)) {
                    let name = &site.machine.name;
                    out.note(&format!(
                        "machine {name} has no node of this program any more: {why}"
                    ));
                }
            }
            event => watched(sites, event, out),
        }
    }
}
