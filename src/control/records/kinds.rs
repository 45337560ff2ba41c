//! The kinds of records, and their bytes.
//!
//! Invariant: what is written is read back equal; names of any characters have keys of their own. Left out: when they
//! are written.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::{Kind, Reader, Writer};
use crate::base::{ActorKey, NodeId};
use crate::core::recovery::Record;

/// A process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who.
    pub node: NodeId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// It keeps these records.
    pub head: bool,
    /// What tasks may ask for in a node.
    pub labels: BTreeMap<String, String>,
}

/// Names a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It runs, or is about to.
    Running,
    /// Its program ended with this code.
    Ended(i32),
    /// It could not go on.
    Failed(String),
}

/// A program that runs on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// The hash of its executable.
    pub executable: [u8; 32],
    /// What it was started with.
    pub args: Vec<String>,
    /// Where its main function runs.
    pub driver: NodeId,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted: u64,
    /// How far it is.
    pub state: JobState,
}

/// An actor that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedActor {
    /// The name.
    pub name: String,
    /// Which actor.
    pub actor: ActorKey,
    /// The registered name of its type.
    pub entry: String,
    /// How often it was made, if others keep its history; else 0.
    pub incarnation: u64,
    /// Where it was made first.
    pub first: ActorKey,
}

/// What certifies the nodes of a cluster, where any node may be lost: the first one too.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Whose: that of nodes, or that of launchers.
    pub whose: String,
    /// Its certificate, key and token, as the link writes them.
    pub secret: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.whose)
    }
}

/// Who goes before others of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Of what kind.
    pub of: String,
    /// Who.
    pub node: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
}

/// A name that is a key as it is.
fn plain(name: &str) -> Option<String> {
    let is = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase());
    is.then(|| name.to_owned())
}

impl Kind for Authority {
    type Id = String;
    const NAME: &'static str = "authority";
    const PREFIX: &'static str = "authority/";

    fn name(id: &String) -> String {
        id.clone()
    }

    fn parse(name: &str) -> Option<String> {
        plain(name)
    }

    fn id(&self) -> String {
        self.whose.clone()
    }

    fn write(&self, to: &mut Writer) {
        to.bytes(self.secret.as_bytes());
    }

    fn read(whose: String, from: &mut Reader<'_>) -> Option<Authority> {
        let secret = from.text()?;
        Some(Authority { whose, secret })
    }
}

impl Kind for Lead {
    type Id = String;
    const NAME: &'static str = "lead";
    const PREFIX: &'static str = "lead/";

    fn name(id: &String) -> String {
        id.clone()
    }

    fn parse(name: &str) -> Option<String> {
        plain(name)
    }

    fn id(&self) -> String {
        self.of.clone()
    }

    fn write(&self, to: &mut Writer) {
        to.u64(self.node.get());
        to.bytes(self.addr.to_string().as_bytes());
    }

    fn read(of: String, from: &mut Reader<'_>) -> Option<Lead> {
        Some(Lead {
            of,
            node: NodeId::new(from.u64()?)?,
            addr: from.text()?.parse().ok()?,
        })
    }
}

impl Kind for Node {
    type Id = NodeId;
    const NAME: &'static str = "node";
    const PREFIX: &'static str = "nodes/";

    fn name(id: &NodeId) -> String {
        id.to_string()
    }

    fn parse(name: &str) -> Option<NodeId> {
        // As it is written: another key must not name the same node.
        let node: NodeId = name.parse().ok()?;
        (node.to_string() == name).then_some(node)
    }

    fn id(&self) -> NodeId {
        self.node
    }

    fn write(&self, to: &mut Writer) {
        to.bytes(self.addr.to_string().as_bytes());
        to.u8(u8::from(self.head));
        to.u64(self.labels.len() as u64);
        for (name, value) in &self.labels {
            to.bytes(name.as_bytes());
            to.bytes(value.as_bytes());
        }
    }

    fn read(node: NodeId, from: &mut Reader<'_>) -> Option<Node> {
        let addr = from.text()?.parse().ok()?;
        let head = match from.u8()? {
            n @ (0 | 1) => n == 1,
            _ => return None,
        };
        let labels = from.many(|from| Some((from.text()?, from.text()?)))?;
        Some(Node {
            node,
            addr,
            head,
            labels: labels.into_iter().collect(),
        })
    }
}

impl Kind for Job {
    type Id = JobId;
    const NAME: &'static str = "job";
    const PREFIX: &'static str = "jobs/";

    fn name(id: &JobId) -> String {
        id.to_string()
    }

    fn parse(name: &str) -> Option<JobId> {
        // As it is written: another key must not name the same job.
        let plain =
            name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(name, 16)
            .ok()
            .filter(|_| plain)
            .map(JobId)
    }

    fn id(&self) -> JobId {
        self.id
    }

    fn write(&self, to: &mut Writer) {
        to.bytes(&self.executable);
        to.u64(self.args.len() as u64);
        self.args.iter().for_each(|arg| to.bytes(arg.as_bytes()));
        to.u64(self.driver.get());
        to.u64(self.submitted);
        match &self.state {
            JobState::Running => to.u8(0),
            JobState::Ended(code) => {
                to.u8(1);
                to.u64(i64::from(*code) as u64);
            }
            JobState::Failed(why) => {
                to.u8(2);
                to.bytes(why.as_bytes());
            }
        }
    }

    fn read(id: JobId, from: &mut Reader<'_>) -> Option<Job> {
        let executable = from.bytes()?.try_into().ok()?;
        let args = from.many(Reader::text)?;
        let driver = NodeId::new(from.u64()?)?;
        let submitted = from.u64()?;
        let state = match from.u8()? {
            0 => JobState::Running,
            1 => JobState::Ended((from.u64()? as i64).try_into().ok()?),
            2 => JobState::Failed(from.text()?),
            _ => return None,
        };
        Some(Job {
            id,
            executable,
            args,
            driver,
            submitted,
            state,
        })
    }
}

impl Kind for Record {
    type Id = ActorKey;
    const NAME: &'static str = "kept actor";
    const PREFIX: &'static str = "kept/";

    fn name(id: &ActorKey) -> String {
        format!("{}-{:016x}", id.host, id.number)
    }

    fn parse(name: &str) -> Option<ActorKey> {
        let (host, number) = name.split_once('-')?;
        let id = ActorKey {
            host: host.parse().ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        };
        // One key for one actor.
        (<Record as Kind>::name(&id) == name).then_some(id)
    }

    fn id(&self) -> ActorKey {
        self.actor
    }

    fn write(&self, to: &mut Writer) {
        to.u64(self.incarnation);
        to.u64(self.version);
        to.u64(self.at.host.get());
        to.u64(self.at.number);
        to.u64(self.backups.len() as u64);
        self.backups.iter().for_each(|node| to.u64(node.get()));
    }

    fn read(actor: ActorKey, from: &mut Reader<'_>) -> Option<Record> {
        Some(Record {
            actor,
            incarnation: from.u64()?,
            version: from.u64()?,
            at: ActorKey {
                host: NodeId::new(from.u64()?)?,
                number: from.u64()?,
            },
            backups: from.many(|from| NodeId::new(from.u64()?))?,
        })
    }
}

impl Kind for NamedActor {
    type Id = String;
    const NAME: &'static str = "named actor";
    const PREFIX: &'static str = "actors/";

    /// Keys have no control characters; names may.
    fn name(id: &String) -> String {
        let mut name = String::with_capacity(id.len());
        for c in id.chars() {
            if c < ' ' || c == '%' {
                name.push_str(&format!("%{:02x}", c as u32));
            } else {
                name.push(c);
            }
        }
        name
    }

    fn parse(name: &str) -> Option<String> {
        let mut id = String::with_capacity(name.len());
        let mut rest = name;
        while let Some((plain, escaped)) = rest.split_once('%') {
            id.push_str(plain);
            let code = u8::from_str_radix(escaped.get(..2)?, 16).ok()?;
            id.push(char::from(code));
            rest = escaped.get(2..)?;
        }
        id.push_str(rest);
        (Self::name(&id) == name && !id.is_empty()).then_some(id)
    }

    fn id(&self) -> String {
        self.name.clone()
    }

    fn write(&self, to: &mut Writer) {
        to.u64(self.actor.host.get());
        to.u64(self.actor.number);
        to.bytes(self.entry.as_bytes());
        to.u64(self.incarnation);
        to.u64(self.first.host.get());
        to.u64(self.first.number);
    }

    fn read(name: String, from: &mut Reader<'_>) -> Option<NamedActor> {
        let actor = ActorKey {
            host: NodeId::new(from.u64()?)?,
            number: from.u64()?,
        };
        Some(NamedActor {
            name,
            actor,
            entry: from.text()?,
            incarnation: from.u64()?,
            // Records of before end here.
            first: match from.u64() {
                None => actor,
                Some(host) => ActorKey {
                    host: NodeId::new(host)?,
                    number: from.u64()?,
                },
            },
        })
    }
}
