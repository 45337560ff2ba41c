//! The name of an object that several processes share.
//!
//! Invariant: 16 plain bytes; equal bytes are the same object. Left out: what the object holds.

use std::fmt;
use std::str::FromStr;

/// The name of an object in a served store: 16 bytes, shown as 32 hexadecimal digits.
///
/// ```
/// use mobula::store::ObjectId;
///
/// let weights = ObjectId::from_name("weights");
/// assert_eq!(weights, ObjectId::from_name("weights"));
/// assert_eq!(weights.to_string().parse(), Ok(weights));
/// assert_ne!(ObjectId::random(), ObjectId::random());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 16]);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not the name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadObjectId {
    /// The text.
    pub text: String,
}

impl fmt::Display for BadObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is no object id: it takes exactly 32 hexadecimal digits",
            self.text
        )
    }
}

impl std::error::Error for BadObjectId {}

impl FromStr for ObjectId {
    type Err = BadObjectId;

    fn from_str(text: &str) -> Result<ObjectId, BadObjectId> {
        let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
        let read = || {
            let digits = text.as_bytes();
            if digits.len() != 32 {
                return None;
            }
            let mut id = [0; 16];
            for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = digit(pair[0])? << 4 | digit(pair[1])?;
            }
            Some(ObjectId(id))
        };
        read().ok_or_else(|| BadObjectId {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = ObjectId(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn what_is_no_id_says_so() {
        for text in ["", "12", &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
            let e = text.parse::<ObjectId>().unwrap_err();
            assert!(e.to_string().contains("32 hexadecimal digits"));
        }
    }
}
