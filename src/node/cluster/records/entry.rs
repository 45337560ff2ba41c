//! This node's own entry in the records: that it is there, where, and whether it is the head.
//!
//! On etcd an entry lives with a lease, and so does the word that a node is the head, which one at a time can have. Nodes that
//! miss the head look there for another, and for the word that it left in order, which is told to all but may be missed.
//!
//! Invariant: what this node wrote under its lease is gone when its lease is. Left out: names (`records`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{GRACE, Keeper, TTL, WITHIN};
use crate::base::{Error, NodeId};
use crate::control::records::{self, Authority, Lead, NamedActor, Node};
use crate::control::{Control, ControlError, Expect, Result};
use crate::link::Ca;
use crate::node::cluster::Cluster;
use crate::node::cluster::join::NODES;

/// How long an answer may take on which the lease depends.
const PROLONG: Duration = Duration::from_secs(1);
/// The head that left in order.
const LEFT: &str = "left";

impl Keeper {
    /// The records, if every node reaches them itself.
    pub fn shared(&self) -> Option<&dyn Control> {
        self.shared.then_some(&*self.control)
    }

    /// Where nodes are that let others in, if all do.
    pub fn doors(&self) -> std::result::Result<Vec<SocketAddr>, Error> {
        if !self.shared {
            return Ok(Vec::new());
        }
        let listed = records::list::<Node>(&*self.control, WITHIN);
        let (nodes, _) = listed.map_err(|e| self.failed(&e))?;
        Ok(nodes.into_iter().map(|node| node.addr).collect())
    }

    /// The authority that is to be found with the records whatever happens to them.
    pub fn holds(&self, ca: &Ca) {
        let authority = Authority {
            whose: NODES.to_owned(),
            secret: ca.to_pem(),
        };
        let _ = self.authority.set(authority);
    }

    /// Enters this node, and reads what was there before: the other nodes.
    pub(super) fn begin(&self, cluster: &Cluster) -> Result<Vec<(NodeId, SocketAddr)>> {
        let control = &*self.control;
        let (nodes, _) = records::list::<Node>(control, WITHIN)?;
        let (mut names, _) = records::list::<NamedActor>(control, WITHIN)?;
        // Others may go on with those whose history is kept, and are looked for when somebody asks.
        names.retain(|named| named.incarnation == 0);
        // Whoever kept these records in a folder is gone: nobody else can have opened it.
        let gone = |node: &NodeId| match self.shared {
            true => !nodes.iter().any(|n| n.node == *node),
            false => nodes.iter().any(|n| n.node == *node && n.head),
        };
        for named in names.iter().filter(|named| gone(&named.actor.host)) {
            self.remove(&named.name, named.actor)?;
        }
        if !self.shared {
            let before = nodes.iter().filter(|n| n.head).map(|n| n.node);
            *self.before.lock() = before.collect();
            for node in self.before.lock().iter() {
                records::delete::<Node>(control, node, Expect::Any, WITHIN)?;
            }
        }
        self.enter(cluster)?;
        // The head that was lost is on record for as long as its lease.
        let until = Instant::now() + TTL + GRACE;
        loop {
            match self.lead(cluster) {
                Err(ControlError::Conflict { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(200));
                    self.prolong(cluster);
                }
                led => break led.inspect_err(|_| self.revoke())?,
            }
        }
        let others = nodes.into_iter().filter(|node| node.node != cluster.me);
        Ok(others.map(|node| (node.node, node.addr)).collect())
    }

    /// Writes that this node is there.
    fn enter(&self, cluster: &Cluster) -> Result<()> {
        let Some(addr) = self.reached.get().copied() else {
            return Ok(());
        };
        let control = &*self.control;
        let lease = match self.shared {
            true => Some(control.grant(TTL, WITHIN)?),
            false => None,
        };
        // Known before anything hangs on it.
        *self.lease.lock() = lease;
        if let Some(authority) = self.authority.get() {
            match records::put(control, authority, Expect::Absent, None, WITHIN) {
                Ok(_) | Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        let node = Node {
            node: cluster.me,
            addr,
            head: cluster.heads(),
            labels: cluster.labels.clone(),
        };
        records::put(control, &node, Expect::Any, lease.map(|l| l.id), WITHIN).map(drop)
    }

    /// Writes that this node is the head, if it is. A conflict: another is.
    fn lead(&self, cluster: &Cluster) -> Result<()> {
        let lease = *self.lease.lock();
        let (Some(lease), Some(addr), true) = (lease, self.reached.get().copied(), cluster.heads())
        else {
            return Ok(());
        };
        let (control, node) = (&*self.control, cluster.me);
        let of = NODES.to_owned();
        let lead = Lead { of, node, addr };
        records::put(control, &lead, Expect::Absent, Some(lease.id), WITHIN)?;
        records::delete::<Lead>(control, &LEFT.to_owned(), Expect::Any, WITHIN).map(drop)
    }

    /// Says that this node is still there. Looks for a head if there is none.
    pub(super) fn prolong(&self, cluster: &Cluster) {
        if !self.shared {
            return;
        }
        if cluster.fenced_by().is_some() {
            return self.revoke();
        }
        // Whatever goes wrong is tried again soon.
        let lease = *self.lease.lock();
        let entered = match lease.map(|lease| self.control.keep_alive(lease.id, PROLONG)) {
            Some(Ok(())) => Ok(()),
            Some(Err(ControlError::NoLease { .. })) | None => {
                // Where another is the head by now, this one is a node among others.
                self.enter(cluster).and_then(|()| self.lead(cluster))
            }
            Some(Err(e)) => Err(e),
        };
        if entered.is_ok() && cluster.is_headless() {
            let _ = self.look_for_head(cluster);
        }
    }

    /// Who is named so.
    fn named(&self, of: &str) -> Result<Option<Lead>> {
        let found = records::get::<Lead>(&*self.control, &of.to_owned(), WITHIN)?;
        Ok(found.map(|(lead, _)| lead))
    }

    /// Whether the program ends with this node: not with a head that others found dead, or that another followed.
    fn is_led_by(&self, cluster: &Cluster) -> bool {
        let heads = self.shared && cluster.heads() && cluster.fenced_by().is_none();
        let is = |lead: Option<Lead>| lead.is_none_or(|lead| lead.node == cluster.me);
        heads && self.named(NODES).is_ok_and(is)
    }

    fn look_for_head(&self, cluster: &Cluster) -> Result<()> {
        if let Some(lead) = self.named(NODES)? {
            if lead.node != cluster.me
                && let Some(link) = cluster.link.get()
            {
                link.connect(lead.addr, Some(lead.node));
            }
        } else if let Some(left) = self.named(LEFT)? {
            *cluster.head_left.lock() = Some(left.node);
        }
        Ok(())
    }

    fn revoke(&self) {
        if let Some(lease) = self.lease.lock().take() {
            let _ = self.control.revoke(lease.id, WITHIN);
        }
    }

    /// This node goes: its record need not wait for its lease.
    pub fn end(&self, cluster: &Cluster) {
        if let Some(addr) = self.reached.get()
            && self.is_led_by(cluster)
        {
            let left = Lead {
                of: LEFT.to_owned(),
                node: cluster.me,
                addr: *addr,
            };
            let _ = records::put(&*self.control, &left, Expect::Any, None, WITHIN);
        }
        self.revoke();
    }
}
