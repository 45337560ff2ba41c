//! One anonymous file of shared memory, of fixed size, mapped whole into this process.
//!
//! Invariant: the mapping covers exactly `len` bytes of the file for as long as the [`Segment`]
//! lives, and the file can neither shrink nor grow (sealed), so no access inside it can fail with
//! SIGBUS for want of a file; nor for want of a reserved page, since those are promised by the
//! kernel, or taken, before `create_with` returns. The kernel hands out zeroed pages on first touch.
//! Left out: what the bytes mean (the allocator's business), and the mappings of other processes
//! (`attach`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::extents::PAGE;
use super::pages::{HUGE, HugePages, PageKind, Pool, StorePages};
use super::{groups, pages};

/// Bytes of unmapped addresses on either side: a run past the end faults instead of meeting
/// somebody's heap. They also shift the first objects against what was mapped just before:
/// without them, copies to offset 0 of a 2 GiB arena took a quarter longer (measured; probably
/// source and target then lay a power of two apart).
const GUARD: usize = 64 << 10;

/// A sealed memfd and its mapping.
pub struct Segment {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
    /// The addresses set aside, guards included.
    around: (NonNull<u8>, usize),
    pages: StorePages,
}

// SAFETY: the mapping belongs to this value alone and the pointers are only addresses; every access
// to the bytes goes through raw pointers whose users answer for the absence of races.
unsafe impl Send for Segment {}
// SAFETY: as above; the methods of a shared Segment only read its fields.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a file of `len` bytes in 4 KiB pages and maps it. No page is touched: the cost is a few
    /// system calls whatever the size. Fails as the kernel does (no memfd, no address space, `len`
    /// of 0).
    #[cfg(test)]
    pub fn create(len: usize) -> io::Result<Segment> {
        let pages = StorePages::new(PageKind::Small, "nothing else was asked for");
        Segment::make(len, pages)
    }

    /// As [`create`](Self::create), in the best pages that are wanted and to be had; with reserved
    /// ones `len` is rounded up to whole ones. Takes reserved pages from the kernel's pool at once,
    /// all or none. Fails with `Unsupported` if `wanted` requires what the machine does not grant.
    pub fn create_with(len: usize, wanted: HugePages) -> io::Result<Segment> {
        let mut reasons = Vec::new();
        if wanted == HugePages::Off {
            reasons.push("huge ones were not wanted".to_owned());
        } else if (len as u64) < HUGE && wanted != HugePages::Require {
            reasons.push("the store is smaller than a huge one".to_owned());
        } else {
            if matches!(wanted, HugePages::On | HugePages::Require) {
                match Segment::reserved(len) {
                    Ok(segment) => return Ok(segment),
                    Err(why) if wanted == HugePages::Require => {
                        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
                    }
                    Err(why) => reasons.push(why),
                }
            }
            match pages::transparent_now() {
                Ok(why) => {
                    reasons.push(why);
                    return Segment::transparent(len, reasons.join("; "));
                }
                Err(why) => reasons.push(why),
            }
        }
        Segment::make(len, StorePages::new(PageKind::Small, reasons.join("; ")))
    }

    /// In reserved pages, every one of which is certain from here on; or why not.
    fn reserved(len: usize) -> Result<Segment, String> {
        let pool = Pool::now();
        if let Some(why) = pages::why_not_reserved(pool, len as u64) {
            return Err(why);
        }
        let refused = |e: io::Error| format!("the kernel refused reserved 2 MiB pages: {e}");
        let whole = len
            .checked_next_multiple_of(HUGE as usize)
            .ok_or_else(|| refused(io::ErrorKind::InvalidInput.into()))?;
        let kind = StorePages::new(
            PageKind::Reserved,
            format!("{} of them taken", whole as u64 / HUGE),
        );
        let mut segment = Segment::make(whole, kind).map_err(refused)?;
        // A promised page may still be missing where a control group limits pages in use, or where
        // this process may not use the memory that holds them: touching it would be SIGBUS. There
        // they are taken now.
        if let Some(limit) = groups::why_promises_may_fail() {
            segment.take_all().map_err(refused)?;
            segment.pages.why += &format!(", and filled at once because {limit}");
        }
        Ok(segment)
    }

    /// In pages that the kernel makes huge where it can.
    fn transparent(len: usize, why: String) -> io::Result<Segment> {
        let mut segment = Segment::make(len, StorePages::new(PageKind::Transparent, why))?;
        // SAFETY: the whole mapping, which is ours; the advice changes no content.
        let advised = unsafe {
            let at = segment.base.as_ptr().cast();
            rustix::mm::madvise(at, len, Advice::LinuxHugepage)
        };
        if let Err(e) = advised {
            let why = format!(
                "the kernel refused transparent ones: {}",
                io::Error::from(e)
            );
            segment.pages = StorePages::new(PageKind::Small, why);
        }
        Ok(segment)
    }

    fn make(len: usize, pages: StorePages) -> io::Result<Segment> {
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut how = MapFlags::SHARED | MapFlags::FIXED;
        if pages.kind == PageKind::Reserved {
            // Without NORESERVE: the mapping is what makes the kernel promise the pages.
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        } else {
            how |= MapFlags::NORESERVE;
        }
        let align = pages.size.max(PAGE) as usize;
        let fd = rustix::fs::memfd_create("mobula-arena", flags)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        let whole = len
            .checked_add(2 * GUARD + (align - PAGE as usize))
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh reservation at an address of the kernel's choice replaces nothing.
        let around = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), flags)
        }?;
        let around = around.cast::<u8>();
        let skip = GUARD + around.wrapping_add(GUARD).align_offset(align);
        // SAFETY: the reservation is GUARD bytes and any alignment longer than `len`, so this lies
        // inside.
        let base = unsafe { around.add(skip) };
        let none = || io::Error::from(io::ErrorKind::OutOfMemory);
        // From here on the drop gives the reservation back, whatever happens.
        let segment = Segment {
            fd,
            base: NonNull::new(base).ok_or_else(none)?,
            len,
            around: (NonNull::new(around).ok_or_else(none)?, whole),
            pages,
        };
        // SAFETY: replaces part of the reservation made above, which nobody else knows.
        unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(base.cast(), len, access, how, &segment.fd, 0)
        }?;
        Ok(segment)
    }

    /// Takes every page of the file from the kernel now. Blocks for a fraction of a millisecond a
    /// page.
    fn take_all(&self) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), 0, self.len as u64) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// What its pages are, and why.
    pub fn pages(&self) -> &StorePages {
        &self.pages
    }

    /// Address of the first byte; aligned to a page.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    #[allow(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The file, for whoever maps it next.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Faults in the pages of `from..to` for writing, keeping what they hold. Blocks for about
    /// two microseconds a small page not yet present, a few hundred a huge one. Fails as madvise
    /// does; the range must lie inside.
    pub fn populate(&self, from: usize, to: usize) -> io::Result<()> {
        assert!(from <= to && to <= self.len, "populate outside the segment");
        // SAFETY: the range lies inside the mapping (checked) and populating changes no content.
        unsafe {
            let at = self.base.as_ptr().add(from).cast();
            rustix::mm::madvise(at, to - from, Advice::LinuxPopulateWrite)
        }?;
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `make` reserved these addresses, guards included, and the owner of the last
        // Segment handle lets nobody use them any more. An error leaves them mapped.
        let _ = unsafe { rustix::mm::munmap(self.around.0.as_ptr().cast(), self.around.1) };
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn starts_zeroed_and_cannot_be_resized() {
        let segment = Segment::create(1 << 20).unwrap();
        let at = segment.base().as_ptr();
        // SAFETY: both bytes lie inside the fresh mapping, which only this test knows.
        let (first, last) = unsafe { (at.read(), at.add((1 << 20) - 1).read()) };
        assert_eq!((first, last), (0, 0));
        assert!(rustix::fs::ftruncate(segment.fd(), 4096).is_err());
        assert!(rustix::fs::ftruncate(segment.fd(), 2 << 20).is_err());
        assert_eq!(segment.len(), 1 << 20);
    }

    #[test]
    fn populate_keeps_contents() {
        let segment = Segment::create(1 << 16).unwrap();
        let at = segment.base().as_ptr();
        // SAFETY: inside the mapping, not shared with anyone.
        unsafe { at.add(5000).write(7) };
        segment.populate(0, 1 << 16).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { at.add(5000).read() }, 7);
    }

    #[test]
    #[should_panic(expected = "outside the segment")]
    fn populate_stays_inside() {
        let _ = Segment::create(4096).unwrap().populate(0, 8192);
    }

    /// Makes what a test needs of the machine's settings, or says why it cannot be tested here.
    fn huge(len: usize, wanted: HugePages, kind: PageKind) -> Option<Segment> {
        let segment = Segment::create_with(len, wanted).unwrap();
        if segment.pages().kind != kind {
            crate::base::skip::skipped(format!("got {}", segment.pages()));
            return None;
        }
        Some(segment)
    }

    #[test]
    fn small_pages_are_always_to_be_had() {
        for (len, wanted, why) in [
            (8 << 20, HugePages::Off, "not wanted"),
            (1 << 20, HugePages::On, "smaller"),
        ] {
            let segment = Segment::create_with(len, wanted).unwrap();
            assert_eq!(
                (segment.pages().kind, segment.len()),
                (PageKind::Small, len)
            );
            assert!(segment.pages().why.contains(why), "{}", segment.pages());
        }
    }

    #[test]
    fn more_reserved_pages_than_there_are_is_an_error_or_something_else() {
        const LEN: usize = 1 << 46; // 64 TiB: no machine has them
        let error = Segment::create_with(LEN, HugePages::Require).err().unwrap();
        assert!(error.to_string().contains("2 MiB pages"), "{error}");
        let segment = Segment::create_with(1 << 40, HugePages::On).unwrap();
        assert_ne!(segment.pages().kind, PageKind::Reserved);
        assert!(
            segment.pages().why.contains("2 MiB pages"),
            "{}",
            segment.pages()
        );
    }

    #[test]
    fn reserved_pages_are_promised_whole_and_keep_their_size() {
        let Some(segment) = huge(5 << 20, HugePages::On, PageKind::Reserved) else {
            return;
        };
        assert_eq!(segment.len(), 6 << 20, "rounded up to whole pages");
        assert!(segment.base().as_ptr().addr().is_multiple_of(HUGE as usize));
        assert!(rustix::fs::ftruncate(segment.fd(), 2 << 20).is_err());
        assert!(rustix::fs::ftruncate(segment.fd(), 8 << 20).is_err());
        segment.populate(0, 2 << 20).unwrap();
        let at = segment.base().as_ptr();
        // SAFETY: inside the mapping, which only this test knows.
        unsafe {
            at.add((6 << 20) - 1).write(3);
            assert_eq!((at.read(), at.add((6 << 20) - 1).read()), (0, 3));
        }
    }

    #[test]
    fn pages_of_reserved_segments_can_all_be_taken_at_once() {
        let Some(segment) = huge(4 << 20, HugePages::On, PageKind::Reserved) else {
            return;
        };
        segment.take_all().unwrap();
        let stat = rustix::fs::fstat(segment.fd()).unwrap();
        assert_eq!(stat.st_blocks * 512, 4 << 20);
    }

    #[test]
    fn transparent_pages_are_huge_where_the_kernel_found_some() {
        let Some(segment) = huge(8 << 20, HugePages::Auto, PageKind::Transparent) else {
            return;
        };
        segment.populate(0, 8 << 20).unwrap();
        let at = segment.base().as_ptr().addr();
        assert!(at.is_multiple_of(HUGE as usize));
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.split_once(&format!("{at:x}-")).unwrap().1;
        let mut lines = ours.lines();
        let huge = lines.find_map(|line| line.strip_prefix("ShmemPmdMapped:"));
        let huge: u64 = huge
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        // Memory may be too fragmented for any; but never more than there is.
        assert!(huge <= 8 << 10, "{huge} kB");
        eprintln!("{huge} kB of 8192 kB are huge");
    }

    #[test]
    fn zero_length_is_an_error() {
        assert!(Segment::create(0).is_err());
    }
}
