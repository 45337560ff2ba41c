//! The memory that events lie in: a pool of chunks that threads, and other processes, fill and overwrite in turn.
//!
//! ```text
//! 0     64        32,768                 words of 8 bytes
//! | head | names   | chunk | chunk | ...
//!                  | state, published, whose | event | event | ... 255
//! ```
//! A thread holds a chunk while it fills it, and takes the next by one addition and one compare-and-swap: chunks go
//! round, so the next one is the oldest, unless somebody holds it. Events of a chunk that is taken anew are counted
//! as overwritten.
//!
//! Invariant: a chunk's events belong to the ticket in its `published` word, and the first so many of them, as that word
//! says, are whole. Whoever writes holds the chunk; whoever reads copies first and then looks whether the ticket still stands.
//! Left out: what events mean (`event`), reading (`read`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use super::event::WORDS;
use super::ticks::{self, Clock};

/// Memory for events: zeros at first, the same words for every process that has it.
pub type Memory = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// What is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// All calls while they come at up to 30,000 a second and thread, and bursts of 8,192 beyond that; else a sample of
    /// them, with the rest counted. That costs at most about 2 % of a thread's time. Failures, restarts, deaths and waits
    /// are always recorded, and come on top. After a stretch of faster calls, up to 64 slow ones may pass before they are noticed.
    #[default]
    Adaptive,
    /// Everything: some 200 ns a call.
    Full,
}

impl Mode {
    /// How the processes that share a memory tell each other.
    pub fn code(self) -> u32 {
        match self {
            Mode::Off => 0,
            Mode::Adaptive => 1,
            Mode::Full => 2,
        }
    }

    /// The mode that [`code`](Self::code) stands for; what stands for none records nothing.
    pub fn from_code(code: u32) -> Mode {
        match code {
            1 => Mode::Adaptive,
            2 => Mode::Full,
            _ => Mode::Off,
        }
    }
}

const MAGIC: u64 = 0x6d6f_6275_6c61_0001;
/// Words of the head.
const HEAD: usize = 64;
/// Where the names end and the chunks begin.
const CHUNKS: usize = 32_768;
/// Words of a chunk.
const CHUNK: usize = 2048;
/// Events of a chunk.
pub(super) const EVENTS: usize = CHUNK / WORDS - 1;
/// The longest name, in bytes.
const LONGEST: usize = 200;
/// The smallest memory: names and a few chunks.
pub const SMALLEST: usize = 1 << 20;

/// Words of the head.
mod at {
    pub const MAGIC: usize = 0;
    pub const CHUNKS: usize = 1;
    pub const CLOCK: usize = 2;
    pub const TICKS: usize = 3;
    pub const NANOS: usize = 4;
    /// Seconds since 1970, in nanoseconds, when recording began.
    pub const DATE: usize = 5;
    pub const PROCESS: usize = 6;
    /// The next ticket; a line of its own, as writers add to it.
    pub const TICKET: usize = 8;
    pub const LANE: usize = 16;
    pub const NAMES: usize = 24;
    pub const OVERWRITTEN: usize = 32;
    pub const DROPPED: usize = 40;
}

/// Words of a chunk's head.
mod of {
    /// The ticket, shifted by one, and whether somebody holds the chunk.
    pub const STATE: usize = 0;
    /// The ticket, shifted by twelve, and how many events there are.
    pub const PUBLISHED: usize = 1;
    pub const LANE: usize = 2;
    pub const WHOSE: usize = 3;
}

const HELD: u64 = 1;
const COUNT: u64 = 0xfff;

/// A chunk that a thread holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The word at which it begins.
    base: usize,
    ticket: u64,
}

/// Whose events a chunk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    /// The thread's number.
    pub lane: u32,
    /// What kind of thread, as a [`Part`](super::Part).
    pub part: u32,
    /// Its name.
    pub name: u32,
    /// Its process.
    pub process: u32,
}

/// A memory of events, and how to write to it.
pub struct Recorder {
    memory: Memory,
    chunks: usize,
    clock: Clock,
    mode: Mode,
    process: u32,
    /// What the program is called, if it is not this one.
    program: Option<String>,
    /// Names that this process has put into the memory.
    known: Mutex<HashMap<Box<str>, u32>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("chunks", &self.chunks)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins a recording in fresh memory; `None` if it is smaller than [`SMALLEST`].
    pub fn create(memory: Memory, mode: Mode) -> Option<Recorder> {
        let clock = Clock::best();
        let recorder = Recorder::over(memory, clock, mode)?;
        let words = recorder.words();
        let date = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        words[at::CHUNKS].store(recorder.chunks as u64, Ordering::Relaxed);
        words[at::CLOCK].store(clock.code(), Ordering::Relaxed);
        words[at::TICKS].store(clock.now(), Ordering::Relaxed);
        words[at::NANOS].store(ticks::system(), Ordering::Relaxed);
        words[at::DATE].store(date, Ordering::Relaxed);
        words[at::PROCESS].store(recorder.process.into(), Ordering::Relaxed);
        words[at::NAMES].store(HEAD as u64, Ordering::Relaxed);
        words[at::MAGIC].store(MAGIC, Ordering::Release);
        Some(recorder)
    }

    /// Joins a recording that another process began; `None` if the memory holds none.
    pub fn attach(memory: Memory, mode: Mode) -> Option<Recorder> {
        let (magic, clock) = {
            let words = (*memory).as_ref();
            let word = |at: usize| Some(words.get(at)?.load(Ordering::Acquire));
            (word(at::MAGIC)?, word(at::CLOCK)?)
        };
        if magic != MAGIC {
            return None;
        }
        Recorder::over(memory, Clock::from_code(clock), mode)
    }

    /// Looks at a recording of another program, with this name; `None` if the memory holds none that this version reads.
    pub fn of(program: String, memory: Memory) -> Option<Recorder> {
        let recorder = Recorder::attach(memory, Mode::Off)?;
        Some(Recorder {
            program: Some(program),
            ..recorder
        })
    }

    fn over(memory: Memory, clock: Clock, mode: Mode) -> Option<Recorder> {
        let words = (*memory).as_ref().len();
        if words < SMALLEST / 8 {
            return None;
        }
        Some(Recorder {
            chunks: (words - CHUNKS) / CHUNK,
            memory,
            clock,
            mode,
            process: std::process::id(),
            program: None,
            known: Mutex::default(),
        })
    }

    /// The memory, for whoever maps or reads it next.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    pub(super) fn words(&self) -> &[AtomicU64] {
        (*self.memory).as_ref()
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Now, in ticks.
    pub fn ticks(&self) -> u64 {
        self.clock.now()
    }

    /// What is recorded.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    fn head(&self, at: usize) -> u64 {
        self.words()[at].load(Ordering::Relaxed)
    }

    /// Ticks, and the system's clock, when recording began, and the date in nanoseconds since 1970.
    pub(super) fn origin(&self) -> (u64, u64, u64) {
        (
            self.head(at::TICKS),
            self.head(at::NANOS),
            self.head(at::DATE),
        )
    }

    /// When recording began, in nanoseconds since 1970.
    #[cfg(feature = "otel")]
    pub fn date(&self) -> u64 {
        self.head(at::DATE)
    }

    /// The process that began the recording.
    pub(super) fn process(&self) -> u32 {
        self.head(at::PROCESS) as u32
    }

    /// What that process is called.
    pub(super) fn program(&self) -> String {
        if let Some(name) = &self.program {
            return name.clone();
        }
        let program = std::env::current_exe().ok();
        let program = program.as_ref().and_then(|p| p.file_name());
        program.map_or_else(|| "node".into(), |p| p.to_string_lossy().into_owned())
    }

    /// Nanoseconds since the recording began, for windows.
    pub fn now(&self) -> u64 {
        let (ticks, nanos, _) = self.origin();
        ticks::Scale::measure(self.clock, ticks, nanos).nanos(self.clock.now())
    }

    /// How many events were overwritten by newer ones, and how many found no room since every chunk was held.
    pub fn lost(&self) -> (u64, u64) {
        (self.head(at::OVERWRITTEN), self.head(at::DROPPED))
    }

    pub(super) fn next_lane(&self) -> u32 {
        let before = self.words()[at::LANE].fetch_add(1, Ordering::Relaxed);
        (before as u32).wrapping_add(1)
    }

    /// An event found no room.
    pub(super) fn drop_one(&self) {
        self.words()[at::DROPPED].fetch_add(1, Ordering::Relaxed);
    }

    /// As long as this lives nobody else gets a number for a name that is new to a thread.
    #[cfg(test)]
    pub(super) fn lock_names(&self) -> impl Drop + '_ {
        self.known.lock().unwrap()
    }

    /// A number for a name, the same for the same name; 0 if there is no room for more names. The first time a process
    /// uses a name it takes a lock.
    pub fn name(&self, name: &str) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known.get(name) {
            return *id;
        }
        let id = self.write_name(name);
        if id != 0 {
            known.insert(name.into(), id);
        }
        id
    }

    fn write_name(&self, name: &str) -> u32 {
        let bytes = &name.as_bytes()[..name.floor_char_boundary(LONGEST)];
        if bytes.is_empty() {
            return 0;
        }
        let n = 1 + bytes.len().div_ceil(8);
        let begin = self.words()[at::NAMES].fetch_add(n as u64, Ordering::Relaxed);
        let begin = usize::try_from(begin).unwrap_or(usize::MAX);
        if begin < HEAD || begin.saturating_add(n) > CHUNKS {
            // Not counted on, or names could one day begin anew at the front.
            self.words()[at::NAMES].store(CHUNKS as u64, Ordering::Relaxed);
            return 0;
        }
        let words = &self.words()[begin..begin + n];
        for (word, piece) in words[1..].iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..piece.len()].copy_from_slice(piece);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
        words[0].store(bytes.len() as u64, Ordering::Release);
        begin as u32
    }

    /// The name with this number; `None` if there is none.
    pub(super) fn read_name(&self, id: u32) -> Option<String> {
        let begin = id as usize;
        if !(HEAD..CHUNKS).contains(&begin) {
            return None;
        }
        let len = self.words()[begin].load(Ordering::Acquire);
        let len = usize::try_from(len)
            .ok()
            .filter(|len| (1..=LONGEST).contains(len))?;
        let words = self.words()[..CHUNKS].get(begin + 1..begin + 1 + len.div_ceil(8))?;
        let mut bytes: Vec<u8> = words
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        bytes.truncate(len);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a lane is called.
    pub(super) fn lane_name(&self, whose: Whose) -> String {
        let name = self.read_name(whose.name);
        let name = name.unwrap_or_else(|| "a thread".to_owned());
        let number = name.strip_prefix("mobula-").unwrap_or(&name);
        match whose.part {
            p if p == super::Part::Driver as u32 => format!("driver {name}"),
            p if p == super::Part::Executor as u32 => format!("executor {number}"),
            p if p == super::Part::Async as u32 => format!("async {number}"),
            p if p == super::Part::Store as u32 => format!("store {number}"),
            _ => format!("worker {} {number}", whose.process),
        }
    }

    /// Takes the oldest chunk that nobody holds; `None` if all are held.
    pub(super) fn take(&self, whose: Whose) -> Option<Held> {
        for _ in 0..self.chunks {
            let turn = self.words()[at::TICKET].fetch_add(1, Ordering::Relaxed);
            let base = self.base((turn % self.chunks as u64) as usize);
            let chunk = &self.words()[base..base + WORDS];
            let state = chunk[of::STATE].load(Ordering::Relaxed);
            let ticket = turn.wrapping_add(1) & (u64::MAX >> 12);
            if state & HELD != 0
                || chunk[of::STATE]
                    .compare_exchange(
                        state,
                        ticket << 1 | HELD,
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    )
                    .is_err()
            {
                continue;
            }
            let before = chunk[of::PUBLISHED].load(Ordering::Relaxed);
            if before >> 12 == state >> 1 {
                self.words()[at::OVERWRITTEN].fetch_add(before & COUNT, Ordering::Relaxed);
            }
            // Whoever sees anything written below sees the new ticket too.
            fence(Ordering::Release);
            chunk[of::LANE].store(
                u64::from(whose.lane) | u64::from(whose.part) << 32,
                Ordering::Relaxed,
            );
            chunk[of::WHOSE].store(
                u64::from(whose.name) | u64::from(whose.process) << 32,
                Ordering::Relaxed,
            );
            let held = Held { base, ticket };
            self.publish(held, 0);
            return Some(held);
        }
        None
    }

    pub(super) fn base(&self, chunk: usize) -> usize {
        CHUNKS + chunk * CHUNK
    }

    #[inline]
    fn publish(&self, held: Held, count: usize) {
        self.words()[held.base + of::PUBLISHED]
            .store(held.ticket << 12 | count as u64, Ordering::Release);
    }

    /// Writes the event that makes `at + 1` of them.
    #[inline]
    pub(super) fn write(&self, held: Held, at: usize, event: [u64; WORDS]) {
        let begin = held.base + (at + 1) * WORDS;
        for (to, word) in self.words()[begin..begin + WORDS].iter().zip(event) {
            to.store(word, Ordering::Relaxed);
        }
        self.publish(held, at + 1);
    }

    /// Replaces an event of the chunk that is held; readers see the old kind with old or new words, or all of the new.
    #[inline]
    pub(super) fn rewrite(&self, held: Held, at: usize, event: [u64; WORDS]) {
        let begin = held.base + (at + 1) * WORDS;
        let words = &self.words()[begin..begin + WORDS];
        for (to, word) in words[1..].iter().zip(&event[1..]) {
            to.store(*word, Ordering::Relaxed);
        }
        words[0].store(event[0], Ordering::Release);
    }

    /// Lets go of a chunk: its events stay until it is taken anew.
    pub(super) fn release(&self, held: Held) {
        let state = &self.words()[held.base + of::STATE];
        let _ = state.compare_exchange(
            held.ticket << 1 | HELD,
            held.ticket << 1,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }

    /// Lets go of the chunks of a process that ended without doing so. Its events stay until they are overwritten.
    /// One that it had taken, but not yet put its name to, is lost to the others.
    pub fn release_process(&self, process: u32) {
        for chunk in 0..self.chunks {
            let base = self.base(chunk);
            let state = self.words()[base + of::STATE].load(Ordering::Acquire);
            let published = self.words()[base + of::PUBLISHED].load(Ordering::Acquire);
            // Else the name may still be that of whoever had the chunk before.
            let named = published >> 12 == state >> 1;
            if state & HELD != 0 && named && self.whose(base).process == process {
                self.release(Held {
                    base,
                    ticket: state >> 1,
                });
            }
        }
    }

    fn whose(&self, base: usize) -> Whose {
        let lane = self.words()[base + of::LANE].load(Ordering::Relaxed);
        let whose = self.words()[base + of::WHOSE].load(Ordering::Relaxed);
        Whose {
            lane: lane as u32,
            part: (lane >> 32) as u32,
            name: whose as u32,
            process: (whose >> 32) as u32,
        }
    }

    /// The ticket of the chunk at this word; 0 if it was never taken.
    pub(super) fn ticket(&self, base: usize) -> u64 {
        self.words()[base + of::STATE].load(Ordering::Acquire) >> 1
    }

    /// Whether somebody may still write to the chunk at this word.
    #[cfg(any(feature = "dashboard", feature = "otel"))]
    pub(super) fn is_held(&self, base: usize) -> bool {
        self.words()[base + of::STATE].load(Ordering::Acquire) & HELD != 0
    }

    /// A number that is another one once anything was recorded, but for the end of a call that stands where its beginning
    /// stood. Reads two words of each chunk.
    #[cfg(feature = "dashboard")]
    pub fn generation(&self) -> u64 {
        let lost = self
            .head(at::OVERWRITTEN)
            .wrapping_add(self.head(at::DROPPED));
        (0..self.chunks).fold(lost, |sum, chunk| {
            let base = self.base(chunk);
            let word = |at: usize| self.words()[base + at].load(Ordering::Relaxed);
            let both = word(of::STATE).rotate_left(32) ^ word(of::PUBLISHED);
            // An odd factor and a rotation: what changes in one chunk is not undone by what changes in another.
            (sum.rotate_left(5) ^ both).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }

    /// Copies a chunk's events; `None` if it is, or meanwhile was, taken under another ticket.
    pub(super) fn copy(
        &self,
        base: usize,
        ticket: u64,
        to: &mut Vec<[u64; WORDS]>,
    ) -> Option<Whose> {
        to.clear();
        let published = self.words()[base + of::PUBLISHED].load(Ordering::Acquire);
        if published >> 12 != ticket || self.ticket(base) != ticket {
            return None;
        }
        let whose = self.whose(base);
        let count = ((published & COUNT) as usize).min(EVENTS);
        let events = &self.words()[base + WORDS..base + (1 + count) * WORDS];
        for event in events.chunks_exact(WORDS) {
            // The first word first: what `rewrite` wrote before it is then seen.
            to.push(std::array::from_fn(|i| {
                event[i].load(if i == 0 {
                    Ordering::Acquire
                } else {
                    Ordering::Relaxed
                })
            }));
        }
        fence(Ordering::Acquire);
        (self.ticket(base) == ticket).then_some(whose)
    }
}
