//! Who is who in a cluster: nodes, and what they own.
//!
//! A node draws its number by chance when its process starts, so a process that was taken for dead never comes back under
//! the same number: whatever it still says can be told from what its successor says. Objects and actors are named by the
//! node that made them and a count of that node's.
//!
//! Invariant: 0 names nobody. Left out: where a node can be reached, which its view says.

use std::fmt;
use std::str::FromStr;

/// One process of a cluster, for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// Nobody.
    pub const NONE: NodeId = NodeId(0);

    /// The node of this number; `None` for 0.
    pub fn new(number: u64) -> Option<NodeId> {
        (number != 0).then_some(NodeId(number))
    }

    /// Its number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:016x}", self.0)
    }
}

/// Text that names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no node: its name is 16 digits of base 16, as `mobula list nodes` shows them")]
pub struct BadNodeId(String);

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<NodeId, BadNodeId> {
        let bad = || BadNodeId(text.to_owned());
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).map_err(|_| bad())?;
        NodeId::new(number).filter(|_| plain).ok_or_else(bad)
    }
}

/// An object of the cluster: its owner, which made the first reference to it, and that node's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Who counts its references.
    pub owner: NodeId,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.owner, self.number)
    }
}

/// An actor of the cluster: the node that runs it, and that node's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorKey {
    /// Where it runs.
    pub host: NodeId,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.host, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_as_it_is_shown() {
        let node = NodeId::new(0xabc).unwrap();
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(NodeId::new(0), None);
        for bad in [
            "",
            "abc",
            "0000000000000000",
            "+000000000000abc",
            "zz00000000000abc",
        ] {
            let e = bad.parse::<NodeId>().unwrap_err().to_string();
            assert!(e.contains(bad) && e.contains("16 digits"), "{e}");
        }
    }
}
