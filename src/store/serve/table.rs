//! Who made, reads and awaits which object: every decision of the server.
//!
//! Events in, messages and errands out; no socket, no clock. Invariants: only its creator names an
//! object that is being written; a get is answered exactly once; whatever a client holds is given back
//! when it is gone. Left out: bytes and sockets (`driver`), the objects themselves (`objects`), what
//! takes time (`helpers`).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::helpers::{Errand, Outcome};
use super::objects::{Found, Objects, Pin, Serial};
use super::shelf::{Place, Shelf, Shelved};
use crate::base::{ObjectId, ObjectState};
use crate::store::proto::{Answer, Denial, FOREVER, Message, Request, ServedStats};

/// The server's number of a client.
pub type Client = u64;

/// Nanoseconds since the server started.
pub type Nanos = u64;

/// What follows from an event.
#[derive(Default)]
pub struct Effects {
    /// What is sent to whom.
    pub messages: Vec<(Client, Message)>,
    /// What is waited for elsewhere; its outcome is an event.
    pub errands: Vec<Errand>,
}

/// Gets that one client may have waiting.
const WAITS_MAX: usize = 1 << 12;

/// Objects of one client that may wait for room. Those that are sent whole wait here with their bytes.
const ROOMLESS_MAX: usize = 256;

/// A client broke the protocol: it is heard no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

#[derive(Clone, Copy)]
struct Wait {
    id: ObjectId,
    until: Nanos,
    /// It asked for what is there now: it waits for the disk, not for a seal.
    at_once: bool,
}

/// A request that waits for room.
struct Roomless {
    seq: u64,
    /// The contents, if they came with it.
    bytes: Option<Box<[u8]>>,
}

#[derive(Default)]
struct Holdings {
    drafts: HashSet<Serial>,
    roomless: HashMap<Serial, Roomless>,
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
    /// Whose objects wait for room.
    roomless: HashMap<Serial, Client>,
}

impl Table {
    pub fn new(shelf: Shelf) -> Table {
        Table {
            objects: Objects::new(shelf),
            clients: HashMap::new(),
            subscribers: BTreeSet::new(),
            awaited: HashMap::new(),
            deadlines: BTreeSet::new(),
            roomless: HashMap::new(),
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
        let roomless = std::mem::take(&mut held.roomless);
        for serial in drafts {
            self.objects.abort(serial);
        }
        for serial in roomless.into_keys() {
            self.objects.abort(serial);
            self.roomless.remove(&serial);
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

    /// Everybody is gone, since the server ends.
    pub fn end(&mut self) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.leave(client);
        }
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
        out: &mut Effects,
    ) -> Result<(), Violation> {
        let answer = match request {
            Request::Create { id, len } => match self.begin(client, seq, id, len, None, out)? {
                Some(answer) => answer,
                None => return Ok(()),
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
            Request::Put { id, bytes } => {
                let len = bytes.len() as u64;
                match self.begin(client, seq, id, len, Some(bytes), out)? {
                    Some(answer) => answer,
                    None => return Ok(()),
                }
            }
            Request::Get { id, nanos } => match self.get(now, client, seq, id, nanos, out)? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            Request::Cancel { get } => {
                if let Some(wait) = self.held(client).waits.remove(&get) {
                    self.forget(client, get, wait);
                    let no = Answer::Denied(Denial::Cancelled);
                    out.answer(client, get, no);
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
                    out.tell(&self.subscribers, &Message::Deleted { id });
                    self.name_lost(id, out);
                    Answer::Done
                }
            },
            Request::List { after } => self.objects.list(after),
            Request::Evict { bytes } => {
                let subscribers = &self.subscribers;
                let deleted = |id| out.tell(subscribers, &Message::Deleted { id });
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
        out.answer(client, seq, answer);
        Ok(())
    }

    /// What was waited for elsewhere has come, or will not.
    pub fn outcome(&mut self, outcome: Outcome, out: &mut Effects) {
        match outcome {
            Outcome::Placed { serial, place } => self.placed(serial, place, out),
            Outcome::Held {
                serial,
                shelved,
                offset,
            } => self.returned(serial, &shelved, offset, out),
        }
    }

    /// The next time at which [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(until, ..)| *until)
    }

    /// Answers the gets whose time has run out.
    pub fn expire(&mut self, now: Nanos, out: &mut Effects) {
        while let Some(&(until, client, seq)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            if let Some(wait) = self.held(client).waits.remove(&seq) {
                self.forget(client, seq, wait);
                let state = self.objects.state(wait.id);
                let no = Answer::Denied(Denial::Deadline { state });
                out.answer(client, seq, no);
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

    /// Begins an object, and completes it if its contents are there. The answer, or none if it waits
    /// for room.
    fn begin(
        &mut self,
        client: Client,
        seq: u64,
        id: ObjectId,
        len: u64,
        bytes: Option<&[u8]>,
        out: &mut Effects,
    ) -> Result<Option<Answer>, Violation> {
        if seq == 0 && bytes.is_none() {
            return Err(Violation("it began an object without a number"));
        }
        if self.held(client).roomless.len() >= ROOMLESS_MAX {
            return Err(Violation(
                "it waits for room for too many objects at a time",
            ));
        }
        let (serial, errand) = match self.objects.begin(id, len, bytes.is_none()) {
            Ok(begun) => begun,
            Err(denial) => return Ok(Some(Answer::Denied(denial))),
        };
        if let Some(errand) = errand {
            let bytes = bytes.map(Box::from);
            let roomless = Roomless { seq, bytes };
            self.held(client).roomless.insert(serial, roomless);
            self.roomless.insert(serial, client);
            out.errands.push(errand);
            return Ok(None);
        }
        Ok(Some(self.begun(client, serial, bytes, out)))
    }

    /// An object has room.
    fn begun(
        &mut self,
        client: Client,
        serial: Serial,
        bytes: Option<&[u8]>,
        out: &mut Effects,
    ) -> Answer {
        self.held(client).drafts.insert(serial);
        if let Some(bytes) = bytes {
            self.objects.write(serial, 0, bytes);
            self.seal(client, serial, out);
            return Answer::Done;
        }
        match self.objects.lent(serial) {
            Some(offset) => Answer::Lent { serial, offset },
            None => Answer::Begun { serial },
        }
    }

    fn placed(&mut self, serial: Serial, place: Result<Place, Denial>, out: &mut Effects) {
        let Some(client) = self.roomless.remove(&serial) else {
            // Given up meanwhile: the room goes with it.
            return;
        };
        let Some(roomless) = self.held(client).roomless.remove(&serial) else {
            return;
        };
        let answer = match place {
            Ok(place) => {
                self.objects.placed(serial, place);
                self.begun(client, serial, roomless.bytes.as_deref(), out)
            }
            Err(denial) => {
                self.objects.abort(serial);
                Answer::Denied(denial)
            }
        };
        out.answer(client, roomless.seq, answer);
    }

    /// An object is back from disk, or will not be.
    fn returned(
        &mut self,
        serial: Serial,
        shelved: &Shelved,
        offset: Result<u64, Denial>,
        out: &mut Effects,
    ) {
        let here = offset.as_ref().ok().copied();
        let Some(id) = self.objects.held(serial, shelved, here) else {
            return;
        };
        match offset {
            Ok(_) => {
                self.hand_out(id, out);
                self.objects.unpin(serial, 1);
            }
            Err(denial) => {
                for (client, seq) in self.take_waiters(id) {
                    out.answer(client, seq, Answer::Denied(denial.clone()));
                }
            }
        }
    }

    /// An object of this name is no more; who waits for it to come from disk waits in vain.
    fn name_lost(&mut self, id: ObjectId, out: &mut Effects) {
        let Some(waiters) = self.awaited.get(&id) else {
            return;
        };
        for (client, seq) in waiters.clone() {
            let held = self.held(client);
            if let Some(wait) = held.waits.get(&seq).copied().filter(|wait| wait.at_once) {
                held.waits.remove(&seq);
                self.forget(client, seq, wait);
                let state = ObjectState::Absent;
                out.answer(client, seq, Answer::Denied(Denial::Deadline { state }));
            }
        }
    }

    /// The object is this client's to write.
    fn writer(&mut self, client: Client, serial: Serial) -> Result<(), Violation> {
        if self.held(client).drafts.contains(&serial) {
            return Ok(());
        }
        Err(Violation("it named an object that it is not writing"))
    }

    /// Completes an object and gives it to those who wait for it.
    fn seal(&mut self, client: Client, serial: Serial, out: &mut Effects) {
        self.held(client).drafts.remove(&serial);
        let Some((id, len)) = self.objects.seal(serial) else {
            return;
        };
        self.hand_out(id, out);
        out.tell(&self.subscribers, &Message::Sealed { id, len });
    }

    /// Pins an object, which is in memory, for each who waits for it.
    fn hand_out(&mut self, id: ObjectId, out: &mut Effects) {
        for (client, seq) in self.take_waiters(id) {
            if let Pin::Found(found) = self.objects.pin(id) {
                let answer = self.pinned(client, found);
                out.answer(client, seq, answer);
            }
        }
    }

    /// Takes all who wait for a name off the books.
    fn take_waiters(&mut self, id: ObjectId) -> BTreeSet<(Client, u64)> {
        let waiters = self.awaited.remove(&id).unwrap_or_default();
        for (client, seq) in &waiters {
            if let Some(wait) = self.held(*client).waits.remove(seq) {
                self.deadlines.remove(&(wait.until, *client, *seq));
            }
        }
        waiters
    }

    fn pinned(&mut self, client: Client, found: Found) -> Answer {
        let Found {
            serial,
            offset,
            len,
        } = found;
        *self.held(client).pins.entry(serial).or_default() += 1;
        Answer::Found {
            serial,
            offset,
            len,
        }
    }

    /// The answer of a get, or none if it waits.
    fn get(
        &mut self,
        now: Nanos,
        client: Client,
        seq: u64,
        id: ObjectId,
        nanos: u64,
        out: &mut Effects,
    ) -> Result<Option<Answer>, Violation> {
        let held = self.held(client);
        if seq == 0 || held.waits.contains_key(&seq) {
            return Err(Violation("it asked for objects under one number"));
        }
        if held.waits.len() >= WAITS_MAX {
            return Err(Violation("it waits for too many objects at a time"));
        }
        let mut at_once = false;
        match self.objects.pin(id) {
            Pin::Found(found) => return Ok(Some(self.pinned(client, found))),
            Pin::Away(errand) => {
                out.errands.extend(errand);
                at_once = nanos == 0;
            }
            Pin::None if nanos == 0 => {
                let state = self.objects.state(id);
                return Ok(Some(Answer::Denied(Denial::Deadline { state })));
            }
            Pin::None => {}
        }
        // A time past the end of the clock is no deadline.
        let until = match nanos {
            FOREVER => FOREVER,
            0 => FOREVER,
            nanos => now.saturating_add(nanos),
        };
        let wait = Wait { id, until, at_once };
        self.held(client).waits.insert(seq, wait);
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

impl Effects {
    fn answer(&mut self, client: Client, seq: u64, answer: Answer) {
        if seq != 0 {
            self.messages.push((client, Message::Answer(seq, answer)));
        }
    }

    fn tell(&mut self, subscribers: &BTreeSet<Client>, event: &Message) {
        let told = subscribers.iter().map(|client| (*client, event.clone()));
        self.messages.extend(told);
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
