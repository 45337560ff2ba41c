//! What a call from another language came to: a code, and a text for the thread that called.
//!
//! Invariant: the numbers are the header's and never change meaning. Left out: the calls.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::AssertUnwindSafe;

use crate::base::StoreError;

/// The codes of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Argument = 1,
    NotFound = 2,
    Exists = 3,
    NotSealed = 4,
    Timeout = 5,
    Full = 6,
    Gone = 7,
    Refused = 8,
    System = 9,
    Internal = 10,
}

/// A failed call.
pub struct Refusal {
    code: Code,
    text: String,
}

impl Refusal {
    /// The caller gave what makes no sense.
    pub fn argument(why: &str) -> Refusal {
        Refusal {
            code: Code::Argument,
            text: why.to_owned(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(e: StoreError) -> Refusal {
        let code = match e {
            StoreError::NotFound { .. } => Code::NotFound,
            StoreError::Exists { .. } => Code::Exists,
            StoreError::NotSealed { .. } => Code::NotSealed,
            StoreError::Deadline { .. } => Code::Timeout,
            StoreError::Full { .. } | StoreError::TooLarge { .. } => Code::Full,
            StoreError::Gone { .. } => Code::Gone,
            StoreError::Version { .. }
            | StoreError::RefusedUser { .. }
            | StoreError::TooManyClients { .. }
            | StoreError::Forked { .. } => Code::Refused,
            StoreError::Os { .. } => Code::System,
            _ => Code::Internal,
        };
        Refusal {
            code,
            text: e.to_string(),
        }
    }
}

thread_local! {
    static TEXT: RefCell<CString> = RefCell::default();
}

/// Runs a call; nothing it does leaves it but a code.
pub fn guarded(call: impl FnOnce() -> Result<(), Refusal>) -> c_int {
    let refusal = match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return Code::Ok as c_int,
        Ok(Err(refusal)) => refusal,
        Err(panic) => {
            let why = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let why = why.or_else(|| panic.downcast_ref::<String>().cloned());
            // Dropping what a panic carries may panic too.
            std::mem::forget(panic);
            Refusal {
                code: Code::Internal,
                text: why.unwrap_or_else(|| "a panic".to_owned()),
            }
        }
    };
    let text = CString::new(refusal.text.replace('\0', "?")).unwrap_or_default();
    // At the end of a thread there is nowhere to keep it, and the code has to do.
    let _ = TEXT.try_with(|kept| kept.replace(text));
    refusal.code as c_int
}

/// This thread's last text.
pub fn last_text() -> *const c_char {
    TEXT.try_with(|text| text.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_code_and_a_text() {
        assert_eq!(guarded(|| panic!("of {}", 7)), Code::Internal as c_int);
        assert_eq!(TEXT.with(|t| t.borrow().clone()), c"of 7".to_owned());
        assert_eq!(guarded(|| Ok(())), 0);
        assert_eq!(guarded(|| Err(Refusal::argument("x"))), 1);
    }
}
