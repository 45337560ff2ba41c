//! What a served store and its clients say to each other, as bytes.
//!
//! One Unix stream socket per client. Every message is a frame: its length in four bytes, then a kind,
//! then fields, all little-endian. The client says hello, the server welcomes it and passes the file
//! of the store's memory, or refuses it; then requests and replies follow, told apart by a number that
//! the client chose, and events. Contents travel in frames only when they are small.
//!
//! Invariant: pure and without `unsafe`; decoding any bytes gives a message or an error, and holds no
//! more memory than the frame is long. Left out: sockets, and whether what a message claims is true.

mod cursor;
mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hello;
mod reply;
mod request;
mod stats;

#[cfg(test)]
mod laws;

pub(crate) use frames::Frames;
pub(crate) use hello::{Greeting, Hello, Welcome};
pub(crate) use reply::{Answer, Denial, Entry, Message};
pub(crate) use request::{FOREVER, Request};
pub use stats::ServedStats;

/// What this version speaks. Raised with every change of a message after the hello.
pub(crate) const VERSION: u32 = 1;

/// The longest frame, without its four bytes of length.
pub(crate) const FRAME_MAX: usize = (64 << 10) + 64;

/// The most bytes of an object that one frame carries.
pub(crate) const PIECE_MAX: usize = 64 << 10;

/// Bytes that are not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);
