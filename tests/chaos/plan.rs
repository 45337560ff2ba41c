//! What is done to the nodes, drawn from a seed before anything happens.
//!
//! Invariant: the same seed gives the same plan. No plan has more deaths at once than the actors of its round have backups: that
//! is what they are promised. Left out: doing it (`world`).

use std::fmt;

use crate::chance::Chance;
use crate::network_common::Way;

/// Nodes that may die; the head, which has the records, is none of them.
pub const NODES: usize = 3;
/// Stops that are no deaths are shorter, in milliseconds: nodes are held for dead after some hundred at the pace of this test.
const SHORT: u64 = 150;
/// For how long a machine stays cut off after it was held for dead, in milliseconds.
const LONGER: u64 = 400;

/// Whom it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A node.
    Node(usize),
    /// The node that has this object, if that may die; else some node.
    HostOf(usize, usize),
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for so many milliseconds.
    Wait(u64),
    /// SIGKILL; another node joins.
    Kill(Whom),
    /// Two nodes at once, or almost.
    KillBoth(usize, usize, u64),
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Pause(usize, u64),
    /// SIGSTOP until the others hold it for dead; then SIGCONT, and another node joins.
    Freeze(Whom),
    /// The object saves its state.
    Checkpoint(usize),
    /// A machine is cut off, and reached again after so many milliseconds.
    Cut(Whom, Way, u64),
    /// A machine is cut off until the others hold its node for dead, and so many milliseconds more; when it is reached again, that
    /// node ends, and another joins.
    CutOff(Whom, Way, u64),
    /// Two machines, which reach each other, are parted from all others in the same way.
    Split(usize, usize, u64),
}

/// A part of the test, with actors of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub replicas: u32,
    pub steps: Vec<Step>,
}

fn two(chance: &mut Chance) -> (usize, usize) {
    let one = chance.below(NODES as u64) as usize;
    let other = (one + 1 + chance.below(NODES as u64 - 1) as usize) % NODES;
    (one, other)
}

fn whom(chance: &mut Chance, objects: usize) -> Whom {
    let node = chance.below(NODES as u64) as usize;
    if chance.permille(700) {
        Whom::HostOf(chance.below(objects as u64) as usize, node)
    } else {
        Whom::Node(node)
    }
}

fn cut(chance: &mut Chance, objects: usize, replicas: u32) -> Step {
    if replicas > 1 && chance.permille(250) {
        let (one, other) = two(chance);
        return Step::Split(one, other, chance.below(LONGER));
    }
    let whom = whom(chance, objects);
    let way = match chance.below(4) {
        0 => Way::In,
        1 => Way::Out,
        _ => Way::Both,
    };
    if chance.permille(400) {
        Step::Cut(whom, way, chance.between(20, SHORT))
    } else {
        // One that is heard and hears nobody for so long says of all others that they are dead, and is believed of some: see
        // `docs/recovery.md`.
        let way = if way == Way::In { Way::Both } else { way };
        Step::CutOff(whom, way, chance.below(LONGER))
    }
}

impl Round {
    /// One of so many things that happen to so many objects.
    pub fn draw(
        chance: &mut Chance,
        number: usize,
        objects: usize,
        steps: usize,
        cuts: bool,
    ) -> Round {
        let replicas = 1 + number as u32 % 2;
        let mut all = vec![Step::Wait(chance.between(100, 400))];
        for n in 0..steps {
            // Every other thing that happens, where the network can be cut.
            if cuts && n % 2 == 0 {
                all.push(cut(chance, objects, replicas));
                all.push(Step::Wait(chance.below(300)));
                continue;
            }
            let step = match chance.below(10) {
                0..=3 => Step::Kill(whom(chance, objects)),
                4 if replicas > 1 => {
                    let (one, other) = two(chance);
                    Step::KillBoth(one, other, chance.below(400))
                }
                4 => Step::Kill(whom(chance, objects)),
                5..=6 => Step::Freeze(whom(chance, objects)),
                7..=8 => Step::Pause(
                    chance.below(NODES as u64) as usize,
                    chance.between(20, SHORT),
                ),
                _ => Step::Checkpoint(chance.below(objects as u64) as usize),
            };
            all.push(step);
            all.push(Step::Wait(chance.below(300)));
        }
        Round {
            replicas,
            steps: all,
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} backups:", self.replicas)?;
        self.steps
            .iter()
            .try_for_each(|step| write!(f, " {step:?}"))
    }
}

#[test]
fn the_same_seed_gives_the_same_plan() {
    let rounds = |seed| {
        let mut chance = Chance::new(seed);
        let draw = |number| Round::draw(&mut chance, number, 4, 20, number >= 4);
        (0..8).map(draw).collect::<Vec<_>>()
    };
    assert_eq!(rounds(5), rounds(5));
    assert_ne!(rounds(5), rounds(6));
    let two = |s: &Step| matches!(s, Step::KillBoth(..) | Step::Split(..));
    let both = |round: &Round| round.steps.iter().any(two);
    let alone = |round: &Round| round.replicas == 1;
    assert!(!rounds(5).iter().any(|r| alone(r) && both(r)));
    assert!((0..20).any(|seed| rounds(seed).iter().any(both)));
    let cuts = |round: &Round| round.steps.iter().any(|s| matches!(s, Step::CutOff(..)));
    assert!(!rounds(5)[..4].iter().any(cuts) && rounds(5)[4..].iter().all(cuts));
    let splits = |s: &Step| matches!(s, Step::Split(..));
    assert!(rounds(5)[4..].iter().any(|r| r.steps.iter().any(splits)));
}
