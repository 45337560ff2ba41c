//! Nodes on one machine share memory for objects (and sockets for frames, which the link sees to): who wants bytes reads them where the other has them.
//!
//! Each tells in its greeting where its arena's file is: its process, the number of the file there, and the file's own numbers. A
//! node of the same machine and user opens it through `/proc` and maps it for reading. Then a transfer is a question, an answer
//! that says where the bytes lie, a copy, and a word that it is done; the other keeps them in place meanwhile.
//!
//! Invariant: what was opened is the very file that was told of, sealed against shrinking. Who cannot open it uses the
//! network. Left out: which transfers there are (`objects`).

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use super::Cluster;
use super::objects::Lander;
use crate::base::NodeId;
use crate::exec::pin::PinnedRef;
use crate::exec::{Engine, Local, RawRef};
use crate::link::{Landing, LinkError};
use crate::shm::Attached;
use crate::wire::{Frame, Reader, Writer};

/// Where an arena's file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which machine, since it was started.
    machine: String,
    process: u32,
    file: u32,
    device: u64,
    inode: u64,
    len: u64,
    grain: u64,
}

impl Place {
    /// Where this node's is.
    pub fn of(engine: &Engine) -> Option<Place> {
        use std::os::fd::AsRawFd;
        let (file, len, grain) = engine.memory_file();
        let stat = rustix::fs::fstat(file).ok()?;
        Some(Place {
            machine: machine()?,
            process: std::process::id(),
            file: u32::try_from(file.as_raw_fd()).ok()?,
            device: stat.st_dev,
            inode: stat.st_ino,
            len,
            grain,
        })
    }

    pub fn write(&self, w: &mut Writer) {
        w.text(&self.machine);
        w.u32(self.process);
        w.u32(self.file);
        w.u64(self.device);
        w.u64(self.inode);
        w.u64(self.len);
        w.u64(self.grain);
    }

    pub fn read(r: &mut Reader<'_>) -> Option<Place> {
        Some(Place {
            machine: r.text().ok()?.to_owned(),
            process: r.u32().ok()?,
            file: r.u32().ok()?,
            device: r.u64().ok()?,
            inode: r.u64().ok()?,
            len: r.u64().ok()?,
            grain: r.u64().ok()?,
        })
    }

    /// Maps it, if it is on this machine and may be opened.
    fn map(&self) -> Option<Attached> {
        if machine()? != self.machine || self.process == std::process::id() {
            return None;
        }
        let path = format!("/proc/{}/fd/{}", self.process, self.file);
        // Whatever it turns out to be, opening it does not block.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .ok()?;
        let found = file.metadata().ok()?;
        let same = found.is_file() && (found.dev(), found.ino()) == (self.device, self.inode);
        if !same {
            return None;
        }
        Attached::map(file.as_fd(), self.len, self.grain).ok()
    }
}

fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

impl Cluster {
    /// Maps another node's arena, if that can be.
    pub(super) fn come_near(&self, node: NodeId, place: Option<&Place>) {
        if !self.shares {
            return;
        }
        if let Some(arena) = place.and_then(Place::map) {
            self.books.lock().near.insert(node, Arc::new(arena));
        }
    }

    /// Keeps an object in place for a node that has this arena mapped, and says where it lies.
    pub(super) fn show(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        transfer: u64,
        record: RawRef,
    ) {
        let Ok(pinned) = PinnedRef::new(record) else {
            return self.tell_fetched(local, to, transfer, None);
        };
        let Some(stored) = pinned.raw().stored() else {
            return self.tell_fetched(local, to, transfer, None);
        };
        let frame = Frame::Lies {
            transfer,
            offset: stored.offset(),
            len: stored.len() as u64,
        };
        let unwanted = self.with(local, |books, _| {
            if books.peers.contains_key(&to) && self.send_surely(books, to, &frame) {
                books.shown.insert((to, transfer), pinned)
            } else {
                Some(pinned)
            }
        });
        drop(unwanted);
    }

    /// Another node has read what it was shown.
    pub(super) fn on_read(&self, from: NodeId, transfer: u64) {
        let shown = self.books.lock().shown.remove(&(from, transfer));
        drop(shown);
    }

    /// What this node asked for lies in another's arena.
    pub(super) fn on_lies(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        transfer: u64,
        offset: u64,
        len: u64,
    ) {
        let (lander, arena) = {
            let mut books = self.books.lock();
            let arena = books.near.get(&from).cloned();
            let ours = books
                .transfers
                .get(&transfer)
                .is_some_and(|(f, _)| *f == from);
            let lander = if ours {
                books.landers.remove(&transfer)
            } else {
                None
            };
            (lander, arena)
        };
        let (Some(lander), Some(arena)) = (lander, arena) else {
            return self.have_read(local, from, transfer);
        };
        let cluster = Arc::clone(self);
        self.errand(move |local| {
            Cluster::copy_near(lander, &arena, offset, len);
            cluster.have_read(local, from, transfer);
        });
    }

    fn copy_near(mut lander: Box<Lander>, arena: &Attached, offset: u64, len: u64) {
        let copied = lander.draft.len() as u64 == len && arena.copy_out(offset, &mut lander.draft);
        let outcome = if copied {
            Ok(())
        } else {
            Err(LinkError::Protocol(format!(
                "{len} bytes at {offset} of its arena are not the object that was asked for"
            )))
        };
        lander.finish(outcome);
    }

    fn have_read(self: &Arc<Cluster>, local: &Local, from: NodeId, transfer: u64) {
        self.with(local, |books, _| {
            self.send_surely(books, from, &Frame::Read { transfer });
        });
    }
}
