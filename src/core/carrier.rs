//! Which way the frames of one connection go: over the network, or over a socket of the machine that both nodes are on.
//!
//! One side offers a socket, the other connects to it. Who has it says *move* on the network and writes to the socket from then
//! on; who hears it reads there. When the socket is of no use any more, for whatever reason, each side says *back* on the
//! network, with the number up to which frames have come, stops reading there, and goes on where the other says that it stands.
//! What was under way on the socket is sent again.
//!
//! Invariant: after a *move* nothing comes over the network before the *back*; each is said once on a connection, so a peer
//! that flutters cannot keep this going. Left out: frames and their numbers (`session`), the socket.

/// How frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over the network.
    Network,
    /// Over the machine's socket.
    Socket,
}

/// What the writer is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Write frames this way.
    Write(Way),
    /// Say on the network that what follows goes over the socket.
    Move,
    /// Say on the network that the socket is of no use, and up to where frames have come.
    Back,
    /// The peer has every frame up to this one: go on behind it, over the network.
    Resume(u64),
    /// Nothing can be written until the peer has said where it stands.
    Wait,
}

/// What a peer said is not allowed where things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced(pub &'static str);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Socket {
    /// Nobody spoke of one.
    #[default]
    None,
    /// It was offered, either way.
    Sought,
    Open,
    Broken,
}

/// One side's books for one connection.
#[derive(Debug, Default)]
pub struct Carrier {
    socket: Socket,
    /// What was said here.
    moved: bool,
    back: bool,
    /// What was heard.
    peer_moved: bool,
    peer_has: Option<u64>,
    /// The peer's number was made use of.
    resumed: bool,
}

impl Carrier {
    /// A socket is offered, by this side or by the other.
    pub fn offered(&mut self) -> Result<(), Misplaced> {
        if self.socket != Socket::None {
            return Err(Misplaced("a second socket"));
        }
        self.socket = Socket::Sought;
        Ok(())
    }

    /// The socket leads to the peer. False if it comes too late to be used.
    pub fn opened(&mut self) -> bool {
        let sought = self.socket == Socket::Sought;
        if sought {
            self.socket = Socket::Open;
        }
        sought
    }

    /// The socket is of no use, or there will be none.
    pub fn broke(&mut self) {
        if self.socket != Socket::None {
            self.socket = Socket::Broken;
        }
    }

    /// The peer's frames come over the socket from now on.
    pub fn peer_moved(&mut self) -> Result<(), Misplaced> {
        if self.socket == Socket::None || self.peer_moved || self.peer_has.is_some() {
            return Err(Misplaced("a move to a socket that is not there"));
        }
        self.peer_moved = true;
        Ok(())
    }

    /// The peer makes no use of the socket any more, and has every frame up to this one.
    pub fn peer_back(&mut self, peer_has: u64) -> Result<(), Misplaced> {
        if self.socket == Socket::None || self.peer_has.is_some() {
            return Err(Misplaced("a second way back"));
        }
        self.peer_has = Some(peer_has);
        self.broke();
        Ok(())
    }

    /// Whether the peer may say anything but *back* this way now.
    pub fn check(&self, way: Way) -> Result<(), Misplaced> {
        let here = match way {
            Way::Network => !self.peer_moved || self.peer_has.is_some(),
            Way::Socket => self.reads_socket(),
        };
        if here {
            Ok(())
        } else {
            Err(Misplaced("a frame beside the socket that it moved to"))
        }
    }

    /// Whether to read from the socket.
    pub fn reads_socket(&self) -> bool {
        self.peer_moved && self.socket == Socket::Open
    }

    /// Whether frames go over the socket.
    pub fn writes_socket(&self) -> bool {
        self.moved && self.socket == Socket::Open
    }

    /// What the writer is to do; it has done it when it asks again.
    pub fn turn(&mut self) -> Turn {
        match self.socket {
            Socket::None | Socket::Sought => Turn::Write(Way::Network),
            Socket::Open if self.moved => Turn::Write(Way::Socket),
            Socket::Open => {
                self.moved = true;
                Turn::Move
            }
            Socket::Broken if !self.back => {
                self.back = true;
                Turn::Back
            }
            Socket::Broken if !self.moved || self.resumed => Turn::Write(Way::Network),
            Socket::Broken => match self.peer_has {
                Some(has) => {
                    self.resumed = true;
                    Turn::Resume(has)
                }
                None => Turn::Wait,
            },
        }
    }
}

#[cfg(test)]
mod tests;
