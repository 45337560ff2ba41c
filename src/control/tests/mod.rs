//! One suite for whatever keeps records, run on each of them; then what is true of one alone.

mod etcd_server;
mod records;
mod suite;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            std::env::temp_dir().join(format!("mobula-control-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).expect("a folder for the test can be made");
        Folder(path)
    }

    fn address(&self) -> String {
        format!("file:{}", self.0.display())
    }

    fn file(&self) -> PathBuf {
        self.0.join("control.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn memory_keeps_records() {
    suite::all(&|| open("memory:").unwrap());
}

#[test]
fn a_file_keeps_records() {
    let folder = Folder::new("suite");
    let count = std::cell::Cell::new(0);
    suite::all(&|| {
        count.set(count.get() + 1);
        open(&format!("{}/{}", folder.0.display(), count.get())).unwrap()
    });
}

#[test]
fn etcd_keeps_records() {
    etcd_server::run();
}

#[test]
fn an_address_that_names_nothing_is_refused() {
    for bad in ["", "file:", "http://x", "redis://h:1"] {
        let refused = open(bad).err().expect(bad);
        assert!(
            matches!(&refused, ControlError::BadAddress { .. }),
            "{refused}"
        );
    }
    #[cfg(not(feature = "etcd"))]
    assert!(
        open("etcd://h:2379")
            .err()
            .unwrap()
            .to_string()
            .contains("feature `etcd`")
    );
}

#[test]
fn a_restart_loses_nothing() {
    let folder = Folder::new("restart");
    let (first, lease, revision) = {
        let control = open(&folder.address()).unwrap();
        let first = control
            .put("a/1", b"one", Expect::Absent, None, SOON)
            .unwrap();
        let lease = control.grant(Duration::from_millis(400), SOON).unwrap();
        control
            .put("a/2", b"two", Expect::Any, Some(lease.id), SOON)
            .unwrap();
        control
            .put("a/3", b"three", Expect::Any, None, SOON)
            .unwrap();
        control.delete("a/3", Expect::Any, SOON).unwrap();
        (first, lease, control.list("", SOON).unwrap().revision)
    };
    let control = open(&folder.address()).unwrap();
    let listing = control.list("a/", SOON).unwrap();
    assert_eq!(listing.revision, revision);
    let keys: Vec<(&str, &[u8], Option<LeaseId>)> = listing
        .records
        .iter()
        .map(|r| (&*r.key, &*r.value, r.lease))
        .collect();
    assert_eq!(
        keys,
        [("a/1", &b"one"[..], None), ("a/2", b"two", Some(lease.id))]
    );
    assert_eq!(listing.records[0].revision, first);
    // Revisions go on, and names of leases are not used again.
    assert!(control.put("b", b"", Expect::Any, None, SOON).unwrap() > revision);
    assert_ne!(control.grant(SOON, SOON).unwrap().id, lease.id);
    // The lease goes on too, with all its time, and ends.
    control.keep_alive(lease.id, SOON).unwrap();
    let watch = control.watch("a/2", revision, SOON).unwrap();
    assert_eq!(
        watch.next(SOON).unwrap().map(|change| change.now),
        Some(None)
    );
    // What happened before the restart cannot be followed any more, nor what never was.
    for from in [revision - 1, revision + 1000] {
        let behind = control.watch("", from, SOON).err().unwrap();
        assert!(
            matches!(behind, ControlError::FellBehind { .. }),
            "{behind}"
        );
    }
}

#[test]
fn a_folder_is_used_by_one() {
    let folder = Folder::new("one");
    let control = open(&folder.address()).unwrap();
    let refused = open(&folder.address()).err().unwrap();
    assert_eq!(
        refused,
        ControlError::InUse {
            path: folder.file()
        }
    );
    let said = refused.to_string();
    assert!(
        said.contains("another process") && said.contains("control.redb"),
        "{said}"
    );
    drop(control);
    open(&folder.address()).unwrap();
}

#[test]
fn a_damaged_file_is_named() {
    for (damage, how) in [("noise", 0), ("cut", 1), ("flips", 2)] {
        let folder = Folder::new(damage);
        {
            let control = open(&folder.address()).unwrap();
            for n in 0..200 {
                control
                    .put(&format!("k/{n}"), &[7; 1000], Expect::Any, None, SOON)
                    .unwrap();
            }
        }
        let mut bytes = fs::read(folder.file()).unwrap();
        match how {
            0 => bytes.fill(0x5a),
            1 => bytes.truncate(bytes.len() / 3),
            _ => {
                for at in (5000..bytes.len()).step_by(997) {
                    bytes[at] ^= 0xff;
                }
            }
        }
        fs::write(folder.file(), bytes).unwrap();
        let refused = open(&folder.address()).err().expect(damage);
        assert!(
            matches!(&refused, ControlError::Damaged { path, .. } if *path == folder.file()),
            "{refused}"
        );
        assert!(refused.to_string().contains("backup"));
    }
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let folder = Folder::new("nofolder");
    fs::write(folder.0.join("plain"), "").unwrap();
    let refused = open(&format!("{}/plain/deeper", folder.address()))
        .err()
        .unwrap();
    assert!(matches!(refused, ControlError::Storage { .. }), "{refused}");
}

#[test]
fn closing_ends_watches() {
    let control = open("memory:").unwrap();
    let watch = control.watch("", 0, SOON).unwrap();
    control.put("a", b"", Expect::Any, None, SOON).unwrap();
    drop(control);
    assert!(watch.next(SOON).unwrap().is_some());
    assert_eq!(watch.next(SOON), Err(ControlError::Closed));
}

/// Set in the process that is killed.
const VICTIM: &str = "MOBULA_TEST_CONTROL_VICTIM";

/// Not a test of its own: the process that [`what_was_answered_survives_a_kill`] kills writes here until it is.
#[test]
fn victim() {
    let Ok(address) = std::env::var(VICTIM) else {
        return;
    };
    let control = open(&address).unwrap();
    let start = control.list("", SOON).unwrap().records.len();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let control = Arc::clone(&control);
            scope.spawn(move || {
                for n in start.. {
                    let key = format!("w{writer}/{n:08}");
                    control
                        .put(&key, &[writer; 300], Expect::Absent, None, SOON)
                        .unwrap();
                    // One write a line: the reader sees whole ones.
                    std::io::stdout()
                        .write_all(format!("ack {key}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
}

#[test]
fn what_was_answered_survives_a_kill() {
    let folder = Folder::new("kill");
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let this = std::env::current_exe().unwrap();
        let name = format!("{}::victim", module_path!().split_once("::").unwrap().1);
        let mut child = Command::new(this)
            .args([&name, "--exact", "--nocapture", "--test-threads=1"])
            .env(VICTIM, folder.address())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 40 + round * 37;
        let mut taken = 0;
        for line in lines.by_ref() {
            // The harness prints the name of the test first, on the line of the first answer.
            if let Some((_, key)) = line.unwrap().split_once("ack ") {
                acknowledged.push(key.to_owned());
                taken += 1;
                if taken == wanted {
                    break;
                }
            }
        }
        assert_eq!(taken, wanted, "the victim ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(std::io::Result::ok) {
            if let Some((_, key)) = line.split_once("ack ")
                && key.len() == 11
            {
                acknowledged.push(key.to_owned());
            }
        }
        let control = open(&folder.address()).unwrap();
        let listing = control.list("", SOON).unwrap();
        for key in &acknowledged {
            let found = listing
                .records
                .binary_search_by(|record| record.key.cmp(key));
            assert!(
                found.is_ok(),
                "round {round}: {key} was answered, and is gone"
            );
        }
        for record in &listing.records {
            assert_eq!(record.value, [record.key.as_bytes()[1] - b'0'; 300]);
        }
        // At most the writes that were under way are there besides.
        assert!(listing.records.len() <= acknowledged.len() + 4 * (round + 1));
    }
}

#[test]
fn writers_share_syncs() {
    let folder = Folder::new("batch");
    let local = local::Local::in_folder(&folder.0).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let local = &local;
            scope.spawn(move || {
                for n in 0..16 {
                    let key = format!("many/{writer}/{n}");
                    local.put(&key, b"", Expect::Any, None, SOON).unwrap();
                }
            });
        }
    });
    let batches = local.batches();
    assert!(
        (1..256).contains(&batches),
        "{batches} syncs for 256 writes"
    );
}
