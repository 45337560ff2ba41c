//! Failures as bytes: how a call failed in a worker, told to the node.
//!
//! Invariant: what the node reads is text and numbers of bounded number and size; names that must live forever are kept
//! once each, and only so many. Left out: the error value itself, which stays in the worker.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::call::CallError;
use super::frame::{Reader, Writer};
use crate::base::{Error, Failure, FailureKind, Stack};
use crate::shm::Lied;

const RETURNED: u32 = 0;
const PANICKED: u32 = 1;
const CANCELLED: u32 = 2;
const ENCODE: u32 = 3;
const DECODE: u32 = 4;
const OTHER: u32 = 5;

/// The longest text that is sent of each kind.
const MAX_TEXT: usize = 16 << 10;
const MAX_SOURCES: usize = 32;

fn cut(text: &str) -> &str {
    first(text, MAX_TEXT)
}

fn short(text: &str) -> &str {
    first(text, 512)
}

/// The first so many bytes, or a few less so that no character is cut.
fn first(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Writes why a call has no value.
pub fn write(error: &CallError, w: &mut Writer) {
    match error {
        CallError::Function(f) => {
            w.u32(match f.kind {
                FailureKind::Returned => RETURNED,
                FailureKind::Panicked => PANICKED,
            });
            w.text(cut(&f.message));
            w.text(cut(f.type_name));
            w.text(cut(&f.location));
            let sources = &f.sources[..f.sources.len().min(MAX_SOURCES)];
            w.u32(sources.len() as u32);
            // All of them together stay below what one frame takes.
            sources.iter().for_each(|s| w.text(short(s)));
            let stack = f.backtrace.as_ref().map(ToString::to_string);
            w.text(cut(stack.as_deref().unwrap_or_default()));
        }
        CallError::Runtime(Error::Cancelled { .. }) => w.u32(CANCELLED),
        CallError::Runtime(Error::Encode { value, why }) => {
            w.u32(ENCODE);
            w.text(cut(value));
            w.text(cut(why));
        }
        CallError::Runtime(Error::Decode { expected, why }) => {
            w.u32(DECODE);
            w.text(cut(expected));
            w.text(cut(why));
        }
        CallError::Runtime(e) => {
            w.u32(OTHER);
            w.text(cut(&e.to_string()));
        }
    }
}

/// Reads it back; `function` is what was called.
pub fn read(r: &mut Reader<'_>, function: &'static str) -> Result<CallError, Lied> {
    Ok(match r.u32()? {
        kind @ (RETURNED | PANICKED) => {
            let (message, type_name, location) = (r.text()?, r.text()?, r.text()?);
            let count = r.u32()? as usize;
            if count > MAX_SOURCES {
                return Err(Lied);
            }
            let sources = (0..count).map(|_| r.text()).collect::<Result<_, _>>()?;
            let stack = r.text()?;
            CallError::Function(Failure {
                kind: if kind == RETURNED {
                    FailureKind::Returned
                } else {
                    FailureKind::Panicked
                },
                function,
                message,
                type_name: forever(&type_name),
                sources,
                location,
                attempts: 1,
                backtrace: (!stack.is_empty()).then(|| Arc::new(Stack::told(stack))),
            })
        }
        CANCELLED => CallError::Runtime(Error::Cancelled { function }),
        ENCODE => CallError::Runtime(Error::Encode {
            value: forever(&r.text()?),
            why: Arc::from(r.text()?),
        }),
        DECODE => CallError::Runtime(Error::Decode {
            expected: forever(&r.text()?),
            why: Arc::from(r.text()?),
        }),
        OTHER => CallError::Function(Failure {
            kind: FailureKind::Returned,
            function,
            message: r.text()?,
            type_name: "mobula::Error",
            sources: Vec::new(),
            location: String::new(),
            attempts: 1,
            backtrace: None,
        }),
        _ => return Err(Lied),
    })
}

/// The name as text that lives as long as the program: the names of a program's types are few, and a worker that says
/// otherwise does not fill the memory.
fn forever(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    const MOST: usize = 4096;
    // A worker writes longer ones, whose beginning says enough; one that lies writes far longer ones.
    let name = first(name, 1024);
    let mut names = NAMES.lock();
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    if names.len() >= MOST {
        return "a type of many";
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(error: &CallError) -> CallError {
        let mut w = Writer::default();
        write(error, &mut w);
        assert!(w.0.len() < 120 << 10, "it fits into a frame");
        read(&mut Reader(&w.0), "there").unwrap()
    }

    #[test]
    fn a_failure_keeps_what_it_says() {
        let failure = Failure {
            kind: FailureKind::Panicked,
            function: "",
            message: "what".into(),
            type_name: "app::What",
            sources: vec!["why".into(), "why that".into()],
            location: "a.rs:1:2".into(),
            attempts: 1,
            backtrace: Some(Arc::new(Stack::told("0: f".into()))),
        };
        let CallError::Function(back) = there_and_back(&CallError::Function(failure.clone()))
        else {
            panic!("it was a failure");
        };
        assert_eq!(back.function, "there");
        assert_eq!((back.kind, &back.message), (failure.kind, &failure.message));
        assert_eq!(
            (back.type_name, &back.sources),
            (failure.type_name, &failure.sources)
        );
        assert_eq!(back.location, failure.location);
        assert_eq!(back.backtrace.unwrap().to_string(), "0: f");
    }

    #[test]
    fn endless_text_is_cut_between_characters() {
        let failure = Failure {
            kind: FailureKind::Returned,
            function: "",
            message: "ä".repeat(1 << 16),
            type_name: "T",
            sources: vec!["ö".repeat(1 << 16); 1000],
            location: String::new(),
            attempts: 1,
            backtrace: None,
        };
        let CallError::Function(back) = there_and_back(&CallError::Function(failure)) else {
            panic!("it was a failure");
        };
        assert_eq!(back.message, "ä".repeat(MAX_TEXT / 2));
        assert_eq!(back.sources.len(), MAX_SOURCES);
    }

    #[test]
    fn names_are_kept_once_and_not_without_end() {
        let a = forever("isolate::tests::Name");
        assert!(std::ptr::eq(a, forever("isolate::tests::Name")));
        for i in 0..10_000 {
            let _ = forever(&format!("isolate::tests::{i}"));
        }
        assert_eq!(forever("one more"), "a type of many");
    }
}
