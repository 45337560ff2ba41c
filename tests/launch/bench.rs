//! Launchers in folders of their own, programs, and what the command says.
//!
//! Invariant: whatever a test started is ended when its `Bench` goes, by process id. Left out: what is tested.

#[path = "../../src/base/wait.rs"]
pub mod wait;

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What a program said.
pub struct Said {
    pub ok: bool,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            ok: output.status.success(),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "code {:?}\nout: {}\nerr: {}",
            self.code, self.out, self.err
        )
    }
}

/// A launcher, mostly the first.
#[derive(Clone)]
pub struct Head {
    pub address: String,
    pub token: String,
    pub pid: u32,
}

impl Head {
    fn of(started: &serde_json::Value) -> Head {
        let text = |name: &str| started[name].as_str().unwrap().to_owned();
        Head {
            address: text("address"),
            token: text("token"),
            pid: started["pid"].as_u64().unwrap() as u32,
        }
    }
}

/// Whether a process runs; one that has ended and waits for its parent does not.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn kill(pid: u32) {
    let process = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    until("the launcher is gone", || !alive(pid));
}

/// Waits for something, with a deadline.
pub fn until(what: &str, is: impl FnMut() -> bool) {
    wait::until(what, Duration::from_secs(60), is);
}

/// See the module.
pub struct Bench {
    folder: PathBuf,
    started: Mutex<Vec<u32>>,
    apart: bool,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    pub fn new(name: &str) -> Bench {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
        let folder =
            std::env::temp_dir().join(format!("mobula-launch-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Bench {
            folder,
            started: Mutex::default(),
            apart: false,
            _alone: alone,
        }
    }

    /// One whose nodes share no memory and speak over QUIC, as if they were on machines of their own.
    pub fn apart(name: &str) -> Bench {
        let mut bench = Bench::new(name);
        bench.apart = true;
        bench
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn path(&self, name: &str) -> String {
        self.dir(name).display().to_string()
    }

    pub fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_mobula").as_ref())
    }

    /// Of another program.
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("MOBULA_ATTACH_DIR", self.dir("runtime"))
            .stdin(Stdio::null());
        if self.apart {
            command.env("MOBULA_SHARE_MEMORY", "0");
        }
        for name in ["MOBULA_ADDRESS", "MOBULA_TOKEN", "MOBULA_JOIN"] {
            command.env_remove(name);
        }
        command
    }

    pub fn mobula(&self, args: &[&str]) -> Said {
        self.command().args(args).output().unwrap().into()
    }

    fn start(&self, args: &[&str], name: &str, more: &[&str]) -> serde_json::Value {
        let dir = self.path(name);
        let said = self.mobula(&[args, &["--name", name, "--dir", &dir, "--json"], more].concat());
        assert!(said.ok, "{said}");
        let started: serde_json::Value =
            serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said}"));
        self.started
            .lock()
            .unwrap()
            .push(started["pid"].as_u64().unwrap() as u32);
        started
    }

    /// Starts the first launcher, or starts it again.
    pub fn head(&self, name: &str, more: &[&str]) -> Head {
        let again = self.dir(name).join("address").exists();
        let listen: &[&str] = if again {
            &[]
        } else {
            &["--listen", "127.0.0.1:0"]
        };
        let started = self.start(&[&["start", "--head"], listen].concat(), name, more);
        Head::of(&started)
    }

    /// Starts another launcher.
    pub fn join(&self, head: &Head, name: &str, more: &[&str]) -> Head {
        let started = self.start(
            &["start", "--join", &head.address, "--token", &head.token],
            name,
            more,
        );
        Head::of(&started)
    }

    /// Starts a launcher again, which its folder knows.
    pub fn again(&self, name: &str, more: &[&str]) -> Head {
        Head::of(&self.start(&["start"], name, more))
    }

    pub fn kill(&self, head: &Head) {
        kill(head.pid);
    }

    /// Kills all launchers.
    #[cfg(feature = "etcd")]
    pub fn kill_all(&self) {
        let started = self.started.lock().unwrap();
        started
            .iter()
            .copied()
            .filter(|pid| alive(*pid))
            .for_each(kill);
    }

    pub fn launchers(&self) -> Vec<u32> {
        self.started.lock().unwrap().clone()
    }

    pub fn status(&self, head: &Head) -> serde_json::Value {
        let said = self.mobula(&[
            "status",
            "--address",
            &head.address,
            "--token",
            &head.token,
            "--json",
        ]);
        assert!(said.ok, "{said}");
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said}"))
    }

    /// Waits until the head knows so many machines.
    pub fn machines(&self, head: &Head, count: usize) {
        until("all machines are known", || {
            self.status(head)["machines"]
                .as_array()
                .is_some_and(|m| m.len() == count)
        });
    }

    pub fn run(&self, head: &Head, what: &str, more: &[&str]) -> App {
        let exe = std::env::current_exe().unwrap().display().to_string();
        let mut command = self.command();
        command
            .args(["run", "--address", &head.address, "--token", &head.token])
            .args(more)
            .arg("--");
        App::start_by(command.arg(exe), what)
    }

    pub fn other_token(&self) -> String {
        let said = self.mobula(&["token", "--dir", &self.path("other")]);
        said.out.trim().to_owned()
    }

    /// An address at which nobody listens.
    pub fn free_address(&self) -> String {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let said = self.mobula(&["stop", "--all"]);
        if std::thread::panicking() {
            eprintln!("stop: {said}");
            for name in ["one", "two", "three"] {
                eprintln!(
                    "log of {name}: {}",
                    std::fs::read_to_string(self.dir(name).join("launcher.log"))
                        .unwrap_or_default()
                );
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The program: this test binary, of which it runs the test `app`.
pub struct App {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: String,
    err: Option<std::thread::JoinHandle<String>>,
}

impl App {
    /// Without a launcher.
    pub fn start(what: &str, variables: &[(&str, &str)]) -> App {
        let mut command = Command::new(std::env::current_exe().unwrap());
        App::start_by(command.envs(variables.iter().copied()), what)
    }

    pub fn start_by(command: &mut Command, what: &str) -> App {
        command
            .args(["app", "--exact", "--nocapture"])
            .env("LAUNCH_APP", what);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let err = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        App {
            child,
            lines,
            seen: String::new(),
            err: Some(err),
        }
    }

    /// Waits for a line with this in it, and gives it from there on.
    pub fn line(&mut self, with: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen += &format!("{line}\n");
                    if let Some(at) = line.find(with) {
                        return line[at..].to_owned();
                    }
                }
                Err(_) => {
                    let _ = self.child.kill();
                    let err = self
                        .err
                        .take()
                        .map(|e| e.join().unwrap())
                        .unwrap_or_default();
                    panic!("no line with {with:?} came:\n{}\n{err}", self.seen);
                }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands it a line.
    pub fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it still runs after this time.
    pub fn stays(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            // Its output is over when it is.
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen += &format!("{line}\n"),
                Err(e) => return e == RecvTimeoutError::Timeout,
            }
        }
    }

    /// Lets it end, and waits for it.
    pub fn close(&mut self) {
        drop(self.child.stdin.take());
        until("the program ends", || {
            self.child.try_wait().unwrap().is_some()
        });
    }

    /// Waits for its end.
    pub fn finished(mut self) -> Said {
        self.close();
        let code = self.child.wait().unwrap().code();
        // A node that is ending may hold the pipe a little longer.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen += &format!("{line}\n");
        }
        let err = self
            .err
            .take()
            .map(|e| e.join().unwrap())
            .unwrap_or_default();
        Said {
            ok: code == Some(0),
            code,
            out: std::mem::take(&mut self.seen),
            err,
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
