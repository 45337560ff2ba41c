//! Faults planted around the machines, to show that the simulator notices them.
//!
//! Invariant: the machines themselves are those of the product; what changes is how they are driven.

/// What is wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A release takes all references of the borrower with it, those under way too.
    ReleaseAll,
    /// Who hands a reference on does not wait until it is registered.
    LetGoEarly,
    /// Who gets a reference says that it is registered before the owner does.
    ArriveEarly,
    /// An owner drops what a dead node borrowed at once.
    NoGrace,
    /// An owner drops it without having heard that others hold that node for dead, too.
    OwnBurial,
    /// Some releases get lost.
    LoseRelease,
    /// Some orders to free a copy get lost.
    LoseFree,
    /// Some messages come twice.
    Duplicate,
    /// Some messages overtake others of the same pair.
    Reorder,
    /// Some nodes do not hear of a death.
    MissDeath,
    /// Some calls run although their node has no room for them.
    StartEarly,
    /// Some resources are not given back.
    KeepTicket,
    /// Who was asked to reserve a part of a group says that it has, before it has.
    CommitEarly,
}

impl Fault {
    /// All of them.
    pub const PLANTED: &[Fault] = &[
        Fault::ReleaseAll,
        Fault::LetGoEarly,
        Fault::ArriveEarly,
        Fault::NoGrace,
        Fault::OwnBurial,
        Fault::LoseRelease,
        Fault::LoseFree,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::MissDeath,
        Fault::StartEarly,
        Fault::KeepTicket,
        Fault::CommitEarly,
    ];
}
