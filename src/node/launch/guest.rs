//! Who talks to launchers without being one: a driver, or somebody who only looks.
//!
//! Invariant: each question has an answer or an error within a bound, and the error names the address. Left out: what a driver
//! does (`driver`).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::ears::{self, Event, Heard};
use super::message::{Machine, Message, Past};
use crate::base::NodeId;
use crate::link::{Endpoint, JoinToken, Link, LinkError, join};

/// The port of launchers, where none is said.
pub const PORT: u16 = 7677;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address: `host`, `host:port`, `[v6]:port`.
pub fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(addr);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let named = match text.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => text.to_owned(),
        _ => format!("{text}:{PORT}"),
    };
    let mut found = named
        .to_socket_addrs()
        .map_err(|e| format!("the address \"{text}\" is not found: {e}"))?;
    found
        .next()
        .ok_or_else(|| format!("the address \"{text}\" is none"))
}

/// The address of this machine from which packets to that one go.
pub fn route_to(addr: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if addr.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(addr)?;
    Ok(socket.local_addr()?.ip())
}

/// Why a launcher was not reached.
pub fn unreached(addr: SocketAddr, why: &LinkError) -> String {
    match why {
        LinkError::Timeout { after, .. } => format!(
            "no launcher answers at {addr} within {after:?}: is `mobula start --head` running there, and does UDP get through?"
        ),
        LinkError::Broken(how) => {
            format!("no launcher at {addr}: {how}; is `mobula start --head` running there?")
        }
        why => format!("the launcher at {addr}: {why}"),
    }
}

/// See the module.
pub struct Guest {
    /// Who this is among launchers.
    pub me: NodeId,
    /// What carries it.
    pub link: Arc<Endpoint>,
    /// What happens.
    pub heard: Heard,
    /// More of that.
    pub events: Sender<Event>,
    /// The launcher that let this in.
    pub head: NodeId,
    /// Where that is.
    pub addr: SocketAddr,
}

impl Guest {
    /// Is let in by the head at this address.
    pub fn enter(addr: SocketAddr, token: &str) -> Result<Guest, String> {
        let token: JoinToken = token.parse().map_err(|e: LinkError| e.to_string())?;
        let me = NodeId::new(ears::random()?).ok_or("no number")?;
        let identity = join(addr, &token, me, PATIENCE).map_err(|why| unreached(addr, &why))?;
        let any: IpAddr = match (addr.ip().is_loopback(), addr.is_ipv4()) {
            (true, true) => [127, 0, 0, 1].into(),
            (false, true) => [0, 0, 0, 0].into(),
            (true, false) => [0, 0, 0, 0, 0, 0, 0, 1].into(),
            (false, false) => [0u16; 8].into(),
        };
        let (link, heard, events) =
            ears::listen(identity, None, (any, 0).into(), false).map_err(|e| e.to_string())?;
        link.connect(addr, None);
        let until = Instant::now() + PATIENCE;
        loop {
            match heard.next(until.saturating_duration_since(Instant::now())) {
                Some(Event::Here(head, _, true)) => {
                    return Ok(Guest {
                        me,
                        link,
                        heard,
                        events,
                        head,
                        addr,
                    });
                }
                Some(Event::Here(..)) => {
                    return Err(format!(
                        "what answers at {addr} is no launcher of this version of mobula: run the same one everywhere"
                    ));
                }
                Some(Event::Refused(_, why) | Event::Gone(_, why)) => {
                    return Err(unreached(addr, &why));
                }
                Some(_) => {}
                None => {
                    return Err(format!(
                        "the launcher at {addr} let this program in, but does not talk to it within {PATIENCE:?}"
                    ));
                }
            }
        }
    }

    /// The machines, and what ran on them.
    pub fn list(&self) -> Result<(Vec<Machine>, Vec<Past>), String> {
        ears::send(&self.link, self.head, &Message::List);
        let until = Instant::now() + PATIENCE;
        loop {
            match self
                .heard
                .next(until.saturating_duration_since(Instant::now()))
            {
                Some(Event::Said(from, Message::Machines(mut machines, past)))
                    if from == self.head =>
                {
                    for machine in &mut machines {
                        // A launcher that listens everywhere is where it was reached.
                        if machine.node == self.head {
                            machine.addr = self.addr;
                        }
                    }
                    return Ok((machines, past));
                }
                Some(Event::Gone(node, why)) if node == self.head => {
                    return Err(unreached(self.addr, &why));
                }
                Some(_) => {}
                None => {
                    return Err(format!(
                        "the launcher at {} does not answer within {PATIENCE:?}",
                        self.addr
                    ));
                }
            }
        }
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guest({} at {})", self.me, self.addr)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.link.stop(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let is =
            |text: &str, port: u16| resolve(text) == Ok(SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(is("127.0.0.1:5", 5) && is("127.0.0.1", PORT));
        assert_eq!(resolve("::1").unwrap().port(), PORT);
        assert!(resolve("localhost:9").unwrap().ip().is_loopback());
        assert!(
            resolve("no such host")
                .unwrap_err()
                .contains("no such host")
        );
    }

    #[test]
    fn the_route_to_this_machine_is_the_loopback() {
        assert!(route_to(([127, 0, 0, 1], 9).into()).unwrap().is_loopback());
    }
}
