//! Replicas: copies of objects that were asked for, made on other nodes, kept there, and read from there when the owner is dead.
//!
//! A put that asks for replicas waits here until they are made. Whoever makes one pulls the bytes from the owner into a record of its own,
//! from which it serves; readers on that node copy from it. When an owner dies, what nodes with references then ask for its objects goes to
//! those who have replicas, in the owner's stead.
//!
//! Invariant: who waits for replicas is told, or finds this node's end. A replica's record is in the books for as long as the machine has
//! it. Left out: which nodes, and for how long (`core::replicas`).

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::books::{Books, Came, Copy, Want};
use super::{Cluster, Todo, lost};
use crate::base::{Error, NodeId, ObjectKey, Origin};
use crate::core::owners::{Effect as Told, Message as Owning, RefState};
use crate::core::replicas::{Effect, Short, Why};
use crate::exec::cell;
use crate::exec::far::parcel;
use crate::exec::options::Extra;
use crate::exec::pin::PinnedRef;
use crate::exec::{Local, RawRef, local};
use crate::store::{self, Distant, Draft};
use crate::wire::{Beside, Frame};

/// Where they come from, as far as this node's store is concerned.
const ORIGIN: Origin = Origin::Result("a replica of another node's object");

/// Stands for the bytes of a replica until they are here.
struct Coming {
    cluster: Weak<Cluster>,
    key: ObjectKey,
    attempt: u64,
}

impl Distant for Coming {
    fn origin(&self) -> Origin {
        ORIGIN
    }

    fn fetch(&self, draft: Draft) -> Result<(Draft, store::Came), Error> {
        match self.cluster.upgrade() {
            Some(cluster) => cluster.fetch_replica(self.key, self.attempt, draft),
            None => Err(Error::ShutDown),
        }
    }
}

impl Cluster {
    /// What an object carries that is about to have replicas.
    pub(super) fn replica_ticket(&self, number: u64) -> Box<Extra> {
        let owner = self.me;
        self.proxies.ticket(ObjectKey { owner, number })
    }

    /// Has other nodes keep copies of such an object, which may have a durable one. Blocks until they do.
    pub(super) fn replicate(
        self: &Arc<Cluster>,
        local: &Local,
        record: &RawRef,
        (wanted, durable): (u32, Option<Arc<str>>),
        timeout: Duration,
    ) -> Result<(), Error> {
        let number = record.id;
        let len = record.value_size() as u64;
        let (tell, told) = sync_channel(1);
        self.proxies.know(record);
        self.with(local, |books, todo| {
            if let Some(at) = durable {
                self.is_durable(books, number, at, len);
            }
            if !self.is_over() {
                books.putting.insert(number, tell);
                let until = self.now() + self.patience;
                let (object, wanted) = ((number, len), wanted as usize);
                books
                    .replicas
                    .put(until, object, wanted, &mut todo.replicas);
            }
        });
        let short = match told.recv_timeout(timeout) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(short)) => Some(short),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(self.fenced_by().unwrap_or(Error::ShutDown));
            }
        };
        let (made, nodes) = self.with(local, |books, todo| {
            books.putting.remove(&number);
            let made = books.replicas.at(number).count();
            books.replicas.forget(number, &mut todo.replicas);
            (made, books.peers.len())
        });
        let (made, nodes) = short.as_ref().map_or((made, nodes), |s| (s.made, s.nodes));
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Err(Error::TooFewReplicas {
            wanted,
            made: count(made),
            nodes: count(nodes),
            why: why(short.as_ref(), timeout).into(),
        })
    }

    /// The last reference here is gone, to an object of this node or of another.
    pub(super) fn replicas_unneeded(&self, books: &mut Books, todo: &mut Todo, key: ObjectKey) {
        let out = &mut todo.replicas;
        if key.owner == self.me {
            books.replicas.forget(key.number, out);
        } else {
            books.replicas.dropped(self.now(), key, out);
        }
        self.durable_dropped(books, key);
    }

    /// What the machine wants done, as far as it is done with the books.
    pub(super) fn tell_replicas(&self, books: &mut Books, todo: &mut Todo) {
        let mut at = 0;
        while at < todo.replicas.len() {
            let effect = todo.replicas[at].clone();
            at += 1;
            match effect {
                Effect::Send { to, message } => {
                    if !self.send_surely(books, to, &Frame::Replica { message }) {
                        let now = self.now();
                        books.replicas.peer_died(now, to, &mut todo.replicas);
                    }
                }
                Effect::Make { key, len, attempt } => todo.makes.push((key, len, attempt)),
                Effect::Drop(key) => {
                    if let Some(copy) = books.copies.remove(&key) {
                        todo.later.record(copy.record);
                    }
                    // Whoever brings them finds the other end gone.
                    if books.wants.get(&key).is_some_and(|want| want.replica) {
                        let want = books.wants.remove(&key);
                        let draft = want.and_then(|want| want.draft);
                        draft.into_iter().for_each(|d| todo.later.draft(d));
                        books.pulls.cancel(key, &mut todo.pulls);
                    }
                }
                Effect::Kept(number) => tell(books, number, Ok(())),
                Effect::Short(number, short) => tell(books, number, Err(short)),
                Effect::Readable { key, at, len } => todo.orphans.push((key, Some((at, len)))),
                Effect::Lost(key) => todo.orphans.push((key, None)),
                Effect::Unneeded { key, first } => self.durable_unneeded(books, key, first),
                Effect::Source { key, from, .. } if from == Some(self.me) => {
                    books.pulls.found(key, &mut todo.pulls);
                }
                Effect::Source { key, ask, from } => {
                    books
                        .pulls
                        .on_at(key.owner, key, ask, from, &mut todo.pulls);
                }
            }
        }
        todo.replicas.clear();
    }

    /// Whether a message to an object's owner is none of its business: a question for bytes that are to be a replica, or whose
    /// owner is dead. Then others answer it.
    pub(super) fn divert(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        message: &Owning,
    ) -> bool {
        let &Owning::Where { key, ask, failed } = message else {
            return false;
        };
        if books.replicas.makes(key) {
            books.pulls.on_at(to, key, ask, Some(to), &mut todo.pulls);
            return true;
        }
        let lives = books.peers.contains_key(&to) && !books.replicas.is_orphan(key);
        if !books.replicas.knows(key) || lives {
            return false;
        }
        self.look_for(books, todo, key);
        books.replicas.asks(key, ask, failed, &mut todo.replicas);
        true
    }

    /// As [`look_for`](Self::look_for), for all that are about to be told of their owners' deaths.
    pub(super) fn look_for_all(&self, books: &mut Books, todo: &mut Todo) {
        let told = todo.effects.iter().filter_map(|effect| match effect {
            Told::OwnerDied(key) if books.replicas.knows(*key) => Some(*key),
            _ => None,
        });
        for key in told.collect::<Vec<_>>() {
            self.look_for(books, todo, key);
        }
    }

    /// An object's owner is dead: who has replicas?
    pub(super) fn look_for(&self, books: &mut Books, todo: &mut Todo, key: ObjectKey) {
        let members = self.membership.others();
        let now = self.now();
        books
            .replicas
            .orphaned(now, key, members, &mut todo.replicas);
    }

    /// An object whose owner is dead can be read, or is lost.
    pub(super) fn orphan_found(
        self: &Arc<Cluster>,
        local: &Local,
        key: ObjectKey,
        found: Option<(NodeId, u64)>,
    ) {
        let state = match found {
            Some((at, len)) => Some(RefState::Ready { len, at: vec![at] }),
            None => self.books.lock().durables.get(&key).map(|durable| {
                let (len, at) = (durable.len, Vec::new());
                RefState::Ready { len, at }
            }),
        };
        match state {
            Some(state) => self.proxy_settled(local, key, state, Beside::Nothing),
            None => {
                let what =
                    format!("it owned the object {key}, and no other node has a replica of it");
                let error = Error::NodeLost {
                    node: key.owner,
                    what: what.into(),
                };
                self.fail_proxy(local, key, error);
            }
        }
    }

    /// Has a replica made here, by a thread of its own: it waits for another node.
    pub(super) fn make_replica(
        self: &Arc<Cluster>,
        local: &Local,
        key: ObjectKey,
        len: u64,
        attempt: u64,
    ) {
        let cluster = Arc::clone(self);
        let run = move || {
            let _ = local::with(|local| cluster.bring_replica(local, key, len, attempt));
        };
        let named = std::thread::Builder::new().name("mobula-replica".to_owned());
        if named.spawn(run).is_err() {
            self.with(local, |books, todo| {
                books
                    .replicas
                    .failed(key, attempt, Why::Failed, &mut todo.replicas);
            });
        }
    }

    fn bring_replica(self: &Arc<Cluster>, local: &Local, key: ObjectKey, len: u64, attempt: u64) {
        let coming = Coming {
            cluster: Arc::downgrade(self),
            key,
            attempt,
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let record = parcel::object_elsewhere(local, len, Box::new(coming));
        let before = {
            let mut books = self.books.lock();
            if books.replicas.wants(key, attempt) {
                let copy = Copy {
                    record: record.clone(),
                    attempt,
                    whole: false,
                };
                books.copies.insert(key, copy)
            } else {
                None
            }
        };
        drop(before);
        let came = PinnedRef::within(record, ROOM);
        self.with(local, |books, todo| {
            let out = &mut todo.replicas;
            match &came {
                Ok(_) => {
                    if let Some(copy) = books.copies.get_mut(&key)
                        && copy.attempt == attempt
                    {
                        copy.whole = true;
                    }
                    books.replicas.made(key, attempt, out);
                }
                Err(Error::StoreFull(_)) => books.replicas.failed(key, attempt, Why::NoRoom, out),
                Err(_) => books.replicas.failed(key, attempt, Why::Failed, out),
            }
        });
    }

    /// Fills the draft of a replica. Blocks.
    fn fetch_replica(
        self: &Arc<Cluster>,
        key: ObjectKey,
        attempt: u64,
        mut draft: Draft,
    ) -> Result<(Draft, store::Came), Error> {
        let gone = || lost(key, key.owner, "the replica is not wanted any more");
        // Readers here may have the bytes, or be about to.
        let read = self.proxies.get(key).filter(|record| {
            cell::phase(record.state()) == cell::Phase::Done
                && record.stored().is_some_and(|stored| !stored.is_away())
        });
        if let Some(read) = read {
            copy(read, &mut draft)?;
            return Ok((draft, store::Came::Here));
        }
        let (tell, ended) = sync_channel(1);
        let len = draft.len();
        let reads = local::with(|local| {
            self.with(local, |books, todo| {
                if books.wants.contains_key(&key) {
                    return Some((self.proxies.get(key), draft));
                }
                if self.stopping() || !books.replicas.wants(key, attempt) {
                    return Some((None, draft));
                }
                let want = Want {
                    draft: Some(draft),
                    len,
                    from: None,
                    replica: true,
                    tell,
                };
                books.wants.insert(key, want);
                books.pulls.want(key, len as u64, &mut todo.pulls);
                None
            })
        })?;
        if let Some((read, mut draft)) = reads {
            copy(read.ok_or_else(gone)?, &mut draft)?;
            return Ok((draft, store::Came::Here));
        }
        match ended.recv() {
            Ok(Ok(Came::Bytes(draft, from))) => {
                Ok((draft, store::Came::Node(from.unwrap_or(key.owner))))
            }
            Ok(Ok(Came::Here(_))) | Err(_) => Err(gone()),
            Ok(Err(why)) => Err(lost(key, key.owner, &why)),
        }
    }
}

/// How long a replica waits for room here.
const ROOM: Duration = Duration::from_secs(2);

/// Copies what a record here has, or brings there first.
fn copy(from: RawRef, draft: &mut Draft) -> Result<(), Error> {
    let pinned = PinnedRef::new(from)?;
    if pinned.bytes().len() != draft.len() {
        let why = "the replica is of another length than the object";
        return Err(Error::Cluster { why: why.into() });
    }
    draft.write_at(0, pinned.bytes());
    Ok(())
}

fn tell(books: &mut Books, number: u64, outcome: Result<(), Short>) {
    if let Some(tell) = books.putting.remove(&number) {
        let _ = tell.send(outcome);
    }
}

/// What was in the way of replicas, for people.
fn why(short: Option<&Short>, timeout: Duration) -> String {
    let Some(short) = short else {
        return format!("it took longer than {timeout:?}; more is PutOptions::timeout");
    };
    if short.declined.is_empty() {
        return "start more nodes, or wait for them (Mobula::wait_for_nodes), or ask for fewer"
            .to_owned();
    }
    let declined = short.declined.iter().map(|(node, why)| {
        let why = match why {
            Why::NoRoom => "has no room in its store",
            Why::Leaves => "leaves",
            Why::Failed => "did not get the bytes",
        };
        format!("node {node} {why}")
    });
    declined.collect::<Vec<_>>().join(", ")
}
