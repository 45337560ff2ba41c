//! A terminal's second screen, for what is shown again and again.
//!
//! Invariant: however the command ends, short of being killed outright, the terminal is as it was before: its own screen, with
//! the cursor. Left out: what is shown.

use std::io::{self, Write};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::attached::print;
use crate::{Failure, INTERRUPTED};

/// The second screen, without cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The second screen is shown while this lives.
pub struct Screen(Handle);

impl Screen {
    /// Switches to it. An interrupt switches back and ends the command.
    pub fn enter() -> Result<Screen, Failure> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
        let mut signals = signals.map_err(|e| format!("cannot wait for signals: {e}"))?;
        let screen = Screen(signals.handle());
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if signals.forever().next().is_some() {
                    // Nobody else writes from here on.
                    let mut out = io::stdout().lock();
                    let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
                    std::process::exit(INTERRUPTED.into());
                }
            })
            .map_err(|e| format!("starting a thread: {e}"))?;
        put(ENTER)?;
        Ok(screen)
    }

    /// Shows this instead of what was shown.
    pub fn show(&self, text: &str) -> Result<(), Failure> {
        // Home first and what is below last: a screen that is cleared first flickers.
        let lines = text.replace('\n', "\x1b[K\n");
        print(&format!("\x1b[H{lines}\x1b[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = put(LEAVE);
        self.0.close();
    }
}

/// Writes what is no line.
fn put(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Failure::Error(format!("writing the output: {e}")))
}
