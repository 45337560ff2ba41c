//! Any bytes as a record: a key and a value that lie in a file, or on etcd, where others may write too.
//!
//! Invariant: they are refused, or written as they were read. Left out: the file's own format, which is redb's to check.

use super::{Authority, Job, JobId, JobState, Kind, Lead, NamedActor, Node, bytes, decode, key};
use crate::base::hostile::cheaply;
use crate::base::{ActorKey, NodeId};
use crate::core::recovery::Record;

/// A zero byte ends the key.
fn joined<K: Kind>(record: &K) -> Vec<u8> {
    let mut all = key::<K>(&record.id()).into_bytes();
    all.push(0);
    all.extend(bytes(record));
    all
}

/// True ones.
pub fn samples() -> Vec<Vec<u8>> {
    let node = NodeId::new(7).expect("not 0");
    let job = |state| Job {
        id: JobId(9),
        executable: [3; 32],
        args: vec!["app".into(), String::new()],
        driver: node,
        submitted: 1 << 40,
        state,
    };
    let actor = ActorKey {
        host: node,
        number: 3,
    };
    vec![
        joined(&Node {
            node,
            addr: ([127, 0, 0, 1], 7677).into(),
            head: true,
            labels: [("zone".to_owned(), "a".to_owned())].into(),
        }),
        joined(&job(JobState::Running)),
        joined(&job(JobState::Ended(-1))),
        joined(&job(JobState::Failed("why".into()))),
        joined(&NamedActor {
            name: "a%b\n/c".into(),
            actor: ActorKey {
                host: node,
                number: 4,
            },
            entry: "app::Counter".into(),
            incarnation: 2,
            first: actor,
        }),
        joined(&Record {
            actor,
            incarnation: 2,
            version: 7,
            at: ActorKey {
                host: node,
                number: 5,
            },
            backups: vec![node],
        }),
        joined(&Authority {
            whose: "nodes".into(),
            secret: "mobula1-".into(),
        }),
        joined(&Lead {
            of: "launchers".into(),
            node,
            addr: ([127, 0, 0, 1], 7677).into(),
        }),
    ]
}

fn read<K: Kind>(key: &str, value: &[u8]) {
    let record = cheaply(key.len() + value.len(), 64, || decode::<K>(key, value));
    if let Ok(record) = record {
        assert_eq!(super::key::<K>(&record.id()), key, "one key for one id");
        let again = bytes(&record);
        let twice = decode::<K>(key, &again).map(|record| bytes(&record));
        assert_eq!(twice.ok(), Some(again));
    }
}

/// See the file.
pub fn records(bytes: &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (key, value) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    if let Ok(key) = std::str::from_utf8(key) {
        read::<Node>(key, value);
        read::<Job>(key, value);
        read::<NamedActor>(key, value);
        read::<Record>(key, value);
        read::<Authority>(key, value);
        read::<Lead>(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn one_thing_has_one_key() {
        let (lower, upper) = ("00000000000000ab", "00000000000000AB");
        assert!(Node::parse(lower).is_some() && JobId(0xab).to_string() == lower);
        assert!(Job::parse(lower).is_some());
        assert!(Node::parse(upper).is_none() && Job::parse(upper).is_none());
        assert!(NamedActor::parse("a%0ab").is_some() && NamedActor::parse("a%0Ab").is_none());
    }

    #[test]
    fn spoiled_records_are_refused_or_read() {
        spoiled(4, 20_000, &samples(), records);
    }
}
