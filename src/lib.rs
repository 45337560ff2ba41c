//! Ray's programming model made native to Rust (work in progress).
mod base;
mod core;
mod exec;
mod shm;
mod store;
mod value;
pub use rkyv;
