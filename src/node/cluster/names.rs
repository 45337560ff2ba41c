//! Names of actors, kept by one node for all.
//!
//! Invariant: a name is one living actor's; who asks gets an answer, or an error when the keeper is gone or does not answer
//! in time. Left out: names that outlive the keeper (`control`).

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::{Cluster, lost};
use crate::base::{Error, NodeId, ObjectKey};
use crate::core::owners::RefState;
use crate::exec::Local;
use crate::exec::actor::HandleRef;
use crate::exec::far::parcel;
use crate::wire::{Frame, Named, Question};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cluster {
    /// Asks the keeper of names, which may be this node.
    fn ask(self: &Arc<Cluster>, local: &Local, question: Question) -> Result<Option<Named>, Error> {
        let head = {
            let books = self.books.lock();
            books.head
        };
        if head == self.me {
            return Ok(self.keep_name(question));
        }
        let (tell, answer) = sync_channel(1);
        let asked = self.with(local, |books, _| {
            let ask = books.number();
            books.asks.insert(ask, (head, tell));
            let sent = self.send_surely(books, head, &Frame::Ask { ask, question });
            if !sent {
                books.asks.remove(&ask);
            }
            sent.then_some(ask)
        });
        let gone = || Error::NodeLost {
            node: head,
            what: Arc::from("it keeps the names of actors, and does not answer"),
        };
        let ask = asked.ok_or_else(gone)?;
        let answered = answer.recv_timeout(PATIENCE);
        self.books.lock().asks.remove(&ask);
        answered.map_err(|_| gone())?
    }

    /// Answers a question about names: here, at the keeper.
    fn keep_name(&self, question: Question) -> Option<Named> {
        let mut books = self.books.lock();
        match question {
            Question::Find(name) => books.names.get(&name).cloned(),
            Question::Claim(name, actor) => match books.names.get(&name) {
                Some(other) if other.key != actor.key => Some(other.clone()),
                _ => {
                    books.names.insert(name, actor);
                    None
                }
            },
            Question::Free(name, key) => {
                if books.names.get(&name).is_some_and(|n| n.key == key) {
                    books.names.remove(&name);
                }
                None
            }
        }
    }

    pub(super) fn on_ask(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        ask: u64,
        question: Question,
    ) {
        let found = self.keep_name(question);
        self.with(local, |books, _| {
            self.send_surely(books, from, &Frame::Answer { ask, found });
        });
    }

    pub(super) fn on_answer(&self, from: NodeId, ask: u64, found: Option<Named>) {
        let mut books = self.books.lock();
        if books.asks.get(&ask).is_some_and(|(of, _)| *of == from)
            && let Some((_, tell)) = books.asks.remove(&ask)
        {
            let _ = tell.send(Ok(found));
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
        match self.ask(local, Question::Find(name.to_owned()))? {
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
            return Ok(None); // one of this node's own, which it does not know: it has ended
        }
        let entry = parcel::actor_type(named.kind)
            .ok_or_else(|| lost(key, key.owner, "its type is not known here"))?;
        self.with(local, |books, todo| {
            if !books.peers.contains_key(&key.owner) {
                return Ok(None);
            }
            // Nobody handed it on, so nobody but this node waits for its owner's word that it is counted.
            books
                .owners
                .import(key, self.me, 0, RefState::Pending, &mut todo.effects);
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

    /// Takes a name for an actor of this node; another node's living actor if it has it.
    pub(super) fn take_name(
        self: &Arc<Cluster>,
        local: &Local,
        name: &str,
        actor: u64,
        entry: &'static crate::exec::entry::ActorEntry,
    ) -> Result<Option<HandleRef>, Error> {
        let number = self
            .books
            .lock()
            .aliases
            .get(&actor)
            .copied()
            .unwrap_or(actor);
        let key = ObjectKey {
            owner: self.me,
            number,
        };
        let kind = parcel::actor_number(entry).unwrap_or(u32::MAX);
        let mine = || Question::Claim(name.to_owned(), Named { key, kind });
        // Once more if whoever had it turns out to be gone.
        for _ in 0..2 {
            let Some(named) = self.ask(local, mine())? else {
                return Ok(None);
            };
            if named.key.owner != self.me
                && let Some(handle) = self.reach(local, name, &named)?
            {
                return Ok(Some(handle));
            }
            self.ask(local, Question::Free(name.to_owned(), named.key))?;
        }
        Ok(None)
    }

    /// Gives a name back.
    pub(super) fn give_name(self: &Arc<Cluster>, local: &Local, name: &str, actor: u64) {
        let number = self
            .books
            .lock()
            .aliases
            .get(&actor)
            .copied()
            .unwrap_or(actor);
        let key = ObjectKey {
            owner: self.me,
            number,
        };
        let question = Question::Free(name.to_owned(), key);
        let head = self.books.lock().head;
        if head == self.me {
            self.keep_name(question);
        } else {
            self.with(local, |books, _| {
                let ask = books.number();
                self.send_surely(books, head, &Frame::Ask { ask, question });
            });
        }
    }
}
