//! Any bytes as join tokens and an authority's file: refused or decoded, never a panic.
//!
//! Left out: what is decoded; the tests of the library say.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mobula::fuzz::link::text(bytes));
