//! What the tests of the served store share: a server in a folder of its own, and child processes.
//!
//! A child is the test's own executable, told to run one test with a role in its environment. Left
//! out: what the children do.

#![allow(dead_code, reason = "each test file uses its part")]

#[path = "../../src/base/skip.rs"]
pub mod skip;
#[path = "../../src/base/wait.rs"]
mod wait;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mobula::store::{Client, Server};

/// Longer than anything takes on a machine under load.
pub const LONG: Duration = Duration::from_secs(60);

const ROLE: &str = "MOBULA_STORE_TEST_ROLE";
const SOCKET: &str = "MOBULA_STORE_TEST_SOCKET";

/// Who runs.
pub enum Role {
    /// A child with this role.
    Child(&'static str),
    /// The same, with something to know.
    Told(&'static str, String),
}

/// What the parent told this process, if it is a child with this role.
pub fn role(name: &str) -> Option<String> {
    let said = std::env::var(ROLE).ok()?;
    let (role, told) = said.split_once('=')?;
    (role == name).then(|| told.to_owned())
}

/// Whether this process is a child at all.
pub fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// The child's connection to its parent's store.
pub fn client() -> Client {
    let socket = std::env::var_os(SOCKET).expect("the parent names the socket");
    Client::connect(socket).expect("the parent serves")
}

/// The socket that the parent named.
pub fn socket() -> PathBuf {
    std::env::var_os(SOCKET)
        .expect("the parent names the socket")
        .into()
}

/// A folder of its own, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mobula-store-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A served store.
pub struct Scene {
    pub server: Option<Server>,
    pub folder: Folder,
}

impl Scene {
    pub fn new(capacity: u64) -> Scene {
        let folder = Folder::new();
        let server = Server::options()
            .capacity(capacity)
            .start(folder.join("socket"))
            .unwrap();
        Scene {
            server: Some(server),
            folder,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub fn client(&self) -> Client {
        Client::connect(self.socket()).unwrap()
    }

    /// Runs this test executable again, only `test`, in a role.
    pub fn run(&self, role: Role, test: &str) -> Running {
        let (role, told) = match role {
            Role::Child(role) => (role, String::new()),
            Role::Told(role, told) => (role, told),
        };
        let mut child = Command::new(std::env::current_exe().unwrap());
        play(&mut child, role, &told, &self.socket());
        let child = child
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child))
    }
}

/// Tells a child what it is.
pub fn play(child: &mut Command, role: &str, told: &str, socket: &Path) {
    child
        .env(ROLE, format!("{role}={told}"))
        .env(SOCKET, socket);
}

/// A child process, killed if it is dropped.
pub struct Running(Option<Child>);

impl Running {
    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Fails with its output if it has ended.
    pub fn still_runs(&mut self) {
        if let Some(child) = &mut self.0
            && let Some(ended) = child.try_wait().unwrap()
        {
            panic!("the child ended by itself: {ended}\n{}", said(child));
        }
    }

    /// Kills it; fails with its output if it had ended by itself, which is how a child fails.
    pub fn kill_unless_failed(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        if let Some(ended) = child.try_wait().unwrap() {
            panic!("the child ended by itself: {ended}\n{}", said(&mut child));
        }
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        let killed = std::os::unix::process::ExitStatusExt::signal(&ended) == Some(9);
        assert!(
            killed,
            "the child ended by itself: {ended}\n{}",
            said(&mut child)
        );
    }

    /// Waits for its end, and fails with its output if it failed.
    pub fn succeeds(mut self) {
        let mut child = self.0.take().unwrap();
        let ended = until("the child's end", || child.try_wait().unwrap());
        let mut said = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(ended.success(), "the child failed: {ended}\n{said}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a child that ended has printed.
fn said(child: &mut Child) -> String {
    let mut said = String::new();
    if let (Some(out), Some(err)) = (&mut child.stdout, &mut child.stderr) {
        out.read_to_string(&mut said).unwrap();
        err.read_to_string(&mut said).unwrap();
    }
    said
}

/// Looks again and again until there is something, for [`LONG`] at most.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait::until(what, LONG, || {
        found = look();
        found.is_some()
    });
    found.expect("it was waited for")
}
