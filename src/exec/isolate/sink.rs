//! Where workers' lines go: the driver's own streams, nowhere, or a function of the program.
//!
//! A thread of its own writes, for a terminal may block (Ctrl-S, a slow pipe) and a program's function may be slow. Between
//! the thread that reads pipes and this one is a queue with a bound: once it is full, pipes are not read, they fill, and
//! workers that print wait in their `write`, as they would at the terminal itself.
//!
//! Invariant: lines are written in the order they were queued; memory is bounded; nobody but the writer ever waits for the
//! terminal, except, for a bounded time, the end of the node. Left out: reading (`output`).

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Bytes in the queue at which reading stops.
const BOUND: usize = 1 << 20;
/// Bytes at which lines are dropped: only those of dead workers, whose pipes cannot be left for later, come this far.
const HARD_BOUND: usize = 4 << 20;
/// What a line costs beside its text.
const LINE_COST: usize = size_of::<WorkerLine>();

/// What a stream of a worker was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a worker process printed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLine {
    /// The worker's process id.
    pub pid: u32,
    /// What it ran when the line was read: a function's name, or an actor's type and name.
    pub name: Arc<str>,
    /// Which stream it printed to.
    pub stream: WorkerStream,
    /// The line without its newline; bytes that are not UTF-8 are replaced, and what is beyond 8 KiB is cut and counted.
    pub text: String,
}

impl WorkerLine {
    /// As it is shown: `(square pid=1234) text`.
    fn prefixed(&self, out: &mut Vec<u8>) {
        let WorkerLine {
            pid, name, text, ..
        } = self;
        // Writing to a vector does not fail.
        let _ = writeln!(out, "({name} pid={pid}) {text}");
    }
}

/// Where the output of worker processes goes; see [`Config::worker_output`](crate::node::Config::worker_output).
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum WorkerOutput {
    /// To the standard streams of this process, line by line, each behind what printed it: `(square pid=1234) text`.
    #[default]
    Prefixed,
    /// Nowhere. The last lines of a worker that died still are in the error.
    Silent,
    /// To a function of the program. It is called by one thread, line by line; while it is slow, workers that print wait.
    Sink(Arc<dyn Fn(WorkerLine) + Send + Sync>),
}

impl WorkerOutput {
    /// To a function of the program.
    pub fn sink(f: impl Fn(WorkerLine) + Send + Sync + 'static) -> WorkerOutput {
        WorkerOutput::Sink(Arc::new(f))
    }
}

impl std::fmt::Debug for WorkerOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WorkerOutput::Prefixed => "Prefixed",
            WorkerOutput::Silent => "Silent",
            WorkerOutput::Sink(_) => "Sink(..)",
        })
    }
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<WorkerLine>,
    bytes: usize,
    /// Lines given up since the last that was written.
    dropped: u64,
    /// The writer is at lines that it took.
    writing: bool,
    closed: bool,
}

/// The way out for lines.
pub struct Outlet {
    to: WorkerOutput,
    queue: Mutex<Queue>,
    /// There are lines, or it is closed.
    more: Condvar,
    /// There is room, nothing is left, or it is closed.
    less: Condvar,
}

impl Outlet {
    /// Opens a way out, with its thread if it needs one.
    pub fn open(to: WorkerOutput) -> std::io::Result<Arc<Outlet>> {
        let outlet = Arc::new(Outlet {
            to,
            queue: Mutex::default(),
            more: Condvar::new(),
            less: Condvar::new(),
        });
        if !outlet.is_silent() {
            let writer = Arc::clone(&outlet);
            std::thread::Builder::new()
                .name("mobula-print".into())
                .spawn(move || writer.run())?;
        }
        Ok(outlet)
    }

    /// Whether lines need not be made at all.
    pub fn is_silent(&self) -> bool {
        matches!(self.to, WorkerOutput::Silent)
    }

    /// Queues a line. Never waits: who can, asks for room first.
    pub fn push(&self, line: WorkerLine) {
        if self.is_silent() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.bytes > HARD_BOUND {
            queue.dropped += 1;
            return;
        }
        queue.bytes += line.text.len() + LINE_COST;
        queue.lines.push_back(line);
        if queue.lines.len() == 1 {
            self.more.notify_one();
        }
    }

    /// Whether there is room.
    pub fn has_room(&self) -> bool {
        self.queue.lock().bytes < BOUND
    }

    /// Waits for room; false once it is closed.
    pub fn await_room(&self) -> bool {
        let mut queue = self.queue.lock();
        self.less
            .wait_while(&mut queue, |q| q.bytes >= BOUND && !q.closed);
        !queue.closed
    }

    /// Waits until everything is written, at most for so long, and ends the writer. One that hangs in a write is left.
    pub fn close(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut queue = self.queue.lock();
        let busy = |q: &mut Queue| q.writing || !q.lines.is_empty();
        self.less.wait_while_until(&mut queue, busy, deadline);
        queue.closed = true;
        drop(queue);
        self.more.notify_all();
        self.less.notify_all();
    }

    fn run(&self) {
        let mut text = Vec::new();
        loop {
            let mut queue = self.queue.lock();
            queue.writing = false;
            if queue.lines.is_empty() {
                self.less.notify_all();
            }
            self.more
                .wait_while(&mut queue, |q| q.lines.is_empty() && !q.closed);
            if queue.closed {
                return;
            }
            let lines = std::mem::take(&mut queue.lines);
            queue.bytes = 0;
            queue.writing = true;
            let dropped = std::mem::take(&mut queue.dropped);
            drop(queue);
            self.less.notify_all();
            self.write(lines, dropped, &mut text);
        }
    }

    fn write(&self, lines: VecDeque<WorkerLine>, dropped: u64, text: &mut Vec<u8>) {
        match &self.to {
            WorkerOutput::Silent => {}
            WorkerOutput::Sink(sink) => {
                for line in lines {
                    let told =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink(line)));
                    if let Err(payload) = told {
                        super::super::panics::discard(payload);
                    }
                }
            }
            WorkerOutput::Prefixed => {
                let mut stream = None;
                for line in &lines {
                    if stream != Some(line.stream) || text.len() >= BOUND / 8 {
                        put(stream, text);
                        stream = Some(line.stream);
                    }
                    line.prefixed(text);
                }
                put(stream, text);
                if dropped > 0 {
                    let what = format!(
                        "mobula: {dropped} lines of dead workers were dropped: this terminal did not take them\n"
                    );
                    put(Some(WorkerStream::Stderr), &mut what.into_bytes());
                }
            }
        }
    }
}

/// Writes and empties `text`. What the stream refuses is lost, as it would be to the worker that printed it.
fn put(stream: Option<WorkerStream>, text: &mut Vec<u8>) {
    let written = match stream {
        None => Ok(()),
        Some(WorkerStream::Stdout) => {
            let mut out = std::io::stdout().lock();
            out.write_all(text).and_then(|()| out.flush())
        }
        Some(WorkerStream::Stderr) => std::io::stderr().lock().write_all(text),
    };
    drop(written);
    text.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn line(n: usize) -> WorkerLine {
        WorkerLine {
            pid: 7,
            name: "square".into(),
            stream: WorkerStream::Stdout,
            text: n.to_string(),
        }
    }

    #[test]
    fn a_line_is_shown_behind_what_printed_it() {
        let mut out = Vec::new();
        line(3).prefixed(&mut out);
        assert_eq!(out, b"(square pid=7) 3\n");
    }

    #[test]
    fn lines_arrive_in_order_and_closing_waits_for_them() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seen_by = Arc::clone(&seen);
        let sink = WorkerOutput::sink(move |l| seen_by.lock().push(l.text));
        let outlet = Outlet::open(sink).unwrap();
        for n in 0..1000 {
            outlet.push(line(n));
        }
        outlet.close(Duration::from_secs(30));
        let expected: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        assert_eq!(*seen.lock(), expected);
        assert!(!outlet.await_room(), "closed");
    }

    #[test]
    fn a_sink_that_panics_gets_the_next_line_too() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seen_by = Arc::clone(&seen);
        let sink = WorkerOutput::sink(move |l| {
            seen_by.lock().push(l.text.clone());
            assert_ne!(l.text, "0", "a sink of the program");
        });
        let outlet = Outlet::open(sink).unwrap();
        outlet.push(line(0));
        outlet.push(line(1));
        outlet.close(Duration::from_secs(30));
        assert_eq!(*seen.lock(), ["0", "1"]);
    }

    #[test]
    fn a_sink_that_blocks_bounds_the_queue_and_does_not_hold_up_the_end() {
        let release = Arc::new((Mutex::new(false), Condvar::new()));
        let waits = Arc::clone(&release);
        let entered = Arc::new(AtomicBool::new(false));
        let enters = Arc::clone(&entered);
        let sink = WorkerOutput::sink(move |_| {
            enters.store(true, Ordering::SeqCst);
            let mut open = waits.0.lock();
            waits.1.wait_while(&mut open, |open| !*open);
        });
        let outlet = Outlet::open(sink).unwrap();
        outlet.push(line(0));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !entered.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        // Dead workers' lines come without asking for room.
        for _ in 0..HARD_BOUND / 1024 + 100 {
            let text = "x".repeat(1024);
            outlet.push(WorkerLine { text, ..line(0) });
        }
        let (bytes, dropped) = {
            let queue = outlet.queue.lock();
            (queue.bytes, queue.dropped)
        };
        assert!(bytes <= HARD_BOUND + 2048, "{bytes}");
        assert!(dropped > 0);
        outlet.close(Duration::from_millis(1));
        assert!(!outlet.await_room());
        *release.0.lock() = true;
        release.1.notify_all();
    }
}
