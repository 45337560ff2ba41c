//! Amounts of memory as people write them: `512M`, `1.5 GiB`, `2000000000`.
//!
//! Invariant: one function reads them everywhere, also at compile time for the text in `#[remote(memory = "2G")]`.
//! Left out: shares of a machine (`30%`), which need a machine.

use std::fmt;

/// Why a text is no amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadBytes {
    /// It does not begin with a number.
    NoNumber,
    /// What follows the number is no unit.
    UnknownUnit,
    /// A fraction with more than nine digits.
    TooFine,
    /// Nothing.
    Zero,
    /// More than 8 EiB.
    TooLarge,
}

impl BadBytes {
    /// In words.
    pub const fn describe(self) -> &'static str {
        match self {
            BadBytes::NoNumber => {
                "an amount of memory begins with a number: write it like \"512M\", \"1.5GiB\" or \"2000000000\""
            }
            BadBytes::UnknownUnit => {
                "units of memory are B; K, M, G, T or KiB, MiB, GiB, TiB (steps of 1024); KB, MB, GB, TB (steps of 1000)"
            }
            BadBytes::TooFine => "a fraction of an amount of memory has at most nine digits",
            BadBytes::Zero => "an amount of memory must be more than nothing",
            BadBytes::TooLarge => "an amount of memory is less than 8 EiB",
        }
    }
}

impl fmt::Display for BadBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

impl std::error::Error for BadBytes {}

/// Reads an amount of memory: a number, fractions allowed, then a unit in any case; without one, bytes. `K`, `M`, `G`,
/// `T` and `KiB` .. `TiB` are steps of 1024, `KB` .. `TB` of 1000. Rounds down to whole bytes.
pub const fn parse_bytes(text: &str) -> Result<u64, BadBytes> {
    let text = text.trim_ascii().as_bytes();
    let (mut at, mut number, mut scale) = (0, 0u128, 1u128);
    let mut digits = 0;
    while at < text.len() && text[at].is_ascii_digit() {
        number = number * 10 + (text[at] - b'0') as u128;
        if number > u64::MAX as u128 {
            return Err(BadBytes::TooLarge);
        }
        digits += 1;
        at += 1;
    }
    if digits > 0 && at < text.len() && text[at] == b'.' {
        at += 1;
        let point = at;
        while at < text.len() && text[at].is_ascii_digit() {
            if at - point == 9 {
                return Err(BadBytes::TooFine);
            }
            number = number * 10 + (text[at] - b'0') as u128;
            scale *= 10;
            at += 1;
        }
        if at == point {
            return Err(BadBytes::NoNumber);
        }
    }
    if digits == 0 {
        return Err(BadBytes::NoNumber);
    }
    let unit = text.split_at(at).1.trim_ascii();
    let Some(unit) = unit_bytes(unit) else {
        return Err(BadBytes::UnknownUnit);
    };
    // At most 2^64 * 10^9 * 2^40, which fits.
    let bytes = number * unit as u128 / scale;
    if bytes == 0 {
        return Err(BadBytes::Zero);
    }
    if bytes > i64::MAX as u128 {
        return Err(BadBytes::TooLarge);
    }
    Ok(bytes as u64)
}

const fn unit_bytes(unit: &[u8]) -> Option<u64> {
    let (power, rest) = match unit {
        [] => return Some(1),
        [first, rest @ ..] => match first.to_ascii_lowercase() {
            b'b' if rest.is_empty() => return Some(1),
            b'k' => (1, rest),
            b'm' => (2, rest),
            b'g' => (3, rest),
            b't' => (4, rest),
            _ => return None,
        },
    };
    let step: u64 = match rest {
        [] | [b'i' | b'I', b'b' | b'B'] => 1024,
        [b'b' | b'B'] => 1000,
        _ => return None,
    };
    Some(step.pow(power))
}

/// Shows an amount of memory in the unit that fits it: `1.5 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut amount, mut unit) = (bytes as f64 / 1024.0, 0);
    // Rounding must not show 1024.0 of a unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("12B", 12),
            ("512M", 512 << 20),
            ("512 MiB", 512 << 20),
            ("2G", 2 << 30),
            (" 2 gib ", 2 << 30),
            ("1.5G", 3 << 29),
            ("0.5k", 512),
            ("1KB", 1000),
            ("3.25MB", 3_250_000),
            ("1T", 1 << 40),
            ("0.0000001G", 107),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_says_why() {
        for (text, why) in [
            ("", BadBytes::NoNumber),
            ("G", BadBytes::NoNumber),
            ("-1G", BadBytes::NoNumber),
            (".5G", BadBytes::NoNumber),
            ("1.G", BadBytes::NoNumber),
            ("2X", BadBytes::UnknownUnit),
            ("2Gi", BadBytes::UnknownUnit),
            ("30%", BadBytes::UnknownUnit),
            ("1e9", BadBytes::UnknownUnit),
            ("1 000", BadBytes::UnknownUnit),
            ("1.0000000001G", BadBytes::TooFine),
            ("0", BadBytes::Zero),
            ("0.1", BadBytes::Zero),
            ("99999999999999999999", BadBytes::TooLarge),
            ("8388608T", BadBytes::TooLarge),
        ] {
            assert_eq!(parse_bytes(text), Err(why), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_in_a_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}") {
            if let Ok(bytes) = parse_bytes(&text) {
                prop_assert!(bytes > 0 && bytes <= i64::MAX as u64);
            }
        }

        #[test]
        fn what_is_shown_is_read_back_within_its_rounding(bytes in 1024u64..1 << 49) {
            let read = parse_bytes(&show_bytes(bytes)).unwrap();
            // One decimal of at least 1.0.
            prop_assert!(read.abs_diff(bytes) <= bytes / 19, "{bytes} {read}");
        }
    }
}
