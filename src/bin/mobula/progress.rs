//! How far a long operation is: a bar on standard error, if a person watches.
//!
//! Invariant: nothing is drawn unless standard error is a terminal, and what was drawn is gone at the end. Left out: what
//! takes long.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar with a word before it.
    pub fn new(what: &'static str) -> Bar {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(1), target).with_message(what);
        let style =
            ProgressStyle::with_template("{msg} [{bar:40}] {percent}% ({elapsed}, {eta} left)");
        if let Ok(style) = style {
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
