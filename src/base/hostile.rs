//! Bytes from strangers: made out of true ones, and what reading them may cost. For tests and fuzz targets only.
//!
//! Every decoder has a function `fuzz(&[u8])` that panics if a law is broken. Fuzz targets call it with what the fuzzer makes
//! of [`fuzzed`], tests with thousands of [`spoiled`] messages, the same in each run.
//!
//! Invariant: the same seed, or the same bytes, give the same message. Memory is counted for each thread by itself, so tests that
//! run side by side do not count for each other. Left out: time, which a busy machine stretches, and threads that a decoder starts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has asked for, those given back too.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize) {
    // A thread that is about to end may have no count any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + bytes as u64));
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(old, layout) }
    }
}

/// What reading may ask for, whatever the bytes.
const FLAT: u64 = 16 << 10;

/// Reads `input` bytes, which may ask for `each` bytes of memory for each of them, and some thousand besides.
///
/// # Panics
/// If more was asked for.
pub fn cheaply<T>(input: usize, each: u64, read: impl FnOnce() -> T) -> T {
    let before = ASKED.get();
    let value = read();
    let asked = ASKED.get() - before;
    let most = FLAT + each * input as u64;
    assert!(
        asked <= most,
        "reading {input} bytes asked for {asked} bytes of memory; the most is {most}"
    );
    value
}

/// Numbers that look like chance and are the same each time (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers that lie about lengths and counts.
const LIES: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0xffff_ffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// The most bytes of a spoiled message: more than any bound of a frame's head or text.
const LONGEST: usize = 8 << 10;

/// Changes a message in one way.
fn change(chance: &mut Chance, message: &mut Vec<u8>, other: &[u8]) {
    let at = chance.below(message.len());
    let rest = message.len() - at;
    match chance.below(9) {
        0 => message.truncate(at),
        1 if rest > 0 => message[at] ^= 1 << chance.below(8),
        2 if rest > 0 => message[at] = chance.next() as u8,
        // A number in little- or big-endian order, of 1, 2, 4 or 8 bytes.
        n @ (3 | 4) if rest > 0 => {
            let width = (1 << chance.below(4)).min(rest);
            let lie = LIES[chance.below(LIES.len())];
            let bytes = if n == 3 {
                lie.to_le_bytes()
            } else {
                (lie << (64 - 8 * width as u32)).to_be_bytes()
            };
            message[at..at + width].copy_from_slice(&bytes[..width]);
        }
        // The end of another message.
        5 => {
            message.truncate(at);
            message.extend_from_slice(&other[chance.below(other.len())..]);
        }
        // A piece once more, or gone.
        6 => {
            let piece = message[at..at + chance.below(rest.min(64))].to_vec();
            message.splice(at..at, piece);
        }
        7 => drop(message.drain(at..at + chance.below(rest.min(64)))),
        _ => message.insert(at, chance.next() as u8),
    }
    message.truncate(LONGEST);
}

/// Calls `read` with every sample, then `cases` times with one that was changed in up to four ways. A failure prints the
/// bytes.
pub fn spoiled(seed: u64, cases: usize, samples: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    let mut chance = Chance(seed);
    samples.iter().for_each(|sample| shown(sample, &mut read));
    for _ in 0..cases {
        let mut message = samples[chance.below(samples.len())].clone();
        for _ in 0..=chance.below(4) {
            let other = &samples[chance.below(samples.len())];
            change(&mut chance, &mut message, other);
        }
        shown(&message, &mut read);
    }
}

fn shown(bytes: &[u8], read: &mut impl FnMut(&[u8])) {
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("reading these {} bytes: {:02x?}", self.0.len(), self.0);
            }
        }
    }
    let _shown = Shown(bytes);
    read(bytes);
}

/// What a fuzzer's bytes stand for: if the first is below 128 the others themselves, else a sample, changed at places and by
/// values that the others say. So a fuzzer finds true messages without learning to write them.
pub fn fuzzed(samples: &[Vec<u8>], bytes: &[u8]) -> Vec<u8> {
    let Some((&first, mut rest)) = bytes.split_first() else {
        return Vec::new();
    };
    if first < 128 || samples.is_empty() {
        return rest.to_vec();
    }
    let which = rest.split_off_first().copied().unwrap_or_default();
    let mut message = samples[usize::from(which) % samples.len()].clone();
    while let Some((&[kind, low, high, value], after)) = rest.split_first_chunk::<4>() {
        rest = after;
        let at = usize::from(u16::from_le_bytes([low, high])) % message.len().max(1);
        match kind % 6 {
            0 => message.truncate(at),
            1 if !message.is_empty() => message[at] = value,
            2 => message.insert(at, value),
            3 if !message.is_empty() => drop(message.remove(at)),
            4 => {
                let end = message.len().min(at + usize::from(value % 8));
                message[at..end].fill(0xff);
            }
            _ => {
                let other = &samples[usize::from(value) % samples.len()];
                message.truncate(at);
                message.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
        message.truncate(LONGEST);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_counted() {
        cheaply(1 << 20, 1, || vec![0u8; 1 << 20]);
        let greedy = || cheaply(10, 100, || vec![0u8; 1 << 20]);
        assert!(std::panic::catch_unwind(greedy).is_err());
        let mut grown = Vec::<u8>::new();
        let grows = std::panic::AssertUnwindSafe(|| {
            cheaply(10, 1, || (0..1 << 20).for_each(|_| grown.push(0)))
        });
        assert!(std::panic::catch_unwind(grows).is_err());
    }

    #[test]
    fn a_seed_gives_the_same_messages_and_many_kinds_of_them() {
        let samples = [b"a true message".to_vec(), b"another".to_vec(), Vec::new()];
        let of = |seed| {
            let mut all = Vec::new();
            spoiled(seed, 1000, &samples, |bytes| all.push(bytes.to_vec()));
            all
        };
        let (one, other) = (of(1), of(2));
        assert_eq!(one, of(1));
        assert_ne!(one, other);
        assert_eq!(one[..3], samples);
        let longer = one.iter().filter(|m| m.len() > samples[0].len()).count();
        let kinds: std::collections::HashSet<_> = one.into_iter().collect();
        assert!(kinds.len() > 600 && longer > 50, "{} {longer}", kinds.len());
    }

    #[test]
    fn a_fuzzer_reaches_samples_and_any_bytes() {
        let samples = [b"sample".to_vec()];
        assert_eq!(fuzzed(&samples, b"\x00any"), b"any");
        assert_eq!(fuzzed(&samples, &[200]), b"sample");
        assert_eq!(fuzzed(&samples, &[200, 0, 1, 2, 0, b'x']), b"saxple");
        assert_eq!(fuzzed(&samples, &[]), b"");
    }
}
