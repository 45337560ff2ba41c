//! Any bytes, and changed true ones, as messages of drivers and launchers.
//!
//! Left out: what is checked; `mobula::fuzz` says.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mobula::fuzz::{fuzzed, launch as decoder};

static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(decoder::samples);

fuzz_target!(|bytes: &[u8]| decoder::message(&fuzzed(&SAMPLES, bytes)));
