//! Copies that fail, are spoilt, or hang.

use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

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
        .places
        .insert("test://".into(), (Arc::new(copies), 0));
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

#[test]
fn a_write_that_fails_leaves_what_was_there_before() {
    let (store, durables) = failing(std::io::ErrorKind::Interrupted);
    durables.usual.set("test://".into()).unwrap();
    let name: Arc<str> = "state".into();
    durables.save(&name, bytes(1000), LONG).unwrap();
    let is_first = || durables.saved_bytes(&name).unwrap() == bytes(1000);
    // In one piece, as a whole and in parts: the second of three.
    for (n, puts, part) in [(10, 3, 0), (40 * MIB, 3, 0), (40 * MIB, 0, 2)] {
        store.fail_puts.store(puts, SeqCst);
        store.fail_part.store(part, SeqCst);
        let e = durables.save(&name, bytes(n), LONG).unwrap_err();
        assert!(matches!(e, Error::NotDurable(_)), "{e}");
        assert!(is_first(), "{n} bytes, part {part}");
    }
    store.fail_part.store(0, SeqCst);
    store.hang.store(true, SeqCst);
    let e = durables.save(&name, bytes(10), Duration::from_millis(50));
    assert!(matches!(e, Err(Error::NotDurable(_))), "{e:?}");
    store.hang.store(false, SeqCst);
    assert!(is_first());
    durables.save(&name, bytes(10), LONG).unwrap();
    assert_eq!(durables.saved_bytes(&name).unwrap(), bytes(10));
}

#[test]
fn the_folder_that_is_named_is_the_one_that_is_written() {
    let temp = Temp::new("names");
    for name in ["run~1 #2", "50%", "a%20b", "[x]{y}^|*?\"<>", "ü"] {
        let (folder, durables) = (temp.0.join(name), Durables::new());
        durables.set_usual(&folder).unwrap();
        let copy = durables.own(1);
        let place = durables.write(None, &copy, bytes(10), LONG).unwrap();
        assert!(folder.join(&*copy).is_file(), "{name}: {place}");
        assert_eq!(durables.saved().unwrap(), [&*copy], "{name}");
        let mut back = vec![0; 10];
        durables.read(&place, &copy, &mut back).unwrap();
        assert_eq!(back, bytes(10), "{name}");
        durables.end();
        assert!(!folder.join(&*copy).exists(), "{name}");
    }
    assert_eq!(temp.files().len(), 5);
}

#[test]
fn a_folder_is_made_once_and_one_that_is_gone_later_is_said() {
    let temp = Temp::new("gone");
    let durables = Durables::new();
    let usual = temp.0.join("deep/usual");
    durables.set_usual(&usual).unwrap();
    assert!(usual.is_dir());
    let (other, read) = (temp.0.join("other"), temp.0.join("read"));
    for at in [None, Some(&*other)] {
        let folder = at.unwrap_or(&usual);
        let name = durables.own(1);
        durables.write(at, &name, bytes(10), LONG).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        let e = durables.write(at, &durables.own(2), bytes(10), LONG);
        let said = e.unwrap_err().to_string();
        assert!(said.contains("gone") && said.contains("mounted"), "{said}");
        assert!(!folder.exists());
        std::fs::create_dir(folder).unwrap();
        durables.write(at, &name, bytes(10), LONG).unwrap();
    }
    let place = place(&read).unwrap();
    let lost = durables.read(&place, &durables.own(3), &mut [0; 10]);
    assert!(matches!(lost, Err(Error::CopyLost(_))), "{lost:?}");
    assert!(!read.exists(), "who reads makes no folder");
}

#[test]
fn memory_is_no_place() {
    let durables = Durables::new();
    let at = Path::new("memory:///copies");
    let e = durables.write(Some(at), &durables.own(1), bytes(10), LONG);
    let said = e.unwrap_err().to_string();
    assert!(
        said.contains("ends with it") && said.contains("folder"),
        "{said}"
    );
    assert!(durables.set_usual(at).is_err());
}

#[test]
fn places_are_kept_open_up_to_a_bound_and_those_in_use_stay() {
    let temp = Temp::new("many");
    let durables = Durables::new();
    durables.set_usual(&temp.0.join("usual")).unwrap();
    let usual = Arc::clone(durables.usual().unwrap());
    let often = place(&temp.0.join("often")).unwrap();
    let first = durables.open(&often).unwrap();
    for step in 0..2 * OPEN {
        let at = temp.0.join(format!("step-{step}"));
        durables.open(&place(&at).unwrap()).unwrap();
        let again = durables.open(&often).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "step {step}");
    }
    let opened = durables.opened.lock();
    assert_eq!(opened.places.len(), OPEN);
    assert!(opened.places.contains_key(&usual));
}

#[test]
fn a_place_that_hangs_holds_up_no_deletes_elsewhere() {
    let (store, durables) = failing(std::io::ErrorKind::Interrupted);
    store.hang.store(true, SeqCst);
    for number in 0..20 {
        durables.delete(&"test://".into(), durables.own(number));
    }
    let temp = Temp::new("elsewhere");
    durables.set_usual(&temp.0).unwrap();
    for number in 0..20 {
        let name = durables.own(number);
        durables.write(None, &name, bytes(10), LONG).unwrap();
        durables.forget(&name);
    }
    crate::base::wait::until("all is deleted", LONG, || temp.files().is_empty());
}

#[test]
fn what_comes_to_be_there_after_the_end_is_deleted() {
    /// Bytes during whose writing all ends.
    struct Last(Arc<Durables>);
    impl AsRef<[u8]> for Last {
        fn as_ref(&self) -> &[u8] {
            self.0.end();
            &[1; 10]
        }
    }
    let temp = Temp::new("late");
    let durables = Arc::new(Durables::new());
    let at = place(&temp.0).unwrap();
    let name = durables.own(1);
    let last = Last(Arc::clone(&durables));
    let e = durables.write_at(Some(&at), &name, last, LONG);
    assert!(format!("{e:?}").contains("shut down"), "{e:?}");
    assert!(temp.0.is_dir() && temp.files().is_empty());
}

#[test]
fn copies_in_a_folder_are_synced_and_what_is_spilled_is_not() {
    let temp = Temp::new("synced");
    let url = place(&temp.0).unwrap();
    let (copies, _, folder) = Backend::lasting(&url).unwrap();
    assert_eq!(folder.as_ref(), Some(&temp.0));
    copies.make_folder(temp.0.clone()).unwrap();
    let (spilled, _) = Backend::url(&url).unwrap();
    let spills = [spilled, Backend::folder(&temp.0).unwrap()];
    assert!(copies.told().contains("fsync: true"), "{}", copies.told());
    for spill in spills {
        assert!(spill.told().contains("fsync: false"), "{}", spill.told());
    }
}
