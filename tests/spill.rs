//! More objects than memory: they go to disk while nobody reads them and come back when somebody does.
#![cfg(feature = "object-store")]

#[path = "../src/base/skip.rs"]
mod skip;

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Gate, alone, pass, serial, until};
use mobula::prelude::*;
use mobula::{Config, Error, Loss, Mobula};

const MIB: usize = 1 << 20;

/// A folder of one test's own, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let path =
            std::env::temp_dir().join(format!("mobula-spill-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    fn config(&self, capacity: usize) -> Config {
        Config::new()
            .num_cpus(2.0)
            .object_store_memory(capacity as u64)
            .spill(&self.0)
            .store_patience(Duration::from_secs(20))
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().count() == 0
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|e| e == "seg") {
            found.push(path);
        }
    }
    found
}

fn numbers(seed: u64, n: usize) -> Vec<u64> {
    (0..n as u64)
        .map(|i| i ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect()
}

#[remote]
fn make(seed: u64, n: usize) -> Vec<u64> {
    numbers(seed, n)
}

#[remote]
fn sum(v: &[u64]) -> u64 {
    v.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[remote]
fn differ(a: &[u64], b: &[u64], c: Vec<u64>) -> bool {
    a != b && b != c
}

#[remote]
async fn sum_later(v: &[u64]) -> u64 {
    tokio::task::yield_now().await;
    v.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[remote]
fn join(parts: Vec<Vec<u64>>) -> usize {
    parts.iter().map(Vec::len).sum()
}

#[remote]
fn hold(v: &[u64], gate: u64) -> usize {
    pass(gate);
    v.len()
}

#[remote]
struct Keeper {
    kept: Vec<ObjectRef<Vec<u64>>>,
}

#[remote]
impl Keeper {
    pub fn new() -> Keeper {
        Keeper { kept: Vec::new() }
    }

    pub fn keep(&mut self, seed: u64, n: usize) -> Result<(), Error> {
        self.kept.push(mobula::put(&numbers(seed, n))?);
        Ok(())
    }

    pub fn first(&self, i: usize) -> Result<u64, Error> {
        Ok(mobula::view(&self.kept[i])?.as_slice()[0])
    }

    pub fn give(&self, i: usize) -> ObjectRef<Vec<u64>> {
        self.kept[i].clone()
    }
}

fn empty(mobula: &Mobula) {
    until(|| {
        let s = mobula.store();
        (s.used, s.objects, s.spilled, s.spilled_objects) == (0, 0, 0, 0)
    });
}

fn wrapping_sum(v: &[u64]) -> u64 {
    v.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[test]
fn three_times_the_capacity_loses_nothing() {
    let temp = Temp::new("three");
    alone(temp.config(16 * MIB), |mobula| {
        let count = 48;
        let kept: Vec<_> = (0..count)
            .map(|i| mobula::put(&numbers(i, MIB / 8)).unwrap())
            .collect();
        let s = mobula.store();
        assert!(
            s.spilled >= (30 * MIB) as u64 && s.used <= s.capacity,
            "{s:?}"
        );
        assert!(s.moved_out >= s.spilled && s.spill_to.is_some() && s.not_spilling.is_none());
        let holders = mobula.holders(1);
        assert_eq!(holders[0].objects, count);
        assert!(
            holders[0].bytes >= (48 * MIB) as u64 && holders[0].spilled == mobula.store().spilled
        );
        assert!(holders[0].to_string().contains("on disk"), "{}", holders[0]);
        // Read in several orders, in place and as copies.
        for i in (0..count).chain((0..count).rev()) {
            let view = mobula::view(&kept[i as usize]).unwrap();
            assert!(view.as_slice() == numbers(i, MIB / 8));
        }
        for i in (0..count).step_by(5) {
            assert!(mobula::get(&kept[i as usize]).unwrap() == numbers(i, MIB / 8));
        }
        assert!(mobula.store().moved_in > 0);
        // Many at once are read one after the other.
        assert_eq!(mobula::get(&kept).unwrap().len(), count as usize);
        drop(kept);
        empty(mobula);
        until(|| segments(&temp.0).is_empty());
    });
    until(|| temp.is_empty()); // its folder too
}

#[test]
fn views_stay_in_place_while_others_move() {
    let temp = Temp::new("views");
    alone(temp.config(16 * MIB), |mobula| {
        let first = mobula::put(&numbers(7, MIB / 8)).unwrap();
        let view = mobula::view(&first).unwrap();
        let at = view.as_slice().as_ptr();
        let kept: Vec<_> = (0..40)
            .map(|i| mobula::put(&numbers(i, MIB / 8)).unwrap())
            .collect();
        assert!(mobula.store().pinned >= MIB as u64);
        assert!(view.as_slice().as_ptr() == at && view.as_slice() == numbers(7, MIB / 8));
        assert!(mobula::view(&first).unwrap().as_slice().as_ptr() == at);
        drop((view, kept, first));
        empty(mobula);
    });
}

#[test]
fn calls_use_what_is_on_disk_and_their_results_go_there() {
    let temp = Temp::new("calls");
    alone(temp.config(16 * MIB), |mobula| {
        let n = MIB / 8;
        let made: Vec<_> = (0..40).map(|i| make::remote(i, n)).collect();
        let sums: Vec<_> = made.iter().map(sum::remote).collect();
        for (i, s) in sums.iter().enumerate() {
            assert_eq!(mobula::get(s).unwrap(), wrapping_sum(&numbers(i as u64, n)));
        }
        assert!(mobula.store().spilled > 0);
        let later: Vec<_> = made.iter().map(sum_later::remote).collect();
        for (i, s) in later.iter().enumerate() {
            assert_eq!(mobula::get(s).unwrap(), wrapping_sum(&numbers(i as u64, n)));
        }
        let differing: Vec<_> = (0..38)
            .map(|i| differ::remote(&made[i], &made[i + 1], &made[(i + 20) % 40]))
            .collect();
        assert!(mobula::get(&differing).unwrap().iter().all(|d| *d));
        assert_eq!(mobula::get(join::remote(&made[..4])).unwrap(), 4 * n);
        drop((made, sums, later, differing));
        empty(mobula);
    });
}

#[test]
fn actors_keep_more_than_memory_holds() {
    let temp = Temp::new("actors");
    alone(temp.config(16 * MIB), |mobula| {
        let keeper = Keeper::remote();
        let n = MIB / 8;
        for i in 0..40 {
            mobula::get(keeper.keep(i, n)).unwrap();
        }
        for i in (0..40).rev() {
            let first = mobula::get(keeper.first(i)).unwrap();
            assert_eq!(first, numbers(i as u64, 1)[0]);
        }
        let given = mobula::get(keeper.give(3)).unwrap();
        assert!(mobula::get(&given).unwrap() == numbers(3, n));
        drop((given, keeper));
        empty(mobula);
    });
}

#[test]
fn small_objects_are_moved_in_few_files() {
    let temp = Temp::new("small");
    alone(temp.config(4 * MIB), |mobula| {
        let kept: Vec<_> = (0..12_000u64)
            .map(|i| mobula::put(&numbers(i, 125)).unwrap())
            .collect();
        let s = mobula.store();
        assert!(s.spilled > 8 << 20, "{s:?}");
        let files = segments(&temp.0).len() as u64;
        assert!(files * 100 < s.spilled_objects, "{files} files");
        for (i, one) in kept.iter().enumerate().step_by(11) {
            assert!(mobula::view(one).unwrap().as_slice() == numbers(i as u64, 125));
        }
        drop(kept);
        empty(mobula);
    });
}

#[test]
fn damage_costs_the_damaged_alone() {
    let temp = Temp::new("damage");
    alone(temp.config(32 * MIB), |mobula| {
        // Large enough that each has a file of its own.
        let n = 9 * MIB / 8;
        let kept: Vec<_> = (0..10)
            .map(|i| mobula::put(&numbers(i, n)).unwrap())
            .collect();
        until(|| segments(&temp.0).len() >= 4);
        let mut files = segments(&temp.0);
        files.sort_by_key(|p| {
            p.file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        });
        std::fs::remove_file(&files[0]).unwrap();
        let second = std::fs::OpenOptions::new()
            .write(true)
            .open(&files[1])
            .unwrap();
        second.set_len(100).unwrap();
        std::fs::write(&files[2], vec![7; 10 * MIB]).unwrap();
        let mut lost = Vec::new();
        for (i, one) in kept.iter().enumerate() {
            match mobula::view(one) {
                Ok(view) => assert!(view.as_slice() == numbers(i as u64, n)),
                Err(Error::ObjectLost(e)) => {
                    assert!(e.to_string().contains("tests/spill.rs"), "{e}");
                    lost.push((i, e.why.clone()));
                }
                Err(e) => panic!("{e}"),
            }
        }
        let whys: Vec<Loss> = lost.iter().map(|(_, why)| why.clone()).collect();
        assert_eq!(whys, [Loss::Deleted, Loss::Truncated, Loss::Corrupted]);
        // A call that needs one fails with that; others go on.
        let gone = &kept[lost[0].0];
        match mobula::get(sum::remote(gone)).unwrap_err() {
            Error::DependencyFailed { cause, through } => {
                assert!(matches!(*cause, Error::ObjectLost(_)), "{cause}");
                assert_eq!(through, ["spill::sum"]);
            }
            e => panic!("{e}"),
        }
        assert!(matches!(
            mobula::get(gone).unwrap_err(),
            Error::ObjectLost(_)
        ));
        assert_eq!(
            mobula::get(sum::remote(&kept[9])).unwrap(),
            wrapping_sum(&numbers(9, n))
        );
        drop(kept);
        empty(mobula);
    });
}

#[test]
fn a_folder_that_refuses_is_named_and_nothing_is_lost() {
    let temp = Temp::new("refuses");
    std::fs::write(temp.0.join("file"), b"").unwrap();
    let config = temp
        .config(8 * MIB)
        .spill(temp.0.join("file"))
        .store_patience(Duration::from_millis(300));
    alone(config, |mobula| {
        let kept: Vec<_> = (0..7)
            .map(|i| mobula::put(&numbers(i, MIB / 8)).unwrap())
            .collect();
        let e = mobula::put(&numbers(9, 2 * MIB / 8)).unwrap_err();
        let Error::StoreFull(full) = &e else {
            panic!("{e}")
        };
        let why = full.not_spilling.as_deref().unwrap();
        assert!(why.contains("file") && e.to_string().contains(why), "{e}");
        assert!(full.waited >= Duration::from_millis(300) && full.spilled == 0);
        assert!(mobula.store().not_spilling.is_some());
        for (i, one) in kept.iter().enumerate() {
            assert!(mobula::get(one).unwrap() == numbers(i as u64, MIB / 8));
        }
    });
}

/// A small disk, where that can be had.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(name: &str, mib: usize) -> Option<SmallDisk> {
        let temp = std::env::temp_dir().join(format!("mobula-disk-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&temp).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "mobula-test"])
            .arg(&temp)
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(temp));
        }
        let _ = std::fs::remove_dir(&temp);
        skip::skipped("mounting a small file system takes a root that may");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_is_there() {
    let Some(disk) = SmallDisk::mount("full", 12) else {
        return;
    };
    let config = Config::new()
        .num_cpus(2)
        .object_store_memory((8 * MIB) as u64)
        .spill(&disk.0)
        .store_patience(Duration::from_secs(1));
    alone(config, |mobula| {
        let mut kept = Vec::new();
        let e = loop {
            match mobula::put(&numbers(kept.len() as u64, MIB / 8)) {
                Ok(one) => kept.push(one),
                Err(e) => break e,
            }
            assert!(kept.len() < 30, "more than memory and disk hold");
        };
        let Error::StoreFull(full) = &e else {
            panic!("{e}")
        };
        let why = full.not_spilling.as_deref().expect("it says why");
        assert!(why.contains("to spare") || why.contains("space"), "{why}");
        assert!(full.spilled > 0 && kept.len() > 10, "{} fit", kept.len());
        // With some room in memory everything can be read, wherever it is.
        kept.truncate(kept.len() - 3);
        for (i, one) in kept.iter().enumerate() {
            assert!(mobula::view(one).unwrap().as_slice() == numbers(i as u64, MIB / 8));
            if i % 2 == 0 {
                assert!(mobula::get(one).unwrap() == numbers(i as u64, MIB / 8));
            }
        }
        drop(kept);
        empty(mobula);
    });
}

#[test]
fn whoever_waits_for_room_says_so_and_gets_it() {
    let config = Config::new()
        .num_cpus(2.0)
        .object_store_memory((8 * MIB) as u64)
        .no_spill()
        .store_patience(Duration::from_secs(20));
    alone(config, |mobula| {
        let gate = Gate::new();
        let big = mobula::put(&numbers(1, 5 * MIB / 8)).unwrap();
        let holder = hold::remote(&big, gate.id());
        gate.await_arrivals(1);
        drop(big);
        let waiting = make::remote(2, 5 * MIB / 8);
        until(|| mobula.store().waiting == 1);
        let e = mobula::get_timeout(&waiting, Duration::from_millis(50)).unwrap_err();
        let text = e.to_string();
        assert!(text.contains("of room in the object store"), "{text}");
        assert!(text.contains("waiting for"), "{text}");
        gate.open();
        assert_eq!(mobula::get(holder).unwrap(), 5 * MIB / 8);
        assert!(mobula::get(&waiting).unwrap() == numbers(2, 5 * MIB / 8));
        assert_eq!(mobula.store().waiting, 0);
    });
}

#[test]
fn executors_that_wait_for_room_do_not_stop_those_that_make_it() {
    let config = Config::new()
        .num_cpus(2.0)
        .object_store_memory((8 * MIB) as u64)
        .no_spill()
        .store_patience(Duration::from_secs(20));
    alone(config, |mobula| {
        let big = mobula::put(&numbers(1, 6 * MIB / 8)).unwrap();
        // More producers than executors, all of which wait.
        let waiting: Vec<_> = (0..3)
            .map(|i| make::remote(i, 2 * MIB / 8 + 8192))
            .collect();
        until(|| mobula.store().waiting >= 2);
        let sum = sum::remote(&big);
        drop(big);
        assert_eq!(
            mobula::get(sum).unwrap(),
            wrapping_sum(&numbers(1, 6 * MIB / 8))
        );
        for (i, one) in waiting.into_iter().enumerate() {
            assert!(mobula::get(one).unwrap() == numbers(i as u64, 2 * MIB / 8 + 8192));
        }
    });
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let temp = Temp::new("killed");
    serial(|| {
        let exe = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(exe)
            .args([
                "--exact",
                "the_process_to_be_killed",
                "--nocapture",
                "--ignored",
            ])
            .env("MOBULA_SPILL_TEST", &temp.0)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        until(|| !segments(&temp.0).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!segments(&temp.0).is_empty(), "killed, so not tidied up");
        let mobula = temp.config(8 * MIB).init().unwrap();
        until(|| temp.is_empty());
        drop(mobula);
    });
}

/// Not a test: runs in a process of its own.
#[test]
#[ignore = "is started, and killed, by another test"]
fn the_process_to_be_killed() {
    let Some(folder) = std::env::var_os("MOBULA_SPILL_TEST") else {
        return;
    };
    let config = Config::new()
        .object_store_memory((8 * MIB) as u64)
        .spill(folder)
        .store_patience(Duration::from_secs(20));
    let _mobula = config.init().unwrap();
    let mut kept = Vec::new();
    for i in 0.. {
        kept.push(mobula::put(&numbers(i, MIB / 8)).unwrap());
        if kept.len() > 64 {
            std::thread::park();
        }
    }
}
