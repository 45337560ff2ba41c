//! What CPU time processes have used, whatever became of their threads.

/// Seconds that the process has used so far, of its own and the kernel's for it.
pub fn seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name, in parentheses, may have anything in it.
    let after = stat.rsplit(')').next().unwrap_or("");
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// What these processes use while `f` runs, in seconds.
pub fn during<R>(pids: &[u32], f: impl FnOnce() -> R) -> (R, f64) {
    let used = || -> f64 { pids.iter().map(|pid| seconds(*pid)).sum() };
    let before = used();
    let result = f();
    (result, used() - before)
}
