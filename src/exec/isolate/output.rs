//! What workers print: one thread reads the pipes of all of them.
//!
//! Invariant: a stream's lines leave in the order they were printed; memory is bounded (what is not read stays in the
//! pipe, and its worker waits); everything that a worker printed before its death is read before its report is made.
//! Left out: making lines (`lines`), where they go (`sink`).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, epoll};
use rustix::fs::OFlags;

use super::lines::{Lines, Tail};
use super::sink::{Outlet, WorkerLine, WorkerOutput, WorkerStream};

/// Bytes read from one stream before another has its turn.
const CHUNK: usize = 16 << 10;
/// The event that is not a stream's: the reader is to look whether it is still wanted.
const WAKE: u64 = u64::MAX;
const STREAMS: [WorkerStream; 2] = [WorkerStream::Stdout, WorkerStream::Stderr];

/// Reads what all workers of a node print.
pub struct Output(Arc<Reader>);

struct Reader {
    epoll: OwnedFd,
    wake: OwnedFd,
    outlet: Arc<Outlet>,
    captured: Mutex<Captures>,
}

#[derive(Default)]
struct Captures {
    next: u64,
    live: HashMap<u64, Arc<Mutex<Printed>>>,
    closed: bool,
}

/// What one worker prints.
struct Printed {
    pid: u32,
    name: Box<dyn Fn() -> Arc<str> + Send>,
    streams: [Stream; 2],
    tail: Tail,
}

#[derive(Default)]
struct Stream {
    /// None once it has ended.
    pipe: Option<OwnedFd>,
    lines: Lines,
}

impl Output {
    /// Begins, with threads that sleep until something is printed.
    pub fn start(to: WorkerOutput) -> io::Result<Output> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &wake, data, epoll::EventFlags::IN)?;
        let reader = Arc::new(Reader {
            epoll,
            wake,
            outlet: Outlet::open(to)?,
            captured: Mutex::default(),
        });
        let run = Arc::clone(&reader);
        let output = Output(reader);
        std::thread::Builder::new()
            .name("mobula-output".into())
            .spawn(move || run.run())?;
        Ok(output)
    }

    /// Begins to read what the worker `pid` prints into these two pipes. `name` says what it runs at the time.
    pub fn capture(
        &self,
        pid: u32,
        name: impl Fn() -> Arc<str> + Send + 'static,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> io::Result<Captured> {
        for pipe in [&stdout, &stderr] {
            let flags = rustix::fs::fcntl_getfl(pipe)?;
            rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?;
        }
        let stream = |pipe| Stream {
            pipe: Some(pipe),
            ..Stream::default()
        };
        let printed = Arc::new(Mutex::new(Printed {
            pid,
            name: Box::new(name),
            streams: [stream(stdout), stream(stderr)],
            tail: Tail::default(),
        }));
        let mut captured = self.0.captured.lock();
        let id = captured.next;
        captured.next += 1;
        captured.live.insert(id, Arc::clone(&printed));
        drop(captured);
        let this = Captured {
            reader: Arc::clone(&self.0),
            id,
            printed,
        };
        for (n, stream) in this.printed.lock().streams.iter().enumerate() {
            if let Some(pipe) = &stream.pipe {
                let data = epoll::EventData::new_u64(id * 2 + n as u64);
                epoll::add(&self.0.epoll, pipe, data, epoll::EventFlags::IN)?;
            }
        }
        Ok(this)
    }

    /// Ends: what is read is written first, unless that takes longer than `patience`.
    pub fn close(&self, patience: Duration) {
        self.0.captured.lock().closed = true;
        self.0.outlet.close(patience);
        // An event counter that is never read out takes one more.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Reader {
    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut buffer = vec![0; CHUNK];
        // Without room nothing is read: the pipes fill, and workers that print wait.
        while self.outlet.await_room() {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                let data = event.data.u64();
                if data == WAKE {
                    if self.captured.lock().closed {
                        return;
                    }
                    continue;
                }
                let printed = self.captured.lock().live.get(&(data / 2)).cloned();
                if let Some(printed) = printed {
                    printed.lock().pump(self, (data % 2) as usize, &mut buffer);
                }
            }
        }
    }
}

impl Printed {
    /// Reads once; whether there was anything.
    fn pump(&mut self, reader: &Reader, n: usize, buffer: &mut [u8]) -> usize {
        let Printed {
            pid,
            name,
            streams,
            tail,
        } = self;
        let stream = &mut streams[n];
        let Some(pipe) = &stream.pipe else { return 0 };
        let read = match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut *buffer)) {
            Ok(read) => read,
            Err(rustix::io::Errno::AGAIN) => return 0,
            // Ends like one that was closed: there is no more to be had from it.
            Err(_) => 0,
        };
        let mut label = None;
        let line = |text: String| {
            tail.push(&text);
            if !reader.outlet.is_silent() {
                let name = Arc::clone(label.get_or_insert_with(&*name));
                reader.outlet.push(WorkerLine {
                    pid: *pid,
                    name,
                    stream: STREAMS[n],
                    text,
                });
            }
        };
        if read > 0 {
            stream.lines.feed(&buffer[..read], line);
        } else {
            stream.lines.finish(line);
            let _ = epoll::delete(&reader.epoll, pipe);
            stream.pipe = None;
        }
        read
    }

    /// Reads what there is and ends the stream. Bounded by what a pipe holds: a process that the worker left behind may
    /// still be printing into it.
    fn drain(&mut self, reader: &Reader, n: usize, buffer: &mut [u8]) {
        let holds = self.streams[n]
            .pipe
            .as_ref()
            .and_then(|pipe| rustix::pipe::fcntl_getpipe_size(pipe.as_fd()).ok())
            .unwrap_or(1 << 16);
        let mut left = holds;
        while left > 0 {
            match self.pump(reader, n, buffer) {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        let stream = &mut self.streams[n];
        if let Some(pipe) = stream.pipe.take() {
            let _ = epoll::delete(&reader.epoll, &pipe);
        }
        let (name, pid, tail) = (&self.name, self.pid, &mut self.tail);
        stream.lines.finish(|text| {
            tail.push(&text);
            reader.outlet.push(WorkerLine {
                pid,
                name: name(),
                stream: STREAMS[n],
                text,
            });
        });
    }
}

/// What one worker prints, for as long as it lives.
pub struct Captured {
    reader: Arc<Reader>,
    id: u64,
    printed: Arc<Mutex<Printed>>,
}

impl Captured {
    /// Reads what is there, so that it is told apart from what comes next; not while nobody takes it.
    pub fn catch_up(&self) {
        let mut printed = self.printed.lock();
        let mut buffer = [0; 2048];
        for n in 0..STREAMS.len() {
            // No more than a pipe holds: something else of the worker's may be printing on.
            for _ in 0..(1 << 16) / buffer.len() {
                if !self.reader.outlet.has_room() || printed.pump(&self.reader, n, &mut buffer) == 0
                {
                    break;
                }
            }
        }
    }

    /// The last `n` lines that were read, oldest first, and how many there have been; `None` while whoever takes them holds
    /// them up.
    pub fn last(&self, n: usize) -> Option<(Vec<String>, u64)> {
        let printed = self.printed.try_lock_for(Duration::from_millis(10));
        printed.map(|p| p.tail.last(n))
    }

    /// The worker is dead: reads what is left in its pipes and gives the last of it.
    pub fn finish(self) -> Tail {
        self.end()
    }

    fn end(&self) -> Tail {
        let mut printed = self.printed.lock();
        let mut buffer = vec![0; CHUNK];
        for n in 0..STREAMS.len() {
            printed.drain(&self.reader, n, &mut buffer);
        }
        let tail = std::mem::take(&mut printed.tail);
        drop(printed);
        let gone = self.reader.captured.lock().live.remove(&self.id);
        drop(gone);
        tail
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
