//! Control groups of version 2, one for each worker that ever had a bound.
//!
//! Groups are made below the group that this process is in, so that its own limits hold for its workers too. The kernel
//! lets no group but the root both have processes and divide memory among groups below it. So the first bound moves this
//! process, with what it started, into a group of its own below; that is undone at the end. Where other processes share
//! the group they are not ours to move, and there are no groups for workers.
//!
//! Invariant: groups are removed when their worker has ended, those of a driver that was killed by the next that looks.
//! Left out: what to do without (`limits`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::process::Pid;

use super::meter::counter;

const CONTROLLER: &str = "memory";

/// A place below which groups can be made.
#[derive(Debug)]
pub struct Groups {
    parent: PathBuf,
    /// The group that this process was moved into, if it was.
    own: Option<PathBuf>,
    next: AtomicU64,
    /// Groups that could not be removed yet: something in them was still ending.
    left: Arc<Mutex<Vec<PathBuf>>>,
}

/// One worker's group.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    left: Arc<Mutex<Vec<PathBuf>>>,
}

impl Groups {
    /// Finds a place, or says why there is none.
    pub fn find() -> Result<Groups, String> {
        let read = |path| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
        let mounts = read("/proc/self/mountinfo")?;
        let groups = read("/proc/self/cgroup")?;
        let path =
            own_group(&mounts, &groups).ok_or("control groups of version 2 are not mounted")?;
        Groups::below(path, std::process::id(), &is_descendant)
    }

    fn below(path: PathBuf, pid: u32, ours: &dyn Fn(u32) -> bool) -> Result<Groups, String> {
        let shown = path.display();
        if !lists(&path.join("cgroup.controllers"), CONTROLLER) {
            return Err(format!("{shown} has no {CONTROLLER} controller"));
        }
        remove_stale(&path);
        let mut groups = Groups {
            parent: path.clone(),
            own: None,
            next: AtomicU64::new(0),
            left: Arc::default(),
        };
        let control = path.join("cgroup.subtree_control");
        // The root, and no other group, has no type.
        let is_root = !path.join("cgroup.type").exists();
        if !lists(&control, CONTROLLER) {
            if !is_root {
                groups.move_into_own(pid, ours)?;
            }
            fs::write(&control, format!("+{CONTROLLER}"))
                .map_err(|e| format!("{}: {e}", control.display()))?;
        }
        Ok(groups)
    }

    /// Moves this process and what it started out of the group that is to be divided.
    fn move_into_own(&mut self, pid: u32, ours: &dyn Fn(u32) -> bool) -> Result<(), String> {
        let procs = self.parent.join("cgroup.procs");
        let shown = self.parent.display();
        let own = self.parent.join(format!("mobula-{pid}-driver"));
        // What is moved may start more meanwhile.
        for _ in 0..16 {
            let inside = fs::read_to_string(&procs).map_err(|e| format!("{shown}: {e}"))?;
            let inside: Vec<u32> = inside
                .lines()
                .filter_map(|l| l.trim().parse().ok())
                .collect();
            if inside.is_empty() {
                return Ok(());
            }
            if let Some(other) = inside.iter().find(|p| **p != pid && !ours(**p)) {
                return Err(format!(
                    "process {other}, which this one did not start, is in {shown} too"
                ));
            }
            if self.own.is_none() {
                fs::create_dir(&own).map_err(|e| format!("{}: {e}", own.display()))?;
                self.own = Some(own.clone());
            }
            for pid in inside {
                match move_to(&own, pid) {
                    // Gone meanwhile.
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                    moved => moved.map_err(|e| format!("{}: {e}", own.display()))?,
                }
            }
        }
        Err(format!(
            "processes in {shown} start others faster than they can be moved"
        ))
    }

    /// Makes a group and moves a worker into it. What it holds already stays counted where it was.
    pub fn join(&self, pid: Pid) -> io::Result<Group> {
        self.left.lock().retain(|path| !removed(path));
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self
            .parent
            .join(format!("mobula-{}-{n}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Group {
            path,
            left: Arc::clone(&self.left),
        };
        // A bound on memory that swap gets around is none. Both are refinements: a kernel may lack them.
        let _ = group.write("memory.swap.max", "0");
        let _ = group.write("memory.oom.group", "1");
        move_to(&group.path, pid.as_raw_nonzero().get().cast_unsigned())?;
        Ok(group)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.left.lock().retain(|path| !removed(path));
        let Some(own) = &self.own else { return };
        // Refused while a group below is left; then all stays as it is, to be removed with the rest of them.
        let control = self.parent.join("cgroup.subtree_control");
        if fs::write(control, format!("-{CONTROLLER}")).is_err() {
            return;
        }
        let inside = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|l| l.trim().parse().ok()) {
            let _ = move_to(&self.parent, pid);
        }
        let _ = fs::remove_dir(own);
    }
}

impl Group {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.path.join(file))
    }

    /// Bounds what is taken from here on.
    pub fn bound(&self, bytes: u64) -> io::Result<()> {
        let held: u64 = self
            .read("memory.current")?
            .trim()
            .parse()
            .map_err(io::Error::other)?;
        self.write("memory.max", &held.saturating_add(bytes).to_string())
    }

    /// Bounds nothing any more.
    pub fn lift(&self) -> io::Result<()> {
        self.write("memory.max", "max")
    }

    /// Whether the kernel ended anything in it for want of memory.
    pub fn killed(&self) -> bool {
        let events = self.read("memory.events").unwrap_or_default();
        counter(&events, "oom_kill").is_some_and(|n| n > 0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The worker has ended; what it started and left goes with it.
        let _ = self.write("cgroup.kill", "1");
        if !removed(&self.path) {
            self.left.lock().push(self.path.clone());
        }
    }
}

fn move_to(group: &Path, pid: u32) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
}

fn removed(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

fn lists(file: &Path, word: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_ascii_whitespace().any(|w| w == word)
}

/// Removes the groups of drivers that are gone. One that still has a process is not removed by the kernel.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let driver = name.to_str().and_then(|n| n.strip_prefix("mobula-"));
        let driver = driver.and_then(|n| n.split_once('-')?.0.parse::<u32>().ok());
        if driver.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where the group of version 2 that this process is in can be seen.
fn own_group(mounts: &str, groups: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    let (root, place) = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let found = (fields.next()?, fields.next()?);
        (after.split(' ').next() == Some("cgroup2")).then_some(found)
    })?;
    // In a container the mount may begin below the root.
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(place).join(below))
}

/// Whether this process started `pid`, itself or through others.
fn is_descendant(mut pid: u32) -> bool {
    let own = std::process::id();
    for _ in 0..64 {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return false;
        };
        // The name, in parentheses, may have any characters.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        match parent {
            Some(parent) if parent == own => return true,
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// A folder with the files that a group would have.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, root: bool, enabled: &str, procs: &str) -> Tree {
            let path = std::env::temp_dir().join(format!("mobula-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            let tree = Tree(path);
            if !root {
                tree.put("cgroup.type", "domain\n");
            }
            tree.put("cgroup.controllers", "cpu memory\n");
            tree.put("cgroup.subtree_control", enabled);
            tree.put("cgroup.procs", procs);
            tree
        }

        fn put(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }

        fn get(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }

        fn find(&self) -> Result<Groups, String> {
            Groups::below(self.0.clone(), 7, &|pid| pid == 8)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_own_group_is_found_through_its_mount() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let found = own_group(mounts, "4:memory:/x\n0::/user/me\n");
        assert_eq!(found, Some("/sys/fs/cgroup/unified/user/me".into()));
        let inside = "41 31 0:38 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let found = own_group(inside, "0::/docker/1/a\n");
        assert_eq!(found, Some("/sys/fs/cgroup/a".into()));
        assert_eq!(own_group(inside, "0::/elsewhere\n"), None);
        assert_eq!(own_group("", "0::/\n"), None);
    }

    #[test]
    fn a_root_is_divided_as_it_is() {
        let tree = Tree::new("root", true, "cpu\n", "1\n2\n7\n");
        let groups = tree.find().unwrap();
        assert_eq!(tree.get("cgroup.subtree_control"), "+memory");
        assert!(groups.own.is_none());
    }

    #[test]
    fn a_group_with_strangers_is_left_alone() {
        let tree = Tree::new("strangers", false, "", "7\n8\n9\n");
        let why = tree.find().unwrap_err();
        assert!(why.contains("process 9"), "{why}");
        assert_eq!(tree.get("cgroup.subtree_control"), "");
        assert!(!tree.0.join("mobula-7-driver").exists());
    }

    #[test]
    fn without_the_controller_there_is_no_place() {
        let tree = Tree::new("controller", false, "", "7\n");
        tree.put("cgroup.controllers", "cpu memorylike\n");
        assert!(tree.find().unwrap_err().contains("no memory controller"));
    }

    #[test]
    fn what_a_dead_driver_left_is_removed() {
        let tree = Tree::new("stale", true, "memory\n", "");
        let (dead, own) = (u32::MAX, std::process::id());
        for pid in [dead, own] {
            fs::create_dir(tree.0.join(format!("mobula-{pid}-0"))).unwrap();
        }
        tree.find().unwrap();
        assert!(!tree.0.join(format!("mobula-{dead}-0")).exists());
        assert!(tree.0.join(format!("mobula-{own}-0")).exists());
    }

    #[test]
    fn a_bound_is_on_top_of_what_is_held() {
        let tree = Tree::new("bound", true, "memory\n", "");
        let group = Group {
            path: tree.0.join("worker"),
            left: Arc::default(),
        };
        fs::create_dir(&group.path).unwrap();
        group.write("memory.current", "1000\n").unwrap();
        group.bound(500).unwrap();
        assert_eq!(group.read("memory.max").unwrap(), "1500");
        group.lift().unwrap();
        assert_eq!(group.read("memory.max").unwrap(), "max");
        assert!(!group.killed());
        group.write("memory.events", "oom 2\noom_kill 1\n").unwrap();
        assert!(group.killed());
    }

    #[test]
    fn a_real_group_takes_a_worker_and_goes_with_it() {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let Some(parent) = own_group(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
        else {
            crate::base::skip::skipped("control groups of version 2 are not mounted");
            return;
        };
        let groups = Groups {
            parent,
            own: None,
            next: AtomicU64::new(1000),
            left: Arc::default(),
        };
        // It starts another only once it is in its group.
        let mut child = Command::new("sh")
            .args(["-c", "read go; sleep 3600 & echo up; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut go, mut up) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        match groups.join(Pid::from_child(&child)) {
            Err(e) => {
                let at = groups.parent.display();
                crate::base::skip::skipped(format!("{at} takes no groups: {e}"));
                child.kill().unwrap();
            }
            Ok(group) => {
                let path = group.path.clone();
                let inside = fs::read_to_string(path.join("cgroup.procs")).unwrap();
                assert_eq!(inside.trim(), child.id().to_string());
                go.write_all(b"go\n").unwrap();
                up.read_exact(&mut [0; 3]).unwrap();
                drop(group);
                // The last that could print is gone.
                assert_eq!(up.read(&mut [0]).unwrap(), 0);
                let deadline = Instant::now() + Duration::from_secs(30);
                while path.exists() {
                    assert!(Instant::now() < deadline, "{} stays", path.display());
                    groups.left.lock().retain(|path| !removed(path));
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        child.wait().unwrap();
    }
}
