//! Amounts of memory as people write them.
//!
//! Invariant: units are powers of 1024; nothing is rounded. Left out: what the amounts are for.

use std::str::FromStr;

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Bytes(u64),
    /// A share of the machine's (or the container's) memory.
    Percent(u8),
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no size: write bytes, or a number with K, M, G or T, or a percentage, as in 512M, 4G or 30%"
            )
        };
        if let Some(share) = text.strip_suffix('%') {
            let share = share.parse().ok().filter(|share| (1..=100).contains(share));
            return share.map(Size::Percent).ok_or_else(wrong);
        }
        let upper = text.to_ascii_uppercase();
        let upper = upper
            .strip_suffix("IB")
            .or(upper.strip_suffix('B'))
            .unwrap_or(&upper);
        let (digits, shift) = match upper.as_bytes().last() {
            Some(b'K') => (&upper[..upper.len() - 1], 10),
            Some(b'M') => (&upper[..upper.len() - 1], 20),
            Some(b'G') => (&upper[..upper.len() - 1], 30),
            Some(b'T') => (&upper[..upper.len() - 1], 40),
            _ => (upper, 0),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes > 0)
            .map(Size::Bytes)
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4K", 4096),
            ("512M", 512 << 20),
            ("4g", 4 << 30),
            ("4GiB", 4 << 30),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!("30%".parse(), Ok(Size::Percent(30)));
    }

    #[test]
    fn what_is_no_size_says_what_is() {
        for text in [
            "",
            "G",
            "-1",
            "0",
            "0%",
            "101%",
            "4Q",
            "99999999T",
            "1.5G",
            "é",
        ] {
            let e = text.parse::<Size>().unwrap_err();
            assert!(e.contains("512M, 4G or 30%"), "{text}: {e}");
        }
    }
}
