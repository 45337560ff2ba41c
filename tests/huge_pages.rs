//! A store in reserved and in transparent 2 MiB pages: what it says it got, and that it holds.
//!
//! Reserves pages of the machine and changes what it allows, for as long as the one test runs; each
//! part is skipped, with its reason, where that is not to be done. Left out: speed
//! (`benches/store`).

#[path = "../src/base/skip.rs"]
mod skip;

use std::fs;

use mobula::store::{Client, ObjectId, Server};
use mobula::{Config, HugePages, PageKind, remote};

const POOL: &str = "/proc/sys/vm/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const HUGE: u64 = 2 << 20;

/// Pages added to the pool, which are taken off it again at the end: relative, since others may
/// change the pool meanwhile.
struct Reserved(u64);

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Reserved {
    fn some(pages: u64) -> Result<Reserved, String> {
        let before = number(POOL).ok_or("the kernel has no pool of 2 MiB pages")?;
        fs::write(POOL, (before + pages).to_string()).map_err(|e| format!("{POOL}: {e}"))?;
        let added = number(POOL).unwrap_or(before).saturating_sub(before);
        let guard = Reserved(added);
        if added < pages {
            return Err(format!("only {added} of {pages} pages could be reserved"));
        }
        Ok(guard)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let left = number(POOL).unwrap_or(0).saturating_sub(self.0);
        let _ = fs::write(POOL, left.to_string());
    }
}

/// What shared memory may have, put back at the end.
struct Allowed(String);

impl Allowed {
    fn set(what: &str) -> Result<Allowed, String> {
        let text = fs::read_to_string(SHMEM).map_err(|e| format!("{SHMEM}: {e}"))?;
        let (_, rest) = text.split_once('[').ok_or("nothing is chosen")?;
        let (before, _) = rest.split_once(']').ok_or("nothing is chosen")?;
        fs::write(SHMEM, what).map_err(|e| format!("{SHMEM}: {e}"))?;
        Ok(Allowed(before.to_owned()))
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        let _ = fs::write(SHMEM, &self.0);
    }
}

fn config(bytes: u64, wanted: impl Into<HugePages>) -> Config {
    Config::new()
        .num_cpus(1)
        .object_store_memory(bytes)
        .huge_pages(wanted)
        .no_spill()
        .store_patience(std::time::Duration::ZERO)
}

/// What `attempt` gives once it succeeds, within bounds.
fn eventually<T, E: std::fmt::Display>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let start = std::time::Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(e) => assert!(start.elapsed().as_secs() < 20, "{e}"),
        }
        std::thread::yield_now();
    }
}

/// Reads its argument in place and writes its result, both large, from another process.
#[remote(isolate)]
fn doubled(numbers: &[u32]) -> Vec<u32> {
    numbers.iter().map(|n| 2 * n).collect()
}

/// Lends pages to a worker process, which reads some and writes others.
fn lend() {
    let numbers: Vec<u32> = (0..1 << 20).collect();
    let there = mobula::put(&numbers).unwrap();
    let back = mobula::get(doubled::remote(&there)).unwrap();
    assert!(back.iter().zip(&numbers).all(|(b, n)| *b == 2 * n));
    assert_eq!(back.len(), numbers.len());
}

/// Serves a store to a client, which writes on pages lent to it and reads them.
fn serve() {
    let socket = std::env::temp_dir().join(format!("mobula-huge-{}", std::process::id()));
    let options = Server::options().capacity(32 << 20);
    let options = options.huge_pages(HugePages::Require);
    let server = eventually(|| options.clone().start(&socket));
    assert!(server.pages().starts_with("reserved"), "{}", server.pages());
    let client = Client::connect(&socket).unwrap();
    let told = client.stats().unwrap();
    assert_eq!(told.pages, server.pages());
    for (name, len) in [
        ("long", 3 << 20),
        ("longer", 9_000_001),
        ("middle", 300_000),
        ("short", 10),
    ] {
        let id = ObjectId::from_name(name);
        client.put_bytes(id, &vec![len as u8; len]).unwrap();
        let object = client.get(id, None).unwrap();
        assert!(object.len() == len && object.iter().all(|b| *b == len as u8));
    }
    let took = client.stats().unwrap().reserved;
    // Two and five whole pages, and the small ones share one.
    assert!((14 << 20..=16 << 20).contains(&took), "{took}");
    server.shutdown();
}

/// Fills the store to its last page, reads it back, and finds it empty afterwards.
fn fill(mobula: &mobula::Mobula) {
    let all = mobula.store().capacity as usize;
    let first = mobula::put(&vec![3u8; all / 4]).unwrap();
    let mut rest = Vec::new();
    while let Ok(more) = mobula::put(&vec![5u8; 256 << 10]) {
        rest.push(more);
    }
    assert!(mobula.store().used > mobula.store().capacity * 9 / 10);
    assert!(mobula::view(&first).unwrap().iter().all(|b| *b == 3));
    for more in &rest {
        assert!(mobula::view(more).unwrap().iter().all(|b| *b == 5));
    }
    drop((first, rest));
    assert_eq!(mobula.store().used, 0);
}

#[test]
fn the_store_says_what_pages_it_got_and_holds_in_them() {
    // Not asked for: whatever the machine has, nothing is taken.
    let mobula = config(8 << 20, false).init().unwrap();
    assert_eq!(mobula.store_pages().kind, PageKind::Small);
    assert_eq!(mobula.store().page_size, 4096);
    drop(mobula);

    // More than there is: of memory, and of reserved pages.
    let refused = config(1 << 46, true).init().unwrap_err().to_string();
    assert!(refused.contains("object_store_memory"), "{refused}");
    assert!(refused.contains("67108864 MiB, but"), "{refused}");
    match number("/proc/sys/vm/nr_overcommit_hugepages") {
        Some(0) | None => {
            let beyond = (number(POOL).unwrap_or(0) + 1) * HUGE;
            let refused = config(beyond, HugePages::Require).init();
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("Config::huge_pages"), "{refused}");
            assert!(refused.contains("2 MiB pages"), "{refused}");
        }
        Some(n) => skip::skipped(format!("a refusal: the kernel would find {n} more pages")),
    }

    match Reserved::some(16) {
        Err(why) => skip::skipped(format!("reserved pages: {why}")),
        Ok(_pages) => {
            let mobula = config(31 << 20, true).init().unwrap();
            let pages = mobula.store_pages();
            assert_eq!(pages.kind, PageKind::Reserved, "{pages}");
            let said = "reserved 2 MiB pages: 16 of them taken";
            assert!(pages.to_string().starts_with(said), "{pages}");
            assert_eq!(mobula.store().page_size, HUGE);
            assert_eq!(mobula.store().capacity, 32 << 20, "whole pages");
            fill(&mobula);
            lend();
            drop(mobula);
            // The pages come back once the last thread of the store is gone.
            let ahead = config(32 << 20, HugePages::Require).prefault(5 << 20);
            let again = eventually(|| ahead.clone().init());
            assert_eq!(again.store_pages().kind, PageKind::Reserved);
            eventually(|| match again.store().prefaulted {
                0..0x60_0000 => Err("pages were not faulted in ahead"),
                bytes => {
                    assert_eq!(bytes, 6 << 20, "whole pages");
                    Ok(())
                }
            });
            drop(again);
            serve();
            eventually(|| match number(FREE) {
                Some(free) if free >= 16 => Ok(()),
                free => Err(format!("{free:?} pages are free again")),
            });
        }
    }

    match Allowed::set("advise") {
        Err(why) => skip::skipped(format!("transparent pages: {why}")),
        Ok(_allowed) => {
            let mobula = config(31 << 20, HugePages::Auto).init().unwrap();
            let pages = mobula.store_pages();
            assert_eq!(pages.kind, PageKind::Transparent, "{pages}");
            assert!(pages.why.contains("advise"), "{pages}");
            assert_eq!(mobula.store().capacity, 31 << 20);
            fill(&mobula);
            lend();
        }
    }

    match Allowed::set("never") {
        Err(why) => skip::skipped(format!("no transparent pages: {why}")),
        Ok(_allowed) => {
            let mobula = config(31 << 20, HugePages::Auto).init().unwrap();
            let pages = mobula.store_pages();
            assert_eq!(pages.kind, PageKind::Small, "{pages}");
            assert!(pages.why.contains("shmem_enabled is never"), "{pages}");
            fill(&mobula);
        }
    }
}
