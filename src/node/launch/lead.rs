//! Which launcher lets others in, where the records are on etcd, so that the machine of the first one may be lost.
//!
//! The one that leads is on record under a lease. When that is over, another launcher enters itself; it finds the authority and
//! what ran with the records, others come to it, and drivers are told by the launchers that they have nodes at.
//!
//! Invariant: at most one holds the lease. One that cannot reach etcd any more leads on for those who reach it until it hears
//! that another does. Left out: what a launcher does when it leads or another does (`takeover`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ears::Event;
use crate::base::NodeId;
use crate::control::records::{self, Authority, Lead};
use crate::control::{Control, ControlError, Expect, Lease, Result};
use crate::link::Ca;

/// Whose authority and lead it is.
pub const LAUNCHERS: &str = "launchers";
/// How long the records may take for an answer.
const WITHIN: Duration = Duration::from_secs(3);
/// How long the lead outlives who has it.
const TTL: Duration = Duration::from_secs(5);
/// How often is looked who leads.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take on which the lease depends.
const PROLONG: Duration = Duration::from_secs(1);
/// How long the end of the thread is waited for.
const ENDS: Duration = Duration::from_secs(1);

/// A launcher's part in that.
pub struct Leading {
    control: Arc<dyn Control>,
    own: Lead,
    /// It is to be found with the records whatever happens to them.
    authority: Authority,
    lease: Option<Lease>,
}

/// The same on a thread of its own. Ends with this.
pub struct Looking {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Leading {
    /// Of a launcher that is reached there.
    pub fn new(control: Arc<dyn Control>, ca: &Ca, node: NodeId, addr: SocketAddr) -> Leading {
        let of = LAUNCHERS.to_owned();
        let own = Lead { of, node, addr };
        let authority = Authority {
            whose: LAUNCHERS.to_owned(),
            secret: ca.to_pem(),
        };
        Leading {
            control,
            own,
            authority,
            lease: None,
        }
    }

    /// Where the one is that leads now: this one, if nobody did. One that is not there any more is on record for a while yet.
    pub fn begin(&mut self, lives: impl Fn(SocketAddr) -> bool) -> Result<SocketAddr> {
        let until = Instant::now() + TTL * 2;
        loop {
            let lead = self.look()?;
            // This address is this one's now, whoever had it.
            let own = lead.addr == self.own.addr;
            let lives = lead.node == self.own.node || !own && lives(lead.addr);
            if lives || Instant::now() >= until {
                return Ok(lead.addr);
            }
            std::thread::sleep(LOOK / 4);
        }
    }

    fn look(&mut self) -> Result<Lead> {
        let control = &*self.control;
        if let Some(lease) = self.lease {
            match control.keep_alive(lease.id, PROLONG) {
                Ok(()) => return Ok(self.own.clone()),
                Err(ControlError::NoLease { .. }) => self.lease = None,
                Err(e) => return Err(e),
            }
        }
        loop {
            if let Some((lead, _)) = records::get::<Lead>(control, &self.own.of, WITHIN)? {
                return Ok(lead);
            }
            match records::put(control, &self.authority, Expect::Absent, None, WITHIN) {
                Ok(_) | Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
            let lease = control.grant(TTL, WITHIN)?;
            match records::put(control, &self.own, Expect::Absent, Some(lease.id), WITHIN) {
                Ok(_) => {
                    self.lease = Some(lease);
                    return Ok(self.own.clone());
                }
                Err(e) => {
                    let _ = control.revoke(lease.id, WITHIN);
                    if !matches!(e, ControlError::Conflict { .. }) {
                        return Err(e);
                    }
                }
            }
        }
    }

    fn run(mut self, events: &Sender<Event>, stop: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(LOOK) {
            // Whatever goes wrong is tried again soon, here and there.
            if let Ok(lead) = self.look() {
                let _ = events.send(Event::Leads(lead.node, lead.addr));
            }
        }
        if let Some(lease) = self.lease {
            let _ = self.control.revoke(lease.id, WITHIN);
        }
    }

    /// Goes on with that on a thread of its own, which says who leads.
    pub fn watch(self, events: Sender<Event>) -> std::io::Result<Looking> {
        let (stop, stopped) = channel();
        let named = std::thread::Builder::new().name("mobula-leads".to_owned());
        let thread = named.spawn(move || self.run(&events, &stopped))?;
        Ok(Looking {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.stop = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        // It gives the lead back, unless the records do not answer: then that is over soon anyhow.
        let until = Instant::now() + ENDS;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cluster;

    #[test]
    fn one_leads_and_another_when_it_is_gone() {
        let control = crate::control::open("memory:").unwrap();
        let ca = Ca::new().unwrap();
        let at = |n: u16| {
            let node = NodeId::new(u64::from(n)).unwrap();
            Leading::new(Arc::clone(&control), &ca, node, ([127, 0, 0, 1], n).into())
        };
        let (mut one, mut two) = (at(1), at(2));
        assert_eq!(one.begin(|_| true).unwrap().port(), 1);
        assert_eq!(two.begin(|_| true).unwrap().port(), 1);
        let (events, heard) = channel();
        let first = one.watch(events.clone()).unwrap();
        let second = two.watch(events).unwrap();
        let next = || match heard.recv_timeout(Duration::from_secs(20)).unwrap() {
            Event::Leads(node, _) => node.get(),
            _ => unreachable!("nothing else is told"),
        };
        assert_eq!([next(), next()], [1, 1], "both are told");
        drop(first);
        let told: Vec<u64> = (0..4).map(|_| next()).collect();
        assert_eq!(told.last(), Some(&2), "its lease is given back: {told:?}");
        drop(second);
        let lead = records::get::<Lead>(&*control, &LAUNCHERS.to_owned(), WITHIN);
        assert!(lead.unwrap().is_none());
        let ca_there = cluster::on_record(&*control, LAUNCHERS).unwrap().unwrap();
        assert!(ca_there.token() == ca.token());
    }
}
