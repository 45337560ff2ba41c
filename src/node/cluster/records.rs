//! The cluster's records, kept by this node, or reached by it: who has which name.
//!
//! | the records are | kept by | after the loss of it |
//! |---|---|---|
//! | `memory:` | the head | the cluster ends |
//! | in a folder | the head, synced | it may start again there, and finds the names of actors whose nodes live |
//! | on etcd | nobody here: each node asks etcd itself | any node may be lost, and any lets newcomers in |
//!
//! A name is tied to the node that its actor runs on. Who keeps the records alone removes it when that node is dead. On etcd
//! each node has a record that lives with its lease; a name may be taken over once that is gone, so that two sides of
//! a partition cannot both have it.
//!
//! Invariant: a name that was claimed is its actor's until the actor gives it back or its node is dead. All calls here may wait
//! for the records, [`WITHIN`] at most, and are made by threads that may. Left out: who asks (`names`).

mod entry;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Cluster, Errand};
use crate::base::{ActorKey, Error, NodeId, ObjectKey};
use crate::control::records::{self, Authority, Claim, NamedActor, Node};
use crate::control::{self, Control, ControlError, Expect, Lease};
use crate::core::recovery::Record;
use crate::exec::far::parcel;
use crate::wire::{Found, Named, Question};

/// How long the records may take for an answer.
const WITHIN: Duration = Duration::from_secs(3);
/// How long a node's record on etcd outlives the node.
const TTL: Duration = Duration::from_secs(5);
/// How long after this node's start those who have names may come back before they are taken for dead.
const GRACE: Duration = Duration::from_secs(5);
/// How often a claim is tried when others change the record all the time.
const TRIES: u32 = 16;

/// What this node needs to keep names.
pub(super) struct Keeper {
    control: Arc<dyn Control>,
    /// Every node reaches the records itself.
    shared: bool,
    since: Instant,
    /// Nodes that kept the records before.
    before: Mutex<HashSet<NodeId>>,
    lease: Mutex<Option<Lease>>,
    /// Where others reach this node.
    reached: OnceLock<SocketAddr>,
    authority: OnceLock<Authority>,
}

/// Where an actor is whose node is dead.
enum Moved {
    To(NamedActor),
    /// Somebody may be about to take it over.
    Unknown,
    Lost,
}

/// What is known of a node that has a name.
enum Stands {
    Alive,
    Dead,
    Unknown,
}

impl Keeper {
    /// Opens the records at an address.
    pub fn open(address: &str) -> Result<Keeper, Error> {
        let control = control::open(address).map_err(|e| Error::Cluster {
            why: Arc::from(e.to_string()),
        })?;
        let shared = address.starts_with("etcd:");
        Ok(Keeper {
            control,
            shared,
            since: Instant::now(),
            before: Mutex::default(),
            lease: Mutex::default(),
            reached: OnceLock::new(),
            authority: OnceLock::new(),
        })
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Cluster {
            why: Arc::from(format!("the records at {}: {why}", self.control.address())),
        }
    }

    /// Answers a question.
    pub fn answer(&self, cluster: &Cluster, question: &Question) -> Found {
        let answered = match question {
            Question::Find(name) => self.find(cluster, name),
            Question::Claim(name, actor) => self.claim(cluster, name, actor),
            Question::Free(name, key) => self.remove(name, actor_key(*key)).map(|()| Found::Nobody),
            Question::Record(actor) => self.record(*actor).map(Found::Record),
            Question::Swap(actor, expect, record) => {
                self.swap(*actor, expect.as_ref(), record.as_ref())
            }
        };
        answered.unwrap_or_else(|e| {
            Found::Failed(format!("the records at {}: {e}", self.control.address()))
        })
    }

    /// The record of an actor whose history is kept.
    fn record(&self, actor: ActorKey) -> control::Result<Option<Record>> {
        let found = records::get::<Record>(&*self.control, &actor, WITHIN)?;
        Ok(found.map(|(record, _)| record))
    }

    /// Changes it, if it is as expected.
    fn swap(
        &self,
        actor: ActorKey,
        expect: Option<&Record>,
        record: Option<&Record>,
    ) -> control::Result<Found> {
        let control = &*self.control;
        if record.is_some_and(|record| record.actor != actor) {
            return Ok(Found::Failed("it is another actor's".to_owned()));
        }
        for _ in 0..TRIES {
            let found = records::get::<Record>(control, &actor, WITHIN)?;
            if found.as_ref().map(|(record, _)| record) != expect {
                return Ok(Found::Record(found.map(|(record, _)| record)));
            }
            let still = match found {
                Some((_, revision)) => Expect::Revision(revision),
                None => Expect::Absent,
            };
            let changed = match record {
                Some(record) => records::put(control, record, still, None, WITHIN).map(drop),
                None if expect.is_none() => Ok(()),
                None => records::delete::<Record>(control, &actor, still, WITHIN).map(drop),
            };
            match changed {
                Ok(()) => return Ok(Found::Swapped),
                Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Found::Later)
    }

    /// Where an actor with this name is whose node is dead, if its history is kept: the name goes with it.
    fn follow(
        &self,
        cluster: &Cluster,
        named: &NamedActor,
        revision: control::Revision,
    ) -> control::Result<Moved> {
        if named.incarnation == 0 {
            return Ok(Moved::Lost);
        }
        let Some(record) = self.record(named.first)? else {
            return Ok(Moved::Lost);
        };
        if record.at != named.actor
            && matches!(self.stands(cluster, record.at.host)?, Stands::Alive)
        {
            let now = NamedActor {
                actor: record.at,
                incarnation: record.incarnation,
                ..named.clone()
            };
            return match records::reassign(&*self.control, &now, revision, WITHIN) {
                Ok(_) => Ok(Moved::To(now)),
                Err(ControlError::Conflict { .. }) => Ok(Moved::Unknown),
                Err(e) => Err(e),
            };
        }
        for node in record.backups.iter().chain([&record.at.host]) {
            if !matches!(self.stands(cluster, *node)?, Stands::Dead) {
                return Ok(Moved::Unknown);
            }
        }
        Ok(Moved::Lost)
    }

    fn find(&self, cluster: &Cluster, name: &str) -> control::Result<Found> {
        let Some((named, revision)) =
            records::get::<NamedActor>(&*self.control, &name.to_owned(), WITHIN)?
        else {
            return Ok(Found::Nobody);
        };
        match self.stands(cluster, named.actor.host)? {
            Stands::Alive => Ok(told(&named)),
            Stands::Unknown if self.shared && cluster.is_gone(named.actor.host) => {
                // Its lease is not over yet. Others may go on with it.
                match self.follow(cluster, &named, revision)? {
                    Moved::To(now) => Ok(told(&now)),
                    Moved::Unknown => Ok(Found::Later),
                    Moved::Lost => Ok(Found::Nobody),
                }
            }
            Stands::Unknown => Ok(Found::Later),
            Stands::Dead => match self.follow(cluster, &named, revision)? {
                Moved::To(now) => Ok(told(&now)),
                Moved::Unknown => Ok(Found::Later),
                Moved::Lost => self.remove(name, named.actor).map(|()| Found::Nobody),
            },
        }
    }

    fn claim(&self, cluster: &Cluster, name: &str, actor: &Named) -> control::Result<Found> {
        let entry = parcel::actor_type(actor.kind)
            .map_or("", |entry| entry.name)
            .to_owned();
        let mine = NamedActor {
            name: name.to_owned(),
            actor: actor_key(actor.key),
            entry,
            first: actor.kept.map_or(actor_key(actor.key), |(first, _)| first),
            incarnation: actor.kept.map_or(0, |(_, incarnation)| incarnation),
        };
        for _ in 0..TRIES {
            let (held, revision) = match records::claim(&*self.control, &mine, WITHIN)? {
                Claim::Taken(_) => return Ok(Found::Nobody),
                Claim::Held(held, revision) => (held, revision),
            };
            match self.stands(cluster, held.actor.host)? {
                Stands::Alive => return Ok(told(&held)),
                Stands::Unknown => return Ok(Found::Later),
                Stands::Dead => match self.follow(cluster, &held, revision)? {
                    Moved::To(now) => return Ok(told(&now)),
                    Moved::Unknown => return Ok(Found::Later),
                    Moved::Lost => {}
                },
            }
            match records::reassign(&*self.control, &mine, revision, WITHIN) {
                Ok(_) => return Ok(Found::Nobody),
                Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Found::Later)
    }

    /// Removes a name, if it is this actor's.
    fn remove(&self, name: &str, actor: ActorKey) -> control::Result<()> {
        let name = name.to_owned();
        let held = records::get::<NamedActor>(&*self.control, &name, WITHIN)?;
        let Some((_, revision)) = held.filter(|(held, _)| held.actor == actor) else {
            return Ok(());
        };
        match records::delete::<NamedActor>(
            &*self.control,
            &name,
            Expect::Revision(revision),
            WITHIN,
        ) {
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn stands(&self, cluster: &Cluster, host: NodeId) -> control::Result<Stands> {
        if host == cluster.me || cluster.is_there(host) {
            return Ok(Stands::Alive);
        }
        if self.shared {
            // It may live and not be reached from here; its lease says.
            let entered = records::get::<Node>(&*self.control, &host, WITHIN)?;
            return Ok(if entered.is_some() {
                Stands::Unknown
            } else {
                Stands::Dead
            });
        }
        let late = self.since.elapsed() > GRACE;
        let dead = late || cluster.is_gone(host) || self.before.lock().contains(&host);
        Ok(if dead { Stands::Dead } else { Stands::Unknown })
    }

    /// A node is dead: what was named there is so no more.
    fn bury(&self, node: NodeId) {
        if self.shared {
            return;
        }
        // What fails here is made up for when somebody asks for the name.
        let Ok((names, _)) = records::list::<NamedActor>(&*self.control, WITHIN) else {
            return;
        };
        // Those that others go on with are looked for when somebody asks.
        let its = |n: &&NamedActor| n.actor.host == node && n.incarnation == 0;
        for named in names.iter().filter(its) {
            let _ = self.remove(&named.name, named.actor);
        }
    }
}

fn actor_key(key: ObjectKey) -> ActorKey {
    ActorKey {
        host: key.owner,
        number: key.number,
    }
}

fn told(named: &NamedActor) -> Found {
    let kinds = (0..u32::MAX).map_while(parcel::actor_type);
    let kind = kinds
        .into_iter()
        .position(|entry| entry.name == named.entry);
    let key = ObjectKey {
        owner: named.actor.host,
        number: named.actor.number,
    };
    Found::Is(Named {
        key,
        kind: kind.map_or(u32::MAX, |kind| kind as u32),
        kept: (named.incarnation > 0).then_some((named.first, named.incarnation)),
    })
}

impl Cluster {
    /// Enters this node in the records, if it reaches them itself; the other nodes there.
    pub(super) fn enter_records(
        &self,
        addr: SocketAddr,
    ) -> Result<Vec<(NodeId, SocketAddr)>, Error> {
        let Some(keeper) = self.keeper.get() else {
            return Ok(Vec::new());
        };
        let _ = keeper.reached.set(addr);
        keeper.begin(self).map_err(|e| match e {
            ControlError::Conflict { .. } => keeper
                .failed(&"another first node is there: join it, or take another prefix on etcd"),
            e => keeper.failed(&e),
        })
    }

    /// Keeps records from now on.
    pub(super) fn keep_records(self: &Arc<Cluster>, keeper: Keeper) -> Result<(), Error> {
        let _ = self.keeper.set(keeper);
        let (send, work) = channel();
        *self.clerk.lock() = Some(send);
        let cluster = Arc::downgrade(self);
        let thread = std::thread::Builder::new()
            .name("mobula-records".to_owned())
            .spawn(move || {
                run_clerk(&work, || {
                    if let Some(cluster) = cluster.upgrade()
                        && let Some(keeper) = cluster.keeper.get()
                    {
                        keeper.prolong(&cluster);
                    }
                });
            });
        let thread = thread.map_err(|e| Error::Os {
            what: "starting a thread",
            source: Arc::new(e),
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Has the thread do this that may wait for the records.
    pub(super) fn clerk(&self, work: impl FnOnce(&crate::exec::Local) + Send + 'static) {
        let clerk = self.clerk.lock();
        match &*clerk {
            Some(clerk) => drop(clerk.send(Box::new(work))),
            None => {
                drop(clerk);
                self.errand(work);
            }
        }
    }

    /// A node is dead, for the records too.
    pub(super) fn names_died(self: &Arc<Cluster>, node: NodeId) {
        if self.keeper.get().is_none() {
            return;
        }
        let cluster = Arc::clone(self);
        self.clerk(move |_| {
            if let Some(keeper) = cluster.keeper.get() {
                keeper.bury(node);
            }
        });
    }

    /// Whether this node is of the cluster, as far as this one knows.
    fn is_there(&self, node: NodeId) -> bool {
        self.membership.has(node) || self.books.lock().peers.contains_key(&node)
    }

    /// Whether it was and is no more.
    fn is_gone(&self, node: NodeId) -> bool {
        self.books.lock().view.is_gone(node)
    }
}

fn run_clerk(work: &Receiver<Errand>, prolong: impl Fn()) {
    let mut due = Instant::now() + TTL / 4;
    loop {
        match work.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(errand) => drop(crate::exec::local::with(|local| errand(local))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= due {
            prolong();
            due = Instant::now() + TTL / 4;
        }
    }
}
