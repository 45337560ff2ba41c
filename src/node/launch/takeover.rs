//! A launcher begins to lead, or hears that another does.
//!
//! The one that leads has the authority and the records of what ran, and lets others in; others come to it. Drivers are told by the
//! launchers that they have something with, since they cannot ask one that is gone.
//!
//! Invariant: a launcher that leads has both; one that hears of another gives them up. Left out: who leads (`lead`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ears;
use super::launcher::{Launcher, Now};
use super::lead::LAUNCHERS;
use super::message::Message;
use super::past::Records;
use crate::base::NodeId;
use crate::link::Link;
use crate::node::cluster;

/// How often drivers are told.
const TELL: Duration = Duration::from_secs(2);

impl Launcher {
    /// This one leads, as it is on record.
    pub(super) fn leads(&mut self, now: &mut Now, node: NodeId, addr: SocketAddr) {
        let Some(control) = self.control.clone() else {
            return;
        };
        let mine = node == self.me;
        let known = if mine { None } else { Some(addr) };
        if now.lead == Some((node, addr)) && self.joined == known {
            return;
        }
        if mine && self.joined.is_some() {
            let taken = cluster::on_record(&*control, LAUNCHERS)
                .map_err(|e| e.to_string())
                .and_then(|ca| ca.ok_or_else(|| "no authority is on record".to_owned()))
                .and_then(|ca| Ok((ca, Records::open(control).map_err(|e| e.to_string())?)));
            match taken {
                Ok((ca, records)) => {
                    eprintln!("mobula: this launcher, at {addr}, lets others in from now on");
                    self.link.hold_ca(Some(Arc::new(ca)));
                    self.records = Some(records);
                    self.joined = None;
                }
                Err(why) => {
                    // It is told again soon.
                    return eprintln!("mobula: this launcher cannot let others in yet: {why}");
                }
            }
        }
        if !mine && self.joined != Some(addr) {
            if self.joined.is_none() {
                eprintln!("mobula: the launcher at {addr} lets others in from now on");
            }
            self.link.hold_ca(None);
            self.records = None;
            self.joined = Some(addr);
            now.called = None;
        }
        let there = !mine && self.link.is_connected(node);
        now.head = there.then_some(node);
        now.lead = Some((node, addr));
        now.news = true;
        self.state.head = addr;
        self.write_down();
        if !super::is_first(&self.state.dir)
            && let Err(e) = super::keep(&self.state.dir, addr, &self.state.token)
        {
            eprintln!("mobula: {}: {e}", self.state.dir.display());
        }
        now.told = None;
        self.tell_lead(now);
    }

    /// Tells drivers who leads, since none of them can ask when the one they knew is gone.
    pub(super) fn tell_lead(&self, now: &mut Now) {
        let Some((node, addr)) = now.lead else { return };
        if now.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        now.told = Some(Instant::now());
        for driver in now.drivers.keys() {
            ears::send(&self.link, *driver, &Message::Leads(node, addr));
        }
    }
}
