//! Amounts of memory as people write them.
//!
//! Invariant: amounts are read as everywhere in Mobula; shares are added here, since they need a machine. Left out: what
//! the amounts are for.

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
        if let Some(share) = text.strip_suffix('%') {
            let share = share.parse().ok().filter(|share| (1..=100).contains(share));
            return share
                .map(Size::Percent)
                .ok_or_else(|| format!("\"{text}\" is no share of memory: write 1% to 100%"));
        }
        mobula::parse_bytes(text).map(Size::Bytes).map_err(|why| {
            format!(
                "\"{text}\" is no size: {}; or a percentage, as in 30%",
                why.describe()
            )
        })
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
            ("2TB", 2_000_000_000_000),
            ("1.5G", 3 << 29),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!("30%".parse(), Ok(Size::Percent(30)));
    }

    #[test]
    fn what_is_no_size_says_what_is() {
        for text in ["", "G", "-1", "0", "0%", "101%", "4Q", "99999999T", "é"] {
            let e = text.parse::<Size>().unwrap_err();
            assert!(e.contains("is no s") && e.contains(text), "{text}: {e}");
        }
    }
}
