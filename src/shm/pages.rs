//! Which pages a segment is made of, and why: reserved 2 MiB ones, transparent ones, or 4 KiB ones.
//!
//! What the machine grants stands in small files of the kernel; the judgements are pure functions of
//! their text. Reserved pages are set aside by an administrator and belong to whoever takes them
//! first, so they are taken only when asked for. Transparent ones cost nothing to ask for.
//! Invariant: whatever was judged comes with a sentence that says why. Left out: taking the pages
//! (`memfd`).

use std::fmt;

use super::extents::PAGE;
use super::numa::Nodes;

/// Bytes of a huge page.
pub const HUGE: u64 = 2 << 20;

/// Where the kernel says how many 2 MiB pages are reserved, and free.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// Where the kernel says whether shared memory may have transparent ones.
const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Which pages the object store should be made of.
///
/// Pages of 2 MiB make the first write of memory two to three times as fast, and every later one
/// somewhat faster. They come in two kinds. *Reserved* ones are set aside by the administrator
/// (`sysctl vm.nr_hugepages=4096` reserves 8 GiB): the store takes as many as its capacity needs
/// when it starts, or none, so it can never miss one later. *Transparent* ones the kernel
/// finds as it goes, and uses small pages where it finds none (allowed with
/// `echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled`).
///
/// ```
/// use mobula::HugePages;
///
/// let mobula = mobula::Config::new().huge_pages(HugePages::On).init()?;
/// println!("{}", mobula.store_pages()); // which it got, and why
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// None are asked for: 4 KiB, unless the kernel makes them huge by itself.
    Off,
    /// Transparent ones where the kernel allows them. Reserved ones are left to those who ask.
    #[default]
    Auto,
    /// Reserved ones, else transparent ones, else 4 KiB.
    On,
    /// Reserved ones, or no store at all.
    Require,
}

impl From<bool> for HugePages {
    /// `true` is [`On`](HugePages::On), `false` is [`Off`](HugePages::Off).
    fn from(on: bool) -> HugePages {
        if on { HugePages::On } else { HugePages::Off }
    }
}

/// What a store's pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageKind {
    /// 4 KiB each.
    Small,
    /// 2 MiB where the kernel finds them, else 4 KiB.
    Transparent,
    /// 2 MiB each, set aside in advance.
    Reserved,
}

/// The pages that a store got, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorePages {
    /// Their kind.
    pub kind: PageKind,
    /// Bytes of one.
    pub size: u64,
    /// Why not better ones, or what these rest on: a sentence's second half.
    pub why: String,
    /// Memory nodes of the machine. With several, pages are faulted in ahead on the node of the
    /// thread that needed more last; with one there is nothing to choose.
    pub nodes: usize,
}

impl fmt::Display for StorePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            PageKind::Small => "4 KiB pages",
            PageKind::Transparent => "transparent 2 MiB pages",
            PageKind::Reserved => "reserved 2 MiB pages",
        };
        write!(f, "{what}: {}", self.why)?;
        match self.nodes {
            1 => write!(f, "; one memory node"),
            n => write!(f, "; {n} memory nodes, faulted in ahead near their writers"),
        }
    }
}

impl StorePages {
    /// Pages of this kind.
    pub(super) fn new(kind: PageKind, why: impl Into<String>) -> StorePages {
        let size = match kind {
            PageKind::Small => PAGE,
            PageKind::Transparent | PageKind::Reserved => HUGE,
        };
        StorePages {
            kind,
            size,
            why: why.into(),
            nodes: Nodes::of_machine().count(),
        }
    }

    /// The unit in which they can be leased. A transparent page is split where it must be; a
    /// reserved one cannot be.
    pub(super) fn grain(&self) -> u64 {
        match self.kind {
            PageKind::Reserved => HUGE,
            PageKind::Small | PageKind::Transparent => PAGE,
        }
    }
}

/// The kernel's pool of reserved pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Set aside in all.
    pub total: u64,
    /// Neither in use nor promised to somebody.
    pub free: u64,
    /// How many more the kernel would try to find when asked.
    pub more: u64,
}

impl Pool {
    /// The pool as it is now; `None` where the kernel has none.
    pub fn now() -> Option<Pool> {
        Pool::read(|name| std::fs::read_to_string(format!("{POOL}/{name}")).ok())
    }

    /// The pool, by the text of its files.
    fn read(file: impl Fn(&str) -> Option<String>) -> Option<Pool> {
        let number = |name| file(name)?.trim().parse::<u64>().ok();
        let promised = number("resv_hugepages")?;
        let surplus = number("surplus_hugepages").unwrap_or(0);
        let limit = number("nr_overcommit_hugepages").unwrap_or(0);
        Some(Pool {
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?.saturating_sub(promised),
            more: limit.saturating_sub(surplus),
        })
    }
}

/// Why a store of `len` bytes cannot have reserved pages, by the pool's counts; `None` if it seems
/// that it can.
pub fn why_not_reserved(pool: Option<Pool>, len: u64) -> Option<String> {
    let Some(pool) = pool else {
        return Some("the kernel has no pool of 2 MiB pages".into());
    };
    let need = len.div_ceil(HUGE);
    if pool.free + pool.more >= need {
        return None;
    }
    if pool.total == 0 {
        return Some(format!(
            "no 2 MiB pages are reserved (the store needs {need}: sysctl vm.nr_hugepages={need})"
        ));
    }
    let Pool { total, free, .. } = pool;
    let short = total + need - free;
    Some(format!(
        "{free} of {total} reserved 2 MiB pages are free and the store needs {need} (sysctl vm.nr_hugepages={short})"
    ))
}

/// Whether shared memory may have transparent pages: what they rest on, or why not. By the text of
/// `shmem_enabled` and of this process's `status`.
fn transparent(shmem_enabled: Option<&str>, status: &str) -> Result<String, String> {
    let Some(text) = shmem_enabled else {
        return Err("the kernel has no transparent ones".into());
    };
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let chosen = chosen.map_or("unreadable", |(word, _)| word);
    if !matches!(chosen, "always" | "within_size" | "advise" | "force") {
        return Err(format!("shmem_enabled is {chosen} (advise would do)"));
    }
    let mut lines = status.lines();
    if lines.any(|line| line.strip_prefix("THP_enabled:").map(str::trim) == Some("0")) {
        return Err("this process is denied transparent ones (prctl)".into());
    }
    Ok(format!("shmem_enabled is {chosen}"))
}

/// As [`transparent`], for this process as it is now.
pub fn transparent_now() -> Result<String, String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    transparent(std::fs::read_to_string(SHMEM).ok().as_deref(), &status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "always within_size advise never deny force";

    fn pool(files: &[(&str, &str)]) -> Option<Pool> {
        Pool::read(|name| {
            let found = files.iter().find(|(file, _)| *file == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn pages_promised_to_others_are_not_free() {
        let files = [
            ("nr_hugepages", "512\n"),
            ("free_hugepages", "500\n"),
            ("resv_hugepages", "100\n"),
            ("surplus_hugepages", "3\n"),
            ("nr_overcommit_hugepages", "10\n"),
        ];
        let expected = Pool {
            total: 512,
            free: 400,
            more: 7,
        };
        assert_eq!(pool(&files), Some(expected));
        assert_eq!(pool(&files[..2]), None);
        assert_eq!(pool(&[]), None);
    }

    #[test]
    fn says_how_many_reserved_pages_are_missing() {
        let pool = |total, free, more| Some(Pool { total, free, more });
        assert_eq!(why_not_reserved(pool(4, 4, 0), 4 * HUGE), None);
        assert_eq!(why_not_reserved(pool(0, 0, 4), 4 * HUGE), None);
        let none = why_not_reserved(pool(0, 0, 0), 3 * HUGE + 1).unwrap();
        assert!(none.contains("needs 4: sysctl vm.nr_hugepages=4"), "{none}");
        let few = why_not_reserved(pool(512, 10, 0), 20 * HUGE).unwrap();
        assert!(few.starts_with("10 of 512 reserved"), "{few}");
        assert!(few.ends_with("(sysctl vm.nr_hugepages=522)"), "{few}");
        assert!(why_not_reserved(None, HUGE).is_some());
    }

    #[test]
    fn transparent_pages_need_the_kernels_word() {
        for word in ALL.split(' ') {
            let text = ALL.replace(word, &format!("[{word}]"));
            let allowed = transparent(Some(&text), "Name:\tx\nTHP_enabled:\t1\n");
            assert_eq!(allowed.is_ok(), !matches!(word, "never" | "deny"), "{word}");
            let said = allowed.unwrap_or_else(|why| why);
            assert!(
                said.starts_with(&format!("shmem_enabled is {word}")),
                "{said}"
            );
            assert!(transparent(Some(&text), "THP_enabled:\t0\n").is_err());
        }
        assert!(transparent(None, "").is_err());
        assert!(transparent(Some("what"), "").is_err());
    }

    #[cfg(not(miri))]
    #[test]
    fn reads_as_a_sentence() {
        let mut pages = StorePages::new(PageKind::Small, "not asked for");
        pages.nodes = 1;
        let said = "4 KiB pages: not asked for; one memory node";
        assert_eq!(pages.to_string(), said);
        assert_eq!((pages.size, pages.grain()), (4096, 4096));
        let mut huge = StorePages::new(PageKind::Reserved, "2 of them");
        huge.nodes = 2;
        let said =
            "reserved 2 MiB pages: 2 of them; 2 memory nodes, faulted in ahead near their writers";
        assert_eq!(huge.to_string(), said);
        assert_eq!((huge.size, huge.grain()), (HUGE, HUGE));
        let thp = StorePages::new(PageKind::Transparent, "");
        assert_eq!((thp.size, thp.grain()), (HUGE, PAGE));
        assert_eq!(HugePages::from(true), HugePages::On);
        assert_eq!(HugePages::from(false), HugePages::Off);
    }
}
