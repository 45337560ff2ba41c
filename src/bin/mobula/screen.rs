//! A terminal's second screen, for what is shown again and again.
//!
//! Invariant: however the command ends, short of being killed outright, the terminal is as it was before: its own screen, with
//! the cursor. What is shown begins at the top, and what has no room is left off at the end. Left out: what is shown.

use std::io::{self, Write};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::{Failure, INTERRUPTED};

/// The second screen, without cursor, and with long lines cut: a line that goes on below would push the first ones out.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

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
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row);
        put(&frame(text, rows.into()))
    }
}

/// The text, on a screen of so many rows; 0 if nobody knows how many.
fn frame(text: &str, rows: usize) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let more;
    if rows > 0 && lines.len() > rows {
        more = format!("({} more lines)", lines.len() - (rows - 1));
        lines.truncate(rows - 1);
        lines.push(&more);
    }
    // A screen that is cleared first flickers; and a line is cleared before it is written, since the cursor stays on the
    // last letter of one that is cut. No line feed at the end, which would scroll the first line away.
    let last = lines.pop().unwrap_or_default();
    let above: String = lines.iter().map(|l| format!("\x1b[K{l}\r\n")).collect();
    format!("\x1b[H{above}\x1b[J{last}")
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

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn a_long_list_begins_at_the_top() {
        let text = "head\na\nb\nc\n";
        for rows in [0, 4, 50] {
            let all = "\x1b[H\x1b[Khead\r\n\x1b[Ka\r\n\x1b[Kb\r\n\x1b[Jc";
            assert_eq!(frame(text, rows), all);
        }
        let some = "\x1b[H\x1b[Khead\r\n\x1b[Ka\r\n\x1b[J(2 more lines)";
        assert_eq!(frame(text, 3), some);
        assert!(frame(text, 1).contains("(4 more lines)"));
        assert_eq!(frame("", 3), "\x1b[H\x1b[J");
    }
}
