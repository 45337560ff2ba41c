//! Copies into shared memory, as fast as the machine allows.
//!
//! Short copies are the C library's `memcpy`. Long ones are written past the caches with
//! non-temporal stores, which saves reading the destination first, and the longest are shared among
//! threads. Pages never touched are populated in batches just before they are written: a fault for
//! each costs more than the copy. Invariant: `dst` equals `src` afterwards, and every store is
//! visible to whoever synchronises with the caller. Left out: knowing which pages are untouched.

use std::sync::OnceLock;

use parking_lot::Mutex;

use super::cpu::{current_cpu, keep_off};
use super::extents::PAGE;

/// From here on a copy is streamed past the caches.
const STREAM_FROM: usize = 6 << 20;
/// From here on a copy is shared among threads: starting one costs about 0.1 ms.
const SPLIT_FROM: usize = 64 << 20;
/// What a thread claims at a time; small enough that a thread which loses its CPU delays the end
/// of the whole copy little.
const PIECE: usize = 4 << 20;
/// As [`SPLIT_FROM`], for untouched pages: they take several times as long.
const SPLIT_COLD_FROM: usize = 8 << 20;
/// As [`PIECE`], for untouched pages; a part of the second-level cache.
const COLD_PIECE: usize = 256 << 10;

/// Copies `src` into `dst`. Blocks for the time of the copy; starts threads from 64 MiB on and does
/// without those that cannot be started.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub fn copy_into(dst: &mut [u8], src: &[u8]) {
    assert_eq!(dst.len(), src.len(), "copy_into needs equal lengths");
    if src.len() < STREAM_FROM {
        dst.copy_from_slice(src)
    } else {
        copy_long(dst, src)
    }
}

/// As [`copy_into`], for a destination whose pages, of so many bytes, were never touched: faster
/// there, slower elsewhere. Starts threads from 8 MiB on.
///
/// # Panics
/// If the lengths differ.
pub fn copy_into_cold(dst: &mut [u8], src: &[u8], page: u64) {
    assert_eq!(dst.len(), src.len(), "copy_into needs equal lengths");
    let helpers = if src.len() < SPLIT_COLD_FROM {
        0
    } else {
        threads() - 1
    };
    let page = page as usize;
    if page <= COLD_PIECE {
        // The pages that were just zeroed lie in the cache: plain stores find them there.
        return share(dst, src, COLD_PIECE, helpers, |dst, src| {
            populate(dst);
            dst.copy_from_slice(src);
        });
    }
    // A huge page is zeroed whole by whoever touches it first, so each is one thread's. It fills
    // the second-level cache by itself, so there is nothing to be found there.
    let head = dst.as_ptr().align_offset(page).min(dst.len());
    let (head_dst, dst) = dst.split_at_mut(head);
    let (head_src, src) = src.split_at(head);
    head_dst.copy_from_slice(head_src);
    share(dst, src, page, helpers, |dst, src| {
        populate(dst);
        stream(dst, src);
    });
}

#[cold]
fn copy_long(dst: &mut [u8], src: &[u8]) {
    let helpers = if src.len() < SPLIT_FROM {
        0
    } else {
        threads() - 1
    };
    if helpers == 0 {
        stream(dst, src)
    } else {
        share(dst, src, PIECE, helpers, stream)
    }
}

/// Copies piece by piece on this thread and `helpers` more.
fn share<F>(dst: &mut [u8], src: &[u8], piece: usize, helpers: usize, copy: F)
where
    F: Fn(&mut [u8], &[u8]) + Copy + Sync + Send,
{
    // Claimed one at a time rather than divided evenly: a thread that loses its CPU for a while
    // leaves its share to the others.
    let pieces = Mutex::new(dst.chunks_mut(piece).zip(src.chunks(piece)));
    let pieces = &pieces;
    let caller = current_cpu();
    let copy_some = move || {
        loop {
            // A statement of its own, so that the lock is not held during the copy.
            let claimed = pieces.lock().next();
            let Some((dst, src)) = claimed else { return };
            copy(dst, src);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            let thread = std::thread::Builder::new().name("mobula-copy".to_owned());
            // A helper that cannot be started is done without: this thread copies what is left.
            let _ = thread.spawn_scoped(scope, move || {
                let _ = keep_off(caller);
                copy_some();
            });
        }
        copy_some();
    });
}

/// Faults in the whole pages of `bytes` for writing, keeping what they hold.
fn populate(bytes: &mut [u8]) {
    #[cfg(not(miri))]
    {
        let from = bytes.as_ptr().align_offset(PAGE as usize).min(bytes.len());
        let whole = (bytes.len() - from) / PAGE as usize * PAGE as usize;
        let pages = &mut bytes[from..from + whole];
        let advice = rustix::mm::Advice::LinuxPopulateWrite;
        // SAFETY: the pages are exclusively borrowed and populating changes no content. If the
        // kernel cannot (too old, memory that is not a plain mapping), the copy faults them itself.
        let _ = unsafe { rustix::mm::madvise(pages.as_mut_ptr().cast(), pages.len(), advice) };
    }
    #[cfg(miri)]
    let _ = bytes;
}

/// Threads worth using for one copy, this one included.
fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        std::thread::available_parallelism()
            .map_or(1, |n| n.get())
            .min(8)
    })
}

/// Copies past the caches where the CPU can, plainly elsewhere.
fn stream(dst: &mut [u8], src: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let tail = dst.as_ptr().align_offset(LINE).min(dst.len());
        let (head_to, to) = dst.split_at_mut(tail);
        let (head_from, from) = src.split_at(tail);
        head_to.copy_from_slice(head_from);
        let lines = to.len() / BLOCK * BLOCK;
        let (body_to, rest_to) = to.split_at_mut(lines);
        let (body_from, rest_from) = from.split_at(lines);
        rest_to.copy_from_slice(rest_from);
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512F; the lengths are equal multiples of BLOCK and the
            // destination begins on a cache line.
            return unsafe { stream_avx512(body_to, body_from) };
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: the CPU has AVX; lengths and alignment as above.
            return unsafe { stream_avx(body_to, body_from) };
        }
        body_to.copy_from_slice(body_from);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    dst.copy_from_slice(src);
}

/// Destination alignment of the streaming loops.
const LINE: usize = 64;
/// Bytes a streaming loop moves per round.
const BLOCK: usize = 256;

/// # Safety
/// The CPU has AVX-512F; `dst` is aligned to [`LINE`]; both lengths are the same multiple of
/// [`BLOCK`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx512f")]
unsafe fn stream_avx512(dst: &mut [u8], src: &[u8]) {
    use std::arch::x86_64::*;
    let (d, s) = (dst.as_mut_ptr(), src.as_ptr());
    for at in (0..src.len()).step_by(BLOCK) {
        // SAFETY: `at + BLOCK` stays within both slices; the stores are aligned since `dst` is.
        unsafe {
            let (d, s) = (d.add(at).cast::<__m512i>(), s.add(at).cast::<__m512i>());
            let (a, b) = (_mm512_loadu_si512(s), _mm512_loadu_si512(s.add(1)));
            let (c, e) = (_mm512_loadu_si512(s.add(2)), _mm512_loadu_si512(s.add(3)));
            _mm512_stream_si512(d, a);
            _mm512_stream_si512(d.add(1), b);
            _mm512_stream_si512(d.add(2), c);
            _mm512_stream_si512(d.add(3), e);
        }
    }
    // Non-temporal stores are ordered by no later release: the fence makes them so.
    _mm_sfence();
}

/// # Safety
/// The CPU has AVX; `dst` is aligned to [`LINE`]; both lengths are the same multiple of [`BLOCK`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx")]
unsafe fn stream_avx(dst: &mut [u8], src: &[u8]) {
    use std::arch::x86_64::*;
    let (d, s) = (dst.as_mut_ptr(), src.as_ptr());
    for at in (0..src.len()).step_by(4 * size_of::<__m256i>()) {
        // SAFETY: four vectors from `at` stay within both slices, whose length is a multiple of
        // that; the stores are aligned since `dst` is.
        unsafe {
            let (d, s) = (d.add(at).cast::<__m256i>(), s.add(at).cast::<__m256i>());
            let (a, b) = (_mm256_loadu_si256(s), _mm256_loadu_si256(s.add(1)));
            let (c, e) = (_mm256_loadu_si256(s.add(2)), _mm256_loadu_si256(s.add(3)));
            _mm256_stream_si256(d, a);
            _mm256_stream_si256(d.add(1), b);
            _mm256_stream_si256(d.add(2), c);
            _mm256_stream_si256(d.add(3), e);
        }
    }
    // Non-temporal stores are ordered by no later release: the fence makes them so.
    _mm_sfence();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::CpuSet;

    fn pattern(len: usize, seed: u8) -> Vec<u8> {
        (0..len)
            .map(|i| (i % 251) as u8 ^ (i >> 12) as u8 ^ seed)
            .collect()
    }

    #[test]
    fn streams_every_length_and_alignment() {
        let src = pattern(2000, 1);
        for skew in [0, 1, 31, 63] {
            for len in (0..600).chain([1023, 1024, 1900]) {
                let mut dst = vec![0xAA; 2000];
                stream(&mut dst[skew..skew + len], &src[7..7 + len]);
                assert_eq!(dst[skew..skew + len], src[7..7 + len]);
                assert!(
                    dst[..skew]
                        .iter()
                        .chain(&dst[skew + len..])
                        .all(|b| *b == 0xAA)
                );
            }
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn the_narrower_loop_copies_too() {
        if !is_x86_feature_detected!("avx") {
            return;
        }
        let src = pattern(4 * BLOCK + 3, 2);
        let mut dst = vec![0; 5 * BLOCK];
        let skew = dst.as_ptr().align_offset(LINE);
        let body = &mut dst[skew..skew + 4 * BLOCK];
        // SAFETY: AVX is there, `body` begins on a line and both lengths are 4 blocks.
        unsafe { stream_avx(body, &src[3..]) };
        assert_eq!(*body, src[3..]);
    }

    #[cfg(not(miri))]
    #[test]
    fn long_copies_arrive_whole() {
        for len in [STREAM_FROM - 1, STREAM_FROM + 5, SPLIT_FROM + 12_345] {
            let src = pattern(len, 3);
            let mut dst = vec![0; len];
            copy_into(&mut dst, &src);
            assert!(dst == src, "{len}");
        }
    }

    #[cfg(not(miri))]
    #[test]
    fn helpers_keep_off_the_callers_cpu() {
        let affinity = || rustix::thread::sched_getaffinity(None).unwrap();
        let all = affinity();
        if all.count() < 2 {
            crate::base::skip::skipped("there is only one CPU");
            return;
        }
        let taken = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
        let helper = move || {
            keep_off(Some(taken));
            let left = affinity();
            keep_off(None);
            keep_off(Some(usize::MAX));
            assert_eq!(affinity(), left);
            left
        };
        let left = std::thread::spawn(helper).join().unwrap();
        assert!(!left.is_set(taken) && left.count() == all.count() - 1);
        assert_eq!(affinity(), all, "only the helper moved");
        let alone = move || {
            let mut one = CpuSet::new();
            one.set(taken);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            keep_off(Some(taken));
            affinity() == one
        };
        assert!(std::thread::spawn(alone).join().unwrap(), "it has no other");
    }

    #[cfg(not(miri))]
    #[test]
    fn cold_copies_arrive_whole() {
        let cases = [
            (0, 0),
            (100, 0),
            (5000, 7),
            (3 << 20, 64),
            (SPLIT_COLD_FROM + 77, 1),
        ];
        for (page, (len, skew)) in [PAGE, 2 << 20]
            .into_iter()
            .flat_map(|p| cases.map(|c| (p, c)))
        {
            let src = pattern(len, 4);
            let mut dst = vec![9; len + skew + 1];
            copy_into_cold(&mut dst[skew..skew + len], &src, page);
            assert!(dst[skew..skew + len] == src, "{len}");
            assert!(
                dst[..skew]
                    .iter()
                    .chain(&dst[skew + len..])
                    .all(|b| *b == 9)
            );
        }
    }

    #[test]
    #[should_panic(expected = "equal lengths")]
    fn lengths_must_agree() {
        copy_into(&mut [0; 3], &[0; 4]);
    }
}
