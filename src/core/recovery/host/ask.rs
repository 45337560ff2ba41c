//! Calls that come, and questions for what calls gave.
//!
//! Invariant: a call that is known does not run once more; what it gave is told as soon as it may be. Left out: when that is (`host`).

use std::sync::Arc;

use super::{Effect, Host};
use crate::base::NodeId;
use crate::core::recovery::dedup::Stage;
use crate::core::recovery::{CallId, Settled};

impl<P: Clone> Host<P> {
    /// A node has settled these.
    pub(super) fn settle(&mut self, node: NodeId, settled: &Settled) {
        self.calls.settle(node, settled);
        self.unasked(node, settled);
    }

    /// Nobody asks for what came of these: the last state need not have it either.
    pub(super) fn unasked(&mut self, node: NodeId, settled: &Settled) {
        let checkpoint = &mut self.history.checkpoint;
        if checkpoint.ran.has_any(node, settled) {
            Arc::make_mut(checkpoint).ran.settle(node, settled);
        }
    }

    /// A call came.
    pub(super) fn call(&mut self, call: CallId, settled: &Settled, out: &mut Vec<Effect<P>>) {
        self.settle(call.node, settled);
        let known = self.calls.get(call).map(|known| known.stage.clone());
        if !self.calls.take(call) {
            return;
        }
        match known {
            None => out.push(Effect::Run(call)),
            // It was run before it came: what came of it is told as soon as it may be.
            Some(Stage::Logged(order, Some(_))) => {
                self.waiting.insert(order, call);
            }
            Some(Stage::Taken | Stage::Logged(_, None)) => {}
        }
    }

    /// What a call gave is asked for once more: nothing runs for it.
    pub(super) fn tell_again(&mut self, call: CallId, settled: &Settled, out: &mut Vec<Effect<P>>) {
        self.settle(call.node, settled);
        let known = self.calls.get(call).map(|known| &known.stage);
        if let Some(&Stage::Logged(order, ref outcome)) = known {
            // One that has not ended runs again after a takeover.
            if outcome.is_some() {
                self.waiting.insert(order, call);
            }
            self.calls.take(call);
        } else {
            out.push(Effect::Lost(call));
        }
    }
}
