//! Memory nodes: which there are, and on which one pages should be faulted in ahead.
//!
//! The kernel gives a page to the node of whoever touches it first, which suits a writer and not the
//! thread that faults in ahead of it. That thread therefore asks for the node of the last thread that
//! wanted more, or for all in turn while nobody has. With one node nothing is set. Invariant: the wish
//! is a preference, never a bound: a full node does not fail anybody. Left out: moving pages later.

use std::sync::OnceLock;

/// The machine's nodes that have memory, and the CPUs of each.
#[derive(Debug, PartialEq, Eq)]
pub struct Nodes {
    /// By node: its number and its CPUs.
    nodes: Vec<(u32, Vec<u32>)>,
}

impl Nodes {
    /// The machine's, read once.
    pub fn of_machine() -> &'static Nodes {
        static NODES: OnceLock<Nodes> = OnceLock::new();
        const PLACE: &str = "/sys/devices/system/node";
        NODES.get_or_init(|| {
            Nodes::read(|name| std::fs::read_to_string(format!("{PLACE}/{name}")).ok())
        })
    }

    /// By the text of the files of /sys/devices/system/node; no nodes if there are none.
    fn read(file: impl Fn(&str) -> Option<String>) -> Nodes {
        let listed = file("has_memory").or_else(|| file("online"));
        let numbers = list(&listed.unwrap_or_default()).unwrap_or_default();
        let cpus = |node| list(&file(&format!("node{node}/cpulist"))?);
        let nodes = numbers.into_iter();
        Nodes {
            nodes: nodes.map(|n| (n, cpus(n).unwrap_or_default())).collect(),
        }
    }

    /// Where pages should be faulted in for a thread on this node, or for nobody yet; nothing with one
    /// node.
    pub fn near(&self, node: Option<u32>) -> Vec<u32> {
        match (self.count(), node) {
            (1, _) => Vec::new(),
            (_, Some(node)) => vec![node],
            (_, None) => self.nodes.iter().map(|(n, _)| *n).collect(),
        }
    }

    /// How many there are; a machine without the notion has one.
    pub fn count(&self) -> usize {
        self.nodes.len().max(1)
    }

    /// The node of a CPU.
    fn of_cpu(&self, cpu: u32) -> Option<u32> {
        let found = self.nodes.iter().find(|(_, cpus)| cpus.contains(&cpu));
        found.map(|(node, _)| *node)
    }

    /// The node this thread runs on now; `None` where there is only one.
    pub fn here(&self) -> Option<u32> {
        if self.nodes.len() < 2 {
            return None;
        }
        self.of_cpu(u32::try_from(rustix::thread::sched_getcpu()).ok()?)
    }

    /// Whether this process may use the memory of some nodes only.
    pub fn confined(&self) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.confined_by(&status)
    }

    /// As [`confined`](Self::confined), by the text of /proc/self/status.
    fn confined_by(&self, status: &str) -> bool {
        let line = |line: &'_ str| line.strip_prefix("Mems_allowed_list:").map(str::to_owned);
        let allowed = status.lines().find_map(line).and_then(|text| list(&text));
        allowed.is_some_and(|allowed| self.nodes.iter().any(|(n, _)| !allowed.contains(n)))
    }
}

/// Numbers as the kernel lists them: `0-2,5`.
fn list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last.checked_sub(first)? >= 1 << 16 {
            return None; // no machine is like that: not worth the memory
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Lets this thread's first touches take memory near these nodes' CPUs: of one node while it has
/// some, of several in turn. Best effort: where the kernel has no policies, nothing changes.
pub fn prefer(nodes: &[u32]) {
    const BITS: usize = usize::BITS as usize;
    let mut mask = [0usize; 16];
    for node in nodes {
        if let Some(word) = mask.get_mut(*node as usize / BITS) {
            *word |= 1 << (*node as usize % BITS);
        }
    }
    let how = match nodes.len() {
        1 => libc::MPOL_PREFERRED,
        _ => libc::MPOL_INTERLEAVE,
    };
    // SAFETY: the mask is as many bits long as is said, and is only read; the policy is this
    // thread's.
    #[cfg(not(miri))]
    unsafe {
        let bits = mask.len() * BITS;
        libc::syscall(libc::SYS_set_mempolicy, how, mask.as_ptr(), bits);
    }
    #[cfg(miri)]
    let _ = (mask, how);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Nodes {
        Nodes::read(|name| {
            let text = match name {
                "has_memory" => "0,2\n",
                "node0/cpulist" => "0-3,8\n",
                "node2/cpulist" => "4-7\n",
                _ => return None,
            };
            Some(text.to_owned())
        })
    }

    #[test]
    fn reads_lists() {
        assert_eq!(list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(list("7"), Some(vec![7]));
        assert_eq!(list("\n"), Some(vec![]));
        for bad in ["3-1", "a", "1-", "0-4294967295"] {
            assert_eq!(list(bad), None, "{bad}");
        }
    }

    #[test]
    fn knows_the_node_of_a_cpu() {
        let nodes = two();
        assert_eq!(nodes.count(), 2);
        assert_eq!(nodes.of_cpu(8), Some(0));
        assert_eq!(nodes.of_cpu(5), Some(2));
        assert_eq!(nodes.of_cpu(9), None);
        let none = Nodes::read(|_| None);
        assert_eq!((none.count(), none.here()), (1, None));
        assert_eq!(
            (nodes.near(Some(2)), nodes.near(None)),
            (vec![2], vec![0, 2])
        );
        assert!(none.near(Some(0)).is_empty() && none.near(None).is_empty());
    }

    #[test]
    fn knows_when_some_nodes_are_out_of_reach() {
        let nodes = two();
        assert!(nodes.confined_by("Mems_allowed_list:\t0\n"));
        assert!(!nodes.confined_by("Mems_allowed:\t05\nMems_allowed_list:\t0,2\n"));
        assert!(!nodes.confined_by("nothing of the kind"));
    }

    #[cfg(not(miri))]
    #[test]
    fn preferring_a_node_leaves_memory_to_be_had() {
        prefer(&[0]);
        prefer(&[1 << 20]); // no such node: nothing happens
        let touched = vec![1u8; 8 << 20];
        assert_eq!(touched[touched.len() - 1], 1);
        assert!(Nodes::of_machine().count() >= 1);
    }
}
