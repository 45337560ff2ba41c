//! The page that shows a running program, and the server behind it.
//!
//! Room map: `index` a recording, arranged for questions; `window`, `task`,
//! `figures`, `find` the questions; `keep` how long an arrangement is used; `live` counts as they change;
//! `guard` who may ask; `listen` and `stall` connections; `routes` what is answered; `assets` the page itself.
//!
//! **Invariant:** whatever a browser, a script or a stranger sends, memory, connections and work stay bounded, and the
//! program that is looked at runs on: the server has a thread of its own and takes no lock of the node's for longer than a
//! snapshot does. Nothing changes the program; every route only reads. **Left out:** where the data comes from ([`Source`]).

mod assets;
mod figures;
mod find;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod history;
mod index;
mod keep;
mod listen;
mod live;
mod refusal;
mod routes;
mod settings;
mod stall;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod window;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

pub use crate::trace::recording::{Call, Inside, Lane, Object, Outcome, Recording, Run};
pub use settings::Settings;
pub use window::Window;

use crate::base::query::Query;
use crate::base::snapshot::Snapshot;
use crate::base::{Error, Result};

/// Where the dashboard has its data from: a node in this process, a program behind a socket, or a file.
///
/// All methods are called on the dashboard's own threads, and may block for as long as it takes to look.
pub trait Source: Send + Sync + 'static {
    /// What the program looks like now.
    ///
    /// # Errors
    /// If the program cannot be reached any more; the page shows the text.
    fn snapshot(&self, query: &Query) -> io::Result<Snapshot>;

    /// Everything that was recorded and is still kept.
    ///
    /// # Errors
    /// As for [`snapshot`](Source::snapshot).
    fn recording(&self) -> io::Result<Recording>;

    /// A number that is another one once anything new was recorded, so that nothing is arranged twice; `None`, as here
    /// where a source does not say otherwise, if that cannot be told. The end of a call that had begun need not change it.
    fn generation(&self) -> Option<u64> {
        None
    }

    /// Nobody looks any more: what was kept to answer the next question quickly may go.
    fn forget(&self) {}

    /// Writes what was recorded within a window as a Chrome trace.
    ///
    /// # Errors
    /// As for [`snapshot`](Source::snapshot), and those of `out`: the reader may go away at any time.
    fn trace(&self, window: Window, out: &mut dyn Write) -> io::Result<()>;

    /// The program's figures in the text format of Prometheus.
    ///
    /// # Errors
    /// As for [`snapshot`](Source::snapshot).
    fn metrics(&self) -> io::Result<String>;
}

/// A running dashboard: stops when dropped.
#[derive(Debug)]
#[must_use = "the dashboard is served until this is dropped"]
pub struct Server {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a source, on a thread of its own, with a few more for long answers.
    ///
    /// # Errors
    /// [`Error::Config`] naming `dashboard_addr` if the address is taken or cannot be had, or if it can be reached from
    /// other machines and there is no token; naming `dashboard_token` if the token is too short or has letters that a
    /// cookie cannot carry.
    pub fn start(settings: Settings, source: Arc<dyn Source>) -> Result<Server> {
        settings.check()?;
        let listener = bind(&settings)?;
        let os = |what| {
            move |e| Error::Os {
                what,
                source: Arc::new(e),
            }
        };
        let address = listener
            .local_addr()
            .map_err(os("asking for the dashboard's address"))?;
        listener
            .set_nonblocking(true)
            .map_err(os("preparing the dashboard's socket"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_name("mobula-dash")
            .build()
            .map_err(os("starting the dashboard"))?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serve = move || {
            runtime.block_on(listen::serve(listener, settings, source, stopped));
            // An answer that is being made looks at a source that is going away; it is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new()
            .name("mobula-dash".into())
            .spawn(serve)
            .map_err(os("starting the dashboard's thread"))?;
        Ok(Server {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to type into a browser on this machine.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            });
        }
        format!("http://{address}/")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes the address that was asked for; without one, the usual port of this machine, or a free one if that is taken.
fn bind(settings: &Settings) -> Result<TcpListener> {
    let Some(address) = settings.address else {
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, settings::USUAL_PORT));
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        return TcpListener::bind(usual)
            .or_else(|_| TcpListener::bind(free))
            .map_err(|e| Error::Os {
                what: "opening a port for the dashboard",
                source: Arc::new(e),
            });
    };
    TcpListener::bind(address).map_err(|e| Error::Config {
        setting: "dashboard_addr",
        why: match e.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program listens on {address}: give another port, or port 0 to take a free one"
            ),
            _ => format!("cannot listen on {address}: {e}"),
        },
    })
}
