//! How a node becomes one of a cluster, and how it leaves.
//!
//! The first node makes the cluster: an authority that certifies the others, and a token that lets them in. It may keep both in
//! a folder, and is the same cluster's when it starts again. Others bring the token to the first one's address.
//!
//! Invariant: a node that joined is connected to the head before its program goes on, or the program is told why it is not.
//! Left out: which machines there are (`launch`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::near::Place;
use super::notices::NodeDeath;
use super::peers::Ears;
use super::records::Keeper;
use super::{Cluster, Face, Groups, authority};
use crate::base::{Capacity, Demand, Error, NodeId, Units};
use crate::core::members::{Members, Pace, Peer};
use crate::exec::{Engine, Local, far};
use crate::link::{Ca, Endpoint, Identity, JoinToken, Link, LinkError, Registry, Settings, join};
use crate::wire::Frame;

/// How long a join may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one of several may take to let a node in.
const TRY: Duration = Duration::from_secs(5);
/// So many are tried.
const TRIED: usize = 8;
/// Whose authority it is.
pub(super) const NODES: &str = "nodes";
/// How long what was said last has to get out.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long a node that polls looks on after the last frame or call.
const LINGER: Duration = Duration::from_millis(1);

/// How this node comes to a cluster.
#[derive(Clone, Debug, Default)]
pub struct Joining {
    /// Where it listens; port 0 takes any. Not said: any port, of the loopback if whom it joins is there.
    pub listen: Option<SocketAddr>,
    /// Whom it joins, with the token; nobody: it makes a cluster.
    pub join: Option<(SocketAddr, String)>,
    /// Where the authority of a cluster that it makes is kept.
    pub folder: Option<PathBuf>,
    /// What it is called, for strategies.
    pub labels: BTreeMap<String, String>,
    /// What it is called, for people.
    pub name: String,
    /// Looks for what comes instead of sleeping until it does.
    pub busy_poll: bool,
    /// Where the records are; not said: in memory, or in the folder.
    pub control: Option<String>,
    /// How many times as long as usual everything about life and death takes; 0 is 1.
    pub pace: u32,
    /// How long it goes on when the head is gone. Not said: see [`Cluster::awaits_head`].
    pub head_patience: Option<Duration>,
    /// Calls and objects go over the network even between nodes of one machine.
    pub apart: bool,
    /// Bytes that lineages may take.
    pub lineage_bytes: Option<u64>,
}

impl Joining {
    /// How fast deaths are found.
    pub(super) fn pace(&self) -> Pace {
        Pace::LAN.scaled(self.pace.max(1))
    }

    /// Where the records are, if this node is to reach them.
    fn records(&self) -> Option<String> {
        match (&self.control, &self.folder, &self.join) {
            (Some(address), ..) => Some(address.clone()),
            (None, Some(folder), None) => {
                Some(format!("file:{}", folder.join("records").display()))
            }
            (None, None, None) => Some("memory:".to_owned()),
            (None, _, Some(_)) => None,
        }
    }
}

/// A node of the cluster, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Which.
    pub id: NodeId,
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// What it has.
    pub capacity: Capacity,
    /// CPUs there that nobody holds, as it told last.
    pub free_cpus: Units,
    /// Everything there that nobody holds, the CPUs too, as it told last.
    pub free: Demand,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Common calls that wait there.
    pub queued: u32,
    /// This very node.
    pub this: bool,
    /// It is leaving.
    pub draining: bool,
    /// What is said to it goes over a socket of the machine that it shares with this one, instead of over the network.
    pub near: bool,
}

/// What the system calls this machine.
fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn cluster_error(why: impl ToString) -> Error {
    Error::Cluster {
        why: Arc::from(why.to_string()),
    }
}

/// Where others reach what listens there: the address of the network on which the head is, or whatever is far away.
pub(in crate::node) fn reached_at(listens: SocketAddr, head: Option<SocketAddr>) -> SocketAddr {
    if !listens.ip().is_unspecified() {
        return listens;
    }
    // An address that is kept for documentation; nothing is sent.
    let far = head.unwrap_or(SocketAddr::from(([192, 0, 2, 1], 9)));
    let any = if far.is_ipv4() {
        SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        SocketAddr::from(([0u16; 8], 0))
    };
    let ip = std::net::UdpSocket::bind(any)
        .and_then(|socket| socket.connect(far).and_then(|()| socket.local_addr()));
    let ip = ip.map_or([127, 0, 0, 1].into(), |addr| addr.ip());
    SocketAddr::new(ip, listens.port())
}

/// Whether nobody of the cluster is there who lets nodes in, so that another may.
fn is_silent(why: &LinkError) -> bool {
    matches!(
        why,
        LinkError::Broken(_)
            | LinkError::Timeout { .. }
            | LinkError::Io { .. }
            | LinkError::Denied(_)
            | LinkError::OtherCluster { .. }
    )
}

/// How a node was let in.
struct Admitted {
    identity: Identity,
    /// With which it can let in others.
    ca: Option<Ca>,
    /// Who let it in; nobody: it makes the cluster.
    by: Option<SocketAddr>,
}

/// Gets a node its certificate.
fn admit(me: NodeId, how: &Joining, keeper: Option<&Keeper>) -> Result<Admitted, Error> {
    let control = keeper.and_then(Keeper::shared);
    let Some((addr, token)) = &how.join else {
        let ca = match (control, &how.folder) {
            (Some(control), folder) => authority::shared(control, NODES, folder.as_deref())?,
            (None, Some(folder)) => authority::authority(folder)?,
            (None, None) => Ca::new().map_err(cluster_error)?,
        };
        if let Some(keeper) = keeper {
            keeper.holds(&ca);
        }
        return Ok(Admitted {
            identity: ca.identity(me).map_err(cluster_error)?,
            ca: Some(ca),
            by: None,
        });
    };
    let token: JoinToken = token.parse().map_err(cluster_error)?;
    // Where every node can let others in, the one that was named may be gone.
    let others = keeper.map(Keeper::doors).transpose()?.unwrap_or_default();
    let patience = if others.is_empty() { PATIENCE } else { TRY };
    let (identity, by) = match join(*addr, &token, me, patience) {
        Ok(identity) => (identity, *addr),
        Err(why) if others.is_empty() || !is_silent(&why) => return Err(cluster_error(why)),
        Err(why) => {
            let others = others.into_iter().filter(|other| other != addr).take(TRIED);
            let found = others
                .into_iter()
                .find_map(|by| Some((join(by, &token, me, TRY).ok()?, by)));
            found.ok_or_else(|| cluster_error(format!("{why}; nor does another node let it in")))?
        }
    };
    let ca = control.map(|control| authority::on_record(control, NODES));
    let ca = ca.transpose()?.flatten();
    if let (Some(ca), Some(control)) = (&ca, control)
        && ca.token() != token
    {
        let why = format!(
            "the records at {} are of another cluster than the token",
            control.address()
        );
        return Err(cluster_error(why));
    }
    if let (Some(ca), Some(keeper)) = (&ca, keeper) {
        keeper.holds(ca);
    }
    Ok(Admitted {
        identity,
        ca,
        by: Some(by),
    })
}

impl Cluster {
    /// Makes this node one of a cluster. The engine runs already.
    pub fn start(
        engine: &Arc<Engine>,
        capacity: Capacity,
        how: Joining,
    ) -> Result<Arc<Cluster>, Error> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).map_err(
            |e| Error::Os {
                what: "drawing a number for the node",
                source: Arc::new(e.into()),
            },
        )?;
        let me = NodeId::new(u64::from_le_bytes(bytes).max(1)).expect("not 0");
        let records = how.records();
        let keeper = records.map(|address| Keeper::open(&address)).transpose()?;
        let admitted = admit(me, &how, keeper.as_ref())?;
        let (identity, ca, joined) = (admitted.identity, admitted.ca, admitted.by);
        let cluster = Cluster::new(me, engine, capacity, &how);
        if let Some(by) = joined {
            let _ = cluster.head_addr.set(by);
        }
        // Before anybody can ask.
        cluster.start_errands().map_err(|e| Error::Os {
            what: "starting a thread",
            source: Arc::new(e),
        })?;
        if let Some(keeper) = keeper {
            cluster.keep_records(keeper)?;
        }
        let registry = Registry::new(far::parcel::symbols());
        let loopback = joined.is_none_or(|by| by.ip().is_loopback());
        let any = if loopback {
            [127, 0, 0, 1]
        } else {
            [0, 0, 0, 0]
        };
        let listen = how.listen.unwrap_or(SocketAddr::from((any, 0)));
        let mut settings = Settings::new(listen, identity, registry);
        let heads = how.join.is_none();
        let name = if how.name.is_empty() {
            machine_name()
        } else {
            how.name.clone()
        };
        let place = if cluster.shares {
            Place::of(engine)
        } else {
            None
        };
        settings.hello.app = Cluster::write_app(heads, &name, place.as_ref());
        settings.near = cluster.shares;
        if how.busy_poll {
            settings.spin = LINGER;
            engine.set_linger(LINGER);
        }
        // Longer than a death takes to be found: a connection that breaks meanwhile would only be in the way.
        settings.idle = cluster.patience * 3;
        settings.keep_alive = cluster.patience / 2;
        let token = ca.as_ref().map(Ca::token);
        settings.ca = ca.map(Arc::new);
        let ears = Arc::new(Ears(Arc::downgrade(&cluster)));
        let endpoint = Endpoint::start(settings, ears).map_err(cluster_error)?;
        let link: Arc<dyn Link> = Arc::new(endpoint);
        let _ = cluster.link.set(Arc::clone(&link));
        let _ = cluster.token.set(token);
        let _ = cluster.name.set(name);
        let weak = Arc::downgrade(&cluster);
        let groups = Groups::new(me, engine, cluster.capacity.clone(), Some(weak));
        let _ = cluster.groups.set(Arc::clone(&groups));
        engine.set_groups(groups);
        let far = how.control.as_deref().and_then(crate::control::host);
        let addr = reached_at(link.local_addr(), far.or(joined));
        let known = cluster
            .enter_records(addr)
            .inspect_err(|_| link.stop(Duration::ZERO))?;
        let machine = Members::new(
            Peer {
                node: me,
                addr,
                head: cluster.matters(heads),
            },
            how.pace(),
            cluster.random(),
        );
        engine.set_far(Arc::new(Face(Arc::clone(&cluster))));
        cluster.with_books_of_own();
        cluster.start_threads(machine).map_err(|e| Error::Os {
            what: "starting a thread",
            source: Arc::new(e),
        })?;
        if heads {
            // Those who lost the head before. They look for this one too.
            for (node, addr) in known {
                link.connect(addr, Some(node));
            }
        }
        if let Some(addr) = joined {
            link.connect(addr, None);
            if let Err(e) = cluster.await_head(addr) {
                cluster.stopping.store(true, Ordering::Release);
                link.stop(Duration::ZERO);
                cluster.end_threads();
                return Err(e);
            }
        }
        let there = cluster
            .books
            .lock()
            .peers
            .iter()
            .map(|(n, p)| Peer {
                node: *n,
                addr: p.addr,
                head: cluster.matters(p.head),
            })
            .collect();
        cluster.membership.start(there);
        Ok(cluster)
    }

    fn with_books_of_own(&self) {
        let mut books = self.books.lock();
        let version = books.version();
        let view = self.own_view(&books, version, false);
        books.view.merge(self.me, view);
    }

    /// Waits until the node that was joined is connected.
    fn await_head(&self, addr: SocketAddr) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.change.0.lock();
        loop {
            {
                let mut books = self.books.lock();
                // Whoever let it in, if it is not the head.
                let head = books.peers.iter().find(|(_, peer)| peer.head);
                let head = head.or(books.peers.iter().next());
                if let Some(head) = head.map(|(node, _)| *node) {
                    books.head = head;
                    return Ok(());
                }
            }
            let refused = self
                .refusals
                .lock()
                .iter()
                .find(|(a, _)| *a == addr)
                .map(|(_, why)| why.clone());
            if let Some(why) = refused {
                return Err(cluster_error(why));
            }
            if self.change.1.wait_until(&mut seen, deadline).timed_out() {
                return Err(cluster_error(format!(
                    "{addr} let this node in, but could not be connected to within {PATIENCE:?}"
                )));
            }
        }
    }

    /// What lets others in, if this node can.
    pub fn token(&self) -> Option<&JoinToken> {
        self.token.get()?.as_ref()
    }

    /// Where this node is reached.
    pub fn address(&self) -> Option<SocketAddr> {
        self.link.get().map(|link| link.local_addr())
    }

    /// How many times as long as usual everything about life and death takes.
    pub fn pace(&self) -> u32 {
        self.pace
    }

    /// What went over the network so far.
    pub fn network(&self) -> crate::link::Stats {
        self.link.get().map(|link| link.stats()).unwrap_or_default()
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// The nodes of the cluster, this one first.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let mut books = self.books.lock();
        let _ = crate::exec::local::with(|local| self.refresh(&mut books, local));
        let info = |id: NodeId, name: &str, address: SocketAddr| {
            let view = books
                .view
                .get(id)
                .map(|known| known.view.clone())
                .unwrap_or_default();
            NodeInfo {
                id,
                name: name.to_owned(),
                address,
                capacity: view.capacity,
                free_cpus: view.free.cpu,
                free: view.free,
                labels: view.labels,
                queued: view.queued,
                this: id == self.me,
                draining: view.draining,
                near: self.link.get().is_some_and(|link| link.is_near(id)),
            }
        };
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let name = self.name.get().map_or("", String::as_str);
        let mut all = vec![info(self.me, name, self.address().unwrap_or(nowhere))];
        let mut others: Vec<_> = books
            .peers
            .iter()
            .map(|(id, p)| info(*id, &p.name, p.addr))
            .collect();
        others.sort_by_key(|n| n.id);
        all.extend(others);
        all
    }

    /// Waits until there are so many nodes, this one included. False if that takes too long.
    pub fn wait_for_nodes(&self, count: usize, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut seen = self.change.0.lock();
        loop {
            {
                let books = self.books.lock();
                let told = books
                    .peers
                    .keys()
                    .filter(|n| books.view.get(**n).is_some())
                    .count();
                if told + 1 >= count {
                    return true;
                }
            }
            // A view may come without a change being told.
            let soon = Instant::now() + Duration::from_millis(20);
            let until = deadline.map_or(soon, |d| d.min(soon));
            self.change.1.wait_until(&mut seen, until);
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return false;
            }
        }
    }

    /// Leaves: what waits for others fails, and the others are told.
    pub fn stop(self: &Arc<Cluster>, local: &Local) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        // Who was found dead does not leave in order any more, even if its own side still has to say so.
        let fenced = self.fenced_by().is_some();
        if !fenced {
            // Those who do not hear it at once hear it from others.
            self.membership.leave();
        }
        self.with(local, |books, todo| {
            self.leave_durables(books, todo);
            books.draining = true;
            let peers: Vec<NodeId> = books.peers.keys().copied().collect();
            for to in peers.into_iter().filter(|_| !fenced) {
                self.send_surely(books, to, &Frame::Leave);
            }
        });
        let why = || self.fenced_by().unwrap_or(Error::ShutDown);
        self.abandon(local, &why);
        if let Some(keeper) = self.keeper.get() {
            keeper.end(self);
        }
        if let Some(link) = self.link.get() {
            match fenced {
                true => link.retire(),
                false => link.stop(GOODBYE),
            }
        }
        self.end_threads();
        // Answers that came last, and what they brought.
        self.abandon(local, &why);
        self.notices.close();
    }

    /// Calls this at every death of a node from now on, on a thread of its own.
    pub fn on_death(&self, hear: impl FnMut(NodeDeath) + Send + 'static) -> std::io::Result<()> {
        self.notices.listen("mobula-deaths", hear)
    }

    fn end_threads(&self) {
        self.ended.store(true, Ordering::Release);
        *self.errands.lock() = None;
        *self.clerk.lock() = None;
        self.recovery.close();
        self.membership.wake();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
