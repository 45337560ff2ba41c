//! Shared memory as words that any thread of any process may read and write at any time.
//!
//! For what must stay readable after the process that wrote it is gone: whoever keeps the file, or a mapping, keeps the
//! words. Invariant: the file is sealed against resizing, and every access to the mapping is an atomic one, so that another process
//! may at worst write other numbers. Left out: what the numbers mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A file of words, mapped whole.
pub struct Words {
    fd: OwnedFd,
    base: NonNull<AtomicU64>,
    /// How many there are.
    count: usize,
}

// SAFETY: the mapping belongs to this value, and the words in it are atomics, which any thread may use.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Makes a file of at least `bytes` bytes and maps it. Touches nothing: pages are taken as they are first written.
    /// Fails as the kernel does.
    pub fn create(bytes: usize) -> io::Result<Words> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("mobula-words", flags)?;
        let bytes = bytes
            .checked_next_multiple_of(4096)
            .ok_or(io::ErrorKind::InvalidInput)?;
        rustix::fs::ftruncate(&fd, bytes as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Words::map(fd, bytes, MapFlags::SHARED)
    }

    /// Maps the words of a file that another process made. Fails if it could be cut short, or if the kernel refuses.
    pub fn attach(fd: OwnedFd) -> io::Result<Words> {
        let bytes = Words::sealed_size(&fd)?;
        Words::map(fd, bytes, MapFlags::SHARED)
    }

    /// As [`attach`](Words::attach), for who only looks: what is written through this mapping stays in it, and a file that was
    /// opened for reading will do.
    pub fn look(fd: OwnedFd) -> io::Result<Words> {
        let bytes = Words::sealed_size(&fd)?;
        // Pages that are not written here show what others write into the file.
        Words::map(fd, bytes, MapFlags::PRIVATE)
    }

    /// The file once more, for reading only.
    pub fn for_reading(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        std::fs::File::open(path).map(OwnedFd::from)
    }

    fn sealed_size(fd: &OwnedFd) -> io::Result<usize> {
        if !rustix::fs::fcntl_get_seals(fd)?.contains(SealFlags::SHRINK) {
            let why = "the file of words is not sealed against shrinking";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let size = rustix::fs::fstat(fd)?.st_size;
        Ok(usize::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?)
    }

    fn map(fd: OwnedFd, bytes: usize, sharing: MapFlags) -> io::Result<Words> {
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                sharing | MapFlags::NORESERVE,
                &fd,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let count = bytes / size_of::<AtomicU64>();
        Ok(Words { fd, base, count })
    }

    /// The file, for whoever maps it next.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRef<[AtomicU64]> for Words {
    #[inline]
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped from `base`, page-aligned, for as long as self lives; they are always
        // initialised, and nobody has them but as atomics.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<AtomicU64>();
        // SAFETY: mapped by `map` with this length (a whole number of words: sizes are whole pages, or what another process
        // made, whose last partial word stays mapped with its page); borrows of self have ended.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), bytes) };
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_writes_another_reads_also_when_the_first_is_gone() {
        let words = Words::create(10_000).unwrap();
        assert_eq!(words.as_ref().len(), 3 * 4096 / 8);
        words.as_ref()[700].store(7, Ordering::Relaxed);
        let other = Words::attach(words.fd().try_clone_to_owned().unwrap()).unwrap();
        drop(words);
        assert_eq!(other.as_ref()[700].load(Ordering::Relaxed), 7);
        assert_eq!(other.as_ref()[0].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_could_be_cut_short_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("cut", flags).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        let e = Words::attach(fd).err().unwrap();
        assert!(e.to_string().contains("shrinking"), "{e}");
    }

    #[test]
    fn who_looks_sees_what_is_written_and_changes_nothing() {
        let words = Words::create(8192).unwrap();
        let look = Words::look(words.for_reading().unwrap()).unwrap();
        words.as_ref()[3].store(9, Ordering::Relaxed);
        assert_eq!(look.as_ref()[3].load(Ordering::Relaxed), 9);
        look.as_ref()[3].store(1, Ordering::Relaxed);
        assert_eq!(words.as_ref()[3].load(Ordering::Relaxed), 9);
        let e = Words::attach(words.for_reading().unwrap()).err().unwrap();
        assert_eq!(e.kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn no_size_is_an_error() {
        assert!(Words::create(0).is_err());
        assert!(Words::create(usize::MAX).is_err());
    }
}
