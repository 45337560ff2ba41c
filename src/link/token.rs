//! The text that lets a machine in: whom to trust, and a secret to be trusted by.
//!
//! Invariant: a text that was cut, mistyped or taken from something else is refused with what is wrong with it; the secret
//! is never shown by `Debug`. Left out: how it is used, which `join` says.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest, hmac};

use crate::link::LinkError;

const PREFIX: &str = "mobula1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const SUM: usize = 4;
const BYTES: usize = 32 + 32 + SUM;
const DIGITS: usize = (BYTES * 8).div_ceil(5);

/// What a newcomer needs beside an address: the fingerprint of the cluster's authority and the cluster's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate.
    pub fingerprint: [u8; 32],
    secret: [u8; 32],
}

impl JoinToken {
    pub(crate) fn new(fingerprint: [u8; 32], secret: [u8; 32]) -> JoinToken {
        JoinToken {
            fingerprint,
            secret,
        }
    }

    /// Proves to who holds the secret that we do too, on the connection that `parts` name.
    pub(crate) fn prove(&self, parts: &[&[u8]]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let mut context = hmac::Context::with_key(&key);
        context.update(b"mobula join 1");
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let tag = context.sign();
        tag.as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    pub(crate) fn proven(&self, parts: &[&[u8]], proof: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(&self.prove(parts), proof).is_ok()
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// The beginning of a fingerprint, for people to compare.
pub(crate) fn short(fingerprint: &[u8; 32]) -> String {
    fingerprint[..6]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}..)", short(&self.fingerprint))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; BYTES];
        bytes[..32].copy_from_slice(&self.fingerprint);
        bytes[32..64].copy_from_slice(&self.secret);
        let sum = sha256(&bytes[..64]);
        bytes[64..].copy_from_slice(&sum[..SUM]);
        let mut text = String::with_capacity(PREFIX.len() + DIGITS);
        text.push_str(PREFIX);
        let (mut held, mut bits) = (0u32, 0);
        for byte in bytes {
            held = held << 8 | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text.push(ALPHABET[(held >> bits & 31) as usize] as char);
            }
            held &= (1 << bits) - 1;
        }
        if bits > 0 {
            text.push(ALPHABET[(held << (5 - bits) & 31) as usize] as char);
        }
        f.write_str(&text)
    }
}

impl FromStr for JoinToken {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<JoinToken, LinkError> {
        let bad = |why: String| Err(LinkError::Token(why));
        let text = text.trim();
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return bad(format!("it begins with \"{PREFIX}\""));
        };
        let count = digits.chars().count();
        if count != DIGITS {
            let cut = if count < DIGITS {
                "cut off"
            } else {
                "too long"
            };
            return bad(format!(
                "{cut}: {count} characters after \"{PREFIX}\", of {DIGITS}"
            ));
        }
        let mut bytes = Vec::with_capacity(BYTES);
        let (mut held, mut bits) = (0u32, 0);
        for (at, digit) in digits.chars().enumerate() {
            let lower = digit.to_ascii_lowercase();
            let Some(value) = ALPHABET.iter().position(|&a| a as char == lower) else {
                return bad(format!("character {} is {digit:?}", PREFIX.len() + at + 1));
            };
            held = held << 5 | value as u32;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((held >> bits) as u8);
                held &= (1 << bits) - 1;
            }
        }
        // The last digit has bits to spare, which are 0 so that a token has one text.
        if held != 0 || sha256(&bytes[..64])[..SUM] != bytes[64..] {
            return bad("its checksum is wrong, so a character was mistyped".to_owned());
        }
        Ok(JoinToken {
            fingerprint: bytes[..32].try_into().expect("32 bytes"),
            secret: bytes[32..64].try_into().expect("32 bytes"),
        })
    }
}
