//! The first frame of each side.
//!
//! Invariant: the magic number and the version stand at the same place in every version, so that any
//! two can tell each other what they are. Left out: who may connect.

use super::cursor::{Reader, Writer};
use super::{Malformed, VERSION};

/// What the first frames begin with.
const MAGIC: u64 = u64::from_le_bytes(*b"mobula/s");

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const VERSION_REFUSED: u8 = 3;
const USER_REFUSED: u8 = 4;
const TOO_MANY: u8 = 5;

/// The longest name of a version that is kept.
const CRATE_MAX: usize = 64;

/// What a client opens with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub version: u32,
    /// The version of the crate, for people.
    pub program: String,
}

impl Hello {
    pub fn of_this_crate() -> Hello {
        Hello {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, HELLO);
        w.u64(MAGIC)
            .u32(self.version)
            .bytes(self.program.as_bytes());
        w.end();
    }

    /// Reads it; of a later version only the beginning, which never changes.
    pub fn decode(frame: &[u8]) -> Result<Hello, Malformed> {
        let mut r = Reader::new(frame);
        if r.u8()? != HELLO || r.u64()? != MAGIC {
            return Err(Malformed("the first frame is no hello of a mobula client"));
        }
        let version = r.u32()?;
        let program = program(&mut r)?;
        if version == VERSION {
            r.end()?;
        }
        Ok(Hello { version, program })
    }
}

fn program(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = r.text()?;
    if text.len() > CRATE_MAX {
        return Err(Malformed("a version's name is too long"));
    }
    Ok(text.to_owned())
}

/// The store, as its server describes it. The file of its memory comes with the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub version: u32,
    pub program: String,
    pub pid: u32,
    /// Bytes of the store's memory.
    pub capacity: u64,
    /// The unit in which pages are lent.
    pub grain: u64,
}

/// What a server answers to a hello, or says before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    Welcome(Welcome),
    /// The hello's version is not the server's, which is this.
    Version(Hello),
    /// The client's user is not accepted; the server runs as the other one.
    User {
        found: u32,
        server: u32,
    },
    /// The server has as many clients as it can.
    TooMany {
        clients: u64,
    },
}

impl Greeting {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w;
        match self {
            Greeting::Welcome(welcome) => {
                w = Writer::new(out, WELCOME);
                w.u64(MAGIC).u32(welcome.version);
                w.bytes(welcome.program.as_bytes()).u32(welcome.pid);
                w.u64(welcome.capacity).u64(welcome.grain);
            }
            Greeting::Version(server) => {
                w = Writer::new(out, VERSION_REFUSED);
                w.u64(MAGIC).u32(server.version);
                w.bytes(server.program.as_bytes());
            }
            Greeting::User { found, server } => {
                w = Writer::new(out, USER_REFUSED);
                w.u64(MAGIC).u32(VERSION).u32(*found).u32(*server);
            }
            Greeting::TooMany { clients } => {
                w = Writer::new(out, TOO_MANY);
                w.u64(MAGIC).u32(VERSION).u64(*clients);
            }
        }
        w.end();
    }

    pub fn decode(frame: &[u8]) -> Result<Greeting, Malformed> {
        let mut r = Reader::new(frame);
        let kind = r.u8()?;
        if r.u64()? != MAGIC {
            return Err(Malformed("the first frame is not from a mobula store"));
        }
        let version = r.u32()?;
        let greeting = match kind {
            WELCOME => Greeting::Welcome(Welcome {
                version,
                program: program(&mut r)?,
                pid: r.u32()?,
                capacity: r.u64()?,
                grain: r.u64()?,
            }),
            VERSION_REFUSED => Greeting::Version(Hello {
                version,
                program: program(&mut r)?,
            }),
            USER_REFUSED => Greeting::User {
                found: r.u32()?,
                server: r.u32()?,
            },
            TOO_MANY => Greeting::TooMany { clients: r.u64()? },
            _ => return Err(Malformed("the first frame is of no known kind")),
        };
        if version == VERSION {
            r.end()?;
        }
        Ok(greeting)
    }
}
