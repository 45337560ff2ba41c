//! The cluster: a head, which is this process and lives, and nodes that are killed and stopped as the plan says.
//!
//! Invariant: there are as many nodes as at first when a step has been done, and every object has answered a call that was made after
//! it: by then each has a backup again, so that the next death finds what it is promised. Left out: the plan.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mobula::{Config, Mobula, NodeDeath, NodeId};

use crate::LONG;
use crate::clients::{Probe, Shared, all_backed};
use crate::cluster_common::{Node, head, until};
use crate::network_common::{Machines, Way, address};
use crate::plan::{NODES, Step, Whom};

/// Deaths are found after some hundred milliseconds: many processes of unoptimised code share few CPUs.
const PACE: u32 = 2;

struct Seat {
    node: Node,
    name: String,
    id: NodeId,
}

/// See the file.
pub struct World {
    seats: Vec<Seat>,
    named: usize,
    pub deaths: usize,
    /// Nodes that the plan has die, or has had.
    planned: Arc<Mutex<HashSet<NodeId>>>,
    /// A node was held for dead that the plan did not mean: too much else runs on this machine.
    pub more_died: Arc<AtomicBool>,
    /// Where nodes have machines of their own: that of a seat has the seat's number and one more.
    machines: Option<Machines>,
    pub cuts: usize,
    pub head: Arc<Mobula>,
}

impl World {
    /// On this machine, or on those, where the test itself runs on the first.
    pub fn new(machines: Option<Machines>) -> World {
        let config = Config::new()
            .num_cpus(2)
            .object_store_memory(128 << 20)
            .cluster_pace(PACE)
            .attach(false)
            .on_unobserved_failure(|_| {});
        let mut world = World {
            seats: Vec::new(),
            named: 0,
            deaths: 0,
            planned: Arc::default(),
            more_died: Arc::default(),
            head: Arc::new(match &machines {
                None => head(config),
                Some(_) => {
                    let listen = format!("{}:7677", address(0)).parse();
                    let config = config.listen(listen.expect("an address")).node_name("head");
                    config.share_memory(false).init().expect("a head starts")
                }
            }),
            machines,
            cuts: 0,
        };
        for at in 0..NODES {
            let seat = world.start(at);
            world.seats.push(seat);
        }
        for at in 0..NODES {
            world.arrives(at);
        }
        let (planned, more_died) = (Arc::clone(&world.planned), Arc::clone(&world.more_died));
        let hear = move |death: NodeDeath| {
            if !planned
                .lock()
                .expect("nobody panics here")
                .contains(&death.node)
            {
                println!("{} was held for dead: {}", death.name, death.cause);
                more_died.store(true, Ordering::Relaxed);
            }
        };
        world
            .head
            .on_node_death(hear)
            .expect("it is told of deaths");
        world
    }

    fn start(&mut self, at: usize) -> Seat {
        let name = format!("node{}", self.named);
        self.named += 1;
        let pace = PACE.to_string();
        let mut settings = vec![
            ("MOBULA_OBJECT_STORE_MEMORY", "128M"),
            ("MOBULA_CLUSTER_PACE", pace.as_str()),
        ];
        let listen = format!("{}:0", address(at + 1));
        let node = match &self.machines {
            None => Node::start(&self.head, &name, &settings),
            Some(machines) => {
                settings.push(("MOBULA_LISTEN", &listen));
                settings.push(("MOBULA_SHARE_MEMORY", "0"));
                let me = std::env::current_exe().expect("a test has a path");
                let command = machines.on(at + 1, &me);
                let place = self.head.address().expect("the head listens").to_string();
                let token = self.head.join_token().expect("the head has a token");
                Node::join_by(command, &place, &token, &name, &settings)
            }
        };
        Seat {
            node,
            name,
            id: NodeId::NONE,
        }
    }

    fn arrives(&mut self, at: usize) {
        until("a node joins", LONG, || {
            // It may be held for dead before it was seen.
            if self.has_ended(at) {
                self.seats[at] = self.start(at);
            }
            let name = &self.seats[at].name;
            let joined = self.head.nodes().into_iter().find(|n| n.name == *name);
            self.seats[at].id = joined.map_or(NodeId::NONE, |node| node.id);
            self.seats[at].id != NodeId::NONE
        });
    }

    fn has_ended(&mut self, at: usize) -> bool {
        matches!(self.seats[at].node.process.try_wait(), Ok(Some(_)))
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.seats.iter().map(|seat| seat.id).collect()
    }

    fn seat_of(&self, whom: Whom, objects: &[&dyn Probe]) -> usize {
        match whom {
            Whom::Node(at) => at,
            Whom::HostOf(object, other) => {
                let process = objects[object].process();
                let mut seats = self.seats.iter();
                let at = seats.position(|seat| seat.node.process.id() == process);
                at.unwrap_or(other)
            }
        }
    }

    /// Does one thing, and waits until the cluster can bear the next.
    pub fn step(&mut self, step: Step, objects: &[&dyn Probe], shared: &Shared) {
        match step {
            Step::Wait(millis) => wait(millis),
            Step::Checkpoint(object) => objects[object].checkpoint(),
            Step::Pause(at, millis) => {
                self.signal(at, "STOP");
                wait(millis);
                self.signal(at, "CONT");
            }
            Step::Kill(whom) => {
                let at = self.seat_of(whom, objects);
                self.replace(&[at], Duration::ZERO);
                self.calm(objects, shared);
            }
            Step::KillBoth(one, other, millis) => {
                until("all actors have their backups", LONG, || {
                    self.more_died.load(Ordering::Relaxed) || all_backed(&self.living())
                });
                self.replace(&[one, other], Duration::from_millis(millis));
                self.calm(objects, shared);
            }
            Step::Cut(whom, way, millis) => {
                let at = self.seat_of(whom, objects);
                self.cut(at, way);
                wait(millis);
                self.mend(at, way);
            }
            Step::CutOff(whom, way, millis) => {
                let at = self.seat_of(whom, objects);
                self.means(at);
                self.cut(at, way);
                self.until_dead(at, "a node that is cut off is held for dead");
                look_at_all(objects);
                wait(millis);
                self.mend(at, way);
                self.outcast(&[at], objects, shared);
            }
            Step::Split(one, other, millis) => {
                until("all actors have their backups", LONG, || {
                    self.more_died.load(Ordering::Relaxed) || all_backed(&self.living())
                });
                let two = [one + 1, other + 1];
                let rest: Vec<usize> = (0..=NODES).filter(|m| !two.contains(m)).collect();
                self.means(one);
                self.means(other);
                self.machines().split(&two, &rest);
                self.cuts += 1;
                for at in [one, other] {
                    self.until_dead(at, "nodes that are cut off are held for dead");
                }
                look_at_all(objects);
                wait(millis);
                self.machines().join(&two, &rest);
                self.outcast(&[one, other], objects, shared);
            }
            Step::Freeze(whom) => {
                let at = self.seat_of(whom, objects);
                self.means(at);
                self.signal(at, "STOP");
                self.until_dead(at, "a node that is stopped is held for dead");
                self.signal(at, "CONT");
                // It learns that it is out while calls are made that may still reach it.
                look_at_all(objects);
                self.replace(&[at], Duration::ZERO);
                self.calm(objects, shared);
            }
        }
    }

    fn until_dead(&self, at: usize, what: &str) {
        let id = self.seats[at].id;
        until(what, LONG, || !self.head.nodes().iter().any(|n| n.id == id));
    }

    fn machines(&self) -> &Machines {
        let machines = self.machines.as_ref();
        machines.expect("without machines of their own there are no cuts in the plan")
    }

    fn cut(&mut self, at: usize, way: Way) {
        self.machines().cut_off(at + 1, NODES, way);
        self.cuts += 1;
    }

    fn mend(&self, at: usize, way: Way) {
        self.machines().reach_again(at + 1, NODES, way);
    }

    /// Nodes that were cut off are reached again: they learn that they are out, and end by themselves, while calls are made that may
    /// still reach them; then others join.
    fn outcast(&mut self, all: &[usize], objects: &[&dyn Probe], shared: &Shared) {
        look_at_all(objects);
        for &at in all {
            until("a node that was cut off ends", LONG, || self.has_ended(at));
        }
        self.replace(all, Duration::ZERO);
        self.calm(objects, shared);
    }

    /// Nodes that are there, but for those that are only not yet known to be dead.
    fn living(&self) -> Vec<NodeId> {
        let planned = self.planned.lock().expect("nobody panics here");
        let nodes = self.head.nodes().into_iter().map(|n| n.id);
        nodes.filter(|id| !planned.contains(id)).collect()
    }

    /// A node is to be held for dead.
    fn means(&self, at: usize) {
        let mut planned = self.planned.lock().expect("nobody panics here");
        planned.insert(self.seats[at].id);
    }

    fn replace(&mut self, all: &[usize], between: Duration) {
        for (n, &at) in all.iter().enumerate() {
            if n > 0 {
                std::thread::park_timeout(between);
            }
            self.means(at);
            self.seats[at].node.kill();
            self.deaths += 1;
        }
        for &at in all {
            let seat = self.start(at);
            self.seats[at] = seat;
        }
    }

    fn calm(&mut self, objects: &[&dyn Probe], shared: &Shared) {
        look_at_all(objects);
        self.fill();
        *shared.nodes.lock().expect("nobody panics here") = self.ids();
    }

    /// Has as many nodes as at first again: one that the plan did not mean may be held for dead.
    pub fn fill(&mut self) {
        let known: Vec<NodeId> = self.head.nodes().into_iter().map(|n| n.id).collect();
        for at in 0..NODES {
            let id = self.seats[at].id;
            let lost = id != NodeId::NONE && !known.contains(&id);
            if lost || self.has_ended(at) {
                self.replace(&[at], Duration::ZERO);
            }
            if self.seats[at].id == NodeId::NONE {
                self.arrives(at);
            }
        }
    }

    fn signal(&self, at: usize, which: &str) {
        let process = &self.seats[at].node.process;
        let sent = std::process::Command::new("kill")
            .args([&format!("-{which}"), &process.id().to_string()])
            .status();
        assert!(sent.expect("a signal can be sent").success());
    }
}

/// Whoever has them answers, now.
fn look_at_all(objects: &[&dyn Probe]) {
    for object in objects {
        object.look();
    }
}

/// The plan's time passes: it says when something happens, not how long something takes.
fn wait(millis: u64) {
    std::thread::park_timeout(Duration::from_millis(millis));
}
