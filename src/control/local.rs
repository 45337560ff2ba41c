//! Records that this process keeps, in memory or in a file.
//!
//! One thread writes. It takes what has gathered while the last batch was synced, decides it in order, keeps it as
//! one, and answers: many writers share one sync. Reads are answered by whoever asks, from the table. The thread also
//! ends leases.
//!
//! Invariant: a write is answered after it is safe, and read by nobody before. If the file fails, nothing is written
//! any more: what it holds then cannot be known, and is read at the next start. Left out: how a batch is decided
//! (`table`), files (`file`).

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::file::File;
use super::table::{Done, Table, Write};
use super::watch::Watch;
use super::{
    Control, ControlError, Expect, Lease, LeaseId, Listing, Record, Result, Revision, check_key,
    check_prefix, check_ttl, check_value, until,
};

/// How many writes may wait for the thread.
const QUEUE_MAX: usize = 1024;
/// How many are one batch, and how many bytes.
const BATCH_MAX: usize = 256;
const BATCH_BYTES: usize = 8 << 20;

struct Pending {
    write: Write,
    answer: SyncSender<Result<Done>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    closed: bool,
}

struct Shared {
    table: Mutex<Table>,
    queue: Mutex<Queue>,
    /// There is something to do.
    work: Condvar,
    /// There is room in the queue.
    room: Condvar,
    /// Batches that were kept.
    batches: AtomicU64,
}

/// Records in this process.
pub struct Local {
    shared: Arc<Shared>,
    address: String,
    thread: Option<JoinHandle<()>>,
}

impl Local {
    /// Records that go with the process.
    pub fn in_memory() -> Local {
        Local::start(Table::default(), None)
    }

    /// Records in a folder, which is made if need be.
    pub fn in_folder(folder: &Path) -> Result<Local> {
        let (file, table) = File::open(folder)?;
        Ok(Local::start(table, Some(file)))
    }

    fn start(table: Table, file: Option<File>) -> Local {
        let address = file.as_ref().map_or("memory:".to_owned(), |file| {
            file.path().display().to_string()
        });
        let shared = Arc::new(Shared {
            table: Mutex::new(table),
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            batches: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let name = "mobula-control".to_owned();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || theirs.run(file.as_ref()));
        if thread.is_err() {
            shared.queue.lock().closed = true;
        }
        Local {
            shared,
            address,
            thread: thread.ok(),
        }
    }

    /// How many batches were kept.
    #[cfg(test)]
    pub fn batches(&self) -> u64 {
        self.shared.batches.load(Ordering::Relaxed)
    }

    fn write(&self, what: &str, write: Write, within: Duration) -> Result<Done> {
        let until = until(within);
        let timeout = || ControlError::Timeout {
            what: what.to_owned(),
            within,
        };
        let (answer, answered) = mpsc::sync_channel(1);
        {
            let mut queue = self.shared.queue.lock();
            while queue.waiting.len() >= QUEUE_MAX && !queue.closed {
                if self.shared.room.wait_until(&mut queue, until).timed_out() {
                    return Err(timeout());
                }
            }
            if queue.closed {
                return Err(ControlError::Closed);
            }
            queue.waiting.push_back(Pending { write, answer });
            self.shared.work.notify_one();
        }
        match answered.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout) => Err(timeout()),
            Err(RecvTimeoutError::Disconnected) => Err(ControlError::Closed),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        if let Some(thread) = self.thread.take() {
            // What it died of, it said.
            drop(thread.join());
        }
        self.shared.table.lock().close(&ControlError::Closed);
    }
}

impl Shared {
    fn run(&self, file: Option<&File>) {
        loop {
            let (batch, closed) = self.gather();
            if !batch.is_empty() {
                self.keep(batch, file);
            } else if closed {
                return;
            }
        }
    }

    /// What waits, once something does, a lease ends, or all is over.
    fn gather(&self) -> (Vec<Pending>, bool) {
        let mut queue = self.queue.lock();
        loop {
            // A lease that is granted or prolonged meanwhile ends later than this.
            let next_end = self.table.lock().next_end();
            let now = Instant::now();
            if !queue.waiting.is_empty() || queue.closed || next_end.is_some_and(|end| end <= now) {
                break;
            }
            match next_end {
                Some(end) => drop(self.work.wait_until(&mut queue, end)),
                None => self.work.wait(&mut queue),
            }
        }
        let closed = queue.closed;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES {
            let Some(pending) = queue.waiting.pop_front() else {
                break;
            };
            if let Write::Put { value, .. } = &pending.write {
                bytes += value.len();
            }
            batch.push(pending);
        }
        self.room.notify_all();
        drop(queue);
        // Those who are told that a lease has ended find its records gone.
        let now = Instant::now();
        let ended = self.table.lock().ended(now);
        let ends = ended.into_iter().take(BATCH_MAX).map(|lease| Pending {
            write: Write::Revoke {
                lease,
                expired: Some(now),
            },
            answer: mpsc::sync_channel(1).0,
        });
        let batch: Vec<Pending> = if closed {
            batch
        } else {
            ends.chain(batch).collect()
        };
        (batch, closed)
    }

    fn keep(&self, batch: Vec<Pending>, file: Option<&File>) {
        let (writes, answers): (Vec<Write>, Vec<SyncSender<Result<Done>>>) = batch
            .into_iter()
            .map(|pending| (pending.write, pending.answer))
            .unzip();
        let (mut outcomes, staged) = {
            let mut table = self.table.lock();
            match &table.broken {
                Some(why) => (vec![Err(why.clone()); writes.len()], None),
                None => {
                    let (outcomes, staged) = table.stage(&writes);
                    (outcomes, Some(staged))
                }
            }
        };
        if let Some(staged) = staged {
            let kept = match file {
                Some(file) if !staged.is_empty() => file.keep(&staged),
                _ => Ok(()),
            };
            let mut table = self.table.lock();
            match kept {
                Ok(()) => {
                    table.commit(staged, Instant::now());
                    self.batches.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    table.abandon();
                    table.close(&why);
                    table.broken = Some(why.clone());
                    outcomes = vec![Err(why); writes.len()];
                }
            }
        } else {
            // Leases cannot end where nothing is written; the thread is not to try at once again.
            self.table
                .lock()
                .suspend(Instant::now() + Duration::from_secs(1));
        }
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have given up.
            drop(answer.try_send(outcome));
        }
    }
}

impl Control for Local {
    fn get(&self, key: &str, _: Duration) -> Result<Option<Record>> {
        check_key(key)?;
        Ok(self.shared.table.lock().get(key))
    }

    fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> Result<Revision> {
        check_key(key)?;
        check_value(key, value)?;
        let write = Write::Put {
            key: key.to_owned(),
            value: value.to_vec(),
            expect,
            lease,
        };
        match self.write(&format!("writing {key:?}"), write, within)? {
            Done::Revision(revision) => Ok(revision),
            _ => Err(ControlError::Closed),
        }
    }

    fn delete(&self, key: &str, expect: Expect, within: Duration) -> Result<bool> {
        check_key(key)?;
        let write = Write::Delete {
            key: key.to_owned(),
            expect,
        };
        Ok(self.write(&format!("deleting {key:?}"), write, within)? == Done::Was(true))
    }

    fn list(&self, prefix: &str, _: Duration) -> Result<Listing> {
        check_prefix(prefix)?;
        Ok(self.shared.table.lock().list(prefix))
    }

    fn watch(&self, prefix: &str, from: Revision, _: Duration) -> Result<Watch> {
        check_prefix(prefix)?;
        let mut table = self.shared.table.lock();
        if let Some(why) = &table.broken {
            return Err(why.clone());
        }
        Ok(Watch::new(table.watch(prefix, from)?, None))
    }

    fn grant(&self, ttl: Duration, within: Duration) -> Result<Lease> {
        check_ttl(ttl)?;
        match self.write("granting a lease", Write::Grant { ttl }, within)? {
            Done::Granted(lease) => Ok(lease),
            _ => Err(ControlError::Closed),
        }
    }

    fn keep_alive(&self, lease: LeaseId, _: Duration) -> Result<()> {
        self.shared.table.lock().keep_alive(lease, Instant::now())
    }

    fn revoke(&self, lease: LeaseId, within: Duration) -> Result<bool> {
        let write = Write::Revoke {
            lease,
            expired: None,
        };
        Ok(self.write("ending a lease", write, within)? == Done::Was(true))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
