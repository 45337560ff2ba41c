//! Pairs of rings in shared memory: frames of bytes from one process to another and back, without system calls while
//! both sides are awake.
//!
//! A *lane* is two rings, one each way. Each ring has one sender and one receiver. A frame is a length, a word that says
//! what it is, and its bytes; it never waits for room: what does not fit is refused, since whoever talks over a lane
//! takes turns.
//!
//! ```text
//! 0      64     128    192    256                256 + size
//! | tail | head | bell | note | frames, wrapping |      one ring
//! ```
//! Invariant: positions and lengths that the other process wrote are claims: they are checked before use, and bytes are
//! copied out before anybody looks at them. Left out: what frames mean (see `exec`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

#[cfg(all(any(test, fuzzing), not(miri), not(loom)))]
pub mod fuzz;

use super::futex::Bell;
use super::sync::AtomicU32;

/// Bytes of frames that one ring holds.
const SIZE: usize = 128 << 10;
const TAIL: usize = 0;
const HEAD: usize = 64;
const BELL: usize = 128;
const NOTE: usize = 192;
const DATA: usize = 256;
/// One ring with its positions, in whole pages.
const RING: usize = (DATA + SIZE).next_multiple_of(4096);
/// A frame's own words: its length and what it is.
const HEADER: usize = 8;
/// Frames begin at multiples of this.
const GRAIN: usize = 8;

/// Looked for so long, a receiver lets others run in between.
const SHARED: Duration = Duration::from_micros(2);

/// The longest frame: what an empty ring takes.
pub const MAX_FRAME: usize = SIZE - HEADER;

/// The memory of some lanes, shared by two processes.
pub struct Lanes {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    /// This process made them.
    owner: bool,
    /// Which lanes' ends were handed out.
    taken: Mutex<Vec<bool>>,
}

// SAFETY: the mapping belongs to this value alone and `base` is only an address; all access goes through the ends of
// rings, of which each exists once in this process.
unsafe impl Send for Lanes {}
// SAFETY: as above.
unsafe impl Sync for Lanes {}

impl Lanes {
    /// Makes the memory of `lanes` lanes, untouched: it costs nothing before it is used.
    pub fn create(lanes: usize) -> io::Result<Arc<Lanes>> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("mobula-lanes", flags)?;
        rustix::fs::ftruncate(&file, (lanes * 2 * RING) as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        Lanes::map(file, lanes, true)
    }

    /// Maps what another process created. Fails if the file is not what `create` makes.
    pub fn attach(file: OwnedFd, lanes: usize) -> io::Result<Arc<Lanes>> {
        let stat = rustix::fs::fstat(&file)?;
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        let len = lanes.checked_mul(2 * RING);
        if !sealed || len.is_none() || u64::try_from(stat.st_size).ok() != len.map(|l| l as u64) {
            let why = "the file of the lanes has another size, or could be cut short";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Lanes::map(file, lanes, false)
    }

    fn map(file: OwnedFd, lanes: usize, owner: bool) -> io::Result<Arc<Lanes>> {
        let len = lanes * 2 * RING;
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Lanes {
            base,
            len,
            file,
            owner,
            taken: Mutex::new(vec![false; lanes]),
        }))
    }

    /// The file, for the other process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many lanes there are.
    pub fn count(&self) -> usize {
        self.taken.lock().len()
    }

    /// This process's ends of lane `i`, once; `None` if they were taken before, or there is no such lane.
    pub fn ends(self: &Arc<Self>, i: usize) -> Option<(Sender, Receiver)> {
        if std::mem::replace(self.taken.lock().get_mut(i)?, true) {
            return None;
        }
        let (out, back) = if self.owner {
            (2 * i, 2 * i + 1)
        } else {
            (2 * i + 1, 2 * i)
        };
        let sender = Sender {
            ring: self.ring(out),
            tail: 0,
            head: 0,
        };
        let receiver = Receiver {
            ring: self.ring(back),
            head: 0,
        };
        Some((sender, receiver))
    }

    fn ring(self: &Arc<Self>, n: usize) -> Ring {
        // SAFETY: ring `n` lies inside the mapping.
        let base = unsafe { self.base.add(n * RING) };
        Ring {
            base,
            _lanes: Arc::clone(self),
        }
    }

    /// Leaves a word beside the frames to the other process on lane `i`, over the one before.
    pub fn note(self: &Arc<Self>, i: usize, note: u32) {
        assert!(i < self.count(), "lane {i} of {}", self.count());
        let ring = self.ring(2 * i + usize::from(!self.owner));
        ring.word(NOTE).store(note, Ordering::Release);
    }

    /// Wakes everybody in this process who waits for a frame, because none will come.
    pub fn wake_receivers(self: &Arc<Self>) {
        for i in 0..self.count() {
            self.ring(2 * i + usize::from(self.owner)).bell().shake();
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; the ends of rings keep this value alive.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

struct Ring {
    base: NonNull<u8>,
    /// Keeps the memory mapped.
    _lanes: Arc<Lanes>,
}

// SAFETY: an address in memory that `_lanes` keeps mapped; words are atomics, data is touched by the ring's one end only.
unsafe impl Send for Ring {}

impl Ring {
    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `at` is one of the constants: inside the ring, aligned; the mapping lives as long as self. Both
        // processes access it atomically only.
        unsafe { self.base.add(at).cast().as_ref() }
    }

    fn bell(&self) -> &Bell {
        // SAFETY: as in `word`: two words that are atomics.
        unsafe { self.base.add(BELL).cast().as_ref() }
    }

    /// Copies `bytes` to position `at`, wrapping.
    fn put(&self, at: u32, bytes: &[u8]) {
        let at = at as usize % SIZE;
        let first = bytes.len().min(SIZE - at);
        // SAFETY: both pieces lie inside the ring's data; the receiver does not look there before `tail` says so.
        unsafe {
            let data = self.base.add(DATA).as_ptr();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(at), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), data, bytes.len() - first);
        }
    }

    /// Copies `bytes.len()` bytes from position `at`, wrapping.
    fn get(&self, at: u32, bytes: &mut [u8]) {
        let at = at as usize % SIZE;
        let first = bytes.len().min(SIZE - at);
        // SAFETY: both pieces lie inside the ring's data. A sender that lies may write there now: then some bytes are
        // neither old nor new, which the reader of the copy must bear like any other garbage.
        unsafe {
            let data = self.base.add(DATA).as_ptr();
            std::ptr::copy_nonoverlapping(data.add(at), bytes.as_mut_ptr(), first);
            let rest = bytes.len() - first;
            std::ptr::copy_nonoverlapping(data, bytes.as_mut_ptr().add(first), rest);
        }
    }
}

/// The frame does not fit into the ring now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The other process wrote what no sender writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lied;

/// The sending end of a ring.
pub struct Sender {
    ring: Ring,
    tail: u32,
    /// The receiver's position as it was seen last.
    head: u32,
}

impl Sender {
    /// Sends one frame, which is `parts` joined. Does not block.
    #[inline]
    pub fn send(&mut self, what: u32, parts: &[&[u8]]) -> Result<(), Full> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if len > MAX_FRAME {
            return Err(Full);
        }
        let whole = HEADER + len.next_multiple_of(GRAIN);
        if whole > SIZE.saturating_sub(self.used()) {
            // A position that lies leaves less room, none, or all of it: each only spoils frames to the liar.
            self.head = self.ring.word(HEAD).load(Ordering::Acquire);
            if whole > SIZE.saturating_sub(self.used()) {
                return Err(Full);
            }
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&(len as u32).to_le_bytes());
        header[4..].copy_from_slice(&what.to_le_bytes());
        self.ring.put(self.tail, &header);
        let mut at = self.tail.wrapping_add(HEADER as u32);
        for part in parts {
            self.ring.put(at, part);
            at = at.wrapping_add(part.len() as u32);
        }
        self.tail = self.tail.wrapping_add(whole as u32);
        self.ring.word(TAIL).store(self.tail, Ordering::Release);
        self.ring.bell().ring();
        Ok(())
    }

    fn used(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }
}

/// The receiving end of a ring.
pub struct Receiver {
    ring: Ring,
    head: u32,
}

impl Receiver {
    /// Whether the next frame, or a lie, is there.
    #[inline]
    pub fn ready(&self) -> bool {
        self.ring.word(TAIL).load(Ordering::Acquire) != self.head
    }

    /// The word that the other process left last.
    pub fn note(&self) -> u32 {
        self.ring.word(NOTE).load(Ordering::Acquire)
    }

    /// Takes the next frame: its bytes into `to`, whose contents are replaced. What it is; `None` if none is there.
    #[inline]
    pub fn take(&mut self, to: &mut Aligned) -> Result<Option<u32>, Lied> {
        let tail = self.ring.word(TAIL).load(Ordering::Acquire);
        let there = tail.wrapping_sub(self.head) as usize;
        if there == 0 {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        if !(HEADER..=SIZE).contains(&there) || !there.is_multiple_of(GRAIN) {
            return Err(Lied);
        }
        self.ring.get(self.head, &mut header);
        let (len, what) = header.split_at(4);
        let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let (len, what) = (word(len) as usize, word(what));
        if len > there - HEADER {
            return Err(Lied);
        }
        let at = self.head.wrapping_add(HEADER as u32);
        self.ring.get(at, to.resized(len));
        let whole = HEADER + len.next_multiple_of(GRAIN);
        self.head = self.head.wrapping_add(whole as u32);
        self.ring.word(HEAD).store(self.head, Ordering::Release);
        Ok(Some(what))
    }

    /// Waits until the next frame is there: looks for `spin`, then sleeps. `false` when `gone` says that none will
    /// come; whoever makes it say so wakes the receivers ([`Lanes::wake_receivers`]).
    #[inline]
    pub fn wait(&self, spin: Duration, gone: impl Fn() -> bool) -> Waited {
        if self.ready() {
            return Waited::Ready;
        }
        self.wait_slowly(spin, gone)
    }

    fn wait_slowly(&self, spin: Duration, gone: impl Fn() -> bool) -> Waited {
        if !spin.is_zero() {
            let began = Instant::now();
            loop {
                for _ in 0..32 {
                    if self.ready() {
                        return Waited::Ready;
                    }
                    std::hint::spin_loop();
                }
                let looked = began.elapsed();
                if looked > spin {
                    break;
                }
                if looked > SHARED {
                    // The other side may be waiting for this very processor.
                    std::thread::yield_now();
                }
            }
        }
        let mut over = false;
        self.ring.bell().wait(None, || {
            over = gone();
            over || self.ready()
        });
        if over && !self.ready() {
            return Waited::Gone;
        }
        Waited::Slept
    }
}

/// How a wait for a frame ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It is there, and came while the receiver was awake.
    Ready,
    /// It is there; the receiver slept.
    Slept,
    /// None will come.
    Gone,
}

/// A buffer whose first byte is aligned for any archive.
#[derive(Default)]
pub struct Aligned {
    lines: Vec<CacheLine>,
    len: usize,
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct CacheLine([u8; 64]);

impl Aligned {
    /// Makes it `len` bytes long, of unspecified contents.
    pub fn resized(&mut self, len: usize) -> &mut [u8] {
        let lines = len.div_ceil(64);
        if self.lines.len() < lines {
            self.lines.resize(lines, CacheLine([0; 64]));
        }
        self.len = len;
        self
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: lines are bytes, without padding; `len` is at most what they hold.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use super::*;

    /// Both sides of one lane, in one process.
    fn lane() -> (Arc<Lanes>, (Sender, Receiver), (Sender, Receiver)) {
        let ours = Lanes::create(1).unwrap();
        let file = ours.file().try_clone_to_owned().unwrap();
        let theirs = Lanes::attach(file, 1).unwrap();
        let (a, b) = (ours.ends(0).unwrap(), theirs.ends(0).unwrap());
        (ours, a, b)
    }

    #[test]
    fn frames_of_all_lengths_arrive_whole_and_in_order() {
        let (_lanes, (mut to, _), (_, mut from)) = lane();
        let mut frame = Aligned::default();
        assert_eq!(from.take(&mut frame), Ok(None));
        let lengths = (0..200).chain([1000, 65_536, MAX_FRAME - 1, MAX_FRAME]);
        for (what, len) in (0..).zip(lengths.cycle().take(2000)) {
            let bytes: Vec<u8> = (0..len).map(|i| (i + what as usize) as u8).collect();
            let (head, tail) = bytes.split_at(len / 3);
            to.send(what, &[head, tail]).unwrap();
            assert_eq!(from.take(&mut frame), Ok(Some(what)));
            assert!(*frame == *bytes, "{len}");
            assert!(frame.as_ptr().addr().is_multiple_of(64));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_lost() {
        let (_lanes, (mut to, _), (_, mut from)) = lane();
        let big = vec![1; MAX_FRAME + 1];
        assert_eq!(to.send(1, &[&big]), Err(Full));
        let half = vec![2; SIZE / 2 - HEADER];
        to.send(2, &[&half]).unwrap();
        to.send(3, &[&half]).unwrap();
        assert_eq!(to.send(4, &[]), Err(Full));
        let mut frame = Aligned::default();
        assert_eq!(from.take(&mut frame), Ok(Some(2)));
        to.send(4, &[b"x"]).unwrap();
        assert_eq!(from.take(&mut frame), Ok(Some(3)));
        assert_eq!(from.take(&mut frame), Ok(Some(4)));
        assert_eq!(&*frame, b"x");
        assert_eq!(from.take(&mut frame), Ok(None));
    }

    #[test]
    fn positions_and_lengths_that_lie_are_found_out() {
        for (tail, len) in [
            (4u32, 0u32),              // not even a header
            (16, 9),                   // longer than there is
            (16, u32::MAX),            // much longer
            (SIZE as u32 + 8, 0),      // more than the ring holds
            (12, 1),                   // between two frames
            (0u32.wrapping_sub(8), 0), // backwards
        ] {
            let (_lanes, (mut to, _), (_, mut from)) = lane();
            to.send(1, &[b"12345678"]).unwrap();
            to.ring.word(TAIL).store(tail, Ordering::Release);
            to.ring.put(0, &len.to_le_bytes());
            let mut frame = Aligned::default();
            assert_eq!(from.take(&mut frame), Err(Lied), "{tail} {len}");
        }
        // A receiver that lies gets no more than the ring: nothing outside of it is written.
        let (_lanes, (mut to, _), (_, from)) = lane();
        from.ring.word(HEAD).store(77, Ordering::Release);
        while to.send(1, &[&[0; 1000]]).is_ok() && to.tail < 10 * SIZE as u32 {}
        assert!(to.tail <= SIZE as u32);
        // Nor does one that claims to have taken what was never sent, however often it is asked.
        from.ring.word(HEAD).store(to.tail + 8, Ordering::Release);
        for _ in 0..3 {
            assert_eq!(to.send(1, &[&[0; 1000]]), Err(Full));
        }
    }

    #[test]
    fn a_sleeper_is_woken_by_a_frame_and_by_the_end() {
        let (lanes, (mut to, answers), (mut back, mut from)) = lane();
        let echo = std::thread::spawn(move || {
            let mut frame = Aligned::default();
            loop {
                from.wait(Duration::ZERO, || false);
                match from.take(&mut frame).unwrap() {
                    Some(0) => return,
                    Some(what) => back.send(what, &[&frame]).unwrap(),
                    None => {}
                }
            }
        });
        let mut answers = answers;
        let mut frame = Aligned::default();
        for what in 1..2000 {
            to.send(what, &[&what.to_le_bytes()]).unwrap();
            let spin = Duration::from_micros(u64::from(what % 3) * 10);
            assert_ne!(answers.wait(spin, || false), Waited::Gone);
            assert_eq!(answers.take(&mut frame), Ok(Some(what)));
            assert_eq!(&*frame, &what.to_le_bytes());
        }
        to.send(0, &[]).unwrap();
        echo.join().unwrap();
        let gone = std::sync::atomic::AtomicBool::new(false);
        let (gone, answers) = (&gone, answers);
        std::thread::scope(|s| {
            let waits =
                s.spawn(move || answers.wait(Duration::ZERO, || gone.load(Ordering::SeqCst)));
            gone.store(true, Ordering::SeqCst);
            lanes.wake_receivers();
            assert_eq!(waits.join().unwrap(), Waited::Gone);
        });
    }

    #[test]
    fn each_end_is_handed_out_once_and_a_wrong_file_is_refused() {
        let (lanes, ..) = lane();
        assert!(lanes.ends(0).is_none() && lanes.ends(1).is_none());
        let file = lanes.file().try_clone_to_owned().unwrap();
        assert!(Lanes::attach(file, 2).is_err());
    }
}
