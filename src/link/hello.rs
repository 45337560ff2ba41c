//! What two nodes say first: who they are, and whether they understand each other.
//!
//! Invariant: a node of another version, cluster, kind of machine or program is never talked to further, and both sides say
//! what differs. The first bytes, up to the version, never change, so that any two versions can say so. Left out: who is
//! let in, which the handshake below has decided.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::base::NodeId;
use crate::link::ca::ClusterId;
use crate::link::codec::{Reader, Writer};
use crate::link::token::sha256;
use crate::link::{LinkError, RegistryDiff};

/// Counted up with each change of what goes between nodes.
pub const WIRE_VERSION: u32 = 7;

const MAGIC: &[u8; 8] = b"mobula/n";
/// What the driver may add.
pub(crate) const MAX_APP: usize = 64 << 10;
const MAX_NAME: usize = 1 << 10;
/// A hello is at most this long.
pub(crate) const MAX_HELLO: usize = MAX_APP + (4 << 10);
/// A list of functions is at most this long.
pub(crate) const MAX_LIST: usize = 4 << 20;

/// How a machine lays out memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// As rustc names it.
    pub arch: String,
    /// Bits of a pointer.
    pub pointer: u8,
    /// Whether the least significant byte is first.
    pub little_endian: bool,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Platform {
        Platform {
            arch: std::env::consts::ARCH.to_owned(),
            pointer: usize::BITS as u8,
            little_endian: cfg!(target_endian = "little"),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endian = if self.little_endian { "little" } else { "big" };
        write!(f, "{} of {} bits, {endian}-endian", self.arch, self.pointer)
    }
}

/// The functions that a program can be asked to run, each with a hash of how its values are laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry(BTreeMap<String, u64>);

impl Registry {
    /// Of these functions. Names beyond the bounds are cut: 1 KiB each, 4 MiB together.
    pub fn new(functions: impl IntoIterator<Item = (String, u64)>) -> Registry {
        let mut known = BTreeMap::new();
        let mut room = MAX_LIST - 4;
        for (mut name, layout) in functions {
            while name.len() > MAX_NAME {
                name.pop();
            }
            let Some(left) = room.checked_sub(name.len() + 12) else {
                break;
            };
            room = left;
            known.insert(name, layout);
        }
        Registry(known)
    }

    /// What stands for all of it.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.encode())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(self.0.len() as u32);
        for (name, layout) in &self.0 {
            out.bytes(name.as_bytes()).u64(*layout);
        }
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Registry, LinkError> {
        let mut from = Reader::new(bytes);
        let mut known = BTreeMap::new();
        for _ in 0..from.u32("a count of functions")? {
            let name = from.text(MAX_NAME, "a function's name")?.to_owned();
            known.insert(name, from.u64("a function's layout")?);
        }
        from.end("the list of functions")?;
        Ok(Registry(known))
    }

    /// How theirs differs from this one.
    pub(crate) fn diff(&self, theirs: &Registry) -> RegistryDiff {
        let mut diff = RegistryDiff::default();
        let mut note = |what: String| {
            if diff.named.len() < RegistryDiff::NAMED {
                diff.named.push(what);
            } else {
                diff.more += 1;
            }
        };
        for (name, layout) in &self.0 {
            match theirs.0.get(name) {
                None => note(format!("`{name}` is only here")),
                Some(other) if other != layout => note(format!("`{name}` has other types there")),
                Some(_) => {}
            }
        }
        for name in theirs.0.keys().filter(|name| !self.0.contains_key(*name)) {
            note(format!("`{name}` is only there"));
        }
        diff
    }
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its [`WIRE_VERSION`].
    pub wire_version: u32,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Which node it is.
    pub node: NodeId,
    /// Where others reach it, as far as it knows.
    pub reach: Option<SocketAddr>,
    /// Its kind of machine.
    pub platform: Platform,
    /// The hash of its [`Registry`].
    pub registry: [u8; 32],
    /// Whatever the driver adds, at most 64 KiB.
    pub app: Vec<u8>,
}

impl Hello {
    /// This node's.
    pub fn new(cluster: ClusterId, node: NodeId, registry: &Registry) -> Hello {
        Hello {
            wire_version: WIRE_VERSION,
            cluster,
            node,
            reach: None,
            platform: Platform::here(),
            registry: registry.hash(),
            app: Vec::new(),
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.raw(MAGIC).u32(self.wire_version);
        out.raw(&self.cluster.0).u64(self.node.get());
        let reach = self.reach.map(|addr| addr.to_string()).unwrap_or_default();
        out.bytes(reach.as_bytes());
        out.bytes(self.platform.arch.as_bytes());
        out.u8(self.platform.pointer)
            .u8(self.platform.little_endian.into());
        out.raw(&self.registry).bytes(&self.app);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Hello, LinkError> {
        if from.raw(8, "a greeting")? != MAGIC {
            return Err(LinkError::Protocol(
                "it does not greet as a node does".to_owned(),
            ));
        }
        let theirs = from.u32("a version")?;
        if theirs != WIRE_VERSION {
            let ours = WIRE_VERSION;
            return Err(LinkError::Version { ours, theirs });
        }
        let cluster = ClusterId(from.array("a cluster")?);
        let node = NodeId::new(from.u64("a node")?)
            .ok_or_else(|| LinkError::Protocol("node 0".to_owned()))?;
        let reach = match from.text(64, "an address")? {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| LinkError::Protocol(format!("the address {text:?}")))?,
            ),
        };
        let arch = from.text(64, "a kind of machine")?.to_owned();
        let pointer = from.u8("a size of pointers")?;
        let little_endian = from.u8("an order of bytes")? == 1;
        Ok(Hello {
            wire_version: theirs,
            cluster,
            node,
            reach,
            platform: Platform {
                arch,
                pointer,
                little_endian,
            },
            registry: from.array("a hash of functions")?,
            app: from.bytes(MAX_APP, "what the program adds")?.to_vec(),
        })
    }

    /// Whether the two can talk, but for their functions.
    pub(crate) fn check(&self, theirs: &Hello) -> Result<(), LinkError> {
        if self.wire_version != theirs.wire_version {
            return Err(LinkError::Version {
                ours: self.wire_version,
                theirs: theirs.wire_version,
            });
        }
        if self.cluster != theirs.cluster {
            return Err(LinkError::OtherCluster {
                expected: self.cluster.to_string(),
                found: theirs.cluster.to_string(),
            });
        }
        if self.platform != theirs.platform {
            return Err(LinkError::Platform {
                ours: self.platform.to_string(),
                theirs: theirs.platform.to_string(),
            });
        }
        Ok(())
    }
}
