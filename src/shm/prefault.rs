//! A background thread that faults pages in ahead of the arena's frontier.
//!
//! First touch of a page costs several times the copy into it; whoever puts its second gigabyte
//! should not pay that. The thread starts when there is first something to do, runs at the lowest
//! priority, sleeps on a condition variable, and ends when the arena goes. It holds the segment
//! itself, so nobody has to wait for it, and it gives up for good when the machine runs short of
//! memory or the kernel refuses. Where memory has nodes, the pages are those of the node whose thread
//! wanted more last. Invariant: it only asks the kernel to populate pages, which changes no content.
//! Left out: which pages are free (only the frontier matters).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

use super::machine::{MemoryLeft, memory_left};
use super::memfd::Segment;
use super::numa::{self, Nodes};
use super::pages::PageKind;

/// How much memory to fault in ahead of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefault {
    /// Nothing: pages are faulted in by whoever writes them first.
    Off,
    /// Nothing until the arena is in earnest use, then as much again as it has used, up to 1 GiB.
    #[default]
    Adaptive,
    /// At least this many bytes from the start on, more as for `Adaptive`.
    Bytes(u64),
}

/// Populated in one system call. Small, because each call holds the process's map lock for reading
/// and the thread may lose its CPU in the middle of one: half a megabyte is about a
/// third of a millisecond. A huge page is one step, and takes as long.
const STEP: u64 = 512 << 10;
/// Below this the adaptive mode does nothing: an idle node stays small.
const QUIET: u64 = 8 << 20;
/// The most kept ahead unless the user asked for more.
const BOUND: u64 = 1 << 30;
/// The frontier's steps are passed on only when they add up to this: a wake-up costs its caller.
const WORTH: u64 = 4 << 20;

/// How often, in bytes, the thread looks whether the machine has memory to spare.
const LOOK: u64 = 64 << 20;

/// Whether less than an eighth of the memory that this process may have is left.
fn is_short(memory: MemoryLeft) -> bool {
    memory.left < memory.total / 8
}

/// How far the pages should be populated for this frontier.
fn target(mode: Prefault, frontier: u64, capacity: u64) -> u64 {
    let adaptive = if frontier >= QUIET {
        frontier.min(BOUND)
    } else {
        0
    };
    let ahead = match mode {
        Prefault::Off => return 0,
        Prefault::Adaptive => adaptive,
        Prefault::Bytes(asked) => adaptive.max(asked),
    };
    if ahead == 0 {
        0
    } else {
        frontier.saturating_add(ahead).min(capacity)
    }
}

/// The next piece to populate on the way to `goal`: whole pages, so that a huge one is one step.
fn step(from: u64, goal: u64, page: u64, len: u64) -> (u64, u64) {
    let begin = from / page * page;
    let end = goal.min(begin + STEP.max(page));
    (begin, end.next_multiple_of(page).min(len))
}

/// Handle of the thread; dropping it ends the thread.
pub struct Prefaulter {
    mode: Prefault,
    shared: Arc<Shared>,
}

struct Shared {
    segment: Arc<Segment>,
    frontier: AtomicU64,
    goal: AtomicU64,
    /// Pages from the frontier to here are populated.
    done: AtomicU64,
    error: AtomicI32,
    /// The memory node of whoever moved the frontier last, or `NOWHERE`.
    node: AtomicU32,
    state: Mutex<State>,
    wake: Condvar,
}

const NOWHERE: u32 = u32::MAX;

#[derive(Default)]
struct State {
    started: bool,
    stop: bool,
}

impl Prefaulter {
    /// Prepares; starts the thread only if `mode` asks for pages before any are used.
    pub fn new(mode: Prefault, segment: Arc<Segment>) -> Prefaulter {
        let shared = Shared {
            segment,
            frontier: AtomicU64::new(0),
            goal: AtomicU64::new(0),
            done: AtomicU64::new(0),
            error: AtomicI32::new(0),
            node: AtomicU32::new(NOWHERE),
            state: Mutex::default(),
            wake: Condvar::new(),
        };
        let prefaulter = Prefaulter {
            mode,
            shared: Arc::new(shared),
        };
        prefaulter.advance(0);
        prefaulter
    }

    /// Tells that the frontier is at least here. A few nanoseconds unless it moved by megabytes.
    pub fn advance(&self, frontier: u64) {
        let shared = &self.shared;
        let frontier = shared.frontier.fetch_max(frontier, Relaxed).max(frontier);
        let capacity = shared.segment.len() as u64;
        let goal = target(self.mode, frontier, capacity);
        let old = shared.goal.load(Relaxed);
        let end = old == 0 || goal == capacity;
        if goal <= old || (goal < old.saturating_add(WORTH) && !end) {
            return;
        }
        if frontier > 0
            && let Some(node) = Nodes::of_machine().here()
        {
            shared.node.store(node, Relaxed);
        }
        let mut state = shared.state.lock();
        shared.goal.fetch_max(goal, Relaxed);
        if state.started {
            shared.wake.notify_one();
        } else {
            state.started = true;
            let shared = shared.clone();
            let name = "mobula-prefault".to_owned();
            let spawned = std::thread::Builder::new()
                .name(name)
                .spawn(move || shared.run());
            if let Err(error) = spawned {
                self.shared.fail(&error);
            }
        }
    }

    /// Offset up to which pages were faulted in ahead; 0 if none were.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Relaxed)
    }

    /// Why the thread gave up, as an errno; `None` while all is well.
    pub fn error(&self) -> Option<i32> {
        Some(self.shared.error.load(Relaxed)).filter(|e| *e != 0)
    }
}

impl Drop for Prefaulter {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        // Best effort: at normal priority the thread is only less polite.
        let _ = rustix::process::setpriority_process(None, 19);
        let pages = self.segment.pages();
        let mut looked = u64::MAX;
        let mut near = Vec::new();
        while let Some((from, to)) = self.next() {
            let node = Some(self.node.load(Relaxed)).filter(|n| *n != NOWHERE);
            let nearer = Nodes::of_machine().near(node);
            if nearer != near {
                numa::prefer(&nearer);
                near = nearer;
            }
            // Pages nobody has asked for yet must not be what brings the machine down. Reserved ones
            // are taken already.
            if pages.kind != PageKind::Reserved && from.abs_diff(looked) >= LOOK {
                looked = from;
                if memory_left().is_some_and(is_short) {
                    return self.fail(&io::Error::from_raw_os_error(libc::ENOMEM));
                }
            }
            match self.segment.populate(from as usize, to as usize) {
                Ok(()) => self.done.store(to, Relaxed),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.fail(&e),
            }
        }
    }

    /// The next step, waiting until there is one; `None` when the arena is gone.
    fn next(&self) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return None;
            }
            let from = self.done.load(Relaxed).max(self.frontier.load(Relaxed));
            let goal = self.goal.load(Relaxed);
            if from < goal {
                let len = self.segment.len() as u64;
                return Some(step(from, goal, self.segment.pages().size, len));
            }
            self.wake.wait(&mut state);
        }
    }

    fn fail(&self, error: &io::Error) {
        self.error
            .store(error.raw_os_error().unwrap_or(libc::EIO), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn target_follows_the_frontier_within_bounds() {
        assert_eq!(target(Prefault::Off, GIB, 9 * GIB), 0);
        assert_eq!(
            target(Prefault::Adaptive, QUIET - 1, GIB),
            0,
            "idle nodes stay small"
        );
        assert_eq!(target(Prefault::Adaptive, QUIET, GIB), 2 * QUIET);
        assert_eq!(target(Prefault::Adaptive, 3 * GIB, 9 * GIB), 4 * GIB);
        assert_eq!(
            target(Prefault::Adaptive, 3 * GIB, 3 * GIB + 5),
            3 * GIB + 5
        );
        assert_eq!(target(Prefault::Bytes(5), 0, GIB), 5);
        assert_eq!(target(Prefault::Bytes(2 * GIB), 3 * GIB, 9 * GIB), 5 * GIB);
        assert_eq!(target(Prefault::Bytes(u64::MAX), 7, GIB), GIB);
        assert_eq!(target(Prefault::Bytes(0), 0, GIB), 0);
    }

    #[test]
    fn steps_are_whole_pages() {
        const SMALL: u64 = 4096;
        const HUGE: u64 = 2 << 20;
        assert_eq!(step(0, GIB, SMALL, GIB), (0, STEP));
        assert_eq!(step(SMALL, 3 * SMALL, SMALL, GIB), (SMALL, 3 * SMALL));
        assert_eq!(step(0, 5, SMALL, GIB), (0, SMALL));
        assert_eq!(step(HUGE + SMALL, GIB, HUGE, GIB), (HUGE, 2 * HUGE));
        assert_eq!(step(HUGE, HUGE + 1, HUGE, GIB), (HUGE, 2 * HUGE));
        assert_eq!(
            step(HUGE, HUGE + 1, HUGE, HUGE + SMALL),
            (HUGE, HUGE + SMALL)
        );
    }

    #[test]
    fn knows_when_memory_is_short() {
        let memory = |left, total| MemoryLeft { left, total };
        assert!(is_short(memory(99, 800)));
        assert!(!is_short(memory(100, 800)));
    }

    /// Waits, bounded, for something another thread does.
    #[cfg(not(miri))]
    fn eventually(what: &str, mut done: impl FnMut() -> bool) {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed().as_secs() < 20, "{what} did not happen");
            std::thread::yield_now();
        }
    }

    #[cfg(not(miri))]
    #[test]
    fn populates_to_the_goal_then_ends_with_its_arena() {
        let segment = Arc::new(Segment::create(64 << 20).unwrap());
        let prefaulter = Prefaulter::new(Prefault::Adaptive, segment.clone());
        assert!(!prefaulter.shared.state.lock().started);
        prefaulter.advance(QUIET);
        eventually("prefault", || prefaulter.done() == 2 * QUIET);
        prefaulter.advance(QUIET + 1);
        assert_eq!(
            prefaulter.shared.goal.load(Relaxed),
            2 * QUIET,
            "not worth a wake-up"
        );
        prefaulter.advance(2 * QUIET);
        eventually("second prefault", || prefaulter.done() == 4 * QUIET);
        assert_eq!(prefaulter.error(), None);
        drop(prefaulter);
        eventually("the thread's end", || Arc::strong_count(&segment) == 1);
    }

    #[cfg(not(miri))]
    #[test]
    fn off_starts_nothing() {
        let segment = Arc::new(Segment::create(1 << 20).unwrap());
        let prefaulter = Prefaulter::new(Prefault::Off, segment.clone());
        prefaulter.advance(1 << 20);
        assert!(!prefaulter.shared.state.lock().started);
        drop(prefaulter);
        assert_eq!(Arc::strong_count(&segment), 1);
    }
}
