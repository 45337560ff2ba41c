//! The thread that serves: it carries bytes between sockets and the table, and decides nothing.
//!
//! One `epoll` for all: the door, the sockets, the processes behind them, and the call to stop.
//! Invariant: no client can make it wait; a client's memory is given back only when its process is
//! dead or it closed its end with nothing lent to it. Left out: who holds what (`table`).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::conn::{Conn, Heard, Phase};
use super::door::Door;
use super::helpers::Helpers;
use super::shelf::Shelf;
use super::table::{Client, Effects, Table};
use crate::shm::{peer, peer_process};
use crate::store::proto::{Greeting, Hello, Message, Request, VERSION, Welcome};
use crate::store::{Store, socket};

/// How long a new connection may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;

const DOOR: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const HELPED: u64 = u64::MAX - 2;

/// Everything the thread has.
pub struct Driver {
    epoll: OwnedFd,
    door: Door,
    /// Closed last: its event is what ends the loop.
    _stop: Arc<OwnedFd>,
    store: Store,
    /// Users that may connect.
    users: Vec<u32>,
    table: Table,
    conns: HashMap<Client, Conn>,
    clients: Client,
    /// Those that have not said hello, by when they must have.
    new: BTreeSet<(Instant, Client)>,
    /// Kept to have one to close when there are no descriptors left.
    spare: Option<OwnedFd>,
    started: Instant,
    helpers: Helpers,
    effects: Effects,
}

impl Driver {
    pub fn new(
        door: Door,
        stop: Arc<OwnedFd>,
        store: Store,
        users: Vec<u32>,
    ) -> io::Result<Driver> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &door, EventData::new_u64(DOOR), EventFlags::IN)?;
        epoll::add(&epoll, &*stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let shelf = Shelf::new(store.clone());
        let helpers = Helpers::new(shelf.clone())?;
        epoll::add(&epoll, &helpers, EventData::new_u64(HELPED), EventFlags::IN)?;
        Ok(Driver {
            epoll,
            door,
            _stop: stop,
            table: Table::new(shelf),
            store,
            users,
            conns: HashMap::new(),
            clients: 0,
            new: BTreeSet::new(),
            spare: spare(),
            started: Instant::now(),
            helpers,
            effects: Effects::default(),
        })
    }

    /// Serves until told to stop. Fails only if the kernel refuses to wait for events.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let timeout = self.timeout().map(timespec);
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return Ok(()),
                    DOOR => self.accept(),
                    HELPED => self.helped(),
                    token if token & 1 == 0 => self.socket(token / 2, event.flags),
                    token => self.dead(token / 2),
                }
            }
            self.timers();
        }
    }

    /// What was waited for has come.
    fn helped(&mut self) {
        for outcome in self.helpers.outcomes() {
            self.table.outcome(outcome, &mut self.effects);
            self.distribute();
        }
    }

    /// Tells everybody that it ends.
    pub fn close(&mut self, why: &str) {
        let closing = Message::Closing {
            why: why.to_owned(),
        };
        for conn in self.conns.values_mut() {
            if conn.phase == Phase::Served {
                conn.push(&closing);
                let _ = conn.flush();
            }
        }
        self.table.end();
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn timeout(&self) -> Option<Duration> {
        let get = self.table.next_deadline();
        let get = get.map(|at| Duration::from_nanos(at.saturating_sub(self.now())));
        let hello = self.new.first();
        let hello = hello.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        [get, hello].into_iter().flatten().min()
    }

    fn timers(&mut self) {
        self.table.expire(self.now(), &mut self.effects);
        self.distribute();
        let now = Instant::now();
        while let Some(&(by, client)) = self.new.first()
            && by <= now
        {
            self.remove(client);
        }
    }

    fn accept(&mut self) {
        loop {
            match self.door.accept() {
                Ok(socket) => self.admit(socket),
                Err(e)
                    if e.raw_os_error() == Some(Errno::MFILE.raw_os_error())
                        || e.raw_os_error() == Some(Errno::NFILE.raw_os_error()) =>
                {
                    // Not accepting would bring the same event for ever.
                    self.spare = None;
                    if let Ok(socket) = self.door.accept() {
                        self.turn_away(socket);
                    }
                    self.spare = spare();
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn turn_away(&self, socket: OwnedFd) {
        let clients = self.conns.len() as u64;
        greet(&socket, &Greeting::TooMany { clients });
    }

    fn admit(&mut self, socket: OwnedFd) {
        let Ok(who) = peer(&socket) else {
            return;
        };
        if !self.users.contains(&who.uid) {
            let server = rustix::process::geteuid().as_raw();
            let found = who.uid;
            return greet(&socket, &Greeting::User { found, server });
        }
        // Without it, the end of the connection alone says that a client is gone.
        let process = match peer_process(&socket) {
            Ok(process) => Some(process),
            Err(e) if e.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                return self.turn_away(socket);
            }
            Err(_) => None,
        };
        self.clients += 1;
        let client = self.clients;
        let by = Instant::now() + HELLO_WITHIN;
        let conn = Conn::new(socket, process, by);
        let watched = self.watch(&conn, client);
        if watched.is_err() {
            let clients = self.conns.len() as u64;
            return greet(&conn, &Greeting::TooMany { clients });
        }
        self.conns.insert(client, conn);
        self.new.insert((by, client));
    }

    fn watch(&self, conn: &Conn, client: Client) -> rustix::io::Result<()> {
        let token = |tag| EventData::new_u64(client * 2 + tag);
        epoll::add(&self.epoll, conn, token(0), conn.interest)?;
        if let Some(process) = &conn.process {
            epoll::add(&self.epoll, process, token(1), EventFlags::IN)?;
        }
        Ok(())
    }

    /// Something happened at a client's socket.
    fn socket(&mut self, client: Client, flags: EventFlags) {
        let Some(conn) = self.conns.get_mut(&client) else {
            return;
        };
        // Both directions are shut: what is still to be read is read now, and no answer is wanted.
        let mut ended = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if matches!(conn.phase, Phase::New | Phase::Served) {
            if flags.intersects(EventFlags::IN | EventFlags::HUP) {
                ended |= conn.read().map_or(true, |heard| heard == Heard::End);
            }
            if flags.contains(EventFlags::OUT) {
                ended |= conn.flush().is_err();
            }
            self.pump(client);
        }
        match ended {
            true => self.end(client),
            false => self.look_for(client),
        }
        self.distribute();
    }

    /// Looks at the whole frames of a client, while there is room for answers.
    fn pump(&mut self, client: Client) {
        let now = self.now();
        loop {
            let Some(conn) = self.conns.get_mut(&client) else {
                return;
            };
            if conn.phase == Phase::New {
                match self.greet(client) {
                    true => continue,
                    false => return,
                }
            }
            if conn.phase != Phase::Served || !conn.may_answer() {
                return;
            }
            let frame = match conn.inbox().next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(long) => {
                    let why = format!("it announced a frame of {} bytes", long.0);
                    return self.refuse(client, &why);
                }
            };
            let handled = match Request::decode(frame) {
                Ok((seq, request)) => {
                    let out = &mut self.effects;
                    let handled = self.table.handle(now, client, seq, request, out);
                    handled.map_err(|violation| violation.0)
                }
                Err(malformed) => Err(malformed.0),
            };
            self.distribute();
            if let Err(why) = handled {
                return self.refuse(client, why);
            }
        }
    }

    /// Looks for the hello of a new client; true if it is served now.
    fn greet(&mut self, client: Client) -> bool {
        let Some(conn) = self.conns.get_mut(&client) else {
            return false;
        };
        let hello = match conn.inbox().next() {
            Ok(None) => return false,
            Ok(Some(frame)) => Hello::decode(frame).ok(),
            Err(_) => None,
        };
        self.new.remove(&(conn.hello_by, client));
        match hello {
            // No client of ours: it would not understand an answer.
            None => {
                self.end(client);
                return false;
            }
            Some(hello) if hello.version != VERSION => {
                greet(&*conn, &Greeting::Version(Hello::of_this_crate()));
                self.end(client);
                return false;
            }
            Some(_) => {}
        }
        let mut welcome = Vec::new();
        Greeting::Welcome(Welcome {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            capacity: self.store.stats().capacity,
            grain: self.store.grain(),
        })
        .encode(&mut welcome);
        if socket::send_with(&*conn, &welcome, self.store.file()).is_err() {
            self.end(client);
            return false;
        }
        conn.phase = Phase::Served;
        self.table.join(client);
        true
    }

    /// Puts the table's messages into their clients' queues, and sends out its errands.
    fn distribute(&mut self) {
        for errand in self.effects.errands.drain(..) {
            self.helpers.send(errand);
        }
        let mut sent = BTreeSet::new();
        for (client, message) in self.effects.messages.drain(..) {
            if let Some(conn) = self.conns.get_mut(&client)
                && conn.phase == Phase::Served
            {
                conn.push(&message);
                sent.insert(client);
            }
        }
        for client in sent {
            if let Some(conn) = self.conns.get_mut(&client) {
                // An error here is an event at the socket too, which ends the client in its turn.
                let _ = conn.flush();
            }
            self.look_for(client);
        }
    }

    /// Tells the kernel what to look for at a client's socket.
    fn look_for(&mut self, client: Client) {
        let Some(conn) = self.conns.get_mut(&client) else {
            return;
        };
        let wanted = conn.wanted();
        if wanted != conn.interest {
            conn.interest = wanted;
            let token = EventData::new_u64(client * 2);
            let _ = epoll::modify(&self.epoll, &*conn, token, wanted);
        }
    }

    /// Stops hearing a client that broke the protocol, and says so to it.
    fn refuse(&mut self, client: Client, why: &str) {
        self.table.silence(client);
        if let Some(conn) = self.conns.get_mut(&client) {
            conn.push(&Message::Closing {
                why: why.to_owned(),
            });
            let _ = conn.flush();
            conn.phase = Phase::Refused;
            let _ = rustix::net::shutdown(&*conn, rustix::net::Shutdown::Write);
        }
        self.look_for(client);
    }

    /// A client's process is dead.
    fn dead(&mut self, client: Client) {
        // What it sent before its death counts; a socket holds no more than one read takes.
        if let Some(conn) = self.conns.get_mut(&client)
            && conn.phase == Phase::Served
        {
            let _ = conn.read();
            self.pump(client);
        }
        self.remove(client);
        self.distribute();
    }

    /// A client closed its end, or is to be rid of.
    fn end(&mut self, client: Client) {
        let Some(conn) = self.conns.get_mut(&client) else {
            return;
        };
        if !self.table.hang_up(client) && conn.process.is_some() {
            conn.phase = Phase::Closed;
            let _ = epoll::delete(&self.epoll, &*conn);
            return;
        }
        self.remove(client);
    }

    fn remove(&mut self, client: Client) {
        self.table.leave(client);
        if let Some(conn) = self.conns.remove(&client) {
            self.new.remove(&(conn.hello_by, client));
            let _ = epoll::delete(&self.epoll, &conn);
            if let Some(process) = &conn.process {
                let _ = epoll::delete(&self.epoll, process);
            }
        }
    }
}

fn greet(socket: impl AsFd, greeting: &Greeting) {
    let mut bytes = Vec::new();
    greeting.encode(&mut bytes);
    // A new connection has room for so little; one that does not take it is closed all the same.
    let _ = socket::send(socket, &bytes);
}

fn spare() -> Option<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::from(i32::MAX),
        tv_nsec: 0,
    })
}
