//! Drivers that end in every way: no process stays behind, neither workers nor what they started.
//!
//! Invariant: a test ends what it started whatever it finds. Left out: orderly ends (`isolate`).

mod common;
mod workers_common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{serial, until};
use mobula::remote;
use workers_common::{Folder, config, is_there, signal};

/// Says its process id and that of a child it starts, which it leaves behind.
#[allow(clippy::zombie_processes)]
fn settle(file: &str) {
    let child = Command::new("sleep").arg("3600").spawn().unwrap();
    let pids = format!("{} {}", std::process::id(), child.id());
    std::fs::write(format!("{file}.new"), pids).unwrap();
    std::fs::rename(format!("{file}.new"), file).unwrap();
}

#[remote(isolate, max_retries = 0)]
fn stays(file: String) {
    settle(&file);
    loop {
        std::thread::park();
    }
}

#[remote]
struct Idle;

#[remote(isolate)]
impl Idle {
    pub fn new(file: String) -> Self {
        settle(&file);
        Idle
    }
}

/// What the process that plays a driver is to do, and the folder where its workers say who they are.
const ROLE: &str = "MOBULA_TEST_END";

#[test]
#[allow(clippy::zombie_processes)]
fn plays_a_driver() {
    let Ok(role) = std::env::var(ROLE) else {
        return; // only the other tests start it
    };
    let (end, folder) = role.split_once(' ').unwrap();
    let mobula = config().init().unwrap();
    let _call = stays::remote(format!("{folder}/task"));
    let _actor = Idle::remote(format!("{folder}/actor"));
    let there = |name: &str| std::fs::exists(format!("{folder}/{name}")).unwrap();
    until(|| there("task") && there("actor"));
    match end {
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        "panic" => panic!("on purpose, with the guard alive"),
        "forget" => {
            std::mem::forget(mobula);
            return;
        }
        "fork" => {
            // Runs on with all files of the driver that a child gets, and longer than the driver.
            let _left = Command::new("sleep").arg("3600").spawn().unwrap();
            std::fs::write(format!("{folder}/left"), _left.id().to_string()).unwrap();
        }
        _ => {}
    }
    std::fs::write(format!("{folder}/ready"), "").unwrap();
    loop {
        std::thread::park();
    }
}

/// A driver under way, with its workers and their children.
struct Driver {
    process: Child,
    folder: Folder,
    pids: Vec<u32>,
}

impl Driver {
    fn start(end: &str) -> Driver {
        let folder = Folder::new();
        // Tests that run in the background of a shell have SIGINT ignored, and so would what they start.
        let process = Command::new("env")
            .arg("--default-signal=INT")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "plays_a_driver"])
            .env(ROLE, format!("{end} {}", folder.file("")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut driver = Driver {
            process,
            folder,
            pids: Vec::new(),
        };
        let read = |name| driver.folder.read(name);
        until(|| !read("task").is_empty() && !read("actor").is_empty());
        let pids = format!("{} {}", read("task"), read("actor"));
        driver.pids = pids.split(' ').map(|p| p.parse().unwrap()).collect();
        assert_eq!(driver.pids.len(), 4);
        driver
    }

    fn ready(&self) {
        until(|| std::fs::exists(self.folder.file("ready")).unwrap());
    }

    fn all_gone(&mut self) {
        self.process.wait().unwrap();
        let pids = std::mem::take(&mut self.pids);
        until(|| pids.iter().all(|p| !is_there(*p)));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for pid in &self.pids {
            signal(*pid, "KILL");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_driver_that_ends_itself_leaves_nothing() {
    for end in ["exit", "abort", "panic", "forget"] {
        serial(|| Driver::start(end).all_gone());
    }
}

#[test]
fn a_driver_that_is_killed_leaves_nothing() {
    for name in ["KILL", "TERM", "INT"] {
        serial(|| {
            let mut driver = Driver::start("stay");
            driver.ready();
            signal(driver.process.id(), name);
            driver.all_gone();
        });
    }
}

#[test]
fn a_child_of_the_driver_that_runs_on_keeps_no_worker() {
    serial(|| {
        let mut driver = Driver::start("fork");
        driver.ready();
        let left: u32 = driver.folder.read("left").parse().unwrap();
        driver.process.kill().unwrap();
        driver.all_gone();
        assert!(is_there(left), "it is not the workers' business");
        signal(left, "KILL");
    });
}

#[test]
fn workers_wait_for_a_driver_that_is_stopped() {
    serial(|| {
        let mut driver = Driver::start("stay");
        driver.ready();
        let id = driver.process.id();
        signal(id, "STOP");
        until(|| state(id) == 'T');
        // There is no event to wait for when nothing is to happen: a look after a while, that fails only rightly.
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            driver.pids.iter().all(|p| is_there(*p)),
            "{:?}",
            driver.pids
        );
        signal(id, "CONT");
        until(|| state(id) != 'T');
        assert!(driver.pids.iter().all(|p| is_there(*p)));
        driver.process.kill().unwrap();
        driver.all_gone();
    });
}

#[test]
fn a_stopped_worker_ends_with_its_driver_too() {
    serial(|| {
        let mut driver = Driver::start("stay");
        driver.ready();
        for pid in driver.pids.clone() {
            signal(pid, "STOP");
            until(|| state(pid) == 'T');
        }
        driver.process.kill().unwrap();
        driver.all_gone();
    });
}

fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default().trim_start();
    after.chars().next().unwrap_or('?')
}

/// What a process has of shared memory without a name goes with the process: the node makes no other kind.
#[test]
fn nothing_is_named_in_the_folder_of_shared_memory() {
    serial(|| {
        let driver = Driver::start("stay");
        driver.ready();
        for pid in [driver.process.id(), driver.pids[0], driver.pids[2]] {
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
            let shared = maps.lines().filter(|l| {
                let kind = l.split(' ').nth(1).unwrap_or_default();
                kind.ends_with('s')
            });
            let mut any = false;
            for line in shared {
                any = true;
                let named = line.contains("/memfd:") || line.contains("/anon_hugepage");
                assert!(named && line.contains("(deleted)"), "{line}");
            }
            assert!(any, "a node and its workers share memory");
        }
    });
}
