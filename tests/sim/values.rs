//! Values on one node: who waits for them, transfers, and copies that come and go.
//!
//! Invariant: who waits for a value holds a reference to it meanwhile. Left out: where copies are, which owners know.

use crate::base::{NodeId, ObjectKey};
use crate::core::owners::Stand;
use crate::core::pulls::{self, Pulls, Why};
use crate::net::{Event, Packet};
use crate::node::{Cx, Get, Node, State};

impl Node {
    /// Somebody waits for a value; the reference is held meanwhile.
    pub fn get(&mut self, cx: &mut Cx<'_>, key: ObjectKey, run: Option<(NodeId, u64)>) {
        self.hold(key);
        let id = self.number();
        cx.log.report.gets += 1;
        let pulling = false;
        self.gets.insert(id, Get { key, pulling, run });
        self.look(cx, id);
    }

    /// Sees whether a get can end, or must pull.
    fn look(&mut self, cx: &mut Cx<'_>, id: u64) {
        let Some(get) = self.gets.get_mut(&id) else {
            return;
        };
        let key = get.key;
        let state = self
            .records
            .get(&key)
            .map_or(State::Failed, |record| record.state);
        if get.pulling {
            return;
        }
        if self.store.contains_key(&key) {
            self.end_get(cx, id, true);
        } else if state == State::Failed {
            self.end_get(cx, id, false);
        } else if let State::Ready(len) = state {
            get.pulling = true;
            cx.log.report.pulls += 1;
            self.pulls(cx, |p, out| p.want(key, len, out));
        }
    }

    pub fn wake(&mut self, cx: &mut Cx<'_>, key: ObjectKey) {
        let of_key = self.gets.iter().filter(|(_, get)| get.key == key);
        let of_key: Vec<u64> = of_key.map(|(id, _)| *id).collect();
        for id in of_key {
            self.look(cx, id);
        }
        self.place_ready(cx);
    }

    fn end_get(&mut self, cx: &mut Cx<'_>, id: u64, ok: bool) {
        let Some(get) = self.gets.remove(&id) else {
            return cx
                .log
                .wrong(format!("get {id} of {:?} ended twice", self.id));
        };
        cx.log.report.gets_ended += 1;
        if let Some(run) = get.run {
            self.argument(cx, run, ok);
        }
        self.unhold(cx, get.key);
    }

    /// A program waits no longer.
    pub fn cancel(&mut self, cx: &mut Cx<'_>, id: u64) {
        if self.gets.get(&id).is_none_or(|get| get.run.is_some()) {
            return;
        }
        let Some(get) = self.gets.remove(&id) else {
            return;
        };
        cx.log.report.gets_ended += 1;
        if get.pulling {
            cx.log.report.cancelled += 1;
            self.pulls(cx, |p, out| p.cancel(get.key, out));
        }
        self.unhold(cx, get.key);
    }

    /// Another node pulls a value from here. False: it is not here.
    pub fn serve(&mut self, cx: &mut Cx<'_>, to: NodeId, key: ObjectKey, transfer: u64) -> bool {
        let Some(inner) = self.store.get(&key).cloned() else {
            return false;
        };
        let inner = self.wire(cx, &inner, to);
        self.send(
            cx,
            to,
            Packet::Bytes {
                key,
                transfer,
                inner,
            },
        );
        true
    }

    /// A transfer failed.
    pub fn broken(&mut self, cx: &mut Cx<'_>, key: ObjectKey, transfer: u64) {
        if self.pulls.fetches(key, transfer) {
            cx.log.report.broken += 1;
            self.pulls(cx, |p, out| p.fetch_failed(key, transfer, out));
        }
    }

    /// A transfer brought a value, and references in it.
    pub fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        key: ObjectKey,
        transfer: u64,
        inner: Vec<ObjectKey>,
    ) {
        if !self.pulls.fetches(key, transfer) {
            for key in inner {
                self.unhold(cx, key);
            }
            return;
        }
        self.store(cx, key, inner);
        self.pulls(cx, |p, out| p.fetched(key, transfer, out));
        self.owners(cx, |o, out| o.copied(key, out));
        if key.owner == self.id && !self.records.contains_key(&key) {
            self.discard(cx, key);
        }
    }

    /// Memory runs short: a copy goes, if it may.
    pub fn evict(&mut self, cx: &mut Cx<'_>, key: ObjectKey) {
        if self.store.contains_key(&key) && !self.owners.must_keep(key) {
            self.discard(cx, key);
            cx.log.report.evicted += 1;
            self.owners(cx, |o, out| o.copy_lost(key, out));
        }
    }

    /// A lost object was made anew.
    pub fn rebuilt(&mut self, cx: &mut Cx<'_>, key: ObjectKey) {
        if let Some(record) = self.records.get(&key) {
            let len = match record.state {
                State::Ready(len) => len,
                _ => 1,
            };
            self.settle(cx, key, Stand::Ready { len, at: self.id }, Vec::new());
        }
    }

    pub fn pulls<R>(
        &mut self,
        cx: &mut Cx<'_>,
        f: impl FnOnce(&mut Pulls, &mut Vec<pulls::Effect>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let answer = f(&mut self.pulls, &mut out);
        let (transfers, _) = self.pulls.under_way();
        if transfers > self.limits.transfers {
            cx.log
                .wrong(format!("{:?} has {transfers} transfers at a time", self.id));
        }
        for effect in out {
            cx.log.show(cx.net.now, self.id, &effect);
            match effect {
                pulls::Effect::Send { to, message } => self.post(cx, to, message),
                pulls::Effect::Fetch {
                    key,
                    from,
                    transfer,
                    failures,
                } => {
                    let delay = cx.net.latency() + 1_000 * u64::from(failures);
                    let (to, node) = (self.id, self.id);
                    if self.is_dead(from) {
                        cx.net.after(
                            delay,
                            Event::Broken {
                                node,
                                key,
                                transfer,
                            },
                        );
                    } else {
                        cx.net.after(
                            delay,
                            Event::Serve {
                                to,
                                from,
                                key,
                                transfer,
                            },
                        );
                    }
                }
                pulls::Effect::Abort { .. } => {}
                pulls::Effect::Here(key) => self.end_pull(cx, key, true),
                pulls::Effect::Failed(key, why) => {
                    cx.log.report.failed_pulls += 1;
                    if cx.log.calm && why != Why::OwnerDied {
                        let state = self.records.get(&key).map(|record| record.state);
                        cx.log.wrong(format!(
                            "{:?} cannot pull {key}: {why:?}, {state:?}",
                            self.id
                        ));
                    }
                    self.end_pull(cx, key, false);
                }
            }
        }
        answer
    }

    fn end_pull(&mut self, cx: &mut Cx<'_>, key: ObjectKey, ok: bool) {
        let of_key = self
            .gets
            .iter()
            .filter(|(_, get)| get.key == key && get.pulling);
        let of_key: Vec<u64> = of_key.map(|(id, _)| *id).collect();
        if of_key.is_empty() {
            cx.log.wrong(format!(
                "{:?}: nobody waits for the pull of {key} that ended",
                self.id
            ));
        }
        for id in of_key {
            self.end_get(cx, id, ok);
        }
    }
}
