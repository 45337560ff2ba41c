//! Calls and actors of placement groups: where each goes, and what the program asks of groups.
//!
//! Invariant: a call that waits is kept under the same lock under which it was found that it has to. Left out: the groups
//! themselves, whose driver is one up.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::super::actors;
use super::{Act, Event, Groups, State};
use crate::base::{Demand, Error, GroupId, GroupSpec, NodeId, Strategy};
use crate::core::groups::GroupMsg;
use crate::core::groups::lookup::Located;
use crate::core::placement::{Choice, Request, choose};
use crate::exec::entry::ActorEntry;
use crate::exec::far::Elsewhere;
use crate::exec::groups::{self, no_group};
use crate::exec::options::Options;
use crate::exec::{Local, RawRef};
use crate::wire::InGroup;

/// How long making an actor waits for its group.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done with a call.
enum Place {
    Here,
    At(NodeId),
    Waits(Option<GroupMsg>),
    Fails(Error),
}

impl Groups {
    pub(super) fn place_again(&self, local: &Local, record: RawRef) {
        if !self.place_now(local, &record) {
            local.engine.admit_of_group(local, record);
        }
    }

    /// Where a call or an actor of this demand goes; one that waits is kept by the caller, under this lock.
    fn find(
        &self,
        state: &mut State,
        at: (GroupId, Option<u32>),
        demand: &Demand,
        seed: u64,
    ) -> Place {
        let (group, bundle) = at;
        let nodes = match state.lookup.locate(group, bundle, demand) {
            Located::Asked(ask) => return Place::Waits(ask),
            Located::At(nodes) => nodes,
            Located::Gone => {
                let why = "was removed, or the node that made it is dead: make another";
                return Place::Fails(no_group(group, why));
            }
            Located::TooSmall => {
                let which = match bundle {
                    Some(bundle) => format!("bundle {bundle}, or it does not hold"),
                    None => "bundle that holds".to_owned(),
                };
                let why = format!("has no {which} the {demand} that is asked for");
                return Place::Fails(no_group(group, &why));
            }
        };
        let Some(cluster) = self.cluster() else {
            return if nodes.is_empty() {
                Place::Waits(None)
            } else {
                Place::Here
            };
        };
        let strategy = Strategy::Group { group, bundle };
        let request = Request {
            bundles: Some(&nodes),
            seed,
            ..Request::new(demand, &strategy)
        };
        let books = cluster.books.lock();
        match choose(&books.view, self.me, &request) {
            Choice::Here => Place::Here,
            Choice::At(node) => Place::At(node),
            Choice::Wait => Place::Waits(None),
            Choice::Nowhere(why) => Place::Fails(no_group(group, &why.to_string())),
        }
    }

    fn place_now(&self, local: &Local, record: &RawRef) -> bool {
        let Some(at) = record.group() else {
            return false;
        };
        let demand = record.demand().cloned().unwrap_or(Demand::ONE_CPU);
        let (place, waits) = {
            let mut state = self.state.lock();
            let mut place = match state.closed {
                true => Place::Fails(Error::ShutDown),
                false => self.find(&mut state, at, &demand, record.id),
            };
            let waits = matches!(place, Place::Waits(_));
            if waits && let Err(full) = state.waiting.add(at.0, record.clone()) {
                place = Place::Fails(no_group(at.0, &full.to_string()));
            }
            (place, waits)
        };
        match place {
            Place::Here => {
                if let Some(cluster) = self.cluster() {
                    cluster.count_here(local, record);
                }
                false
            }
            Place::At(node) => match self.cluster() {
                Some(cluster) => cluster.give(local, record, node, true),
                None => false,
            },
            Place::Waits(ask) => {
                if let Some(ask) = ask.filter(|_| waits) {
                    self.ask(local, at.0, ask);
                }
                true
            }
            Place::Fails(why) => {
                local.engine.fail_of_group(local, record, why);
                true
            }
        }
    }

    /// Waits until it is known where an actor of the group is made; `None`: here. Must not be called under a lock.
    fn find_for_actor(
        &self,
        local: &Local,
        at: (GroupId, Option<u32>),
        demand: &Demand,
    ) -> Result<Option<NodeId>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::ShutDown);
            }
            match self.find(&mut state, at, demand, self.now().as_nanos() as u64) {
                Place::Here => return Ok(None),
                Place::At(node) => return Ok(Some(node)),
                Place::Fails(why) => return Err(why),
                Place::Waits(Some(ask)) => {
                    drop(state);
                    self.ask(local, at.0, ask);
                }
                Place::Waits(None) => {
                    if self.news.wait_until(&mut state, deadline).timed_out() {
                        let why = format!(
                            "was not ready within {PATIENCE:?}, and the actor waits for that: see wait_ready"
                        );
                        return Err(no_group(at.0, &why));
                    }
                }
            }
        }
    }

    /// Asks a coordinator.
    fn ask(&self, local: &Local, group: GroupId, ask: GroupMsg) {
        if group.node == self.me {
            return self.post(local, Event::Message(self.me, ask));
        }
        self.carry_out(local, Act::Send(group.node, ask));
        // In case that could not be sent.
        self.post(local, Event::Tick);
    }
}

impl groups::Groups for Groups {
    fn create(&self, local: &Local, spec: GroupSpec) -> Result<GroupId, Error> {
        self.start_clock();
        let (answer, made) = sync_channel(1);
        self.post(local, Event::Create(spec, answer));
        match made.recv() {
            Ok(made) => made.map_err(|why| Error::Group {
                why: Arc::from(why.to_string()),
            }),
            Err(_) => Err(Error::ShutDown),
        }
    }

    fn remove(&self, local: &Local, group: GroupId) {
        if group.node == self.me {
            self.post(local, Event::Remove(group.number));
        }
    }

    fn placed(&self, group: GroupId) -> Option<Vec<Option<NodeId>>> {
        self.state.lock().coordinator.placed(group.number)
    }

    fn wait_ready(&self, group: GroupId, deadline: Option<Instant>) -> Result<bool, Error> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::ShutDown);
            }
            match state.coordinator.is_ready(group.number) {
                None => return Err(no_group(group, "was removed")),
                Some(true) => return Ok(true),
                Some(false) => {}
            }
            match deadline {
                None => self.news.wait(&mut state),
                Some(deadline) => {
                    if self.news.wait_until(&mut state, deadline).timed_out() {
                        return Ok(state.coordinator.is_ready(group.number) == Some(true));
                    }
                }
            }
        }
    }

    fn place(&self, local: &Local, record: &RawRef) -> bool {
        self.place_now(local, record)
    }

    fn place_later(&self, local: &Local, record: RawRef) {
        let mut state = self.state.lock();
        if !state.closed {
            return state.aside.push(record);
        }
        drop(state);
        local.engine.fail_of_group(local, &record, Error::ShutDown);
    }

    fn place_actor(
        &self,
        local: &Local,
        entry: &'static ActorEntry,
        options: &Options,
        demand: &Demand,
    ) -> Result<Option<Elsewhere>, Error> {
        let Strategy::Group { group, bundle } = options.strategy else {
            return Ok(None);
        };
        let wait = || self.find_for_actor(local, (group, bundle), demand);
        let Some(node) = local.engine.wait_apart(local, "a placement group", wait)? else {
            if let Some(cluster) = self.cluster() {
                cluster.books.lock().view.took(self.me, &Demand::NONE);
            }
            return Ok(None);
        };
        let Some(cluster) = self.cluster() else {
            return Err(Error::ShutDown);
        };
        let terms = actors::terms(entry, options, demand)?;
        let adopt = options.get_or_create;
        Ok(Some(Box::new(move |local, init, name| {
            cluster.books.lock().view.took(node, &Demand::NONE);
            cluster.send_create(local, node, entry, (terms, name, adopt), init)
        })))
    }

    fn reserved(&self, local: &Local, ticket: u64) {
        self.post(local, Event::Reserved(ticket));
    }

    fn close(&self, local: &Local) {
        let calls: Vec<RawRef> = {
            let mut state = self.state.lock();
            state.closed = true;
            let aside = std::mem::take(&mut state.aside);
            state.waiting.take_all().into_iter().chain(aside).collect()
        };
        self.news.notify_all();
        for record in calls {
            local.engine.fail_of_group(local, &record, Error::ShutDown);
        }
    }
}

/// The groups that a call could be in, as it travels.
pub(in super::super) fn group_of(strategy: &Strategy) -> Option<InGroup> {
    match strategy {
        Strategy::Group { group, bundle } => Some((*group, *bundle)),
        _ => None,
    }
}

/// The same, as a record here carries it.
pub(in super::super) fn strategy_of(group: Option<InGroup>) -> Strategy {
    group.map_or(Strategy::Default, |(group, bundle)| Strategy::Group {
        group,
        bundle,
    })
}
