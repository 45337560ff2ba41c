//! Any bytes, and changed true ones, as frames of one node to another.
//!
//! Left out: what is checked; `mobula::fuzz` says.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mobula::fuzz::{fuzzed, wire as decoder};

static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(decoder::samples);

fuzz_target!(|bytes: &[u8]| decoder::frames(&fuzzed(&SAMPLES, bytes)));
