//! A segment that another process owns, mapped here: all of it readable, only leased pages writable.
//!
//! The owner passes the file and says how long it is; what it says is checked against the file. A
//! stray write of this process outside a lease faults here instead of spoiling what others read.
//! Invariant: leases are whole grains and never overlap; a range is writable exactly while its
//! [`Lease`] lives. Left out: which ranges hold what (the owner's books, known by messages only).

use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::copy::{copy_into, copy_into_cold};
use super::pages::HUGE;
use super::ranges::Ranges;

/// Another process's segment.
pub struct Attached {
    base: NonNull<u8>,
    len: usize,
    grain: usize,
    /// Leased ranges: begin to end.
    leases: Mutex<BTreeMap<usize, usize>>,
    /// What this process has written to before: there its page table is filled.
    written: Mutex<Ranges>,
}

// SAFETY: the mapping belongs to this value alone and `base` is only an address; access goes through
// `bytes` and leases, whose rules keep writers and readers apart.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

impl Attached {
    /// Maps `len` bytes of the owner's file for reading. `grain` is its unit of leasing: the size of
    /// its pages. Touches nothing: microseconds. Fails when the file is shorter than `len`, could
    /// become so, or when the kernel refuses.
    pub fn map(file: BorrowedFd<'_>, len: u64, grain: u64) -> io::Result<Attached> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if len == 0 || !grain.is_power_of_two() || grain < 4096 || !len.is_multiple_of(grain) {
            return Err(bad("a segment is a whole number of pages"));
        }
        let stat = rustix::fs::fstat(file)?;
        if u64::try_from(stat.st_size).unwrap_or(0) < len {
            return Err(bad("the segment's file is shorter than its owner says"));
        }
        // Else the owner could cut it short later, and reading would end this process.
        if !rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
            return Err(bad("the segment's file is not sealed against shrinking"));
        }
        let (len, grain) = (len as usize, grain as usize);
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            let flags = MapFlags::SHARED | MapFlags::NORESERVE;
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, file, 0)
        }?;
        let attached = Attached {
            base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            len,
            grain,
            leases: Mutex::default(),
            written: Mutex::default(),
        };
        if grain < HUGE as usize {
            // What is first touched here is huge if it would be in the owner. Best effort.
            // SAFETY: the whole mapping, which is ours; the advice changes no content.
            let _ = unsafe {
                let at = attached.base.as_ptr().cast();
                rustix::mm::madvise(at, len, rustix::mm::Advice::LinuxHugepage)
            };
        }
        Ok(attached)
    }

    /// Bytes mapped.
    #[allow(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// The bytes at `offset`, or `None` if they are not all inside.
    ///
    /// # Safety
    /// They are a sealed object's, and its owner keeps it in place for as long as the result is used.
    pub unsafe fn bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let (begin, end) = self.range(offset, len)?;
        // SAFETY: inside the mapping (checked), always initialised; the caller promises that nobody
        // writes.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(begin), end - begin) })
    }

    /// Copies what lies at `offset` to `to`, on several threads if it is much. False if it is not all inside. If somebody
    /// still writes there, what is copied is any mixture.
    #[cfg(feature = "cluster")]
    pub fn copy_out(&self, offset: u64, to: &mut [u8]) -> bool {
        let Some((begin, end)) = self.range(offset, to.len() as u64) else {
            return false;
        };
        // SAFETY: inside the mapping (checked), always initialised, and `to` is nobody else's. That another process may write
        // there is no race within this one; whoever copies checks what it got.
        let from =
            unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(begin), end - begin) };
        copy_into(to, from);
        true
    }

    /// Where bytes that [`bytes`](Self::bytes) gave begin.
    pub fn offset_of(&self, bytes: &[u8]) -> u64 {
        (bytes.as_ptr().addr() - self.base.as_ptr().addr()) as u64
    }

    /// Makes the pages from `offset` on writable, for the first `len` of their bytes, until the lease
    /// is dropped. Two system calls. Fails if the range is not inside, does not begin at a grain, or
    /// is leased already.
    ///
    /// # Safety
    /// The segment's owner gave the whole grains of this range to this process alone, for as long as
    /// the lease lives.
    pub unsafe fn lease(self: &Arc<Self>, offset: u64, len: u64) -> io::Result<Lease> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let (begin, end) = self
            .range(offset, len.max(1))
            .filter(|(begin, _)| begin.is_multiple_of(self.grain))
            .ok_or_else(|| bad("no such range of pages to lease"))?;
        let end = end.next_multiple_of(self.grain); // inside: `len` of the segment is a multiple
        {
            let mut leases = self.leases.lock();
            let before = leases.range(..end).next_back();
            if before.is_some_and(|(_, leased_end)| *leased_end > begin) {
                return Err(bad("part of this range is leased already"));
            }
            leases.insert(begin, end);
        }
        let lease = Lease {
            attached: Arc::clone(self),
            begin,
            end,
            len: len as usize,
        };
        // A child made by fork would share the pages, and could write there after this process is dead
        // and the owner has given them to somebody else.
        lease.advise(rustix::mm::Advice::LinuxDontFork)?;
        lease.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        Ok(lease)
    }

    fn range(&self, offset: u64, len: u64) -> Option<(usize, usize)> {
        let end = offset.checked_add(len).filter(|e| *e <= self.len as u64)?;
        Some((offset as usize, end as usize))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; leases keep this value alive, and `bytes` borrows it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Pages of another process's segment that are this process's to write.
pub struct Lease {
    attached: Arc<Attached>,
    begin: usize,
    end: usize,
    len: usize,
}

impl Lease {
    /// Where it begins in the segment.
    pub fn offset(&self) -> u64 {
        self.begin as u64
    }

    /// Copies `bytes` to position `pos` at memory speed, on several threads if they are many; faults
    /// in ahead what this process writes to for the first time.
    ///
    /// # Panics
    /// If they do not fit there; nothing is written then.
    pub fn write_at(&mut self, pos: usize, bytes: &[u8]) {
        let end = pos.checked_add(bytes.len()).filter(|end| *end <= self.len);
        let Some(end) = end else {
            panic!(
                "{} bytes at {pos} do not fit a lease of {}",
                bytes.len(),
                self.len
            )
        };
        let (from, to) = (self.begin + pos, self.begin + end);
        if self.attached.written.lock().covers(from, to) {
            return copy_into(&mut self[pos..end], bytes);
        }
        let page = self.attached.grain as u64;
        copy_into_cold(&mut self[pos..end], bytes, page);
        self.attached.written.lock().add(from, to);
    }

    /// Faults the pages in for writing, all at once: cheaper than one by one when all will be
    /// written. Nothing is asked if this process has written to all of them before, since asking costs half
    /// as much as the copy that follows. Best effort.
    pub fn populate(&self) {
        if self.attached.written.lock().covers(self.begin, self.end) {
            return;
        }
        if self.advise(rustix::mm::Advice::LinuxPopulateWrite).is_ok() {
            self.attached.written.lock().add(self.begin, self.end);
        }
    }

    fn advise(&self, advice: rustix::mm::Advice) -> io::Result<()> {
        // SAFETY: part of the mapping, of this lease alone; no advice given here changes what it holds
        // in this process.
        unsafe {
            let at = self.attached.base.as_ptr().add(self.begin);
            rustix::mm::madvise(at.cast(), self.end - self.begin, advice)?;
        }
        Ok(())
    }

    fn protect(&self, how: MprotectFlags) -> io::Result<()> {
        // SAFETY: whole pages inside the mapping, of this lease alone; no reference to them is alive
        // but through the lease.
        unsafe {
            let at = self.attached.base.as_ptr().add(self.begin);
            rustix::mm::mprotect(at.cast(), self.end - self.begin, how)?;
        }
        Ok(())
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: inside the mapping; the owner gave the range to this lease alone.
        unsafe {
            let at = self.attached.base.as_ptr().add(self.begin);
            std::slice::from_raw_parts(at, self.len)
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable while the lease lives; the exclusive reference makes the access
        // exclusive within this process.
        unsafe {
            let at = self.attached.base.as_ptr().add(self.begin);
            std::slice::from_raw_parts_mut(at, self.len)
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // If this fails the pages stay writable: less safe, not wrong.
        let _ = self.protect(MprotectFlags::READ);
        let _ = self.advise(rustix::mm::Advice::LinuxDoFork);
        self.attached.leases.lock().remove(&self.begin);
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::super::memfd::Segment;
    use super::*;

    use std::os::fd::AsFd;

    const PAGE: u64 = 4096;

    fn attach(segment: &Segment) -> Arc<Attached> {
        let len = segment.len() as u64;
        Arc::new(Attached::map(segment.fd(), len, PAGE).unwrap())
    }

    #[test]
    fn what_a_lease_wrote_the_owner_and_readers_see() {
        let segment = Segment::create(1 << 20).unwrap();
        let attached = attach(&segment);
        // SAFETY: this test owns the segment and lends the page.
        let mut lease = unsafe { attached.lease(2 * PAGE, 5) }.unwrap();
        lease.populate();
        lease.copy_from_slice(b"hello");
        assert_eq!((lease.offset(), lease.len()), (2 * PAGE, 5));
        drop(lease);
        // SAFETY: nobody writes any more.
        let seen = unsafe { attached.bytes(2 * PAGE, 5) }.unwrap();
        assert_eq!(seen, b"hello");
        // SAFETY: inside the owner's mapping.
        let owners = unsafe { segment.base().add(2 * PAGE as usize).read() };
        assert_eq!(owners, b'h');
    }

    #[test]
    fn copies_into_a_lease_arrive_the_first_time_and_the_next() {
        let segment = Segment::create(1 << 20).unwrap();
        let attached = attach(&segment);
        let bytes: Vec<u8> = (0..300_000).map(|i| (i % 253) as u8).collect();
        for round in 0..2 {
            // SAFETY: this test owns the segment and lends the pages.
            let mut lease = unsafe { attached.lease(PAGE, 300_001) }.unwrap();
            let known = attached.written.lock().covers(4097, 304_097);
            assert_eq!(known, round > 0);
            lease.write_at(1, &bytes);
            assert!(lease[1..] == bytes);
            assert_eq!(lease[0], 0);
            let write = std::panic::AssertUnwindSafe(|| lease.write_at(2, &bytes));
            assert!(std::panic::catch_unwind(write).is_err());
        }
    }

    #[test]
    fn reserved_pages_are_leased_whole() {
        use super::super::pages::{HugePages, PageKind};
        let segment = Segment::create_with(8 << 20, HugePages::On).unwrap();
        if segment.pages().kind != PageKind::Reserved {
            crate::base::skip::skipped(format!("got {}", segment.pages()));
            return;
        }
        let grain = segment.pages().grain();
        assert_eq!(grain, HUGE);
        let attached = Arc::new(Attached::map(segment.fd(), 8 << 20, grain).unwrap());
        // SAFETY: this test owns the segment and lends the pages.
        let mut lease = unsafe { attached.lease(HUGE, HUGE + 5) }.unwrap();
        lease.populate();
        lease.fill(7);
        // SAFETY: as above; these are refused.
        unsafe {
            assert!(attached.lease(HUGE / 2, 1).is_err(), "within a page");
            assert!(
                attached.lease(2 * HUGE, 1).is_err(),
                "the rest of the lease's page"
            );
        }
        drop(lease);
        // SAFETY: nobody writes any more.
        let seen = unsafe { attached.bytes(HUGE, HUGE + 6) }.unwrap();
        assert_eq!(
            seen.iter().map(|b| u64::from(*b)).sum::<u64>(),
            7 * (HUGE + 5)
        );
        // SAFETY: inside the owner's mapping.
        assert_eq!(unsafe { segment.base().add(HUGE as usize).read() }, 7);
    }

    #[test]
    fn ranges_outside_or_taken_are_refused() {
        let segment = Segment::create(1 << 16).unwrap();
        let attached = attach(&segment);
        // SAFETY: this test owns the segment.
        let lease = |offset, len| unsafe { attached.lease(offset, len) };
        let _held = lease(4 * PAGE, 2 * PAGE).unwrap();
        for (offset, len) in [
            (1, 8),                // not at a page
            (16 * PAGE, 1),        // behind the end
            (15 * PAGE, PAGE + 1), // over the end
            (u64::MAX - 1, 8),     // wraps
            (5 * PAGE, 1),         // in the middle of the one held
            (3 * PAGE, PAGE + 1),  // reaches into it
            (0, 16 * PAGE),        // around it
        ] {
            assert!(lease(offset, len).is_err(), "{offset} {len}");
        }
        assert!(lease(6 * PAGE, PAGE).is_ok());
        // SAFETY: out of range ones are refused before anything is read.
        unsafe {
            assert!(attached.bytes(u64::MAX, 2).is_none());
            assert!(attached.bytes(0, (1 << 16) + 1).is_none());
            assert!(attached.bytes(1 << 16, 0).is_some());
        }
    }

    #[test]
    fn a_file_that_could_shrink_or_is_short_is_refused() {
        let segment = Segment::create(1 << 16).unwrap();
        assert!(Attached::map(segment.fd(), 1 << 17, PAGE).is_err());
        assert!(Attached::map(segment.fd(), 100, PAGE).is_err());
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let open = rustix::fs::memfd_create("test", flags).unwrap();
        rustix::fs::ftruncate(&open, 1 << 16).unwrap();
        assert!(Attached::map(open.as_fd(), 1 << 16, PAGE).is_err());
    }

    #[test]
    fn pages_are_populated_once() {
        const LEN: usize = 1 << 20;
        let segment = Segment::create(LEN).unwrap();
        let attached = attach(&segment);
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let at = format!("{:x}-", attached.base.as_ptr().addr() + 4096);
            let mapping = smaps.lines().skip_while(|line| !line.starts_with(&at));
            let line = mapping
                .skip(1)
                .find(|line| line.starts_with("Rss:"))
                .unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<usize>()
                .unwrap()
                << 10
        };
        // SAFETY: no allocator hands out this test's pages.
        let lease = unsafe { attached.lease(PAGE, LEN as u64 - 2 * PAGE) }.unwrap();
        assert_eq!(resident(), 0);
        lease.populate();
        assert_eq!(resident(), LEN - 2 * 4096);
        assert!(attached.written.lock().covers(4096, LEN - 4096));
        lease.populate();
        assert_eq!(resident(), LEN - 2 * 4096);
    }

    /// What a child made by fork comes to when it does this.
    fn in_a_fork(act: impl FnOnce()) -> libc::c_int {
        // SAFETY: the child only touches a byte and ends, whatever the threads of the test did.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                act();
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            status
        }
    }

    fn killed(status: libc::c_int) -> bool {
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV
    }

    #[test]
    fn a_fork_reads_the_segment_but_has_no_part_in_a_lease() {
        let segment = Segment::create(1 << 16).unwrap();
        let attached = attach(&segment);
        // SAFETY: no allocator hands out this test's pages.
        let mut lease = unsafe { attached.lease(PAGE, PAGE) }.unwrap();
        lease[0] = 7;
        let at = lease.as_mut_ptr();
        // SAFETY: inside the mapping, if there is one.
        let write = || unsafe { at.write_volatile(1) };
        assert!(killed(in_a_fork(write)));
        assert_eq!(lease[0], 7);
        drop(lease);
        // SAFETY: as above; nobody writes there any more.
        let read = || unsafe { assert_eq!(at.read_volatile(), 7) };
        assert!(!killed(in_a_fork(read)));
    }

    #[test]
    fn writing_outside_a_lease_kills_only_the_writer() {
        let segment = Segment::create(1 << 16).unwrap();
        let attached = attach(&segment);
        // SAFETY: inside the mapping.
        let write = || unsafe { attached.base.as_ptr().write_volatile(1) };
        assert!(killed(in_a_fork(write)));
        // SAFETY: inside the mapping, which nobody writes to.
        assert_eq!(unsafe { segment.base().read() }, 0);
    }
}
