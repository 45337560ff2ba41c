//! Typed records: they come back as they were written, and other bytes are refused.

use proptest::prelude::*;

use super::SOON;
use crate::base::{ActorKey, NodeId};
use crate::control::records::*;
use crate::control::*;

fn node(n: u64) -> NodeId {
    NodeId::new(n).unwrap()
}

fn actor(name: &str, n: u64) -> NamedActor {
    NamedActor {
        name: name.to_owned(),
        actor: ActorKey {
            host: node(n),
            number: n * 3,
        },
        entry: "app::Counter".to_owned(),
        first: ActorKey {
            host: node(1),
            number: 1,
        },
        incarnation: 1,
    }
}

#[test]
fn nodes_come_and_go_with_their_lease() {
    let control = open("memory:").unwrap();
    let record = Node {
        node: node(5),
        addr: "[::1]:7000".parse().unwrap(),
        head: true,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
    };
    let lease = control.grant(Duration::from_secs(60), SOON).unwrap();
    let (_, from) = list::<Node>(&*control, SOON).unwrap();
    let written = put(&*control, &record, Expect::Any, Some(lease.id), SOON).unwrap();
    assert_eq!(
        get::<Node>(&*control, &node(5), SOON).unwrap(),
        Some((record.clone(), written))
    );
    assert_eq!(
        list::<Node>(&*control, SOON).unwrap(),
        (vec![record.clone()], written)
    );
    let watch = watch::<Node>(&*control, from, SOON).unwrap();
    control.revoke(lease.id, SOON).unwrap();
    let next = || news::<Node>(&watch.next(SOON).unwrap().unwrap()).unwrap();
    assert_eq!(next(), News::Is(record, written));
    assert_eq!(next(), News::Gone(node(5), written + 1));
}

#[test]
fn a_name_is_one_actors() {
    let control = open("memory:").unwrap();
    let (mine, theirs) = (actor("hits\n%", 1), actor("hits\n%", 2));
    let Claim::Taken(held) = claim(&*control, &mine, SOON).unwrap() else {
        panic!("nobody had it")
    };
    assert_eq!(
        claim(&*control, &theirs, SOON),
        Ok(Claim::Held(mine.clone(), held))
    );
    assert_eq!(
        claim(&*control, &mine, SOON),
        Ok(Claim::Taken(held)),
        "an answer may have been lost"
    );
    // Its host died; one of two who recover it wins.
    let moved = reassign(&*control, &theirs, held, SOON).unwrap();
    let late = reassign(&*control, &mine, held, SOON).unwrap_err();
    assert!(
        matches!(late, ControlError::Conflict { actual: Some(n), .. } if n == moved),
        "{late}"
    );
    assert_eq!(
        delete::<NamedActor>(&*control, &mine.name, Expect::Revision(moved), SOON),
        Ok(true)
    );
    assert!(matches!(claim(&*control, &mine, SOON), Ok(Claim::Taken(_))));
    // Many at once: one has it, and all others see whose it is.
    let claims: Vec<Claim> = std::thread::scope(|scope| {
        let claim = |n| {
            let control = &control;
            scope.spawn(move || claim(&**control, &actor("race", n), SOON).unwrap())
        };
        let threads: Vec<_> = (1..9).map(claim).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        claims
            .iter()
            .filter(|claim| matches!(claim, Claim::Taken(_)))
            .count(),
        1
    );
    let too_long = claim(&*control, &actor(&"n".repeat(600), 1), SOON).unwrap_err();
    assert!(
        matches!(too_long, ControlError::BadKey { .. }),
        "{too_long}"
    );
}

#[test]
fn other_bytes_are_no_records() {
    let control = open("memory:").unwrap();
    for (key, value) in [
        ("nodes/zz", &[1u8][..]),
        ("nodes/0000000000000001", &[2]),
        ("nodes/0000000000000001", &[1, 0, 0, 0, 9, 1]),
        ("nodes/0000000000000001", &[]),
    ] {
        control.put(key, value, Expect::Any, None, SOON).unwrap();
        let bad = list::<Node>(&*control, SOON).unwrap_err();
        assert!(
            matches!(&bad, ControlError::BadRecord { key: said, kind: "node", .. } if said == key),
            "{bad}"
        );
        control.delete(key, Expect::Any, SOON).unwrap();
    }
}

proptest! {
    #[test]
    fn jobs_and_names_come_back(
        id in any::<u64>(),
        executable in any::<[u8; 32]>(),
        args in proptest::collection::vec(".{0,20}", 0..5),
        submitted in any::<u64>(),
        code in any::<i32>(),
        state in 0..3,
        name in "[\\PC%\u{0}-\u{1f}]{1,40}",
    ) {
        let control = open("memory:").unwrap();
        let state = match state {
            0 => JobState::Running,
            1 => JobState::Ended(code),
            _ => JobState::Failed(name.clone()),
        };
        let job = Job { id: JobId(id), executable, args, driver: node(7), submitted, state };
        put(&*control, &job, Expect::Any, None, SOON).unwrap();
        prop_assert_eq!(list::<Job>(&*control, SOON).unwrap().0, vec![job]);
        let named = actor(&name, 3);
        claim(&*control, &named, SOON).unwrap();
        prop_assert_eq!(list::<NamedActor>(&*control, SOON).unwrap().0, vec![named]);
    }

    #[test]
    fn garbage_is_refused(value in proptest::collection::vec(any::<u8>(), 0..120)) {
        let control = open("memory:").unwrap();
        let mut value = value;
        value.insert(0, 1);
        control.put("jobs/0000000000000001", &value, Expect::Any, None, SOON).unwrap();
        // It is read or refused, and nothing else.
        if let Ok((jobs, _)) = list::<Job>(&*control, SOON) {
            put(&*control, &jobs[0], Expect::Any, None, SOON).unwrap();
            let again = control.get("jobs/0000000000000001", SOON).unwrap().unwrap();
            prop_assert_eq!(again.value, value);
        }
    }
}
