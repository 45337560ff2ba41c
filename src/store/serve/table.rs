//! Who made, reads and awaits which object: every decision of the server.
//!
//! Events in, messages out; no socket, no clock. Invariants: only its creator names an object that is
//! being written; a get is answered exactly once; whatever a client holds is given back when it is
//! gone. Left out: bytes and sockets (`driver`), the objects themselves (`objects`).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::objects::{Found, Objects, Serial};
use super::shelf::Shelf;
use crate::base::ObjectId;
use crate::store::proto::{Answer, Denial, FOREVER, Message, Request, ServedStats};

/// The server's number of a client.
pub type Client = u64;

/// Nanoseconds since the server started.
pub type Nanos = u64;

/// What is sent to whom.
pub type Outbox = Vec<(Client, Message)>;

/// Gets that one client may have waiting.
pub const WAITS_MAX: usize = 1 << 12;

/// A client broke the protocol: it is heard no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

#[derive(Clone, Copy)]
struct Wait {
    id: ObjectId,
    until: Nanos,
}

#[derive(Default)]
struct Holdings {
    drafts: HashSet<Serial>,
    pins: HashMap<Serial, u64>,
    /// By the number of the get.
    waits: HashMap<u64, Wait>,
}

/// All clients of a server and what they have to do with its objects.
pub struct Table {
    objects: Objects,
    clients: HashMap<Client, Holdings>,
    subscribers: BTreeSet<Client>,
    /// Which gets of whom await a name.
    awaited: HashMap<ObjectId, BTreeSet<(Client, u64)>>,
    deadlines: BTreeSet<(Nanos, Client, u64)>,
}

impl Table {
    pub fn new(shelf: Shelf) -> Table {
        Table {
            objects: Objects::new(shelf),
            clients: HashMap::new(),
            subscribers: BTreeSet::new(),
            awaited: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// A client came.
    pub fn join(&mut self, client: Client) {
        self.clients.insert(client, Holdings::default());
    }

    /// The client is heard and told no more. It may go on reading what it has pinned and writing what
    /// it was lent; all else is given back.
    pub fn silence(&mut self, client: Client) {
        self.subscribers.remove(&client);
        let Some(held) = self.clients.get_mut(&client) else {
            return;
        };
        let unlent = |serial: &Serial| self.objects.lent(*serial).is_none();
        let drafts: Vec<Serial> = held.drafts.extract_if(unlent).collect();
        let waits = std::mem::take(&mut held.waits);
        for serial in drafts {
            self.objects.abort(serial);
        }
        for (seq, wait) in waits {
            self.forget(client, seq, wait);
        }
    }

    /// The client closed its end: it reads nothing any more. Whether it is gone: a process that was
    /// lent pages may write there for as long as it lives.
    pub fn hang_up(&mut self, client: Client) -> bool {
        self.silence(client);
        let Some(held) = self.clients.get_mut(&client) else {
            return true;
        };
        for (serial, pins) in std::mem::take(&mut held.pins) {
            self.objects.unpin(serial, pins);
        }
        let gone = held.drafts.is_empty();
        if gone {
            self.clients.remove(&client);
        }
        gone
    }

    /// The client is dead: all it held is given back.
    pub fn leave(&mut self, client: Client) {
        self.hang_up(client);
        let held = self.clients.remove(&client).unwrap_or_default();
        for serial in held.drafts {
            self.objects.abort(serial);
        }
    }

    /// What a client asks for. The answer, and what it leads to for others, is added to `out`.
    pub fn handle(
        &mut self,
        now: Nanos,
        client: Client,
        seq: u64,
        request: Request<'_>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let answer = match request {
            Request::Create { id, len } => match self.begin(client, id, len, true) {
                Err(denial) => Answer::Denied(denial),
                Ok(serial) => match self.objects.lent(serial) {
                    Some(offset) => Answer::Lent { serial, offset },
                    None => Answer::Begun { serial },
                },
            },
            Request::Write { serial, at, bytes } => {
                self.writer(client, serial)?;
                if !self.objects.write(serial, at, bytes) {
                    return Err(Violation(
                        "it wrote outside an object, or sent what it was lent",
                    ));
                }
                Answer::Done
            }
            Request::Seal { serial } => {
                self.writer(client, serial)?;
                self.seal(client, serial, out);
                Answer::Done
            }
            Request::Abort { serial } => {
                self.writer(client, serial)?;
                self.held(client).drafts.remove(&serial);
                self.objects.abort(serial);
                Answer::Done
            }
            Request::Put { id, bytes } => match self.begin(client, id, bytes.len() as u64, false) {
                Err(denial) => Answer::Denied(denial),
                Ok(serial) => {
                    self.objects.write(serial, 0, bytes);
                    self.seal(client, serial, out);
                    Answer::Done
                }
            },
            Request::Get { id, nanos } => match self.get(now, client, seq, id, nanos)? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            Request::Cancel { get } => {
                if let Some(wait) = self.held(client).waits.remove(&get) {
                    self.forget(client, get, wait);
                    let no = Answer::Denied(Denial::Cancelled);
                    out.push((client, Message::Answer(get, no)));
                }
                Answer::Done
            }
            Request::Release { serial } => {
                self.release(client, serial)?;
                Answer::Done
            }
            Request::State { id } => Answer::State(self.objects.state(id)),
            Request::Delete { id } => match self.objects.delete(id) {
                Err(denial) => Answer::Denied(denial),
                Ok(()) => {
                    tell(&self.subscribers, &Message::Deleted { id }, out);
                    Answer::Done
                }
            },
            Request::List { after } => self.objects.list(after),
            Request::Evict { bytes } => {
                let subscribers = &self.subscribers;
                let deleted = |id| tell(subscribers, &Message::Deleted { id }, out);
                let bytes = self.objects.evict(bytes, deleted);
                Answer::Freed { bytes }
            }
            Request::Subscribe => {
                self.subscribers.insert(client);
                Answer::Done
            }
            Request::Unsubscribe => {
                self.subscribers.remove(&client);
                Answer::Done
            }
            Request::Stats => Answer::Stats(Box::new(self.stats())),
        };
        if seq != 0 {
            out.push((client, Message::Answer(seq, answer)));
        }
        Ok(())
    }

    /// The next time at which [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(until, ..)| *until)
    }

    /// Answers the gets whose time has run out.
    pub fn expire(&mut self, now: Nanos, out: &mut Outbox) {
        while let Some(&(until, client, seq)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            if let Some(wait) = self.held(client).waits.remove(&seq) {
                self.forget(client, seq, wait);
                let state = self.objects.state(wait.id);
                let no = Answer::Denied(Denial::Deadline { state });
                out.push((client, Message::Answer(seq, no)));
            }
        }
    }

    pub fn stats(&self) -> ServedStats {
        let mut stats = ServedStats {
            clients: self.clients.len() as u64,
            waiting: self.awaited.values().map(|w| w.len() as u64).sum(),
            subscribers: self.subscribers.len() as u64,
            ..ServedStats::default()
        };
        self.objects.count(&mut stats);
        stats
    }

    fn held(&mut self, client: Client) -> &mut Holdings {
        self.clients.entry(client).or_default()
    }

    fn begin(
        &mut self,
        client: Client,
        id: ObjectId,
        len: u64,
        may_lend: bool,
    ) -> Result<Serial, Denial> {
        let serial = self.objects.begin(id, len, may_lend)?;
        self.held(client).drafts.insert(serial);
        Ok(serial)
    }

    /// The object is this client's to write.
    fn writer(&mut self, client: Client, serial: Serial) -> Result<(), Violation> {
        if self.held(client).drafts.contains(&serial) {
            return Ok(());
        }
        Err(Violation("it named an object that it is not writing"))
    }

    /// Completes an object and gives it to those who wait for it.
    fn seal(&mut self, client: Client, serial: Serial, out: &mut Outbox) {
        self.held(client).drafts.remove(&serial);
        let Some((id, len)) = self.objects.seal(serial) else {
            return;
        };
        for (waiter, seq) in self.awaited.remove(&id).unwrap_or_default() {
            if let Some(wait) = self.held(waiter).waits.remove(&seq) {
                self.deadlines.remove(&(wait.until, waiter, seq));
            }
            if let Some(found) = self.pin(waiter, id) {
                out.push((waiter, Message::Answer(seq, found)));
            }
        }
        tell(&self.subscribers, &Message::Sealed { id, len }, out);
    }

    fn pin(&mut self, client: Client, id: ObjectId) -> Option<Answer> {
        let Found {
            serial,
            offset,
            len,
        } = self.objects.pin(id)?;
        *self.held(client).pins.entry(serial).or_default() += 1;
        Some(Answer::Found {
            serial,
            offset,
            len,
        })
    }

    /// The answer of a get, or none if it waits.
    fn get(
        &mut self,
        now: Nanos,
        client: Client,
        seq: u64,
        id: ObjectId,
        nanos: u64,
    ) -> Result<Option<Answer>, Violation> {
        let held = self.held(client);
        if seq == 0 || held.waits.contains_key(&seq) {
            return Err(Violation("it asked for objects under one number"));
        }
        if held.waits.len() >= WAITS_MAX {
            return Err(Violation("it waits for too many objects at a time"));
        }
        if let Some(found) = self.pin(client, id) {
            return Ok(Some(found));
        }
        if nanos == 0 {
            let state = self.objects.state(id);
            return Ok(Some(Answer::Denied(Denial::Deadline { state })));
        }
        // A time past the end of the clock is no deadline.
        let until = match nanos {
            FOREVER => FOREVER,
            nanos => now.saturating_add(nanos),
        };
        self.held(client).waits.insert(seq, Wait { id, until });
        self.awaited.entry(id).or_default().insert((client, seq));
        if until != FOREVER {
            self.deadlines.insert((until, client, seq));
        }
        Ok(None)
    }

    /// Takes a wait, which is off its client's books, off the others.
    fn forget(&mut self, client: Client, seq: u64, wait: Wait) {
        self.deadlines.remove(&(wait.until, client, seq));
        if let Some(waiters) = self.awaited.get_mut(&wait.id) {
            waiters.remove(&(client, seq));
            if waiters.is_empty() {
                self.awaited.remove(&wait.id);
            }
        }
    }

    fn release(&mut self, client: Client, serial: Serial) -> Result<(), Violation> {
        let pins = &mut self.held(client).pins;
        match pins.get_mut(&serial) {
            None => return Err(Violation("it released an object that it does not hold")),
            Some(1) => {
                pins.remove(&serial);
            }
            Some(count) => *count -= 1,
        }
        self.objects.unpin(serial, 1);
        Ok(())
    }
}

fn tell(subscribers: &BTreeSet<Client>, message: &Message, out: &mut Outbox) {
    out.extend(subscribers.iter().map(|client| (*client, message.clone())));
}
