//! What a program does when `MOBULA_ADDRESS` says where launchers are: it takes its share of the machine that it is on, and has
//! a node of its own executable started on the others.
//!
//! Invariant: `init` returns within a bound, and says which nodes could not be had and why; when the program is gone, so are its
//! nodes and what it held. Left out: what the nodes do (`cluster`).

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ears::{self, Event};
use super::guest::{Guest, resolve, route_to, unreached};
use super::message::{Machine, Message, Program, Start, short};
use super::sites::{Printer, Site, Stage, watched};
use super::wanted::Wanted;
use super::{platform, state};
use crate::base::{Demand, Error, NodeId};
use crate::core::jobs::Ask;
use crate::link::{Bytes, Link, sha256};
use crate::node::Config;
use crate::node::cluster::Cluster;

/// How long shipping and starting may take, beside the wait for a share.
const STARTING: Duration = Duration::from_secs(60);
/// How long a started node may take to join.
const JOINING: Duration = Duration::from_secs(20);
/// How long the end of nodes is waited for.
const ENDING: Duration = Duration::from_secs(1);

fn failed(why: impl ToString) -> Error {
    Error::Cluster {
        why: Arc::from(why.to_string()),
    }
}

/// What a program is called among jobs.
fn own_name() -> String {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    format!("{name} (process {})", std::process::id())
}

/// Launchers that were reached, before the node of the program itself starts.
pub struct Plan {
    pub(super) guest: Guest,
    pub(super) wanted: Wanted,
    /// The launcher of this machine, if there is one.
    pub(super) own: Option<Machine>,
    /// Where nodes are to be started.
    others: Vec<Machine>,
    pub(super) ask: Ask,
    /// What was granted to the program itself.
    pub(super) holds: Option<Demand>,
    args: Vec<String>,
    executable: Bytes,
    pub(super) program: Program,
}

impl Plan {
    /// Reaches the launchers if `MOBULA_ADDRESS` says so, and takes this machine's share into the settings.
    pub fn make(config: &mut Config) -> Result<Option<Plan>, Error> {
        let Ok(address) = std::env::var("MOBULA_ADDRESS") else {
            return Ok(None);
        };
        if address.is_empty() || config.cluster.as_ref().is_some_and(|c| c.join.is_some()) {
            return Ok(None);
        }
        let wanted = Wanted::read()?;
        let (addr, token) = match address.split_once('?') {
            Some((addr, token)) => (addr, Some(token.to_owned())),
            None => (address.as_str(), None),
        };
        let addr = resolve(addr).map_err(|why| Error::Config {
            setting: "MOBULA_ADDRESS",
            why,
        })?;
        let token = match token.or_else(|| local_token(addr)) {
            Some(token) => token,
            None => {
                let why = format!(
                    "no token is known for {addr}: say MOBULA_ADDRESS={addr}?TOKEN, or `mobula run --token`"
                );
                return Err(Error::Config {
                    setting: "MOBULA_ADDRESS",
                    why,
                });
            }
        };
        let executable = std::fs::read("/proc/self/exe").map_err(|e| Error::Os {
            what: "reading the program's own executable",
            source: Arc::new(e),
        })?;
        let needs = platform::needs(&executable)
            .ok_or_else(|| failed("this program is no executable that a launcher can start"))?;
        let program = Program {
            hash: sha256(&executable),
            len: executable.len() as u64,
            needs,
        };
        let guest = Guest::enter(addr, &token).map_err(failed)?;
        let (machines, _) = guest.list().map_err(failed)?;
        let args: Vec<String> = std::env::args_os()
            .map(|a| short(&a.to_string_lossy()))
            .take(64)
            .collect();
        let host = state::host();
        let own = machines.iter().find(|m| m.host == host).cloned();
        let mut others: Vec<Machine> = machines
            .into_iter()
            .filter(|m| own.as_ref().is_none_or(|o| o.node != m.node))
            .collect();
        others.sort_by_key(|m| std::cmp::Reverse(m.left.cpu));
        if let Some(nodes) = wanted.nodes {
            others.truncate(nodes.saturating_sub(usize::from(own.is_some())));
        }
        let ask = wanted.ask(None)?;
        let mut plan = Plan {
            guest,
            wanted,
            own,
            others,
            ask,
            holds: None,
            args,
            executable: executable.into(),
            program,
        };
        plan.tell_head();
        plan.take_own(config)?;
        plan.listen(config)?;
        Ok(Some(plan))
    }

    /// Says what this program is, for the records.
    pub(super) fn tell_head(&self) {
        let job = Message::Job {
            args: self.args.clone(),
            hash: self.program.hash,
        };
        ears::send(&self.guest.link, self.guest.head, &job);
    }

    /// Takes this program's own share of the machine that it is on.
    fn take_own(&mut self, config: &mut Config) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let (name, launcher) = (own.name.clone(), own.node);
        let refused = |why: &str| failed(format!("machine {name}: {why}"));
        if launcher != self.guest.head {
            self.guest.link.connect(own.addr, Some(launcher));
        } else {
            self.send_ask(launcher, self.wanted.ask(config.cpus())?, None);
        }
        let until = Instant::now() + self.wanted.patience + Duration::from_secs(10);
        loop {
            match self
                .guest
                .heard
                .next(until.saturating_duration_since(Instant::now()))
            {
                Some(Event::Here(node, ..)) if node == launcher => {
                    self.send_ask(launcher, self.wanted.ask(config.cpus())?, None);
                }
                Some(Event::Said(from, Message::Granted { holds, gpus, .. }))
                    if from == launcher =>
                {
                    config.give(&holds, gpus.len() as u32);
                    self.holds = Some(holds);
                    let joining = config.cluster.get_or_insert_default();
                    if joining.name.is_empty() {
                        joining.name = name;
                    }
                    for (name, value) in &own.labels {
                        joining
                            .labels
                            .entry(name.clone())
                            .or_insert_with(|| value.clone());
                    }
                    return Ok(());
                }
                Some(Event::Said(from, Message::Refused(why))) if from == launcher => {
                    return Err(refused(&why));
                }
                Some(Event::Gone(node, why)) if node == launcher => {
                    return Err(refused(&why.to_string()));
                }
                Some(Event::Refused(addr, why)) if addr == own.addr => {
                    return Err(failed(unreached(addr, &why)));
                }
                Some(_) => {}
                None => return Err(refused("its launcher does not answer")),
            }
        }
    }

    pub(super) fn send_ask(&self, to: NodeId, ask: Ask, program: Option<Program>) -> bool {
        let patience = self.wanted.patience.as_millis() as u64;
        ears::send(
            &self.guest.link,
            to,
            &Message::Ask {
                name: own_name(),
                ask,
                patience,
                program,
            },
        )
    }

    /// Makes the program the head of a cluster, where its nodes can reach it.
    fn listen(&self, config: &mut Config) -> Result<(), Error> {
        let joining = config.cluster.get_or_insert_default();
        if joining.listen.is_none() {
            let far = self
                .others
                .iter()
                .map(|m| m.addr)
                .find(|addr| !addr.ip().is_loopback());
            let to = far.unwrap_or(self.guest.addr);
            let from: IpAddr =
                route_to(to).map_err(|e| failed(format!("there is no route to {to}: {e}")))?;
            joining.listen = Some((from, 0).into());
        }
        Ok(())
    }

    /// Has the nodes started, and waits until those that could be have joined.
    pub fn carry_out(self, cluster: &Arc<Cluster>, store: Option<u64>) -> Result<Job, Error> {
        let none = || failed("this program's node listens nowhere");
        let token = cluster.token().ok_or_else(none)?.to_string();
        let start = Start {
            join: cluster.address().ok_or_else(none)?,
            token,
            store,
            pace: cluster.pace(),
        };
        let mut sites: Vec<Site> = self
            .others
            .iter()
            .map(|m| Site {
                machine: m.clone(),
                stage: Stage::Called,
            })
            .collect();
        for site in &mut sites {
            if site.machine.node == self.guest.head {
                self.send_ask(
                    site.machine.node,
                    self.ask.clone(),
                    Some(self.program.clone()),
                );
            } else {
                self.guest
                    .link
                    .connect(site.machine.addr, Some(site.machine.node));
            }
        }
        let mut out = Printer::default();
        let mut until = Instant::now() + self.wanted.patience + STARTING;
        let mut started = false;
        loop {
            let open = sites
                .iter()
                .filter(|s| matches!(s.stage, Stage::Called))
                .count();
            if open == 0 && !std::mem::replace(&mut started, true) {
                until = Instant::now() + JOINING;
            }
            if open == 0 {
                let there = cluster.nodes();
                let all = sites
                    .iter()
                    .filter(|s| matches!(s.stage, Stage::Started(_) | Stage::Joined))
                    .count()
                    < there.len();
                for site in &mut sites {
                    if matches!(site.stage, Stage::Started(_))
                        && (all || there.iter().any(|n| !n.this && n.name == site.machine.name))
                    {
                        site.stage = Stage::Joined;
                    }
                }
                let joins = sites
                    .iter()
                    .filter(|s| matches!(s.stage, Stage::Started(_)))
                    .count();
                let joined = sites
                    .iter()
                    .filter(|s| matches!(s.stage, Stage::Joined))
                    .count();
                if joins == 0 && cluster.wait_for_nodes(joined + 1, Duration::ZERO) {
                    break;
                }
            }
            if Instant::now() >= until {
                break;
            }
            if let Some(event) = self.guest.heard.next(Duration::from_millis(10)) {
                self.on(&mut sites, event, &start, &mut out);
            }
        }
        self.report(&mut sites)?;
        let stop = self.guest.events.clone();
        let watch = move || self.watch(sites, &start, out);
        let thread = std::thread::Builder::new()
            .name("mobula-launched".to_owned())
            .spawn(watch);
        let thread = thread.map_err(|e| Error::Os {
            what: "starting a thread",
            source: Arc::new(e),
        })?;
        Ok(Job {
            thread: Some(thread),
            stop,
        })
    }

    pub(super) fn on(&self, sites: &mut [Site], event: Event, start: &Start, out: &mut Printer) {
        let at = |sites: &[Site], node: NodeId| sites.iter().position(|s| s.machine.node == node);
        match event {
            Event::Here(node, ..) if at(sites, node).is_some() => {
                self.send_ask(node, self.ask.clone(), Some(self.program.clone()));
            }
            Event::Refused(addr, why) => {
                for site in sites
                    .iter_mut()
                    .filter(|s| s.machine.addr == addr && matches!(s.stage, Stage::Called))
                {
                    site.stage = Stage::Failed(unreached(addr, &why));
                }
            }
            Event::Said(from, message) => {
                let Some(i) = at(sites, from) else { return };
                match message {
                    Message::Granted {
                        wants: Some(transfer),
                        ..
                    } => {
                        // Whether it came whole is said by who takes it.
                        self.guest.link.send_bulk(
                            from,
                            transfer,
                            self.executable.clone(),
                            Box::new(|_| {}),
                        );
                    }
                    Message::Ready => drop(ears::send(
                        &self.guest.link,
                        from,
                        &Message::Start(start.clone()),
                    )),
                    Message::Started(pid) => sites[i].stage = Stage::Started(pid),
                    Message::Refused(why) => sites[i].stage = Stage::Failed(why),
                    Message::Ended(_, how) => {
                        sites[i].stage = Stage::Failed(format!("its node ended: {how}"))
                    }
                    message => watched(sites, Event::Said(from, message), out),
                }
            }
            Event::Gone(node, why) => {
                if let Some(i) = at(sites, node) {
                    sites[i].stage = Stage::Failed(format!("its launcher was lost: {why}"));
                }
            }
            _ => {}
        }
    }

    /// Says which nodes there are. An error if there is nothing but this program, on a machine of which it has no share.
    fn report(&self, sites: &mut [Site]) -> Result<(), Error> {
        let own = usize::from(self.own.is_some());
        let joined = sites
            .iter()
            .filter(|s| matches!(s.stage, Stage::Joined))
            .count();
        let asked = self.wanted.nodes.unwrap_or(0).max(sites.len() + own);
        let count = sites.len() + own;
        let mut lost = Vec::new();
        for site in sites {
            let why = match &site.stage {
                Stage::Joined => continue,
                Stage::Failed(why) => why.clone(),
                Stage::Started(pid) => {
                    format!("its node, process {pid}, has not joined within {JOINING:?}")
                }
                Stage::Called => format!("it has not started a node within {STARTING:?}"),
            };
            lost.push(format!("machine {}: {why}", site.machine.name));
        }
        if let Some(nodes) = self.wanted.nodes.filter(|n| *n > count) {
            lost.push(format!(
                "{nodes} machines were asked for, and the launchers have {count}"
            ));
        }
        if joined + own == 0 {
            let why = if lost.is_empty() {
                "the launcher knows no machine".to_owned()
            } else {
                lost.join("; ")
            };
            return Err(failed(format!("no node could be started: {why}")));
        }
        let mut err = std::io::stderr().lock();
        // Standard error may be closed: then nobody wants to know.
        let _ = writeln!(err, "mobula: {} of {asked} nodes are there", joined + own);
        for why in lost {
            let _ = writeln!(err, "mobula: {why}");
        }
        Ok(())
    }
}

/// The token of a launcher of this user's that is at this address.
fn local_token(addr: SocketAddr) -> Option<String> {
    #[cfg(feature = "attach")]
    {
        let place = super::place().ok()?;
        let all = state::Recorded::all(&place);
        let is =
            |at: SocketAddr| at == addr || at.port() == addr.port() && at.ip().is_unspecified();
        all.into_iter()
            .find(|r| is(r.address) || r.head == addr)
            .map(|r| r.token)
    }
    #[cfg(not(feature = "attach"))]
    {
        let _ = addr;
        None
    }
}

/// The nodes that launchers run for this program.
#[derive(Debug)]
pub struct Job {
    thread: Option<JoinHandle<Plan>>,
    stop: Sender<Event>,
}

impl Job {
    /// Waits a little for the nodes, which are leaving, and then for nobody.
    pub fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let _ = self.stop.send(Event::Last);
        let until = Instant::now() + ENDING;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.stop.send(Event::Stop);
        // With what it returns the launchers are told that this program is done. It may be held up by a terminal.
        let until = Instant::now() + ENDING;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            drop(thread.join());
        }
    }
}
