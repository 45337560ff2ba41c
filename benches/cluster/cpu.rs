//! What CPU time processes use.
//!
//! Left out: threads that end meanwhile, whose time is not seen.

/// Seconds that the threads of the process have used so far.
fn seconds(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let nanos: u64 = threads
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("schedstat")).ok())
        .filter_map(|s| s.split(' ').next()?.parse::<u64>().ok())
        .sum();
    nanos as f64 / 1e9
}

/// How long `f` takes, and what CPU time these processes use meanwhile.
pub fn during(pids: &[u32], f: impl FnOnce()) -> (f64, f64) {
    let used = || -> f64 { pids.iter().map(|pid| seconds(*pid)).sum() };
    let before = used();
    let took = crate::report::time(f);
    (took.as_secs_f64(), (used() - before).max(0.0))
}
