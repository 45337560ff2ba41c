//! What a run is like: how many nodes, how bad the network, what crashes.
//!
//! Invariant: it follows from the seed. Times are in microseconds.

use crate::chance::Chance;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: u64,
    /// What the programs on the nodes do, all together.
    pub actions: u64,
    /// Most of the way takes from a tenth of this to this.
    pub latency: u64,
    /// So many messages of 1,000 are lost below the session and come late.
    pub losses: u64,
    /// How late at most.
    pub late: u64,
    /// How often the cluster is split for a while.
    pub splits: u64,
    /// For how long at most.
    pub split: u64,
    /// How many connections break.
    pub breaks: u64,
    /// How long it takes to make one again.
    pub reconnect: u64,
    /// How many nodes crash.
    pub crashes: u64,
    /// A death is known everywhere after at most this.
    pub detection: u64,
    /// So many transfers of 1,000 fail for no reason.
    pub broken: u64,
    /// So many copies of 1,000 looked at are dropped for lack of memory.
    pub evictions: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut chance = Chance::new(seed ^ 0x6d6f_6275_6c61);
        let c = &mut chance;
        let nodes = if c.permille(50) {
            c.between(20, 60)
        } else {
            c.between(2, 9)
        };
        let calm = c.permille(250);
        let some = |c: &mut Chance, most: u64| if calm { 0 } else { c.between(0, most) };
        Plan {
            seed,
            nodes,
            actions: 150 + nodes * 15,
            latency: c.between(100, 20_000),
            losses: some(c, 200),
            late: c.between(1_000, 100_000),
            splits: some(c, 2),
            split: c.between(10_000, 200_000),
            breaks: some(c, nodes),
            reconnect: c.between(100, 50_000),
            crashes: some(c, nodes / 2),
            detection: c.between(1_000, 100_000),
            broken: some(c, 200),
            evictions: some(c, 500),
        }
    }

    /// How long a message is on its way at most: each break or split makes it begin anew.
    pub fn longest(&self) -> u64 {
        let outages = self.breaks * self.reconnect + self.splits * self.split;
        (self.latency + self.late) * (1 + self.breaks + self.splits) + outages
    }

    /// For how long what the dead handed on may register: a message from a node that is dead, then one to the owner, each
    /// as late as can be, while everybody learns of the death.
    pub fn grace(&self) -> u64 {
        self.detection + 2 * self.longest() + 1
    }
}
