//! The served store for programs in other languages: what `include/mobula_store.h` declares.
//!
//! Every function gives a code, 0 for success, and leaves a text for the thread that called it.
//! Invariants: a panic becomes a code; a handle is freed by exactly one function, which the header
//! names; null is refused. Left out: values; other languages see bytes.

mod outcome;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::base::ObjectId;
use crate::store::{Client, Object, Writing};

use outcome::{Code, Refusal, guarded};

/// Defines functions that the header declares. Each is guarded: its body may fail and panic.
macro_rules! exported {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Pointers are null or point to what the header says; handles are alive.
        // SAFETY: the name is this library's own; nothing else defines it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            guarded(|| $body)
        }
    )* };
}

exported! {
    /// Connects to the store at a socket.
    fn mobula_store_connect(path: *const c_char, store: *mut *mut Client) {
        let path = text(path)?;
        let client = Client::connect(OsStr::from_bytes(path))?;
        give(store, Box::into_raw(Box::new(client)))
    }

    /// Frees a connection. What was got through it stays.
    fn mobula_store_disconnect(store: *mut Client) {
        take(store).map(drop)
    }

    /// Begins an object, and says where its bytes are to be written.
    fn mobula_store_create(
        store: *const Client,
        id: *const u8,
        len: usize,
        writing: *mut *mut Writing,
        data: *mut *mut u8,
    ) {
        let mut made = borrow(store)?.create(object_id(id)?, len)?;
        give(data, made.as_mut_ptr())?;
        give(writing, Box::into_raw(Box::new(made)))
    }

    /// Completes an object.
    fn mobula_store_seal(writing: *mut Writing) {
        Ok(take(writing)?.seal()?)
    }

    /// Gives an object up.
    fn mobula_store_abort(writing: *mut Writing) {
        Ok(take(writing)?.abort()?)
    }

    /// Makes an object of bytes.
    fn mobula_store_put(store: *const Client, id: *const u8, data: *const u8, len: usize) {
        let bytes = slice(data, len)?;
        Ok(borrow(store)?.put_bytes(object_id(id)?, bytes)?)
    }

    /// Waits for an object and says where its bytes are.
    fn mobula_store_get(
        store: *const Client,
        id: *const u8,
        timeout_ms: i64,
        object: *mut *mut Object,
        data: *mut *const u8,
        len: *mut usize,
    ) {
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let found = borrow(store)?.get(object_id(id)?, timeout)?;
        give(data, found.as_ptr())?;
        give(len, found.len())?;
        give(object, Box::into_raw(Box::new(found)))
    }

    /// Gives an object back.
    fn mobula_store_release(object: *mut Object) {
        take(object).map(drop)
    }

    /// Whether there is a sealed object of this name.
    fn mobula_store_contains(store: *const Client, id: *const u8, found: *mut c_int) {
        give(found, c_int::from(borrow(store)?.contains(object_id(id)?)?))
    }

    /// Deletes an object.
    fn mobula_store_delete(store: *const Client, id: *const u8) {
        Ok(borrow(store)?.delete(object_id(id)?)?)
    }

    /// The name that stands for a text.
    fn mobula_store_id_from_name(name: *const c_char, id: *mut u8) {
        let name = std::str::from_utf8(text(name)?)
            .map_err(|_| Refusal::argument("the name is not UTF-8"))?;
        give(id.cast::<[u8; 16]>(), ObjectId::from_name(name).0)
    }
}

/// What went wrong in this thread's last call that failed; empty if none did.
///
/// # Safety
/// None is needed: the text is this thread's, until its next call.
// SAFETY: the name is this library's own; nothing else defines it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mobula_store_last_error() -> *const c_char {
    outcome::last_text()
}

fn not_null<T>(pointer: *const T) -> Result<*const T, Refusal> {
    match pointer.is_null() {
        true => Err(Refusal::argument("a pointer is null")),
        false => Ok(pointer),
    }
}

fn text<'a>(text: *const c_char) -> Result<&'a [u8], Refusal> {
    let text = not_null(text)?;
    // SAFETY: not null; the header asks for a text that ends with a zero and stays for the call.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

fn slice<'a>(data: *const u8, len: usize) -> Result<&'a [u8], Refusal> {
    if len == 0 {
        return Ok(&[]);
    }
    let data = not_null(data)?;
    // SAFETY: not null; the header asks for `len` bytes that stay for the call.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

fn object_id(id: *const u8) -> Result<ObjectId, Refusal> {
    let id = not_null(id)?.cast::<[u8; 16]>();
    // SAFETY: not null; the header asks for 16 bytes.
    Ok(ObjectId(unsafe { id.read_unaligned() }))
}

fn borrow<'a, T>(handle: *const T) -> Result<&'a T, Refusal> {
    let handle = not_null(handle)?;
    // SAFETY: not null; the header asks for a handle that is alive for the call.
    Ok(unsafe { &*handle })
}

fn take<T>(handle: *mut T) -> Result<Box<T>, Refusal> {
    not_null(handle)?;
    // SAFETY: not null; made by `Box::into_raw`, and the header forbids to use it again.
    Ok(unsafe { Box::from_raw(handle) })
}

fn give<T>(to: *mut T, value: T) -> Result<(), Refusal> {
    not_null(to)?;
    // SAFETY: not null; the header asks for a place for one `T`.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

const _: () = assert!(Code::Ok as c_int == 0);
