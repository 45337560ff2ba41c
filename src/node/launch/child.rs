//! A node's process: its start, what it prints, its end.
//!
//! Threads of their own read its pipes, so that it never waits for whoever reads them: lines that nobody takes in time are counted
//! and dropped by who takes them.
//!
//! Invariant: its end is told once, after what it printed before. Left out: where lines go.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::state::Process;

/// A longer line is cut.
const MAX_LINE: usize = 8 << 10;
/// Lines are handed on at the latest when they are so many, or their bytes.
const BATCH: (usize, usize) = (256, 64 << 10);

/// What a node's process does.
#[derive(Debug)]
pub enum Said {
    /// It printed this; to standard error if so.
    Lines(bool, Vec<String>),
    /// It ended.
    Ended(String),
}

/// See the module.
pub struct Child {
    /// Which.
    pub process: Process,
    held: OwnedFd,
}

impl Child {
    /// Starts `program` with these variables; `said` is called from threads of the child's own.
    pub fn start(
        program: &Path,
        variables: &[(&str, String)],
        said: impl Fn(u32, Said) + Send + Clone + 'static,
    ) -> Result<Child, String> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for name in [
            "MOBULA_ADDRESS",
            "MOBULA_LISTEN",
            "MOBULA_CLUSTER_DIR",
            "MOBULA_LABELS",
            "MOBULA_RESOURCES",
        ] {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        let failed = |e: &std::io::Error| {
            let hint = match e.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "; is the folder of --dir on a file system that is mounted noexec?"
                }
                std::io::ErrorKind::NotFound => "; its loader is not on this machine",
                _ => "",
            };
            format!("the executable cannot be run: {e}{hint}")
        };
        // Another thread may be about to start a process, which holds the file open for writing until it runs.
        let mut tries = 0;
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < 100 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => return Err(failed(&e)),
            }
        };
        let pid = child.id();
        let held =
            Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let (Some(held), Some(process)) = (held, Process::of(pid)) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err("the node's process cannot be watched".to_owned());
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let name =
            move |what: &str| std::thread::Builder::new().name(format!("mobula-{what}-{pid}"));
        let watch = move || {
            let readers: Vec<_> = [
                out.map(|o| (false, Box::new(o) as Box<dyn Read + Send>)),
                err.map(|e| (true, Box::new(e) as _)),
            ]
            .into_iter()
            .flatten()
            .filter_map(|(stderr, pipe)| {
                let said = said.clone();
                name("print")
                    .spawn(move || read(pipe, |lines| said(pid, Said::Lines(stderr, lines))))
                    .ok()
            })
            .collect();
            let how = match child.wait() {
                Ok(status) => status.to_string(),
                Err(e) => format!("it cannot be waited for: {e}"),
            };
            // A process that it started may hold the pipes open: what the node itself printed is read by then.
            for _ in 0..20 {
                if readers.iter().all(|r| r.is_finished()) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            said(pid, Said::Ended(how));
        };
        let child = Child { process, held };
        match name("node").spawn(watch) {
            Ok(_) => Ok(child),
            Err(e) => {
                child.kill();
                Err(format!("no thread can be started for it: {e}"))
            }
        }
    }

    /// Ends it.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.held, Signal::KILL);
    }
}

/// Reads lines until the end, and hands on those that are there.
fn read(pipe: Box<dyn Read + Send>, mut take: impl FnMut(Vec<String>)) {
    let mut pipe = BufReader::with_capacity(64 << 10, pipe);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let mut line: Vec<u8> = Vec::new();
    loop {
        let there = match pipe.fill_buf() {
            Ok([]) | Err(_) => break,
            Ok(there) => there,
        };
        let (part, ends) = match there.iter().position(|b| *b == b'\n') {
            Some(end) => (end + 1, true),
            None => (there.len(), false),
        };
        let room = MAX_LINE.saturating_sub(line.len());
        line.extend_from_slice(&there[..part.min(room)]);
        pipe.consume(part);
        if ends {
            while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                line.pop();
            }
            bytes += line.len();
            lines.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        if lines.len() >= BATCH.0
            || bytes >= BATCH.1
            || (pipe.buffer().is_empty() && !lines.is_empty())
        {
            take(std::mem::take(&mut lines));
            bytes = 0;
        }
    }
    if !line.is_empty() {
        lines.push(String::from_utf8_lossy(&line).into_owned());
    }
    if !lines.is_empty() {
        take(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn run(script: &str) -> (Vec<(bool, String)>, String) {
        let path = std::env::temp_dir().join(format!(
            "mobula-child-{}-{}",
            std::process::id(),
            script.len()
        ));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&path, mode).unwrap();
        let (send, said) = channel();
        let child = Child::start(&path, &[("MOBULA_X", "7".to_owned())], move |_, s| {
            drop(send.send(s))
        })
        .unwrap();
        assert!(child.process.pid > 0);
        let mut lines = Vec::new();
        loop {
            match said.recv_timeout(Duration::from_secs(20)).expect("it ends") {
                Said::Lines(err, more) => lines.extend(more.into_iter().map(|l| (err, l))),
                Said::Ended(how) => {
                    std::fs::remove_file(path).unwrap();
                    return (lines, how);
                }
            }
        }
    }

    #[test]
    fn what_it_prints_and_how_it_ends_is_told() {
        let (mut lines, how) = run("echo $MOBULA_X; echo oops >&2; printf half; exit 3");
        lines.sort();
        assert_eq!(
            lines,
            [
                (false, "7".to_owned()),
                (false, "half".to_owned()),
                (true, "oops".to_owned())
            ]
        );
        assert_eq!(how, "exit status: 3");
    }

    #[test]
    fn a_long_line_is_cut() {
        let (lines, _) = run("head -c 100000 /dev/zero | tr '\\0' x; echo; echo next");
        assert_eq!(
            lines.iter().map(|(_, l)| l.len()).collect::<Vec<_>>(),
            [MAX_LINE, 4]
        );
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        let path = std::env::temp_dir().join(format!("mobula-child-none-{}", std::process::id()));
        let why = Child::start(&path, &[], |_, _| {}).err().unwrap();
        assert!(why.starts_with("the executable cannot be run"), "{why}");
    }
}
