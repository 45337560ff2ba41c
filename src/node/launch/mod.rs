//! Getting the program there: launchers on machines, and drivers that have nodes of their program started by them.
//!
//! Room map: [`launcher`] what runs on each machine; [`driver`] what a program does when `MOBULA_ADDRESS` is set, [`watch`] what it does from then on, [`wanted`] what it
//! wants, [`sites`] where its nodes run; [`guest`] their
//! connection; [`message`] what they say; [`ears`] how it is heard; [`cache`] executables; [`platform`] whether one can
//! run; [`child`] a node's process; [`state`] what is written down to be stopped; [`past`] what ran; [`lead`] which of them is the
//! first, where any may be lost, [`takeover`] what that changes.
//!
//! Launchers form a cluster of their own: the head has the authority and the token, and it is these that let drivers in. A
//! driver makes another cluster, of its own nodes, whose token goes to the launchers that start them.
//!
//! Invariant: nobody without the token has anything started. Left out: what nodes do then (`cluster`).

mod cache;
mod child;
mod driver;
mod ears;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guest;
mod launcher;
mod lead;
mod message;
mod past;
mod platform;
mod sites;
mod state;
mod takeover;
mod wanted;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use driver::{Job, Plan};
pub use guest::{Guest, PORT, resolve, route_to};
use lead::{LAUNCHERS, Leading};
pub use message::{JobLine, Machine, Past};
pub use state::{Process, Recorded};
pub use wanted::amounts;

use super::cluster;
use crate::base::{Capacity, NodeId};
use crate::control::Control;
use crate::core::jobs::Jobs;
use crate::link::{Ca, Identity, JoinToken, Link, LinkError, join};

/// The folder of this user in which launchers write themselves down; made if there is none.
#[cfg(feature = "attach")]
pub fn place() -> Result<PathBuf, String> {
    let mut why = None;
    for place in super::attach::places() {
        match super::attach::prepare(&place) {
            Ok(()) => return Ok(place),
            Err(e) => why = why.or(Some(e.to_string())),
        }
    }
    Err(why.unwrap_or_else(|| "there is no folder for what runs".to_owned()))
}

/// The authority kept in a folder, made if there is none, and the token that goes with it.
pub fn token(dir: &Path) -> Result<String, String> {
    Ok(cluster::authority(dir)
        .map_err(|e| e.to_string())?
        .token()
        .to_string())
}

/// How a launcher is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder that it keeps things in.
    pub dir: PathBuf,
    /// Where it writes itself down.
    pub place: PathBuf,
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// Whom it joins, with the token; nobody: it lets others in.
    pub join: Option<(SocketAddr, String)>,
    /// For how long it tries to join, where nobody answers.
    pub patience: Duration,
    /// Where the head keeps records; not said: in its folder. On etcd all launchers reach them, and any may become the head.
    pub control: Option<String>,
    /// What it is called.
    pub name: String,
    /// Labels of its nodes.
    pub labels: Vec<(String, String)>,
    /// What jobs may have.
    pub capacity: Capacity,
}

/// A launcher in this process.
pub struct Running {
    /// As it is written down.
    pub recorded: Recorded,
    stop: Sender<ears::Event>,
    thread: Option<JoinHandle<()>>,
    /// The folder is this one's while it runs.
    _lock: std::fs::File,
}

impl Running {
    /// Ends it, with what it started.
    pub fn stop(&mut self) {
        let _ = self.stop.send(ears::Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The file in which a launcher's folder keeps whom it joined.
const JOINED: &str = "joined";

/// Keeps whom a launcher joined, so that it can be started again without being told.
fn keep(dir: &Path, addr: SocketAddr, token: &str) -> std::io::Result<()> {
    cluster::write_secret(&dir.join(JOINED), format!("{addr} {token}\n").as_bytes())
}

/// Whom the launcher of this folder joined last, with the token; `None` if it never did.
pub fn kept(dir: &Path) -> Option<(SocketAddr, String)> {
    let text = std::fs::read_to_string(dir.join(JOINED)).ok()?;
    let (addr, token) = text.trim().split_once(' ')?;
    Some((addr.parse().ok()?, token.to_owned()))
}

/// Whether this folder has the authority of a first launcher.
pub fn is_first(dir: &Path) -> bool {
    dir.join("ca.pem").exists()
}

fn join_patiently(
    addr: SocketAddr,
    token: &JoinToken,
    me: NodeId,
    patience: Duration,
) -> Result<Identity, LinkError> {
    let until = Instant::now() + patience;
    loop {
        match join(addr, token, me, Duration::from_secs(10)) {
            Err(LinkError::Broken(_) | LinkError::Timeout { .. } | LinkError::Io { .. })
                if Instant::now() < until =>
            {
                // One that refuses at once, as an address without a machine does.
                std::thread::sleep(Duration::from_millis(500));
            }
            joined => return joined,
        }
    }
}

/// The file in which a launcher's folder keeps where the records are, if all launchers reach them.
const CONTROL: &str = "control-at";
/// How long a launcher may take to show that it lives.
const LIVES: Duration = Duration::from_secs(2);

/// The records that a launcher reaches itself.
fn records(
    address: Option<String>,
    joins: bool,
    dir: &Path,
) -> Result<Option<Arc<dyn Control>>, String> {
    let file = dir.join(CONTROL);
    // As it was said before, so that whoever starts it again need not know.
    let kept = || {
        let text = std::fs::read_to_string(&file).ok()?;
        Some(text.trim().to_owned())
    };
    let address = match (address.or_else(kept), joins) {
        (Some(address), true) if !address.starts_with("etcd:") => {
            return Err(format!(
                "--control {address}: who joins others reaches the records only if they are on etcd"
            ));
        }
        (Some(address), _) => address,
        (None, true) => return Ok(None),
        (None, false) => dir.join("control").display().to_string(),
    };
    let opened = crate::control::open(&address).map_err(|e| e.to_string())?;
    let kept = match address.starts_with("etcd:") {
        true => std::fs::write(&file, format!("{address}\n")),
        false => std::fs::remove_file(&file).or(Ok(())),
    };
    kept.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Some(opened))
}

/// Starts a launcher in this process.
pub fn start(settings: Settings) -> Result<Running, String> {
    let Settings {
        dir,
        place,
        listen,
        join: whom,
        patience,
        control,
        name,
        labels,
        capacity,
    } = settings;
    let folder = |e: std::io::Error| format!("the folder {}: {e}", dir.display());
    std::fs::create_dir_all(&dir).map_err(folder)?;
    let dir = dir.canonicalize().map_err(folder)?;
    let lock = std::fs::File::create(dir.join("lock")).map_err(folder)?;
    if lock.try_lock().is_err() {
        return Err(format!(
            "a launcher of {} runs already, or is about to: `mobula stop` ends one that runs",
            dir.display()
        ));
    }
    if let Some(before) = Recorded::read(&place, &dir) {
        if before.launcher.runs() {
            let pid = before.launcher.pid;
            return Err(format!(
                "a launcher of {} runs already, process {pid}: `mobula stop` ends it",
                dir.display()
            ));
        }
        // It was killed, and what it started may still run.
        before.end(&place, Duration::ZERO);
    }
    let me = NodeId::new(ears::random()?).ok_or("no number")?;
    let last = dir.join("address");
    let control = records(control, whom.is_some(), &dir)?;
    let shared = control
        .as_ref()
        .filter(|c| c.address().starts_with("etcd:"));
    let (identity, ca, token): (Identity, Option<Arc<Ca>>, String) = match &whom {
        Some((addr, token)) => {
            let parsed: JoinToken = token.parse().map_err(|e: LinkError| e.to_string())?;
            // Whoever reaches the authority, and has its token, needs nobody to let it in: the one at that address may be gone.
            let known = shared.map(|control| cluster::on_record(&**control, LAUNCHERS));
            let known = known.transpose().map_err(|e| e.to_string())?.flatten();
            let joined = match known.filter(|ca| ca.token() == parsed) {
                Some(ca) => ca.identity(me).map_err(|e| e.to_string())?,
                None => join_patiently(*addr, &parsed, me, patience)
                    .map_err(|why| guest::unreached(*addr, &why))?,
            };
            keep(&dir, *addr, token).map_err(folder)?;
            (joined, None, token.clone())
        }
        None => {
            // Whoever starts it again without saying as what means this.
            let _ = std::fs::remove_file(dir.join(JOINED));
            let ca = match shared {
                Some(control) => cluster::shared(&**control, LAUNCHERS, Some(&dir)),
                None => cluster::authority(&dir),
            };
            let ca = ca.map_err(|e| e.to_string())?;
            let (identity, token) = (
                ca.identity(me).map_err(|e| e.to_string())?,
                ca.token().to_string(),
            );
            (identity, Some(Arc::new(ca)), token)
        }
    };
    let listen = listen.unwrap_or_else(|| match &whom {
        Some((head, _)) if head.ip().is_loopback() => ([127, 0, 0, 1], 0).into(),
        Some(_) => ([0, 0, 0, 0], 0).into(),
        // The same as before, so that others find it again.
        None => std::fs::read_to_string(&last)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_else(|| ([0, 0, 0, 0], PORT).into()),
    });
    let cache = cache::Cache::open(&dir.join("executables")).map_err(folder)?;
    let (link, heard, events) =
        ears::listen(identity, ca.filter(|_| shared.is_none()), listen, true)
            .map_err(|e| e.to_string())?;
    let address = link.local_addr();
    if whom.is_none() {
        std::fs::write(&last, format!("{address}\n")).map_err(folder)?;
    }
    let process =
        Process::of(std::process::id()).ok_or("this process is not to be found in /proc")?;
    let mut joined = whom.map(|(addr, _)| addr);
    let mut looking = None;
    if let Some(control) = shared {
        let far = crate::control::host(&control.address());
        let reached = cluster::reached_at(address, far.or(joined));
        let parsed: JoinToken = token.parse().map_err(|e: LinkError| e.to_string())?;
        let ca = cluster::on_record(&**control, LAUNCHERS).map_err(|e| e.to_string())?;
        let ca = ca.filter(|ca| ca.token() == parsed).ok_or_else(|| {
            let at = control.address();
            format!("the records at {at} are of other launchers than the token, or have no authority: is --control as it was said to the first one?")
        })?;
        let mut leading = Leading::new(Arc::clone(control), &ca, me, reached);
        let lives = |at| join(at, &parsed, me, LIVES).is_ok();
        let lead = leading.begin(lives).map_err(|e| e.to_string())?;
        joined = (lead != reached).then_some(lead);
        link.hold_ca(joined.is_none().then(|| Arc::new(ca)));
        let watches = leading.watch(events.clone());
        looking = Some(watches.map_err(|e| format!("starting a thread: {e}"))?);
    }
    let records = match (&control, joined) {
        (Some(control), None) => {
            let opened = past::Records::open(Arc::clone(control));
            Some(opened.map_err(|e| e.to_string())?)
        }
        _ => None,
    };
    let head = joined.unwrap_or(address);
    let recorded = Recorded {
        launcher: process,
        address,
        dir,
        head,
        token,
        nodes: Vec::new(),
    };
    recorded
        .write(&place)
        .map_err(|e| format!("{}: {e}", place.display()))?;
    let launcher = launcher::Launcher {
        me,
        name,
        labels,
        link,
        heard,
        events: events.clone(),
        jobs: Jobs::new(capacity),
        cache,
        place,
        state: recorded.clone(),
        joined,
        records,
        control: shared.cloned(),
        looking,
        has: platform::Has::here(),
        host: state::host(),
    };
    let thread = launcher
        .serve()
        .map_err(|e| format!("starting a thread: {e}"))?;
    Ok(Running {
        recorded,
        stop: events,
        thread: Some(thread),
        _lock: lock,
    })
}
