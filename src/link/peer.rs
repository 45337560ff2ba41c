//! What is kept for one peer.
//!
//! Invariant: at most one connection with a peer is in use; whoever replaces or removes it does so under the peer's lock and
//! only if it is still the one that it saw. Left out: making connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, VarInt};
use tokio::sync::Notify;

use super::control::lied;
use crate::base::NodeId;
use crate::core::session::{Claim, Session};
use crate::link::LinkError;
use crate::link::bulk::Transfer;
use crate::link::greet::{code, code_of};
use crate::link::ways::Ways;

/// One peer.
pub(crate) struct PeerLink {
    pub node: NodeId,
    pub state: Mutex<State>,
    /// There is something to write.
    pub wake: Notify,
    /// A transfer is expected that was not before.
    pub landed: Notify,
}

/// What changes about it.
pub(crate) struct State {
    pub session: Session<Bytes>,
    pub active: Option<Active>,
    /// Of the last connection that was in use.
    pub epoch: u64,
    pub attempts: u64,
    pub addr: Option<SocketAddr>,
    pub landings: HashMap<u64, Arc<Transfer>>,
    /// Streams of bodies that nobody expects yet.
    pub early: usize,
    /// Why a connection was closed here, before whoever serves it knows.
    pub fault: Option<(usize, LinkError)>,
    /// Nothing more goes to it or comes from it.
    pub gone: bool,
    /// Somebody is calling it again.
    pub dialing: bool,
}

impl State {
    /// Whether frames go over a socket of this machine.
    pub fn is_near(&self) -> bool {
        self.active.as_ref().is_some_and(|a| a.ways.uses_socket())
    }
}

/// The connection in use.
pub(crate) struct Active {
    pub connection: Connection,
    pub claim: Claim,
    pub ways: Arc<Ways>,
    /// Tells it from others, for whoever ends it.
    pub serial: u64,
}

/// What became of a connection that wanted to be used.
pub(crate) enum Attached {
    /// It is in use. `first`: there was none in use before.
    Used { serial: u64, first: bool },
    /// Another is.
    Superseded,
}

impl PeerLink {
    pub fn new(node: NodeId, limit: usize) -> PeerLink {
        PeerLink {
            node,
            state: Mutex::new(State {
                session: Session::new(limit),
                active: None,
                epoch: 0,
                attempts: 0,
                addr: None,
                landings: HashMap::new(),
                early: 0,
                fault: None,
                gone: false,
                dialing: false,
            }),
            wake: Notify::new(),
            landed: Notify::new(),
        }
    }

    /// Uses a connection, if it beats the one in use.
    pub fn attach(
        &self,
        connection: &Connection,
        claim: Claim,
        their_received: u64,
        serial: u64,
    ) -> Result<Attached, LinkError> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(LinkError::Forgotten(self.node));
        }
        if let Some(active) = &state.active
            && !claim.beats(&active.claim)
        {
            return Ok(Attached::Superseded);
        }
        let attached = state.session.attach(their_received);
        attached.map_err(|lie| lied(lie.said, lie.highest))?;
        state.epoch = state.epoch.max(claim.epoch);
        state.addr = Some(connection.remote_address());
        let active = Active {
            connection: connection.clone(),
            claim,
            ways: Arc::default(),
            serial,
        };
        let old = state.active.replace(active);
        if let Some(old) = &old {
            old.connection.close(
                VarInt::from_u32(code::SUPERSEDED),
                b"another connection is used",
            );
        }
        Ok(Attached::Used {
            serial,
            first: old.is_none(),
        })
    }

    /// Stops using this connection; false if another is in use already.
    pub fn detach(&self, serial: u64) -> bool {
        let mut state = self.state.lock();
        match &state.active {
            Some(active) if active.serial == serial => {
                state.active = None;
                true
            }
            _ => false,
        }
    }

    /// Closes a connection whose peer is at fault.
    pub fn close(&self, connection: &Connection, why: LinkError) {
        connection.close(code_of(&why), why.to_string().as_bytes());
        self.state
            .lock()
            .fault
            .get_or_insert((connection.stable_id(), why));
    }

    /// Why it was closed here, if it was.
    pub fn fault(&self, connection: &Connection) -> Option<LinkError> {
        let mut state = self.state.lock();
        let of_this = |fault: &mut (usize, LinkError)| fault.0 == connection.stable_id();
        state.fault.take_if(of_this).map(|(_, why)| why)
    }

    /// Whether this connection is the one in use.
    pub fn uses(&self, serial: u64) -> bool {
        self.state
            .lock()
            .active
            .as_ref()
            .is_some_and(|active| active.serial == serial)
    }

    /// The ways of this connection, if it is the one in use.
    pub fn ways(&self, serial: u64) -> Option<Arc<Ways>> {
        let state = self.state.lock();
        let active = state.active.as_ref().filter(|a| a.serial == serial);
        active.map(|active| active.ways.clone())
    }

    /// The connection in use.
    pub fn connection(&self) -> Option<Connection> {
        self.state
            .lock()
            .active
            .as_ref()
            .map(|active| active.connection.clone())
    }
}
