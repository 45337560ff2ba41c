//! A connection in use, from its first frame to what comes after it.
//!
//! Invariant: whatever was under way on a connection that ends is reported as failed; the next one is sought from both sides,
//! unless the peer has left or was given up. Left out: how a connection is made, which `dial` says.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;

use crate::link::dial::{Met, Used, finish, in_time, meet, superseded, why_closed};
use crate::link::greet::{code, code_of};
use crate::link::near::Invited;
use crate::link::peer::PeerLink;
use crate::link::shared::Shared;
use crate::link::{LinkError, MAX_DATAGRAM, Peer, bulk, control};

/// How long the one waits that did not make the broken connection, before it calls too.
const SECOND: Duration = Duration::from_millis(150);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Serves a connection until it ends, and sees to the next. A handler that panics breaks the connection, no more.
pub(crate) async fn serve(shared: Arc<Shared>, used: Box<Used>) {
    let (peer, serial, connection) = (used.peer.clone(), used.serial, used.connection.clone());
    let made_here = used.made_here;
    let served = tokio::spawn(carry(shared.clone(), used)).await;
    let (why, given_up) = served.unwrap_or_else(|_| {
        let why = LinkError::Broken("its handler panicked here".to_owned());
        (why, false)
    });
    let replaced = superseded(&connection);
    connection.close(code_of(&why), why.to_string().as_bytes());
    if replaced {
        // The one that replaces it is on its way.
        for _ in 0..100 {
            if !peer.uses(serial) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    if !peer.state.lock().gone {
        ended(&shared, &peer, serial, &connection, why, made_here);
    } else if given_up {
        // It was in use until then; one that was replaced before has nothing to say.
        shared.handler.disconnected(peer.node, &why);
    }
}

/// Carries frames both ways; why it ended, and whether that was found here.
async fn carry(shared: Arc<Shared>, used: Box<Used>) -> (LinkError, bool) {
    let Used {
        peer,
        serial,
        first,
        connection,
        mut send,
        mut recv,
        greeting,
        made_here,
    } = *used;
    let ways = peer.ways(serial).unwrap_or_default();
    if first {
        let described = Peer {
            node: peer.node,
            addr: connection.remote_address(),
            hello: greeting.hello,
        };
        shared.handler.connected(&described);
    }
    tokio::spawn(bulk::accept(
        shared.clone(),
        peer.clone(),
        serial,
        connection.clone(),
    ));
    tokio::spawn(datagrams(shared.clone(), peer.clone(), connection.clone()));
    let _ = send.set_priority(1);
    // The side that was called offers a socket.
    let door = shared.door.as_ref().filter(|_| !made_here);
    let invited = door.and_then(|door| Invited::new(door, &peer, &ways));
    let offer = invited.as_ref().map(|invited| &invited.offer);
    let why = tokio::select! {
        biased;
        why = control::read(&shared, &peer, &ways, &mut recv) => why,
        why = control::write(&shared, &peer, serial, (&ways, offer), &mut send) => why,
    };
    drop(invited);
    let fault = peer.fault(&connection);
    let given_up = fault.is_some();
    let why = match fault {
        Some(fault) => fault,
        None => why_closed(&connection, peer.node, shared.node).unwrap_or(why),
    };
    (why, given_up)
}

fn ended(
    shared: &Arc<Shared>,
    peer: &Arc<PeerLink>,
    serial: u64,
    connection: &Connection,
    why: LinkError,
    made_here: bool,
) {
    // What was under way on it is lost; the next connection carries new transfers.
    if !peer.detach(serial) {
        shared.count_traffic(connection);
        return;
    }
    shared.count_traffic(connection);
    let landings = std::mem::take(&mut peer.state.lock().landings);
    for transfer in landings.into_values() {
        transfer.finish(Err(why.clone()));
    }
    let last = matches!(
        why,
        LinkError::Left(_)
            | LinkError::Fenced(_)
            | LinkError::Forgotten(_)
            | LinkError::Protocol(_)
    );
    if last {
        shared.give_up(peer.node, &why, code::PROTOCOL);
    }
    shared.handler.disconnected(peer.node, &why);
    if !last && !shared.is_stopping() {
        let (shared, peer) = (shared.clone(), peer.clone());
        tokio::spawn(async move { call_again(&shared, &peer, made_here).await });
    }
}

/// Calls until there is a connection, or the peer is given up.
async fn call_again(shared: &Arc<Shared>, peer: &Arc<PeerLink>, made_here: bool) {
    let addr = {
        let mut state = peer.state.lock();
        if std::mem::replace(&mut state.dialing, true) {
            return;
        }
        state.addr
    };
    if !made_here {
        tokio::time::sleep(SECOND).await;
    }
    let mut pause = FIRST_PAUSE;
    while let Some(addr) = addr {
        let over = {
            let state = peer.state.lock();
            state.active.is_some() || state.gone || shared.is_stopping()
        };
        if over {
            break;
        }
        let called = in_time(shared, meet(shared, addr, Some(peer.node))).await;
        // One that was found meanwhile may be gone already: the next round looks.
        let again = matches!(
            called,
            Ok(Met::Known)
                | Err(LinkError::Broken(_) | LinkError::Timeout { .. } | LinkError::Io { .. })
        );
        if again {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
            continue;
        }
        finish(shared, addr, called).await;
        break;
    }
    peer.state.lock().dialing = false;
}

async fn datagrams(shared: Arc<Shared>, peer: Arc<PeerLink>, connection: Connection) {
    while let Ok(bytes) = connection.read_datagram().await {
        let len = bytes.len();
        if len > MAX_DATAGRAM {
            let what = format!("a datagram of {len} bytes, of at most {MAX_DATAGRAM}");
            return peer.close(&connection, LinkError::Protocol(what));
        }
        if !peer.state.lock().gone {
            shared.handler.datagram(peer.node, &bytes);
        }
        // Whoever pours them does not keep the others waiting.
        tokio::task::yield_now().await;
    }
}
