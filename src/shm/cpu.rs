//! Which CPU a thread runs on, and keeping it off one.
//!
//! Two threads that work together on one CPU while others idle add nothing; the scheduler can leave
//! them there for long. Invariant: a thread is never left without a CPU. Left out: deciding when.

use rustix::thread::CpuSet;

/// The CPU that this thread runs on, if that can be told. Some nanoseconds.
pub fn current_cpu() -> Option<usize> {
    (!cfg!(miri)).then(rustix::thread::sched_getcpu)
}

/// Keeps this thread off a CPU, unless it has no other; returns where it might run before. A helper of
/// a copy left to the scheduler stayed beside the thread that it helps for whole copies whenever the
/// other CPUs had work of their own (measured with one busy: 14.3 GB/s instead of 17.5, the slowest of
/// 60 at 8.5 instead of 12.5). Best effort.
pub fn keep_off(cpu: Option<usize>) -> Option<CpuSet> {
    let cpu = cpu.filter(|cpu| *cpu < CpuSet::MAX_CPU)?;
    let before = rustix::thread::sched_getaffinity(None).ok()?;
    let mut rest = before;
    rest.unset(cpu);
    if rest.count() == 0 || rest == before {
        return None;
    }
    rustix::thread::sched_setaffinity(None, &rest).ok()?;
    Some(before)
}

/// Puts this thread before others for as long as it lives: before all of them if `always`, which is for one that never works
/// for long. Threads and processes that it starts are as any other. Best effort: the system may not let it.
#[cfg(feature = "cluster")]
pub fn come_first(always: bool) {
    const PRIORITY: i32 = 1;
    const NICE: i32 = -11;
    let set = |policy: i32, priority: i32| {
        // SAFETY: all of the structure's fields may be zero.
        let mut how: libc::sched_param = unsafe { std::mem::zeroed() };
        how.sched_priority = priority;
        // SAFETY: the structure is only read, and outlives the call; 0 is this thread.
        unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &how) == 0 }
    };
    if cfg!(miri) || (always && set(libc::SCHED_RR, PRIORITY)) {
        return;
    }
    // Without the flag what this thread starts would be put before others too: then rather not.
    if set(libc::SCHED_OTHER, 0) {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    }
}

/// Lets a thread of this process go before all others, or no more; what it starts is as any other. Best effort.
#[cfg(feature = "cluster")]
pub fn hurry(thread: i32, hurry: bool) {
    let (policy, priority) = if hurry {
        (libc::SCHED_RR, 1)
    } else {
        (libc::SCHED_OTHER, 0)
    };
    // SAFETY: all of the structure's fields may be zero.
    let mut how: libc::sched_param = unsafe { std::mem::zeroed() };
    how.sched_priority = priority;
    // SAFETY: the structure is only read, and outlives the call; a thread that is gone is an error, which is fine.
    unsafe { libc::sched_setscheduler(thread, policy | libc::SCHED_RESET_ON_FORK, &how) };
}

/// The CPU time that a thread of this process has had, if that can be told.
#[cfg(feature = "cluster")]
pub fn cpu_time(thread: i32) -> Option<std::time::Duration> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let nanos = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(std::time::Duration::from_nanos(nanos))
}

/// Moves this thread to another CPU than `cpu`, if it may run on one; the scheduler is free to move it
/// again afterwards. Three system calls.
pub fn move_away_from(cpu: usize) {
    if let Some(before) = keep_off(Some(cpu)) {
        // Were it refused, the thread would merely stay off that CPU.
        let _ = rustix::thread::sched_setaffinity(None, &before);
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_moves_away_and_may_run_where_it_might_before() {
        let all = rustix::thread::sched_getaffinity(None).unwrap();
        for _ in 0..10 {
            let here = current_cpu().unwrap();
            move_away_from(here);
            assert_eq!(rustix::thread::sched_getaffinity(None).unwrap(), all);
        }
        let mut one = CpuSet::new();
        one.set(current_cpu().unwrap());
        rustix::thread::sched_setaffinity(None, &one).unwrap();
        assert_eq!(keep_off(current_cpu()), None, "it has no other");
        assert_eq!(rustix::thread::sched_getaffinity(None).unwrap(), one);
    }
}
