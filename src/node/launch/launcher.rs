//! A machine's launcher: shares the machine between jobs, starts their nodes, and ends them with their drivers.
//!
//! One thread does it all, from events. Drivers connect to each launcher themselves; the head lets them in, tells them which
//! machines there are, and keeps a record of what ran.
//!
//! Invariant: what a driver holds is given back when the driver is gone, and its node is ended then. What the launcher started is
//! written down before anybody is told. Left out: which job gets what (`core::jobs`); programs that start it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cache::{Cache, Lander, MAX_LEN};
use super::child::Child;
use super::ears::{self, Event, Heard};
use super::lead::Looking;
use super::message::{JobLine, Machine, Message, Program, Start, short};
use super::past::Records;
use super::platform::Has;
use super::state::Recorded;
use crate::base::NodeId;
use crate::control::Control;
use crate::core::jobs::{Ask, Effect, Jobs, Share};
use crate::link::{Endpoint, Link, LinkError};

/// How often is looked at what waits.
const TICK: Duration = Duration::from_millis(50);
/// How often the head is called that is not there.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a launcher that went may come back as the same.
const GRACE: Duration = Duration::from_secs(60);
/// Drivers at one time.
const MAX_DRIVERS: usize = 1024;
/// No driver waits longer.
const MAX_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What a launcher is.
pub(super) struct Launcher {
    pub me: NodeId,
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub link: Arc<Endpoint>,
    pub heard: Heard,
    pub events: Sender<Event>,
    pub jobs: Jobs,
    pub cache: Cache,
    pub place: PathBuf,
    pub state: Recorded,
    /// Whom it joined; `None`: it lets others in.
    pub joined: Option<SocketAddr>,
    pub records: Option<Records>,
    /// Where they are, if all launchers reach them.
    pub control: Option<Arc<dyn Control>>,
    pub looking: Option<Looking>,
    pub has: Has,
    pub host: u64,
}

pub(super) struct Driver {
    name: String,
    program: Option<Program>,
    /// It waits for its share until then.
    until: Option<Instant>,
    share: Option<Share>,
    executable: Option<PathBuf>,
    node: Option<Child>,
}

/// What changes while it runs.
#[derive(Default)]
pub(super) struct Now {
    pub drivers: HashMap<NodeId, Driver>,
    /// Other launchers, if this is the head.
    machines: HashMap<NodeId, Machine>,
    /// Where launchers are reached that are connected.
    met: HashMap<NodeId, SocketAddr>,
    /// Launchers that went, or have not said how they are.
    pub lost: HashMap<NodeId, Instant>,
    /// The head, if this is another.
    pub head: Option<NodeId>,
    pub called: Option<Instant>,
    /// The head is to be told.
    pub news: bool,
    /// The head as it is on record, and when drivers were told.
    pub lead: Option<(NodeId, SocketAddr)>,
    pub told: Option<Instant>,
}

impl Launcher {
    /// Serves until it is stopped, on a thread of its own.
    pub fn serve(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("mobula-launcher".to_owned())
            .spawn(move || self.run())
    }

    fn run(mut self) {
        let mut now = Now {
            news: true,
            ..Now::default()
        };
        loop {
            match self.heard.next(TICK) {
                Some(Event::Stop) => break,
                Some(event) => self.on(&mut now, event),
                None => {}
            }
            self.look(&mut now);
        }
        for driver in now.drivers.values() {
            if let Some(node) = &driver.node {
                node.kill();
            }
        }
        let until = Instant::now() + Duration::from_secs(2);
        while now.drivers.values().any(|d| d.node.is_some()) && Instant::now() < until {
            if let Some(Event::Ended(driver, pid, how)) = self.heard.next(TICK) {
                self.node_ended(&mut now, driver, pid, &how);
            }
        }
        self.link.stop(Duration::from_millis(300));
        self.state.remove(&self.place);
        // Another may lead at once.
        self.looking = None;
    }

    fn on(&mut self, now: &mut Now, event: Event) {
        match event {
            Event::Here(node, addr, true) => {
                now.lost.remove(&node);
                match self.joined {
                    // Any of them may be the head soon.
                    _ if self.control.is_some() => {
                        now.met.insert(node, addr);
                        let leads = now.lead.is_some_and(|(lead, _)| lead == node);
                        if leads && self.joined.is_some() {
                            now.head = Some(node);
                            now.news = true;
                        }
                    }
                    // A head that was started again is another node.
                    Some(_) => {
                        if let Some(before) =
                            now.head.replace(node).filter(|before| *before != node)
                        {
                            self.link.forget(before);
                        }
                        now.news = true;
                    }
                    None => {
                        now.met.insert(node, addr);
                        now.lost.insert(node, Instant::now());
                    }
                }
            }
            Event::Here(..) => {}
            Event::Said(from, message) => self.said(now, from, message),
            Event::Gone(node, why) => self.gone(now, node, &why),
            Event::Refused(addr, why) => {
                if self.joined == Some(addr)
                    && !matches!(why, LinkError::Broken(_) | LinkError::Timeout { .. })
                {
                    eprintln!("mobula: the head at {addr} refuses this launcher: {why}");
                }
            }
            Event::Found(driver, path) => self.found(now, driver, path),
            Event::Kept(driver, outcome) => self.kept(now, driver, outcome),
            Event::Ended(driver, pid, how) => self.node_ended(now, driver, pid, &how),
            Event::Leads(node, addr) => self.leads(now, node, addr),
            Event::Stop | Event::Last => {}
        }
    }

    /// What is due.
    fn look(&mut self, now: &mut Now) {
        let at = Instant::now();
        let late: Vec<NodeId> = now
            .drivers
            .iter()
            .filter(|(_, d)| d.until.is_some_and(|u| u <= at))
            .map(|(n, _)| *n)
            .collect();
        for node in late {
            let mut out = Vec::new();
            if let Some(why) = self.jobs.give_up(node.get(), &mut out) {
                self.refuse(now, node, &why.to_string());
            }
            self.carry_out(now, out);
        }
        let dead: Vec<NodeId> = now
            .lost
            .iter()
            .filter(|(_, since)| at.duration_since(**since) > GRACE)
            .map(|(n, _)| *n)
            .collect();
        for node in dead {
            now.lost.remove(&node);
            if !now.machines.contains_key(&node) {
                self.link.forget(node);
            }
        }
        if let Some(records) = &mut self.records {
            records.settle();
        }
        self.tell_lead(now);
        let Some(addr) = self.joined else { return };
        let connected = now.head.filter(|head| self.link.is_connected(*head));
        if let Some(head) = connected {
            if std::mem::take(&mut now.news) {
                let machine = self.machine(now);
                now.news = !ears::send(&self.link, head, &Message::State(Box::new(machine)));
            }
        } else if now
            .called
            .is_none_or(|called| at.duration_since(called) > AGAIN)
        {
            now.called = Some(at);
            now.news = true;
            self.link.connect(addr, None);
        }
    }

    fn said(&mut self, now: &mut Now, from: NodeId, message: Message) {
        match message {
            Message::List => {
                let mut machines = vec![self.machine(now)];
                let mut others: Vec<Machine> = now.machines.values().cloned().collect();
                others.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
                machines.extend(others);
                let past = self
                    .records
                    .as_ref()
                    .map(Records::latest)
                    .unwrap_or_default();
                ears::send(&self.link, from, &Message::Machines(machines, past));
            }
            Message::State(machine) if now.met.contains_key(&from) => {
                now.lost.remove(&from);
                let addr = now.met[&from];
                now.machines.insert(
                    from,
                    Machine {
                        node: from,
                        addr,
                        head: false,
                        ..*machine
                    },
                );
            }
            Message::Job { args, hash } => {
                if let Some(records) = &mut self.records {
                    records.begin(from, args, hash);
                }
            }
            Message::Ask {
                name,
                ask,
                patience,
                program,
            } => self.asked(now, from, name, ask, patience, program),
            Message::Start(start) => self.start(now, from, &start),
            // Nothing that a launcher is told.
            _ => self.link.forget(from),
        }
    }

    fn asked(
        &mut self,
        now: &mut Now,
        from: NodeId,
        name: String,
        ask: Ask,
        patience: u64,
        program: Option<Program>,
    ) {
        let refusal = if now.drivers.contains_key(&from) {
            Some("this driver has asked before".to_owned())
        } else if now.drivers.len() >= MAX_DRIVERS {
            Some(format!(
                "{MAX_DRIVERS} drivers are served already, which is the bound"
            ))
        } else {
            program.as_ref().and_then(|program| {
                if program.len > MAX_LEN {
                    return Some(format!(
                        "the executable has {} bytes, of at most {MAX_LEN}",
                        program.len
                    ));
                }
                self.has
                    .lacks(&program.needs, |path| Path::new(path).exists())
            })
        };
        if let Some(why) = refusal {
            ears::send(&self.link, from, &Message::Refused(short(&why)));
            return;
        }
        let until = Instant::now() + Duration::from_millis(patience).min(MAX_PATIENCE);
        let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        let mut out = Vec::new();
        self.jobs.ask(from.get(), &name, ask, &mut out);
        now.drivers.insert(
            from,
            Driver {
                name,
                program,
                until: Some(until),
                share: None,
                executable: None,
                node: None,
            },
        );
        now.news = true;
        self.carry_out(now, out);
    }

    fn carry_out(&mut self, now: &mut Now, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Grant { job, share } => {
                    if let Some(node) = NodeId::new(job) {
                        self.granted(now, node, share);
                    }
                }
                Effect::Refuse { job, why } => {
                    if let Some(node) = NodeId::new(job) {
                        self.refuse(now, node, &why.to_string());
                    }
                }
            }
            now.news = true;
        }
    }

    fn granted(&mut self, now: &mut Now, node: NodeId, share: Share) {
        let Some(driver) = now.drivers.get_mut(&node) else {
            return;
        };
        driver.until = None;
        let (holds, gpus) = (share.amounts.clone(), share.gpus.clone());
        driver.share = Some(share);
        let Some(program) = driver.program.clone() else {
            let wants = None;
            ears::send(&self.link, node, &Message::Granted { holds, gpus, wants });
            return;
        };
        // Others are served while a large file is read.
        let (cache, events) = (self.cache.clone(), self.events.clone());
        let look = move || drop(events.send(Event::Found(node, cache.find(&program.hash))));
        if let Err(e) = std::thread::Builder::new().spawn(look) {
            self.drop_driver(now, node, &format!("no thread can be started here: {e}"));
        }
    }

    /// Whether the executable of a driver that has its share is here.
    fn found(&mut self, now: &mut Now, node: NodeId, path: Option<PathBuf>) {
        let Some(driver) = now.drivers.get_mut(&node) else {
            return;
        };
        let (Some(share), Some(program)) = (driver.share.clone(), driver.program.clone()) else {
            return;
        };
        let granted = |wants| Message::Granted {
            holds: share.amounts,
            gpus: share.gpus,
            wants,
        };
        if path.is_some() {
            driver.executable = path;
            ears::send(&self.link, node, &granted(None));
            ears::send(&self.link, node, &Message::Ready);
            return;
        }
        let expected = ears::random().and_then(|transfer| {
            let part = self
                .cache
                .receive(transfer, program.len)
                .map_err(|e| format!("the executable cannot be kept here: {e}"))?;
            Ok((transfer, part))
        });
        let (transfer, part) = match expected {
            Ok(expected) => expected,
            Err(why) => return self.drop_driver(now, node, &why),
        };
        let (len, cache, events) = (program.len, self.cache.clone(), self.events.clone());
        let done = move |outcome: Result<_, LinkError>| {
            let failed = events.clone();
            // The link's thread does not wait while a large file is read.
            let keep = move || {
                let kept = outcome
                    .map_err(|e| format!("the executable did not come whole: {e}"))
                    .and_then(|part| cache.keep(part, &program.hash));
                let _ = events.send(Event::Kept(node, kept));
            };
            if let Err(e) = std::thread::Builder::new().spawn(keep) {
                let why = format!("no thread can be started here: {e}");
                let _ = failed.send(Event::Kept(node, Err(why)));
            }
        };
        self.link
            .expect_bulk(node, transfer, len, Box::new(Lander::new(part, done)));
        ears::send(&self.link, node, &granted(Some(transfer)));
    }

    fn kept(&mut self, now: &mut Now, node: NodeId, outcome: Result<PathBuf, String>) {
        let Some(driver) = now.drivers.get_mut(&node) else {
            return;
        };
        match outcome {
            Ok(path) => {
                driver.executable = Some(path);
                ears::send(&self.link, node, &Message::Ready);
                let programs = now.drivers.values().filter_map(|d| d.program.as_ref());
                let used: Vec<PathBuf> = programs.map(|p| self.cache.path(&p.hash)).collect();
                self.cache.trim(|path| used.iter().any(|p| *p == path));
            }
            Err(why) => self.drop_driver(now, node, &why),
        }
    }

    fn start(&mut self, now: &mut Now, node: NodeId, start: &Start) {
        let ready = now
            .drivers
            .get(&node)
            .filter(|d| d.node.is_none())
            .and_then(|d| Some((d.share.clone()?, d.executable.clone()?, d.name.clone())));
        let Some((share, executable, name)) = ready else {
            return self.refuse(
                now,
                node,
                "the executable is not here yet, or its node was started before",
            );
        };
        let pairs = |list: &mut dyn Iterator<Item = (String, String)>| {
            list.map(|(n, v)| format!("{n}={v}"))
                .collect::<Vec<_>>()
                .join(",")
        };
        let mut variables = vec![
            ("MOBULA_JOIN", start.join.to_string()),
            ("MOBULA_TOKEN", start.token.clone()),
            ("MOBULA_NUM_CPUS", share.amounts.cpu.to_string()),
            ("MOBULA_NUM_GPUS", share.gpus.len().to_string()),
            (
                "MOBULA_RESOURCES",
                pairs(
                    &mut share
                        .amounts
                        .custom()
                        .iter()
                        .map(|(n, a)| (n.clone(), a.to_string())),
                ),
            ),
            ("MOBULA_NODE_NAME", self.name.clone()),
            ("MOBULA_CLUSTER_PACE", start.pace.max(1).to_string()),
            ("MOBULA_LABELS", pairs(&mut self.labels.iter().cloned())),
        ];
        if self.jobs.capacity().gpus > 0 {
            let ids: Vec<String> = share.gpus.iter().map(u32::to_string).collect();
            variables.push(("CUDA_VISIBLE_DEVICES", ids.join(",")));
        }
        if let Some(bytes) = start.store {
            variables.push(("MOBULA_OBJECT_STORE_MEMORY", bytes.to_string()));
        }
        // Without the process of the driver.
        let program = name.split(" (").next().unwrap_or(&name).to_owned();
        let said = ears::forwards(&self.link, node, &self.events);
        match Child::start(&executable, &program, &variables, said) {
            Ok(child) => {
                let pid = child.process.pid;
                self.state.nodes.push(child.process.clone());
                self.write_down();
                if let Some(driver) = now.drivers.get_mut(&node) {
                    driver.node = Some(child);
                }
                now.news = true;
                ears::send(&self.link, node, &Message::Started(pid));
            }
            Err(why) => self.drop_driver(now, node, &why),
        }
    }

    pub(super) fn write_down(&self) {
        if let Err(e) = self.state.write(&self.place) {
            eprintln!(
                "mobula: {}: {e}; `mobula stop` will not know all that runs",
                self.place.display()
            );
        }
    }

    fn node_ended(&mut self, now: &mut Now, driver: NodeId, pid: u32, how: &str) {
        self.state.nodes.retain(|n| n.pid != pid);
        self.write_down();
        ears::send(&self.link, driver, &Message::Ended(pid, short(how)));
        if let Some(gone) = now.drivers.get_mut(&driver) {
            gone.node = None;
            gone.share = None;
        }
        let mut out = Vec::new();
        self.jobs.end(driver.get(), &mut out);
        now.news = true;
        self.carry_out(now, out);
    }

    /// Tells a driver no, and forgets that it asked.
    fn refuse(&mut self, now: &mut Now, node: NodeId, why: &str) {
        now.drivers.remove(&node);
        now.news = true;
        ears::send(&self.link, node, &Message::Refused(short(why)));
    }

    /// The same for one that has its share.
    fn drop_driver(&mut self, now: &mut Now, node: NodeId, why: &str) {
        self.refuse(now, node, why);
        let mut out = Vec::new();
        self.jobs.end(node.get(), &mut out);
        self.carry_out(now, out);
    }

    fn gone(&mut self, now: &mut Now, node: NodeId, why: &LinkError) {
        if now.met.remove(&node).is_some() {
            now.machines.remove(&node);
            // One that may be the head some day is never forgotten.
            if self.control.is_none() {
                now.lost.insert(node, Instant::now());
            }
            return;
        }
        if now.head == Some(node) {
            return;
        }
        if let Some(records) = &mut self.records {
            records.end(node, why);
        }
        if let Some(driver) = now.drivers.remove(&node) {
            if let Some(child) = &driver.node {
                // What it holds is given back only when it is gone: see `node_ended`.
                child.kill();
                now.news = true;
            } else {
                let mut out = Vec::new();
                self.jobs.end(node.get(), &mut out);
                now.news = true;
                self.carry_out(now, out);
            }
        }
        self.link.forget(node);
    }

    fn machine(&self, now: &Now) -> Machine {
        let jobs = self.jobs.held().map(|(job, name, share)| {
            let driver = NodeId::new(job).and_then(|node| now.drivers.get(&node));
            let pid = driver
                .and_then(|d| d.node.as_ref())
                .map_or(0, |n| n.process.pid);
            let name = driver.map_or(name, |d| d.name.as_str()).to_owned();
            JobLine {
                job,
                name,
                holds: share.amounts.clone(),
                pid,
            }
        });
        Machine {
            node: self.me,
            name: self.name.clone(),
            addr: self.link.local_addr(),
            host: self.host,
            head: self.joined.is_none(),
            labels: self.labels.clone(),
            arch: std::env::consts::ARCH.to_owned(),
            libc: self.has.libc(),
            whole: crate::core::jobs::whole(self.jobs.capacity()),
            left: self.jobs.left(),
            jobs: jobs.collect(),
            waiting: self.jobs.waiting() as u32,
        }
    }
}
