//! What holds of all records, wherever they are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SOON;
use crate::control::*;

type Make<'a> = &'a dyn Fn() -> Arc<dyn Control>;

/// Each on records of its own.
pub fn all(make: Make<'_>) {
    for (name, law) in [
        (
            "reads what was written",
            reads_what_was_written as fn(&Arc<dyn Control>),
        ),
        ("compares and swaps", compares_and_swaps),
        ("one of many wins", one_of_many_wins),
        ("lists in order", lists_in_order),
        ("watches miss nothing", watches_miss_nothing),
        ("a slow watch says so", a_slow_watch_says_so),
        ("leases end", leases_end),
        ("leases go on", leases_go_on),
        ("leases are revoked", leases_are_revoked),
        ("bounds", bounds),
    ] {
        println!("{name}");
        let control = make();
        law(&control);
    }
}

fn value(control: &dyn Control, key: &str) -> Option<Vec<u8>> {
    control.get(key, SOON).unwrap().map(|record| record.value)
}

fn reads_what_was_written(control: &Arc<dyn Control>) {
    assert_eq!(control.get("a", SOON), Ok(None));
    let first = control.put("a", b"1", Expect::Any, None, SOON).unwrap();
    let second = control.put("a", b"2", Expect::Any, None, SOON).unwrap();
    assert!(second > first && first > 0);
    let record = control.get("a", SOON).unwrap().unwrap();
    let expected = Record {
        key: "a".to_owned(),
        value: b"2".to_vec(),
        revision: second,
        lease: None,
    };
    assert_eq!(record, expected);
    assert_eq!(control.delete("a", Expect::Any, SOON), Ok(true));
    assert_eq!(control.delete("a", Expect::Any, SOON), Ok(false));
    assert_eq!(control.get("a", SOON), Ok(None));
    control.put("empty", b"", Expect::Any, None, SOON).unwrap();
    assert_eq!(value(&**control, "empty"), Some(vec![]));
    assert!(!control.address().is_empty());
    // Whoever can wait forever says so.
    control
        .put("a", b"3", Expect::Any, None, Duration::MAX)
        .unwrap();
    let watch = control.watch("a", second, SOON).unwrap();
    assert!(watch.next(Duration::MAX).unwrap().is_some());
}

fn compares_and_swaps(control: &Arc<dyn Control>) {
    let conflict = |expected, actual| ControlError::Conflict {
        key: "k".to_owned(),
        expected,
        actual,
    };
    assert_eq!(
        control.put("k", b"x", Expect::Revision(7), None, SOON),
        Err(conflict(Some(7), None))
    );
    let first = control.put("k", b"1", Expect::Absent, None, SOON).unwrap();
    assert_eq!(
        control.put("k", b"2", Expect::Absent, None, SOON),
        Err(conflict(None, Some(first)))
    );
    let second = control
        .put("k", b"2", Expect::Revision(first), None, SOON)
        .unwrap();
    let stale = Err(conflict(Some(first), Some(second)));
    assert_eq!(
        control.put("k", b"3", Expect::Revision(first), None, SOON),
        stale
    );
    assert_eq!(
        control.delete("k", Expect::Revision(first), SOON),
        Err(conflict(Some(first), Some(second)))
    );
    assert_eq!(value(&**control, "k"), Some(b"2".to_vec()));
    assert_eq!(
        control.delete("k", Expect::Revision(second), SOON),
        Ok(true)
    );
    // Another record of the same key is not the one that was read.
    let third = control.put("k", b"2", Expect::Absent, None, SOON).unwrap();
    assert!(third > second);
    assert_eq!(
        control.put("k", b"", Expect::Revision(second), None, SOON),
        Err(conflict(Some(second), Some(third)))
    );
}

fn one_of_many_wins(control: &Arc<dyn Control>) {
    const THREADS: u64 = 6;
    const EACH: u64 = 12;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut added = 0;
                while added < EACH {
                    let found = control.get("sum", SOON).unwrap();
                    let (sum, expect) = match &found {
                        Some(record) => {
                            let bytes = record.value[..].try_into().unwrap();
                            (u64::from_be_bytes(bytes), Expect::Revision(record.revision))
                        }
                        None => (0, Expect::Absent),
                    };
                    match control.put("sum", &(sum + 1).to_be_bytes(), expect, None, SOON) {
                        Ok(_) => added += 1,
                        Err(ControlError::Conflict { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    let sum = value(&**control, "sum").unwrap();
    assert_eq!(
        u64::from_be_bytes(sum[..].try_into().unwrap()),
        THREADS * EACH
    );
}

fn lists_in_order(control: &Arc<dyn Control>) {
    let keys = ["p/b", "p/a", "p/ä", "p/", "p", "q/a", "p/a/x", "p0", "o"];
    for key in keys {
        control
            .put(key, key.as_bytes(), Expect::Any, None, SOON)
            .unwrap();
    }
    let list = |prefix: &str| -> Vec<String> {
        let listing = control.list(prefix, SOON).unwrap();
        listing
            .records
            .into_iter()
            .map(|record| record.key)
            .collect()
    };
    assert_eq!(list("p/"), ["p/", "p/a", "p/a/x", "p/b", "p/ä"]);
    assert_eq!(list("p"), ["p", "p/", "p/a", "p/a/x", "p/b", "p/ä", "p0"]);
    assert_eq!(list("").len(), keys.len());
    assert_eq!(list("nothing"), [""; 0]);
    // More than one page of an answer.
    let long = vec![1; 20_000];
    for n in 0..300 {
        control
            .put(&format!("many/{n:03}"), &long, Expect::Any, None, SOON)
            .unwrap();
    }
    let listing = control.list("many/", SOON).unwrap();
    assert_eq!(listing.records.len(), 300);
    assert!(listing.records.iter().map(|record| &record.key).is_sorted());
    assert!(
        listing
            .records
            .iter()
            .all(|record| record.value == long && record.revision <= listing.revision)
    );
}

fn watches_miss_nothing(control: &Arc<dyn Control>) {
    control.put("w/old", b"", Expect::Any, None, SOON).unwrap();
    let from = control.list("w/", SOON).unwrap().revision;
    control
        .put("w/before", b"x", Expect::Any, None, SOON)
        .unwrap();
    let watch = control.watch("w/", from, SOON).unwrap();
    let other = control.watch("w/1", from, SOON).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for n in 0..20u8 {
                    let key = format!("w/{writer}");
                    control.put(&key, &[n], Expect::Any, None, SOON).unwrap();
                    control
                        .put("not/watched", &[n], Expect::Any, None, SOON)
                        .unwrap();
                    if n % 5 == 4 {
                        control.delete(&key, Expect::Any, SOON).unwrap();
                    }
                }
            });
        }
    });
    let mut of: BTreeMap<String, Vec<Option<u8>>> = BTreeMap::new();
    let mut last = from;
    let expected: Vec<Option<u8>> = (0..20)
        .flat_map(|n| {
            if n % 5 == 4 {
                vec![Some(n), None]
            } else {
                vec![Some(n)]
            }
        })
        .collect();
    for _ in 0..1 + 4 * expected.len() {
        let change = watch.next(SOON).unwrap().expect("a change is missing");
        assert!(change.revision > last, "in order, each write once");
        last = change.revision;
        let now = change
            .now
            .map(|(value, _)| value.first().copied().unwrap_or(0));
        of.entry(change.key).or_default().push(now);
    }
    assert_eq!(of.remove("w/before"), Some(vec![Some(b'x')]));
    assert!(of.values().all(|changes| *changes == expected) && of.len() == 4);
    assert_eq!(watch.next(Duration::from_millis(20)), Ok(None));
    for now in &expected {
        let change = other.next(SOON).unwrap().unwrap();
        assert_eq!(
            (change.key.as_str(), change.now.map(|(value, _)| value[0])),
            ("w/1", *now)
        );
    }
}

fn a_slow_watch_says_so(control: &Arc<dyn Control>) {
    let from = control.list("", SOON).unwrap().revision;
    let watch = control.watch("s/", from, SOON).unwrap();
    let quick = control.watch("t/", from, SOON).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            scope.spawn(move || {
                for n in 0..WATCH_MAX * 3 / 2 / 16 {
                    control
                        .put(
                            &format!("s/{writer}"),
                            &n.to_be_bytes(),
                            Expect::Any,
                            None,
                            SOON,
                        )
                        .unwrap();
                }
            });
        }
    });
    // The others do not suffer. What is told to them shows that the slow one was told most, too.
    control.put("t/1", b"", Expect::Any, None, SOON).unwrap();
    assert!(quick.next(SOON).unwrap().is_some());
    let behind = loop {
        match watch.next(SOON) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(
        matches!(behind, Err(ControlError::FellBehind { ref prefix, .. }) if prefix == "s/"),
        "{behind:?}"
    );
    assert_eq!(watch.next(SOON), behind, "and goes on saying so");
}

fn leases_end(control: &Arc<dyn Control>) {
    let lease = control.grant(Duration::from_millis(500), SOON).unwrap();
    assert!(
        lease.ttl >= Duration::from_millis(500) && lease.ttl <= Duration::from_secs(3),
        "{:?}",
        lease.ttl
    );
    control.put("l/kept", b"", Expect::Any, None, SOON).unwrap();
    control
        .put("l/moved", b"", Expect::Any, Some(lease.id), SOON)
        .unwrap();
    control
        .put("l/moved", b"", Expect::Any, None, SOON)
        .unwrap();
    control
        .put("l/a", b"", Expect::Any, Some(lease.id), SOON)
        .unwrap();
    let last = control
        .put("l/b", b"", Expect::Any, Some(lease.id), SOON)
        .unwrap();
    assert_eq!(
        control.get("l/a", SOON).unwrap().unwrap().lease,
        Some(lease.id)
    );
    let watch = control.watch("l/", last, SOON).unwrap();
    let mut gone = Vec::new();
    while gone.len() < 2 {
        let change = watch.next(SOON).unwrap().expect("the lease does not end");
        assert_eq!(change.now, None);
        gone.push(change.key);
    }
    gone.sort();
    assert_eq!(gone, ["l/a", "l/b"]);
    let keys: Vec<String> = control
        .list("l/", SOON)
        .unwrap()
        .records
        .into_iter()
        .map(|r| r.key)
        .collect();
    assert_eq!(keys, ["l/kept", "l/moved"]);
    let ended = ControlError::NoLease { lease: lease.id };
    assert_eq!(control.keep_alive(lease.id, SOON), Err(ended.clone()));
    assert_eq!(
        control.put("l/c", b"", Expect::Any, Some(lease.id), SOON),
        Err(ended)
    );
    assert_eq!(control.revoke(lease.id, SOON), Ok(false));
}

fn leases_go_on(control: &Arc<dyn Control>) {
    let lease = control.grant(Duration::from_millis(500), SOON).unwrap();
    let last = control
        .put("g/a", b"", Expect::Any, Some(lease.id), SOON)
        .unwrap();
    let watch = control.watch("g/", last, SOON).unwrap();
    let until = Instant::now() + lease.ttl * 3;
    while Instant::now() < until {
        control.keep_alive(lease.id, SOON).unwrap();
        assert_eq!(
            watch.next(lease.ttl / 5),
            Ok(None),
            "it ended though it was kept alive"
        );
    }
    assert!(value(&**control, "g/a").is_some());
    assert_eq!(
        watch.next(SOON).unwrap().unwrap().now,
        None,
        "and ends once it is not"
    );
}

fn leases_are_revoked(control: &Arc<dyn Control>) {
    let lease = control.grant(Duration::from_secs(600), SOON).unwrap();
    let other = control.grant(Duration::from_secs(600), SOON).unwrap();
    assert_ne!(lease.id, other.id);
    control
        .put("r/a", b"", Expect::Any, Some(lease.id), SOON)
        .unwrap();
    control
        .put("r/b", b"", Expect::Any, Some(other.id), SOON)
        .unwrap();
    assert_eq!(control.revoke(lease.id, SOON), Ok(true));
    assert_eq!(
        (value(&**control, "r/a"), value(&**control, "r/b")),
        (None, Some(vec![]))
    );
    assert_eq!(control.revoke(lease.id, SOON), Ok(false));
    // Attached to another's, it stays as long as that one.
    control.put("r/b", b"", Expect::Any, None, SOON).unwrap();
    assert_eq!(control.revoke(other.id, SOON), Ok(true));
    assert_eq!(value(&**control, "r/b"), Some(vec![]));
    let never = LeaseId(0x7fff_ffff);
    assert_eq!(
        control.keep_alive(never, SOON),
        Err(ControlError::NoLease { lease: never })
    );
}

fn bounds(control: &Arc<dyn Control>) {
    let longest = "k".repeat(KEY_MAX);
    control
        .put(&longest, &vec![9; VALUE_MAX], Expect::Any, None, SOON)
        .unwrap();
    assert_eq!(value(&**control, &longest).unwrap().len(), VALUE_MAX);
    for bad in ["", &"k".repeat(KEY_MAX + 1), "a\nb", "a\0"] {
        for refused in [
            control.put(bad, b"", Expect::Any, None, SOON).err(),
            control.get(bad, SOON).err(),
            control.delete(bad, Expect::Any, SOON).err(),
        ] {
            let refused = refused.expect(bad);
            assert!(
                matches!(refused, ControlError::BadKey { len, .. } if len == bad.len()),
                "{refused}"
            );
        }
    }
    let refused = control
        .put("big", &vec![0; VALUE_MAX + 1], Expect::Any, None, SOON)
        .unwrap_err();
    assert!(
        refused.to_string().contains("262145") && refused.to_string().contains("262144"),
        "{refused}"
    );
    for ttl in [Duration::ZERO, Duration::from_secs(86_401)] {
        assert_eq!(control.grant(ttl, SOON), Err(ControlError::BadTtl { ttl }));
    }
}
