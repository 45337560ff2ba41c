//! What drivers and launchers say to each other.
//!
//! A driver lists machines, asks each for a share, ships its executable where that is unknown, and has a node of it
//! started there; lines that the node prints come back. Launchers tell the head how they are.
//!
//! Invariant: reading is total, and what is read is bounded by its frame and by the bounds here. Left out: carrying it (`link`).

use std::net::SocketAddr;

use crate::base::{Demand, NodeId};
use crate::core::jobs::Ask;
use crate::wire::{BadFrame, Read, Reader, Writer};

/// Counted up with each change here.
pub const VERSION: u8 = 3;
/// Names, paths, reasons: no text is longer.
pub const MAX_TEXT: usize = 8 << 10;
/// So many of anything in a list.
const MAX_LIST: usize = 4096;

/// What an executable needs of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The kind of processor, as ELF numbers it.
    pub machine: u16,
    /// The program that loads it; none for a static one.
    pub loader: Option<String>,
    /// The newest glibc of which it uses something.
    pub glibc: Option<(u32, u32)>,
}

/// An executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// Its bytes.
    pub len: u64,
    /// What it needs.
    pub needs: Needs,
}

/// A machine, as its launcher tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The launcher.
    pub node: NodeId,
    /// What it is called.
    pub name: String,
    /// Where the launcher is reached; unspecified: where it was asked.
    pub addr: SocketAddr,
    /// The same number for launchers that see the same processes.
    pub host: u64,
    /// It lets others in.
    pub head: bool,
    /// What nodes there are labelled.
    pub labels: Vec<(String, String)>,
    /// As rustc names it.
    pub arch: String,
    /// What libc programs find there.
    pub libc: String,
    /// Its resources.
    pub whole: Demand,
    /// Those that nobody holds.
    pub left: Demand,
    /// Who holds the others.
    pub jobs: Vec<JobLine>,
    /// How many wait for some.
    pub waiting: u32,
}

/// A job on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLine {
    /// Which.
    pub job: u64,
    /// The program and the process of its driver.
    pub name: String,
    /// What it holds.
    pub holds: Demand,
    /// Its node's process; 0: the driver itself, or none yet.
    pub pid: u32,
}

/// A job that the head has a record of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Which.
    pub job: u64,
    /// What was started.
    pub args: Vec<String>,
    /// When, in milliseconds since 1970.
    pub submitted: u64,
    /// How far it is, in words.
    pub state: String,
}

/// How a node is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where its driver listens.
    pub join: SocketAddr,
    /// The token of the driver's cluster.
    pub token: String,
    /// Bytes of its object store, if the driver says so.
    pub store: Option<u64>,
    /// How many times as long as usual everything about life and death takes.
    pub pace: u32,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Which machines are there?
    List,
    /// These.
    Machines(Vec<Machine>, Vec<Past>),
    /// How a launcher is now.
    State(Box<Machine>),
    /// A driver says what it is.
    Job {
        /// What was started.
        args: Vec<String>,
        /// SHA-256 of the executable.
        hash: [u8; 32],
    },
    /// A driver wants a share.
    Ask {
        /// The program and its process.
        name: String,
        /// How much.
        ask: Ask,
        /// How long it would wait, in milliseconds.
        patience: u64,
        /// What is to run there; `None`: the driver itself does.
        program: Option<Program>,
    },
    /// It has one.
    Granted {
        /// How much.
        holds: Demand,
        /// Which GPUs.
        gpus: Vec<u32>,
        /// The executable is not there: it is to be sent under this number.
        wants: Option<u64>,
    },
    /// It has none, or what it had is lost.
    Refused(String),
    /// The executable is there and whole.
    Ready,
    /// Start a node.
    Start(Start),
    /// A node runs.
    Started(u32),
    /// What it printed.
    Lines {
        /// Its process.
        pid: u32,
        /// To standard error.
        stderr: bool,
        /// So many lines before these were dropped.
        dropped: u64,
        /// The lines.
        lines: Vec<String>,
    },
    /// It ended; how, in words.
    Ended(u32, String),
    /// This launcher, at that address, is the one that lets others in.
    Leads(NodeId, SocketAddr),
}

fn bad<T>(what: &'static str) -> Read<T> {
    Err(BadFrame { what })
}

fn text(r: &mut Reader<'_>) -> Read<String> {
    match r.text()? {
        text if text.len() <= MAX_TEXT => Ok(text.to_owned()),
        _ => bad("text of that length"),
    }
}

fn list<'a, T>(
    r: &mut Reader<'a>,
    least: usize,
    read: impl FnMut(&mut Reader<'a>) -> Read<T>,
) -> Read<Vec<T>> {
    r.list_of(MAX_LIST, least, read)
}

fn addr(r: &mut Reader<'_>) -> Read<SocketAddr> {
    text(r)?.parse().map_err(|_| BadFrame { what: "address" })
}

fn array<const N: usize>(r: &mut Reader<'_>) -> Read<[u8; N]> {
    r.bytes()?.try_into().map_err(|_| BadFrame { what: "hash" })
}

impl Program {
    fn write(&self, w: &mut Writer) {
        w.bytes(&self.hash);
        w.u64(self.len);
        w.u32(self.needs.machine.into());
        w.option(self.needs.loader.as_deref(), |w, l| w.text(l));
        w.option(self.needs.glibc, |w, (major, minor)| {
            w.u32(major);
            w.u32(minor);
        });
    }

    fn read(r: &mut Reader<'_>) -> Read<Program> {
        Ok(Program {
            hash: array(r)?,
            len: r.u64()?,
            needs: Needs {
                machine: u16::try_from(r.u32()?).or_else(|_| bad("kind of processor"))?,
                loader: r.option(|r| text(r))?,
                glibc: r.option(|r| Ok((r.u32()?, r.u32()?)))?,
            },
        })
    }
}

impl Machine {
    fn write(&self, w: &mut Writer) {
        w.node(self.node);
        w.text(&self.name);
        w.text(&self.addr.to_string());
        w.u64(self.host);
        w.bool(self.head);
        w.list(&self.labels, |w, (name, value)| {
            w.text(name);
            w.text(value);
        });
        w.text(&self.arch);
        w.text(&self.libc);
        w.demand(&self.whole);
        w.demand(&self.left);
        w.list(&self.jobs, |w, job| {
            w.u64(job.job);
            w.text(&job.name);
            w.demand(&job.holds);
            w.u32(job.pid);
        });
        w.u32(self.waiting);
    }

    fn read(r: &mut Reader<'_>) -> Read<Machine> {
        Ok(Machine {
            node: r.node()?,
            name: text(r)?,
            addr: addr(r)?,
            host: r.u64()?,
            head: r.bool()?,
            labels: list(r, 8, |r| Ok((text(r)?, text(r)?)))?,
            arch: text(r)?,
            libc: text(r)?,
            whole: r.demand()?,
            left: r.demand()?,
            jobs: list(r, 36, |r| {
                Ok(JobLine {
                    job: r.u64()?,
                    name: text(r)?,
                    holds: r.demand()?,
                    pid: r.u32()?,
                })
            })?,
            waiting: r.u32()?,
        })
    }
}

impl Past {
    fn write(&self, w: &mut Writer) {
        w.u64(self.job);
        w.list(&self.args, |w, arg| w.text(arg));
        w.u64(self.submitted);
        w.text(&self.state);
    }

    fn read(r: &mut Reader<'_>) -> Read<Past> {
        Ok(Past {
            job: r.u64()?,
            args: list(r, 4, text)?,
            submitted: r.u64()?,
            state: text(r)?,
        })
    }
}

fn write_ask(w: &mut Writer, ask: &Ask) {
    match ask {
        Ask::Rest => w.bool(false),
        Ask::Exactly(demand) => {
            w.bool(true);
            w.demand(demand);
        }
    }
}

fn read_ask(r: &mut Reader<'_>) -> Read<Ask> {
    Ok(if r.bool()? {
        Ask::Exactly(r.demand()?)
    } else {
        Ask::Rest
    })
}

impl Message {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Message::List => w.u8(0),
            Message::Machines(machines, past) => {
                w.u8(1);
                w.list(machines, |w, m| m.write(w));
                w.list(past, |w, p| p.write(w));
            }
            Message::State(machine) => {
                w.u8(2);
                machine.write(&mut w);
            }
            Message::Job { args, hash } => {
                w.u8(3);
                w.list(args, |w, arg| w.text(arg));
                w.bytes(hash);
            }
            Message::Ask {
                name,
                ask,
                patience,
                program,
            } => {
                w.u8(4);
                w.text(name);
                write_ask(&mut w, ask);
                w.u64(*patience);
                w.option(program.as_ref(), |w, p| p.write(w));
            }
            Message::Granted { holds, gpus, wants } => {
                w.u8(5);
                w.demand(holds);
                w.list(gpus, |w, gpu| w.u32(*gpu));
                w.option(*wants, Writer::u64);
            }
            Message::Refused(why) => {
                w.u8(6);
                w.text(why);
            }
            Message::Ready => w.u8(7),
            Message::Start(start) => {
                w.u8(8);
                w.text(&start.join.to_string());
                w.text(&start.token);
                w.option(start.store, Writer::u64);
                w.u32(start.pace);
            }
            Message::Started(pid) => {
                w.u8(9);
                w.u32(*pid);
            }
            Message::Lines {
                pid,
                stderr,
                dropped,
                lines,
            } => {
                w.u8(10);
                w.u32(*pid);
                w.bool(*stderr);
                w.u64(*dropped);
                w.list(lines, |w, line| w.text(line));
            }
            Message::Ended(pid, how) => {
                w.u8(11);
                w.u32(*pid);
                w.text(how);
            }
            Message::Leads(node, addr) => {
                w.u8(12);
                w.node(*node);
                w.text(&addr.to_string());
            }
        }
        w.0
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Read<Message> {
        let r = &mut Reader(bytes);
        if r.u8()? != VERSION {
            return bad("message of this version: run the same version of mobula everywhere");
        }
        let message = match r.u8()? {
            0 => Message::List,
            1 => Message::Machines(list(r, 64, Machine::read)?, list(r, 24, Past::read)?),
            2 => Message::State(Box::new(Machine::read(r)?)),
            3 => Message::Job {
                args: list(r, 4, text)?,
                hash: array(r)?,
            },
            4 => Message::Ask {
                name: text(r)?,
                ask: read_ask(r)?,
                patience: r.u64()?,
                program: r.option(Program::read)?,
            },
            5 => Message::Granted {
                holds: r.demand()?,
                gpus: list(r, 4, |r| r.u32())?,
                wants: r.option(|r| r.u64())?,
            },
            6 => Message::Refused(text(r)?),
            7 => Message::Ready,
            8 => Message::Start(Start {
                join: addr(r)?,
                token: text(r)?,
                store: r.option(Reader::u64)?,
                pace: r.u32()?,
            }),
            9 => Message::Started(r.u32()?),
            10 => Message::Lines {
                pid: r.u32()?,
                stderr: r.bool()?,
                dropped: r.u64()?,
                lines: list(r, 4, text)?,
            },
            11 => Message::Ended(r.u32()?, text(r)?),
            12 => Message::Leads(r.node()?, addr(r)?),
            _ => return bad("kind of message"),
        };
        r.end()?;
        Ok(message)
    }
}

/// A text within the bounds.
pub fn short(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::fuzz::messages;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        for message in messages() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_cut_or_longer_is_refused() {
        for message in messages() {
            let mut bytes = message.encode();
            for len in 0..bytes.len() {
                assert!(
                    Message::decode(&bytes[..len]).is_err(),
                    "{message:?} cut to {len}"
                );
            }
            bytes.push(0);
            assert!(Message::decode(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..14u8) {
            let _ = Message::decode(&bytes);
            let mut framed = vec![VERSION, kind];
            framed.extend(bytes);
            if let Ok(message) = Message::decode(&framed) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
