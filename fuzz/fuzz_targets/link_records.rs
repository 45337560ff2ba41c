//! Any bytes as the control stream between nodes: refused or decoded, never a panic.
//!
//! Left out: what is decoded; the tests of the library say.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mobula::fuzz::link::records(bytes));
