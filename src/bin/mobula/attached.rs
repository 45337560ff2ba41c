//! What the commands that look at a running program share: which program, how often, in which form.
//!
//! Invariant: a program that ends, or an output that nobody reads, ends the command and never makes it panic. Left out:
//! what is shown.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use mobula::inspect::{AttachError, Client, Query, Snapshot, running};
use serde::Serialize;

use crate::screen::Screen;
use crate::{Failure, say};

/// Which program, how often, in which form.
#[derive(clap::Args, Clone, Debug)]
pub struct Attached {
    /// The program with this process id; by default the newest of yours that uses Mobula
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// One line of JSON instead of text for people
    #[arg(long)]
    pub json: bool,

    /// Look again and again, every so many seconds
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    pub watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|s| (0.1..=3600.0).contains(s))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("\"{text}\" is no number of seconds from 0.1 to 3600"))
}

impl Attached {
    /// Attaches to the program.
    pub fn client(&self) -> Result<Client, Failure> {
        if self.pid.is_none() {
            let all = running();
            if let [newest, _, ..] = all.as_slice() {
                say(&format!(
                    "{} programs run; this is the newest, process {} (--pid chooses another)",
                    all.len(),
                    newest.pid
                ));
            }
        }
        Client::attach(self.pid).map_err(failure)
    }

    /// Looks once, or again and again, and shows what was found: as `json` or as `text`.
    pub fn look<T: Serialize>(
        &self,
        query: &Query,
        json: impl Fn(Snapshot) -> T,
        text: impl Fn(&Snapshot) -> String,
    ) -> Result<(), Failure> {
        let mut client = self.client()?;
        let mut show = || -> Result<String, Failure> {
            let snapshot = client.snapshot(query).map_err(failure)?;
            Ok(match self.json {
                true => serde_json::to_string(&json(snapshot)).map_err(|e| e.to_string())?,
                false => text(&snapshot),
            })
        };
        let Some(pause) = self.watch else {
            return print(&show()?);
        };
        if self.json || !io::stdout().is_terminal() {
            loop {
                print(&show()?)?;
                std::thread::sleep(pause);
            }
        }
        let screen = Screen::enter()?;
        let mut last = String::new();
        let ended = loop {
            match show() {
                Ok(text) => last = text,
                Err(e) => break e,
            }
            screen.show(&last)?;
            std::thread::sleep(pause);
        };
        drop(screen);
        // What was seen last stays to be read.
        print(&last)?;
        Err(ended)
    }
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = write!(out, "{text}{end}").and_then(|()| out.flush());
    written.map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Error(format!("writing the output: {e}")),
    })
}

/// Why a program could not be looked at, as a failure of the command.
pub fn failure(e: AttachError) -> Failure {
    match &e {
        AttachError::NothingRuns | AttachError::NotRunning { .. } => {
            Failure::NothingRuns(e.to_string())
        }
        _ if e.has_ended() => Failure::NothingRuns("the program has ended".to_owned()),
        _ => Failure::Error(e.to_string()),
    }
}
