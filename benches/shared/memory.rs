//! Shared memory like the store's, for the limits: what the machine can do without a store.

use std::os::fd::OwnedFd;

use crate::report::time;

const HUGE: usize = 2 << 20;

/// A plain mapping of an anonymous file.
pub struct Plain {
    at: *mut u8,
    len: usize,
}

impl Plain {
    /// In 4 KiB pages.
    pub fn small(len: usize) -> Plain {
        use rustix::fs::{MemfdFlags, memfd_create};
        let file = memfd_create("limit", MemfdFlags::CLOEXEC).expect("shared memory");
        Plain::of(file, len).expect("its mapping")
    }

    /// In reserved pages of 2 MiB, if there are so many.
    pub fn huge(len: usize) -> Option<Plain> {
        use rustix::fs::{MemfdFlags, memfd_create};
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        Plain::of(
            memfd_create("limit", flags).ok()?,
            len.next_multiple_of(HUGE),
        )
    }

    fn of(file: OwnedFd, len: usize) -> Option<Plain> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        rustix::fs::ftruncate(&file, len as u64).ok()?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping of a file of that size, unmapped on drop.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                access,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        let at = at.ok()?.cast();
        Some(Plain { at, len })
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours and as long, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    /// Faults all of it in.
    pub fn populate(&mut self) {
        let advice = rustix::mm::Advice::LinuxPopulateWrite;
        // SAFETY: the mapping is ours; populating changes no content.
        unsafe { rustix::mm::madvise(self.at.cast(), self.len, advice) }.expect("memory");
    }

    /// GB/s of a plain copy of `from` over so many threads.
    pub fn copy(&mut self, from: &[u8], threads: usize) -> f64 {
        let to = &mut self.bytes()[..from.len()];
        let part = from.len().div_ceil(threads);
        let took = time(|| {
            std::thread::scope(|s| {
                let mut pieces = to.chunks_mut(part).zip(from.chunks(part));
                let (own_to, own_from) = pieces.next().expect("there is a first piece");
                for (to, from) in pieces {
                    s.spawn(|| to.copy_from_slice(from));
                }
                own_to.copy_from_slice(own_from);
            });
        });
        from.len() as f64 / took.as_secs_f64() / 1e9
    }

    /// GB/s of filling `len` bytes of it with numbers.
    pub fn fill_numbers(&mut self, len: usize) -> f64 {
        // SAFETY: any bytes are numbers.
        let (_, to, _) = unsafe { self.bytes()[..len].align_to_mut::<f32>() };
        let took = time(|| to.fill(2.5));
        len as f64 / took.as_secs_f64() / 1e9
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: mapped in `of`, and no borrow is left.
        let _ = unsafe { rustix::mm::munmap(self.at.cast(), self.len) };
    }
}
