//! Why a call has no value: the record that travels from where it went wrong to every `get` behind it.
//!
//! Invariant: a failure is immutable text and numbers, so that it reads the same in the thread, the process
//! and the machine that sees it. Left out: the original error value; its message and sources are kept.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The function returned `Err`.
    Returned,
    /// The function panicked.
    Panicked,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureKind::Returned => "returned an error",
            FailureKind::Panicked => "panicked",
        })
    }
}

/// The stack of a panic: its `Display` form names the functions.
#[derive(Debug)]
pub struct Stack(Taken);

#[derive(Debug)]
enum Taken {
    /// In this process; names are resolved when it is printed.
    Here(Backtrace),
    /// In another, which resolved them.
    There(String),
}

impl Stack {
    /// As another process printed it.
    pub(crate) fn told(text: String) -> Stack {
        Stack(Taken::There(text))
    }
}

impl From<Backtrace> for Stack {
    fn from(stack: Backtrace) -> Stack {
        Stack(Taken::Here(stack))
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Taken::Here(stack) => stack.fmt(f),
            Taken::There(text) => f.write_str(text),
        }
    }
}

/// A call's failure, with its cause.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The remote function or method, with its path.
    pub function: &'static str,
    /// The panic's or error's message.
    pub message: String,
    /// The type of the error or of the panic's payload.
    pub type_name: &'static str,
    /// The messages of the error's `source()` chain, outermost first.
    pub sources: Vec<String>,
    /// Where it panicked: `file:line:column`; for a returned error, where the function is.
    pub location: String,
    /// How many times the call was tried.
    pub attempts: u32,
    /// The stack of the panic, taken where it happened; names are resolved when it is printed.
    pub backtrace: Option<Arc<Stack>>,
}

impl Failure {
    /// A failure from an error that a remote function returned; the runtime fills in the rest.
    pub fn returned(error: &(dyn std::error::Error + 'static), type_name: &'static str) -> Failure {
        let mut sources = Vec::new();
        let mut next = error.source();
        while let Some(e) = next {
            sources.push(e.to_string());
            next = e.source();
        }
        Failure {
            kind: FailureKind::Returned,
            function: "",
            message: error.to_string(),
            type_name,
            sources,
            location: String::new(),
            attempts: 1,
            backtrace: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.function, self.kind, self.message)?;
        for s in &self.sources {
            write!(f, ": {s}")?;
        }
        write!(f, " ({} at {}", self.type_name, self.location)?;
        if self.attempts > 1 {
            write!(f, ", after {} attempts", self.attempts)?;
        }
        f.write_str(")")
    }
}
