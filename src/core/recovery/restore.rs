//! Going on from a checkpoint in a place outside of all nodes, when the host and all backups are dead together.
//!
//! Each host names what it writes there by its incarnation and the call after which it stands, so a host that was declared dead and goes on
//! regardless overwrites nothing of a later one, and the newest is of the latest incarnation that wrote any.
//!
//! Invariant: whoever goes on from one does so by a swap of the record, as one more incarnation; calls that were answered after it are
//! lost, others are not, and none counts twice. Left out: reading and writing.

use super::Record;
use crate::base::ActorKey;

/// A checkpoint outside of all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Saved {
    /// Who wrote it.
    pub incarnation: u64,
    /// All calls up to this one are in it.
    pub order: u64,
}

/// Those to try, the newest first.
pub fn newest(record: &Record, saved: impl IntoIterator<Item = Saved>) -> Vec<Saved> {
    // What a later incarnation wrote is of a record that is about to be read.
    let known = |s: &Saved| s.incarnation <= record.incarnation;
    let mut saved: Vec<Saved> = saved.into_iter().filter(known).collect();
    saved.sort_unstable_by(|a, b| b.cmp(a));
    saved
}

/// Those that are of no use once this one is there.
pub fn older(than: Saved, saved: impl IntoIterator<Item = Saved>) -> impl Iterator<Item = Saved> {
    saved.into_iter().filter(move |s| *s < than)
}

/// The record of an actor that goes on here.
pub fn claim(record: &Record, me: ActorKey) -> Record {
    Record {
        actor: record.actor,
        incarnation: record.incarnation + 1,
        version: record.version + 1,
        at: me,
        backups: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NodeId;

    fn key(host: u64) -> ActorKey {
        ActorKey {
            host: NodeId::new(host).unwrap(),
            number: 9,
        }
    }

    fn saved(incarnation: u64, order: u64) -> Saved {
        Saved { incarnation, order }
    }

    #[test]
    fn the_latest_incarnation_goes_before_the_longest_history() {
        let record = Record {
            actor: key(1),
            incarnation: 3,
            version: 7,
            at: key(2),
            backups: vec![NodeId::new(4).unwrap()],
        };
        let all = [
            saved(2, 50),
            saved(3, 4),
            saved(4, 90),
            saved(1, 70),
            saved(3, 12),
        ];
        let best = newest(&record, all);
        assert_eq!(
            best,
            [saved(3, 12), saved(3, 4), saved(2, 50), saved(1, 70)]
        );
        assert_eq!(newest(&record, []), []);
        let useless: Vec<Saved> = older(saved(3, 4), all).collect();
        assert_eq!(useless, [saved(2, 50), saved(1, 70)]);
        let claimed = claim(&record, key(5));
        assert_eq!((claimed.incarnation, claimed.version), (4, 8));
        assert_eq!((claimed.at, claimed.actor), (key(5), key(1)));
        assert!(claimed.backups.is_empty(), "they are dead");
    }
}
