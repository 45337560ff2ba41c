//! What two processes can do without a library: pass a number to and fro, in shared memory, spinning or asleep, or over a
//! socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::CpuSet;

use crate::report::time;

/// One number each way, on cache lines of their own.
#[repr(C)]
struct Page {
    there: AtomicU32,
    apart: [u8; 124],
    back: AtomicU32,
    asleep: AtomicU32,
}

/// How an echo hears.
#[derive(Clone, Copy, PartialEq)]
pub enum Answers {
    /// Through shared memory.
    Page,
    /// Through a Unix socket.
    Socket,
}

/// A process that answers every number with the same.
pub struct Echo {
    page: *mut Page,
    socket: Option<UnixStream>,
    child: libc::pid_t,
    turn: u32,
}

/// Says that the echo shall sleep from the next number on.
const SLEEP: u32 = 1;

impl Echo {
    pub fn start(how: Answers) -> Echo {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping, zeroed, which is a valid page of ours; it lives as long as the process.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, access, MapFlags::SHARED) };
        let page = page.expect("shared memory").cast::<Page>();
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        // SAFETY: the child touches the page and the socket alone, makes system calls alone, and never returns.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "a child process starts");
        if child == 0 {
            std::mem::forget(Pinned::to(1));
            drop(ours); // so that it ends with the parent
            if how == Answers::Socket {
                echo_socket(theirs);
            }
            // SAFETY: as above; the page is mapped in the child too.
            unsafe { echo(&*page) }
        }
        Echo {
            page,
            socket: (how == Answers::Socket).then_some(ours),
            child,
            turn: 0,
        }
    }

    /// Microseconds a round trip, both spinning.
    pub fn spinning(&mut self, n: usize) -> f64 {
        let _here = Pinned::to(0);
        self.pass();
        let took = time(|| (0..n).for_each(|_| self.pass()));
        took.as_secs_f64() * 1e6 / n as f64
    }

    /// Microseconds of so many round trips, before each of which both were asleep for a while, each waking the other
    /// across CPUs.
    pub fn sleeping(&mut self, n: usize, idle: Duration) -> Vec<f64> {
        let _here = Pinned::to(0);
        if let Some(socket) = &mut self.socket {
            return (0..n).map(|_| over(socket, idle)).collect();
        }
        self.page().asleep.store(SLEEP, Ordering::Relaxed);
        self.pass_waking(); // it notices
        let each = |_| {
            std::thread::sleep(idle);
            time(|| {
                let turn = self.say();
                let page = self.page();
                wake(&page.there);
                while page.back.load(Ordering::Acquire) != turn {
                    wait(&page.back, turn - 1);
                }
            })
        };
        let took: Vec<Duration> = (0..n).map(each).collect();
        self.page().asleep.store(0, Ordering::Relaxed);
        self.pass_waking();
        took.iter().map(|t| t.as_secs_f64() * 1e6).collect()
    }

    fn say(&mut self) -> u32 {
        self.turn += 1;
        self.page().there.store(self.turn, Ordering::Release);
        self.turn
    }

    fn pass(&mut self) {
        let turn = self.say();
        self.hear(turn);
    }

    /// For when the other side may be asleep or about to be.
    fn pass_waking(&mut self) {
        let turn = self.say();
        wake(&self.page().there);
        self.hear(turn);
    }

    fn hear(&self, turn: u32) {
        while self.page().back.load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped in `start`, for as long as the process lives.
        unsafe { &*self.page }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // SAFETY: the child is ours and not yet waited for.
        unsafe {
            libc::kill(self.child, libc::SIGKILL);
            libc::waitpid(self.child, std::ptr::null_mut(), 0);
        }
    }
}

/// A thread kept on one CPU.
struct Pinned(Option<CpuSet>);

impl Pinned {
    /// The n-th of those it may use, or the last.
    fn to(n: usize) -> Pinned {
        let Ok(all) = rustix::thread::sched_getaffinity(None) else {
            return Pinned(None);
        };
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| all.is_set(*cpu))
            .collect();
        let mut one = CpuSet::new();
        one.set(cpus[n.min(cpus.len() - 1)]);
        let _ = rustix::thread::sched_setaffinity(None, &one);
        Pinned(Some(all))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(all) = &self.0 {
            let _ = rustix::thread::sched_setaffinity(None, all);
        }
    }
}

/// Microseconds of one round trip.
fn over(socket: &mut UnixStream, idle: Duration) -> f64 {
    if !idle.is_zero() {
        std::thread::sleep(idle);
    }
    let mut back = [0];
    let took = time(|| {
        socket.write_all(&[1]).expect("the echo is there");
        socket.read_exact(&mut back).expect("the echo is there");
    });
    took.as_secs_f64() * 1e6
}

fn echo_socket(mut socket: UnixStream) -> ! {
    let mut byte = [0];
    while socket.read_exact(&mut byte).is_ok() && socket.write_all(&byte).is_ok() {}
    // SAFETY: ends the process, as it should.
    unsafe { libc::_exit(0) }
}

fn echo(page: &Page) -> ! {
    let mut seen = 0;
    loop {
        let there = page.there.load(Ordering::Acquire);
        if there == seen {
            if page.asleep.load(Ordering::Relaxed) == SLEEP {
                wait(&page.there, seen);
            } else {
                std::hint::spin_loop();
            }
            continue;
        }
        seen = there;
        page.back.store(there, Ordering::Release);
        if page.asleep.load(Ordering::Relaxed) == SLEEP {
            wake(&page.back);
        }
    }
}

fn wait(word: &AtomicU32, expected: u32) {
    use rustix::thread::futex::{Flags, wait};
    let _ = wait(word, Flags::empty(), expected, None);
}

fn wake(word: &AtomicU32) {
    use rustix::thread::futex::{Flags, wake};
    let _ = wake(word, Flags::empty(), 1);
}
