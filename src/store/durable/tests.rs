//! Copies that fail, are spoilt, or hang.

use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

use super::super::backend::Backend;
use super::super::failing::Failing;
use super::*;

const LONG: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// A folder of one test's own.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("mobula-durable-unit-{name}-{id}"));
        let _ = std::fs::remove_dir_all(&path);
        Temp(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

/// Durables at a store that fails as told.
fn failing(kind: std::io::ErrorKind) -> (Arc<Failing>, Durables) {
    let store = Failing::new(kind);
    let durables = Durables::new();
    durables.set_space(7);
    let copies = Copies::of(Backend::of(store.clone()));
    durables
        .opened
        .lock()
        .insert("test://".into(), Arc::new(copies));
    (store, durables)
}

fn write(durables: &Durables, number: u64, n: usize, timeout: Duration) -> Result<(), NotWritten> {
    let name = durables.own(number);
    durables.write_at(Some(&"test://".into()), &name, bytes(n), timeout)
}

#[test]
fn a_copy_is_read_as_it_was_written_and_goes_when_it_is_forgotten() {
    let temp = Temp::new("whole");
    let durables = Durables::new();
    durables.set_usual(&temp.0).unwrap();
    // In one piece, in parts, and with nothing in it.
    for (number, n) in [(1, 3 * MIB), (2, 33 * MIB), (3, 0)] {
        let name = durables.own(number);
        let place = durables.write(None, &name, bytes(n), LONG).unwrap();
        assert!(place.starts_with("file:///"), "{place}");
        let mut back = vec![1; n];
        durables.read(&place, &name, &mut back).unwrap();
        assert_eq!(back, bytes(n));
        assert_eq!(temp.files().len(), 1);
        durables.forget(&name);
        crate::base::wait::until("it is deleted", LONG, || temp.files().is_empty());
    }
    let kept = durables.own(4);
    durables.write(None, &kept, bytes(10), LONG).unwrap();
    durables.leave(&kept);
    durables
        .write(None, &durables.own(5), bytes(10), LONG)
        .unwrap();
    durables.end();
    assert_eq!(temp.files().len(), 1, "what was left to others stays");
    let late = durables.write(None, &durables.own(6), bytes(1), LONG);
    assert!(late.unwrap_err().to_string().contains("shut down"));
}

#[test]
fn spoilt_copies_are_refused_with_what_is_wrong() {
    let temp = Temp::new("spoilt");
    let durables = Durables::new();
    durables.set_usual(&temp.0).unwrap();
    let (name, other) = (durables.own(1), durables.own(2));
    let place = durables.write(None, &name, bytes(1000), LONG).unwrap();
    let file = temp.0.join(&*name);
    let good = std::fs::read(&file).unwrap();
    let read = |name: &str, n| {
        let mut back = vec![0; n];
        match durables.read(&place, name, &mut back) {
            Err(Error::CopyLost(lost)) => {
                let said = lost.to_string();
                assert!(said.contains(name) && said.contains(&*place), "{said}");
                Some(lost.why.clone())
            }
            other => other.map(|()| None).unwrap(),
        }
    };
    assert_eq!(read(&name, 1000), None);
    for at in [0, 9, 20, 30, 45, 48, 1047] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&file, bad).unwrap();
        assert_eq!(read(&name, 1000), Some(Loss::Corrupted), "byte {at}");
    }
    std::fs::write(&file, &good[..900]).unwrap();
    assert_eq!(read(&name, 1000), Some(Loss::Truncated));
    std::fs::write(&file, &good).unwrap();
    assert_eq!(read(&name, 999), Some(Loss::Corrupted), "of another length");
    std::fs::rename(&file, temp.0.join(&*other)).unwrap();
    assert_eq!(read(&other, 1000), Some(Loss::Corrupted), "of another name");
    assert_eq!(read(&name, 1000), Some(Loss::Deleted));
}

#[test]
fn places_that_are_none_are_refused_with_what_to_do() {
    let durables = Durables::new();
    let said = |at: Option<&str>| {
        let name = durables.own(1);
        let e = durables.write(at.map(Path::new), &name, bytes(2048), LONG);
        e.expect_err("it is none").to_string()
    };
    let none = said(None);
    assert!(
        none.contains("2.0 KiB") && none.contains("Config::durable"),
        "{none}"
    );
    for bad in [
        "nothing://there",
        "s3://bucket/without/the/feature",
        "file://%zz",
    ] {
        let e = said(Some(bad));
        assert!(e.contains(bad) && e.contains("reached"), "{e}");
        assert!(durables.set_usual(Path::new(bad)).is_err());
    }
    // A file is no folder.
    let temp = Temp::new("file");
    std::fs::write(&temp.0, b"a file").unwrap();
    let e = said(temp.0.to_str());
    assert!(e.contains("reached"), "{e}");
    assert_eq!(durables.own_copies(), 0);
    std::fs::remove_file(&temp.0).unwrap();
}

#[test]
fn a_write_that_fails_midway_leaves_nothing_and_one_that_fails_for_a_moment_is_not_noticed() {
    let (store, durables) = failing(std::io::ErrorKind::Interrupted);
    store.fail_puts.store(2, SeqCst);
    write(&durables, 1, 40 * MIB, LONG).unwrap();
    assert_eq!((store.puts.load(SeqCst), durables.own_copies()), (3, 1));
    // The second of three parts.
    store.fail_part.store(2, SeqCst);
    let e = write(&durables, 2, 40 * MIB, LONG).unwrap_err();
    assert!(matches!(e, NotWritten::Refused(_)), "{e:?}");
    assert_eq!((store.puts.load(SeqCst), durables.own_copies()), (6, 1));
    let mut back = vec![0; 40 * MIB];
    let place = "test://".into();
    let lost = durables.read(&place, &durables.own(2), &mut back);
    assert!(matches!(lost, Err(Error::CopyLost(e)) if e.why == Loss::Deleted));
    store.fail_gets.store(2, SeqCst);
    durables.read(&place, &durables.own(1), &mut back).unwrap();
    assert_eq!(back, bytes(40 * MIB));
    let (full, durables) = failing(std::io::ErrorKind::StorageFull);
    full.fail_puts.store(1, SeqCst);
    let e = write(&durables, 1, 10, LONG).unwrap_err();
    assert!(matches!(e, NotWritten::Refused(_)), "{e:?}");
    assert_eq!(full.puts.load(SeqCst), 1, "it is not tried again");
}

#[test]
fn what_does_not_answer_is_waited_for_as_long_as_allowed() {
    let (store, durables) = failing(std::io::ErrorKind::Interrupted);
    store.hang.store(true, SeqCst);
    let begun = Instant::now();
    let brief = Duration::from_millis(100);
    for n in [10, 40 * MIB] {
        let e = write(&durables, 1, n, brief).unwrap_err();
        assert_eq!(e, NotWritten::TimedOut(brief));
    }
    assert_eq!(
        write(&durables, 1, 10, Duration::ZERO),
        Err(NotWritten::TimedOut(Duration::ZERO))
    );
    assert!(begun.elapsed() < LONG);
    assert_eq!(durables.own_copies(), 0);
}
