//! What becomes of large objects: made, taken, moved to disk, brought back, freed.
//!
//! Invariant: what happens on other threads is waited for, not slept for. Left out: how the store chooses, see `tests/spill.rs`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use mobula::prelude::*;

use super::common::{alone, until};
use super::{arrows, g, timeline, two};

#[test]
fn large_objects_are_made_taken_and_freed() {
    alone(two(), |_| {
        let big = mobula::put(&vec![1_u64; 10_000]).unwrap();
        let mut room = mobula::create::<u64>(5_000).unwrap();
        room.fill(2);
        let sealed = room.seal();
        let sums = [g::remote(&big), g::remote(&sealed)];
        mobula::get(&sums).unwrap();
        drop((big, sealed, sums));
        let mut found = BTreeMap::new();
        // The last reference may go with a call's arguments, on another thread.
        until(|| {
            let (_, trace) = timeline();
            found = arrows(&trace);
            trace.named("free").count() == 2
        });
        let data = |from: &str| found[&("data".into(), from.into(), "g".into())];
        assert_eq!((data("put"), data("seal")), (1, 1));
    });
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[remote]
fn make(n: u64) -> Vec<u64> {
    vec![n; 1 << 18]
}

#[remote]
fn first(of: &[u64]) -> u64 {
    of[0]
}

#[cfg(feature = "object-store")]
#[test]
fn objects_that_go_to_disk_say_when_and_who_brought_them_back() {
    let folder = format!("mobula-timeline-{}-spill", std::process::id());
    let folder = Folder(std::env::temp_dir().join(folder));
    std::fs::create_dir_all(&folder.0).unwrap();
    let config = two()
        .object_store_memory(16 << 20)
        .spill(&folder.0)
        .store_patience(std::time::Duration::from_secs(20));
    alone(config, |_| {
        // Twice what memory holds, in objects of 2 MiB.
        let made: Vec<_> = (0..8).map(make::remote).collect();
        mobula::wait(&made).num_returns(8).run().unwrap();
        let put: Vec<_> = (8..16_u64)
            .map(|n| mobula::put(&vec![n; 1 << 18]).unwrap())
            .collect();
        for (n, object) in made.iter().chain(&put).enumerate() {
            assert_eq!(mobula::get(first::remote(object)).unwrap(), n as u64);
        }
        let (_, trace) = timeline();
        let known: HashSet<&str> = trace
            .slices
            .iter()
            .filter(|s| s.name == "make" || s.name == "put")
            .map(|s| match s.category.as_str() {
                "object" => s.arg("object"),
                _ => s.arg("call"),
            })
            .collect();
        assert_eq!(known.len(), 16);
        let spilled: Vec<_> = trace.named("spilled").collect();
        let left: HashSet<&str> = spilled.iter().map(|(_, s)| s.arg("object")).collect();
        assert!(left.len() >= 8, "{} of 16 left memory for 8", left.len());
        assert!(left.is_subset(&known), "{left:?} in {known:?}");
        for (at, slice) in &spilled {
            let segment = slice.parent.map(|p| &trace.slices[p]);
            let segment = segment.unwrap_or_else(|| panic!("{at} is in no segment"));
            assert_eq!(segment.name, "spill");
            assert_eq!(trace.threads[&segment.thread], "store spill");
        }
        let told: u64 = trace
            .named("spill")
            .map(|(_, s)| s.args["objects"].as_u64().unwrap())
            .sum();
        assert_eq!(told, spilled.len() as u64);
        let restored: Vec<_> = trace.named("restore").collect();
        assert!(restored.len() >= 8, "{} came back", restored.len());
        let readers: Vec<usize> = trace.named("first").map(|(at, _)| at).collect();
        for (at, slice) in &restored {
            assert!(left.contains(slice.arg("object")), "{slice:?} never left");
            assert!(slice.args["bytes"].as_u64() > Some(1 << 20));
            let inside = readers.iter().any(|reader| trace.within(*at, *reader));
            assert!(inside, "{slice:?} is not where it was read");
        }
        drop((made, put));
        until(|| {
            let (_, trace) = timeline();
            trace.named("free").count() == 16
        });
    });
}
