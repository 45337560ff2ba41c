//! The machines on which nodes of a program are to run, and what those nodes print.
//!
//! Invariant: a line is written whole. Left out: who is told to start them (`driver`).

use std::io::Write;

use super::ears::Event;
use super::message::{Machine, Message};

/// A machine on which a node is to run.
pub struct Site {
    /// Its launcher.
    pub machine: Machine,
    /// How far it is.
    pub stage: Stage,
}

/// How far a node is.
pub enum Stage {
    /// Its launcher was called.
    Called,
    /// It runs as this process.
    Started(u32),
    /// It is one of the cluster.
    Joined,
    /// There is none, for this reason.
    Failed(String),
}

/// Shows what a node prints, and notes its end.
pub fn watched(sites: &mut [Site], event: Event, out: &mut Printer) {
    match event {
        Event::Said(from, message) => {
            let Some(site) = sites.iter_mut().find(|s| s.machine.node == from) else {
                return;
            };
            match message {
                Message::Lines {
                    pid,
                    stderr,
                    dropped,
                    lines,
                } => {
                    out.dropped(dropped);
                    out.lines(&site.machine.name, pid, stderr, &lines);
                }
                Message::Ended(pid, how) => {
                    if how != "exit status: 0" {
                        out.lines(&site.machine.name, pid, true, &[format!("ended: {how}")]);
                    }
                    site.stage = Stage::Failed(how);
                }
                _ => {}
            }
        }
        Event::Gone(node, why) => {
            if let Some(site) = sites.iter_mut().find(|s| s.machine.node == node) {
                site.stage = Stage::Failed(why.to_string());
            }
        }
        _ => {}
    }
}

/// Writes lines of nodes.
#[derive(Default)]
pub struct Printer {
    dropped: u64,
}

impl Printer {
    /// So many lines were dropped before the next.
    pub fn dropped(&mut self, more: u64) {
        self.dropped += more;
    }

    /// Says something of the program's own.
    pub fn note(&mut self, what: &str) {
        // A stream that is closed is nobody's fault here.
        let _ = writeln!(std::io::stderr().lock(), "mobula: {what}");
    }

    fn lines(&mut self, name: &str, pid: u32, stderr: bool, lines: &[String]) {
        let mut text = String::new();
        if std::mem::take(&mut self.dropped) > 0 {
            text += "mobula: lines of nodes were dropped here, for they came faster than they are written\n";
        }
        for line in lines {
            text += &format!("(node {name} pid={pid}) {line}\n");
        }
        // A stream that is closed is nobody's fault here.
        let _ = match stderr {
            true => std::io::stderr().lock().write_all(text.as_bytes()),
            false => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
        };
    }
}
