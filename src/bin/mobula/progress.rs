//! How far a long operation is: a bar on standard error, if a person watches.
//!
//! Invariant: nothing is drawn unless standard error is a terminal, and what was drawn is gone at the end. Left out: what
//! takes long.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar with a word before it, for steps of any kind.
    pub fn new(what: &'static str) -> Bar {
        Bar::styled(what, "{msg} [{bar:40}] {percent}% ({elapsed}, {eta} left)")
    }

    /// A bar for bytes.
    pub fn of_bytes(what: &'static str) -> Bar {
        Bar::styled(
            what,
            "{msg} [{bar:40}] {binary_bytes} of {binary_total_bytes} ({binary_bytes_per_sec})",
        )
    }

    fn styled(what: &'static str, template: &str) -> Bar {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(1), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Bar(bar)
    }

    /// So much is done, of so much.
    pub fn at(&self, done: u64, all: u64) {
        self.0.set_length(all.max(1));
        self.0.set_position(done);
    }

    /// It is done, well or not.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

