//! Names of actors: whoever looks for one, takes one, or gives one back.
//!
//! Names are in the cluster's records. A node that reaches these itself asks itself; any other asks the keeper, which is the
//! head. While the head is gone for a while, questions wait for it.
//!
//! Invariant: who asks gets an answer, or an error when the keeper is gone or does not answer in time. Left out: the records
//! (`records`).

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::{Cluster, lost};
use crate::base::{ActorKey, Error, NodeId, ObjectKey};
use crate::core::owners::RefState;
use crate::exec::Local;
use crate::exec::actor::HandleRef;
use crate::exec::entry::ActorEntry;
use crate::exec::far::parcel;
use crate::wire::{Found, Frame, Named, Question};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a question is asked again that could not be answered yet.
const AGAIN: Duration = Duration::from_millis(20);
/// Names that wait to be given back; beyond, they stay taken until somebody wants them.
const UNFREED: usize = 4096;

impl Cluster {
    /// Asks the keeper of names, which may be this node, until it knows.
    fn ask(
        self: &Arc<Cluster>,
        local: &Local,
        question: &Question,
    ) -> Result<Option<Named>, Error> {
        match self.ask_found(local, question)? {
            Found::Is(named) => Ok(Some(named)),
            _ => Ok(None),
        }
    }

    /// Asks whoever keeps the records, until there is an answer.
    pub(super) fn ask_found(
        self: &Arc<Cluster>,
        local: &Local,
        question: &Question,
    ) -> Result<Found, Error> {
        if !self.may_block() {
            let why = "a name cannot be looked up on the thread that brings the answer";
            return Err(Error::Cluster {
                why: Arc::from(why),
            });
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(e) = self.fenced_by() {
                return Err(e);
            }
            match self.ask_once(local, question, deadline)? {
                Found::Failed(why) => {
                    return Err(Error::Cluster {
                        why: Arc::from(why),
                    });
                }
                Found::Later if Instant::now() >= deadline => {
                    let why = format!(
                        "for {PATIENCE:?} there was nobody who knows the names of actors; is the head back?"
                    );
                    return Err(Error::Cluster {
                        why: Arc::from(why),
                    });
                }
                Found::Later => std::thread::park_timeout(AGAIN),
                found => return Ok(found),
            }
        }
    }

    fn ask_once(
        self: &Arc<Cluster>,
        local: &Local,
        question: &Question,
        deadline: Instant,
    ) -> Result<Found, Error> {
        if let Some(keeper) = self.keeper.get() {
            return Ok(keeper.answer(self, question));
        }
        let head = self.books.lock().head;
        let gone = || {
            if self.awaits_head() {
                return Ok(Found::Later);
            }
            Err(Error::NodeLost {
                node: head,
                what: Arc::from("it keeps the names of actors, and does not answer"),
            })
        };
        let (tell, answer) = sync_channel(1);
        let asked = self.with(local, |books, _| {
            if !books.peers.contains_key(&head) {
                return None;
            }
            let ask = books.number();
            books.asks.insert(ask, (head, tell));
            let sent = self.send_surely(
                books,
                head,
                &Frame::Ask {
                    ask,
                    question: question.clone(),
                },
            );
            if !sent {
                books.asks.remove(&ask);
            }
            sent.then_some(ask)
        });
        let Some(ask) = asked else { return gone() };
        let answered = answer.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        self.books.lock().asks.remove(&ask);
        match answered {
            Ok(found) => Ok(found),
            Err(RecvTimeoutError::Disconnected) => gone(),
            Err(RecvTimeoutError::Timeout) => Err(Error::NodeLost {
                node: head,
                what: Arc::from("it keeps the names of actors, and did not answer in time"),
            }),
        }
    }

    /// Another node asks: answered by the thread that may wait for the records.
    pub(super) fn on_ask(self: &Arc<Cluster>, from: NodeId, ask: u64, question: Question) {
        let cluster = Arc::clone(self);
        self.clerk(move |local| {
            let found = match cluster.keeper.get() {
                Some(keeper) => keeper.answer(&cluster, &question),
                None => Found::Failed(format!("node {} keeps no names", cluster.me)),
            };
            cluster.with(local, |books, _| {
                cluster.send_surely(books, from, &Frame::Answer { ask, found });
            });
        });
    }

    pub(super) fn on_answer(&self, from: NodeId, ask: u64, found: Found) {
        let mut books = self.books.lock();
        if books.asks.get(&ask).is_some_and(|(of, _)| *of == from)
            && let Some((_, tell)) = books.asks.remove(&ask)
        {
            let _ = tell.send(found);
        }
    }

    /// The keeper is gone: whoever waits for it is told.
    pub(super) fn asks_died(&self, node: NodeId) {
        let mut books = self.books.lock();
        books.asks.retain(|_, (of, _)| *of != node);
    }

    /// A handle to the actor with this name, on whatever node.
    pub(super) fn find_named(
        self: &Arc<Cluster>,
        local: &Local,
        name: &str,
    ) -> Result<Option<HandleRef>, Error> {
        match self.ask(local, &Question::Find(name.to_owned()))? {
            Some(named) => self.reach(local, name, &named),
            None => Ok(None),
        }
    }

    /// A handle to an actor that this node was told of, and that has not counted it yet.
    fn reach(
        self: &Arc<Cluster>,
        local: &Local,
        name: &str,
        named: &Named,
    ) -> Result<Option<HandleRef>, Error> {
        let key = named.key;
        if key.owner == self.me {
            // One of this node's own, which it does not know by its name: another node had it, or it has ended.
            self.await_claim(key);
            let books = self.books.lock();
            let actor = books.made.get(&key.number).cloned();
            drop(books);
            return Ok(actor.and_then(|actor| HandleRef::upgrade(&actor)));
        }
        let entry = parcel::actor_type(named.kind)
            .ok_or_else(|| lost(key, key.owner, "its type is not known here"))?;
        self.await_peer(key.owner);
        self.with(local, |books, todo| {
            if !books.peers.contains_key(&key.owner) {
                return Ok(None);
            }
            // Nobody handed it on, so nobody but this node waits for its owner's word that it is counted.
            books
                .owners
                .import(key, self.me, 0, RefState::Pending, &mut todo.effects);
            if let Some((first, incarnation)) = named.kept {
                let at = (first, incarnation, key);
                let handle = self.kept_handle(books, todo, local, at, entry, Some(name));
                return Ok(Some(handle));
            }
            Ok(Some(self.far_handle(
                books,
                todo,
                local,
                key,
                entry,
                Some(name),
            )))
        })
    }

    /// Waits until an actor that this node is taking over is here, if this thread may.
    fn await_claim(&self, key: ObjectKey) {
        let deadline = Instant::now() + PATIENCE;
        while self.may_block() && self.recovery.claims(key) && Instant::now() < deadline {
            std::thread::park_timeout(AGAIN);
        }
    }

    /// Waits until a member is connected that was heard of, if this thread may.
    fn await_peer(&self, node: NodeId) {
        let deadline = Instant::now() + PATIENCE;
        let there = || self.books.lock().peers.contains_key(&node);
        while self.may_block() && !there() && self.membership.has(node) && Instant::now() < deadline
        {
            std::thread::park_timeout(AGAIN);
        }
    }

    /// Takes a name for an actor that is about to be made here; another living actor if that has it.
    pub(super) fn take_name(
        self: &Arc<Cluster>,
        local: &Local,
        name: &str,
        actor: u64,
        entry: &'static ActorEntry,
        kept: bool,
    ) -> Result<Option<HandleRef>, Error> {
        // Whoever has one made here for it has taken the name before it said so.
        if !self.may_block() {
            return Ok(None);
        }
        self.take_name_for(
            local,
            name,
            ObjectKey {
                owner: self.me,
                number: actor,
            },
            entry,
            kept,
        )
    }

    /// The same, for an actor of this key.
    pub(super) fn take_name_for(
        self: &Arc<Cluster>,
        local: &Local,
        name: &str,
        key: ObjectKey,
        entry: &'static ActorEntry,
        kept: bool,
    ) -> Result<Option<HandleRef>, Error> {
        let first = ActorKey {
            host: key.owner,
            number: key.number,
        };
        let kept = kept.then_some((first, 1));
        let kind = parcel::actor_number(entry).unwrap_or(u32::MAX);
        let mine = Question::Claim(name.to_owned(), Named { key, kind, kept });
        // Once more if whoever had it turns out to be gone.
        for _ in 0..2 {
            let Some(named) = self.ask(local, &mine)? else {
                return Ok(None);
            };
            let here = || {
                local
                    .engine
                    .named(name)
                    .and_then(|actor| HandleRef::upgrade(&actor))
            };
            let living = if named.key.owner == self.me {
                here()
            } else {
                self.reach(local, name, &named)?
            };
            if living.is_some() {
                return Ok(living);
            }
            self.ask(local, &Question::Free(name.to_owned(), named.key))?;
        }
        Ok(None)
    }

    /// Gives the name of an actor of this node back.
    pub(super) fn give_name(self: &Arc<Cluster>, local: &Local, name: &str, actor: u64) {
        let number = self
            .books
            .lock()
            .aliases
            .get(&actor)
            .copied()
            .unwrap_or(actor);
        self.free_name_of(
            local,
            name,
            ObjectKey {
                owner: self.me,
                number,
            },
        );
    }

    /// The same, of an actor by its key.
    pub(super) fn free_name_of(self: &Arc<Cluster>, local: &Local, name: &str, key: ObjectKey) {
        let question = Question::Free(name.to_owned(), key);
        if self.keeper.get().is_some() {
            let cluster = Arc::clone(self);
            self.clerk(move |_| {
                if let Some(keeper) = cluster.keeper.get() {
                    keeper.answer(&cluster, &question);
                }
            });
            return;
        }
        self.with(local, |books, _| {
            if books.unfreed.len() < UNFREED {
                books.unfreed.push(question);
            }
            self.free_names(books);
        });
    }

    /// Sends what names were given back, if there is whom to tell.
    pub(super) fn free_names(&self, books: &mut super::books::Books) {
        let head = books.head;
        if !books.peers.contains_key(&head) {
            return;
        }
        for question in std::mem::take(&mut books.unfreed) {
            let ask = books.number();
            self.send_surely(books, head, &Frame::Ask { ask, question });
        }
    }
}
