//! How much stack a thread has left, so that nested calls run in place only while there is room.
//!
//! Invariant: a wrong answer errs on the side of "too little". Left out: growing stacks; deep recursion goes on
//! another thread instead.

/// Calls run in place only while this much stack is left, or a quarter of the whole if that is more: a call may need
/// as much as it would have had on an executor of its own.
const MARGIN: usize = 192 << 10;
/// The stack of executor threads; virtual memory, touched only as deep as it is used.
pub const EXECUTOR_STACK: usize = 16 << 20;

/// The address below which this thread should not start a nested call.
pub fn floor() -> usize {
    let Some((low, size)) = bounds() else {
        // Unknown: assume that 256 KiB below here is the end.
        return here();
    };
    low + MARGIN.max(size / 4)
}

/// Roughly where the stack pointer is.
#[inline(always)]
pub fn here() -> usize {
    let mark = 0u8;
    std::hint::black_box(&raw const mark).addr()
}

fn bounds() -> Option<(usize, usize)> {
    #[cfg(miri)]
    return None;
    #[cfg(not(miri))]
    // SAFETY: plain calls of pthread's own functions on the current thread, with attributes that are initialised by
    // the first and destroyed once.
    unsafe {
        let mut attr = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
        if libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()) != 0 {
            return None;
        }
        let mut attr = attr.assume_init();
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        let got = libc::pthread_attr_getstack(&raw const attr, &raw mut low, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attr);
        // The main thread's stack grows on demand up to its limit; trust no more than 8 MiB of it.
        const TRUST: usize = 64 << 20;
        (got == 0 && size > 0).then(|| {
            let usable = size.min(TRUST);
            (low.addr() + (size - usable), usable)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_its_stack() {
        std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(|| {
                let room = here() - floor();
                // The system may hand out a larger stack that another thread left.
                assert!(room > 512 << 10 && room < 64 << 20, "{room}");
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
