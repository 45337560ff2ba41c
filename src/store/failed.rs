//! What a disk, or a store behind a network, says no with.
//!
//! Invariant: none but what the words say. Left out: who is told.

/// Something that the disk refused.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What it said.
    pub why: String,
    /// Trying again at once is no use.
    pub hard: bool,
}

impl Failed {
    /// Nothing that another try would change.
    pub fn hard(why: String) -> Failed {
        Failed { why, hard: true }
    }

    /// What another try may change.
    pub fn soft(why: String) -> Failed {
        Failed { why, hard: false }
    }
}
