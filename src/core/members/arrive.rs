//! What arrives.
//!
//! Invariant: a datagram is read and checked whole before anything changes. The dead are answered that they are dead,
//! and otherwise not heard. Left out: how frames are read (`frame`).

use foca::{Header, Member, State};

use super::codec::{self, BadDatagram};
use super::frame::{self, Frame, Rank};
use super::{Death, Effect, Members, Peer, Phase};
use crate::base::NodeId;

impl Members {
    pub(super) fn datagram(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        out: &mut Vec<Effect>,
    ) -> Result<(), BadDatagram> {
        let (frame, views) = frame::read(bytes, from, self.me.node)?;
        if from == self.me.node {
            return Err(BadDatagram::Forged { says: from, from });
        }
        if self.phase == Phase::New {
            return Ok(());
        }
        if let Frame::Verdict(theirs) = frame {
            self.verdict(from, theirs, out);
            return Ok(());
        }
        if self.graves.has(from) {
            if let Some(to) = self.reply_to(from, &frame) {
                let rank = self.rank();
                self.send(to, &Frame::Verdict(rank), out);
            }
            return Ok(());
        }
        match frame {
            Frame::Swim {
                bytes,
                header,
                updates,
            } => self.swim(bytes, header, updates, out)?,
            // All others are for members only.
            _ if !self.living.contains_key(&from)
                && !matches!(frame, Frame::Pull { .. } | Frame::Page { .. }) =>
            {
                return Ok(());
            }
            Frame::Ask {
                origin,
                target,
                suspected,
            } => self.asked(from, origin, target, suspected, out),
            Frame::Alive {
                origin,
                who,
                incarnation,
            } => self.alive(from, origin, who, incarnation, out),
            Frame::Pull { from: number } => {
                if let Some(&to) = self.living.get(&from) {
                    self.page(to, number, out);
                }
            }
            Frame::Page { members, last } => {
                let known = self.living.get(&from).copied();
                if let Some(peer) =
                    known.or_else(|| self.join.iter().find(|p| p.node == from).copied())
                {
                    self.learn(peer, &members, last, out);
                }
            }
            Frame::Views | Frame::Knock | Frame::Verdict(_) => {}
        }
        self.heard_any = self.clock.now();
        self.take_views(&views, out);
        Ok(())
    }

    /// Where one that is dead is answered: where it was, or where it says.
    fn reply_to(&mut self, from: NodeId, frame: &Frame<'_>) -> Option<Peer> {
        match frame {
            Frame::Swim { header, .. } => Some(header.src),
            Frame::Ask { origin, .. } if origin.node == from => Some(*origin),
            _ => self.graves.lost(from),
        }
    }

    fn swim(
        &mut self,
        bytes: &[u8],
        header: Header<Peer>,
        mut updates: Vec<Member<Peer>>,
        out: &mut Vec<Effect>,
    ) -> Result<(), BadDatagram> {
        let src = header.src.node;
        if self.is_new(src) && !self.has_room() {
            return Err(BadDatagram::Full(src));
        }
        let all = updates.len();
        let room = self.has_room();
        updates.retain(|update| {
            let node = update.id().node;
            let known = node == self.me.node || self.living.contains_key(&node);
            let alive = update.state() != State::Down;
            if !known && !alive {
                self.graves.bury(node);
            }
            known || (room && !(alive && self.graves.has(node)))
        });
        let again;
        let bytes = if updates.len() == all {
            bytes
        } else {
            again = codec::swim_with(&header, &updates);
            &again
        };
        // What it could refuse was checked, so it does not.
        let result = self.with_foca(out, |foca, asked| foca.handle_data(bytes, asked));
        debug_assert!(result.is_ok(), "{result:?}");
        Ok(())
    }

    /// Somebody wants to know whether `target` lives.
    fn asked(
        &mut self,
        from: NodeId,
        origin: Peer,
        target: Peer,
        suspected: Option<u16>,
        out: &mut Vec<Effect>,
    ) {
        if target.node != self.me.node {
            if let Some(&to) = self.living.get(&target.node) {
                self.send(
                    to,
                    &Frame::Ask {
                        origin,
                        target,
                        suspected,
                    },
                    out,
                );
            }
            return;
        }
        if let Some(incarnation) = suspected {
            self.apply(Member::new(self.me, incarnation, State::Suspect), true, out);
        }
        let answer = Frame::Alive {
            origin,
            who: self.me,
            incarnation: self.incarnation,
        };
        for to in [from, origin.node] {
            if let Some(&to) = self.living.get(&to) {
                self.send(to, &answer, out);
            }
            if from == origin.node {
                break;
            }
        }
    }

    /// Somebody lives.
    fn alive(
        &mut self,
        from: NodeId,
        origin: Peer,
        who: Peer,
        incarnation: u16,
        out: &mut Vec<Effect>,
    ) {
        if origin.node != self.me.node {
            if let Some(&to) = self.living.get(&origin.node) {
                self.send(
                    to,
                    &Frame::Alive {
                        origin,
                        who,
                        incarnation,
                    },
                    out,
                );
            }
            return;
        }
        if !self.living.contains_key(&who.node) {
            return;
        }
        if incarnation > 0 && (from != who.node || self.doubts.contains_key(&who.node)) {
            self.apply(Member::new(who, incarnation, State::Alive), true, out);
        }
        self.answered(who.node, out);
    }

    /// Somebody says that this node is dead.
    fn verdict(&mut self, from: NodeId, theirs: Rank, out: &mut Vec<Effect>) {
        if self.living.contains_key(&from) {
            self.end(out, Effect::Dead(Death::Declared));
            return;
        }
        let ours = self.rank();
        if theirs > ours {
            self.end(
                out,
                Effect::Dead(Death::Outvoted {
                    by: from,
                    theirs,
                    ours,
                }),
            );
        }
    }
}
