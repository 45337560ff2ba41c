//! Where the limits of this process's control groups stand.
//!
//! A container is a control group: what the machine has is not what the process may have. Pure
//! functions of the text of /proc/self/cgroup, and readers of what they point to. Left out: setting
//! limits, and changes of them later on.

use super::numa::Nodes;

/// The lowest of the limits that this process's groups, and those around them, set in these files of
/// `controller`: `v2` its name in version 2, `v1` in version 1. `None` without a limit.
pub fn lowest_limit(controller: &str, v2: &str, v1: &str) -> Option<u64> {
    let files = group_files(controller, v2, v1).into_iter();
    let limits = files.filter_map(|path| limit(&std::fs::read_to_string(path).ok()?));
    limits.min()
}

/// Where this process's groups, and those around them, have these files of `controller`, if they do.
pub fn group_files(controller: &str, v2: &str, v1: &str) -> Vec<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    files(&groups, controller, v2, v1)
}

/// The limit that a file states: "max", and what version 1 writes for it, are none.
pub fn limit(text: &str) -> Option<u64> {
    let bytes = text.trim().parse::<u64>().ok()?;
    (bytes < i64::MAX as u64 / 2).then_some(bytes)
}

/// Where the limits of these groups (the text of /proc/self/cgroup) would stand: version 2, alone
/// or beside version 1, and the controller of version 1, each with all its ancestors.
fn files(groups: &str, controller: &str, v2: &str, v1: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (roots, file) = match controllers {
            "" => (vec![String::new(), "/unified".into()], v2),
            c if c.split(',').any(|c| c == controller) => (vec![format!("/{controller}")], v1),
            _ => continue,
        };
        for root in roots {
            let mut path = path.trim_end_matches('/');
            loop {
                files.push(format!("/sys/fs/cgroup{root}{path}/{file}"));
                let Some((parent, _)) = path.rsplit_once('/') else {
                    break;
                };
                path = parent;
            }
        }
    }
    files
}

/// Why a reserved page may be missing although the kernel promised it; `None` if none can be.
pub fn why_promises_may_fail() -> Option<&'static str> {
    if lowest_limit("hugetlb", "hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes").is_some() {
        return Some("a control group limits them");
    }
    let confined = Nodes::of_machine().confined();
    confined.then_some("this process may use the memory of some nodes only")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(groups: &str) -> Vec<String> {
        files(groups, "memory", "memory.max", "memory.limit_in_bytes")
    }

    #[test]
    fn finds_limits_of_both_versions() {
        assert_eq!(
            memory("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/unified/a/b/memory.max",
                "/sys/fs/cgroup/unified/a/memory.max",
                "/sys/fs/cgroup/unified/memory.max"
            ]
        );
        assert_eq!(
            memory("3:cpuset:/\n8:memory,x:/j\n"),
            [
                "/sys/fs/cgroup/memory/j/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert!(memory("nonsense\n").is_empty());
    }

    #[test]
    fn no_limit_has_many_names() {
        assert_eq!(limit("4096\n"), Some(4096));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit(""), None);
    }
}
