//! One anonymous file of shared memory, of fixed size, mapped whole into this process.
//!
//! Invariant: the mapping covers exactly `len` bytes of the file for as long as the [`Segment`]
//! lives, and the file can neither shrink nor grow (sealed), so no access inside it can fail with
//! SIGBUS for want of a file. The kernel hands out zeroed pages on first touch. Left out: what the
//! bytes mean (the allocator's business), and the mappings of other processes (`attach`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

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
}

// SAFETY: the mapping belongs to this value alone and `base` is only an address; every access to
// the bytes goes through raw pointers whose users answer for the absence of races.
unsafe impl Send for Segment {}
// SAFETY: as above; the methods of a shared Segment only read the three fields.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a file of `len` bytes and maps it. No page is touched: the cost is three system calls
    /// whatever the size. Fails as the kernel does (no memfd, no address space, `len` of 0).
    pub fn create(len: usize) -> io::Result<Segment> {
        let fd = rustix::fs::memfd_create(
            "mobula-arena",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        let whole = len
            .checked_add(2 * GUARD)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh reservation at an address of the kernel's choice replaces nothing.
        let reserved = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), flags)
        }?;
        // SAFETY: GUARD lies inside the reservation.
        let base = unsafe { reserved.cast::<u8>().add(GUARD) };
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on the drop gives the reservation back, whatever happens.
        let segment = Segment { fd, base, len };
        // SAFETY: replaces part of the reservation made above, which nobody else knows.
        unsafe {
            rustix::mm::mmap(
                base.as_ptr().cast(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED,
                &segment.fd,
                0,
            )
        }?;
        Ok(segment)
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
    /// two microseconds a page not yet present. Fails as madvise does; the range must lie inside.
    pub fn populate(&self, from: usize, to: usize) -> io::Result<()> {
        assert!(from <= to && to <= self.len, "populate outside the segment");
        // SAFETY: the range lies inside the mapping (checked) and populating changes no content.
        unsafe {
            rustix::mm::madvise(
                self.base.as_ptr().add(from).cast(),
                to - from,
                rustix::mm::Advice::LinuxPopulateWrite,
            )
        }?;
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `create` reserved these addresses, GUARD before the base to GUARD after the end,
        // and the owner of the last Segment handle lets nobody use them any more. An error leaves
        // them mapped.
        let _ = unsafe {
            let reserved = self.base.as_ptr().sub(GUARD);
            rustix::mm::munmap(reserved.cast(), self.len + 2 * GUARD)
        };
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

    #[test]
    fn zero_length_is_an_error() {
        assert!(Segment::create(0).is_err());
    }
}
