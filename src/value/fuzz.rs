//! Any bytes as an archive of values that another node, another process or a worker wrote.
//!
//! Invariant: bytes are refused, or values of their type are read that are archived again. Left out: references beside an
//! archive, whose types are looked at when they are taken out (`exec`).

use std::collections::{BTreeMap, HashMap};

use super::{Placed, Ser, Value, check, decode};
use crate::base::hostile::cheaply;

/// Of such types; bytes are read as each of them.
type Nested = (u32, Vec<String>, Option<bool>, Box<Vec<Vec<u16>>>);
type Maps = (BTreeMap<String, Vec<u64>>, HashMap<u32, (char, i8)>);
type Numbers = Vec<f32>;
type Choices = Vec<Option<Result<String, (u8, u64)>>>;

#[repr(C, align(64))]
struct Aligned([u8; 4096]);

fn archive<T: Value>(value: &T) -> Option<Vec<u8>> {
    let mut ser = Ser::default();
    ser.begin(0);
    match ser.place(value) {
        Ok(Placed::Scratch) => Some(ser.bytes()[..ser.pos()].to_vec()),
        _ => None,
    }
}

/// True ones.
pub fn samples() -> Vec<Vec<u8>> {
    let text = |n: usize| "a string that is not inline".repeat(n);
    let nested: Nested = (
        7,
        vec![text(1), "short".into(), text(2)],
        Some(true),
        Box::new(vec![vec![1, 2, 3], vec![]]),
    );
    let maps: Maps = (
        (0..20).map(|i| (text(i % 3), vec![i as u64; i])).collect(),
        (0..9).map(|i| (i, ('ä', -3))).collect(),
    );
    let choices: Choices = vec![None, Some(Ok(text(1))), Some(Err((1, 2)))];
    let numbers: Numbers = vec![1.5; 30];
    let all = [
        archive(&nested),
        archive(&maps),
        archive(&choices),
        archive(&numbers),
    ];
    all.into_iter().flatten().collect()
}

fn read<T: Value>(bytes: &[u8]) {
    // Shared pointers are looked for in a table, and errors say much.
    if cheaply(bytes.len(), 64, || check::<T>(bytes)).is_ok() {
        // SAFETY: it was accepted.
        let value = cheaply(bytes.len(), 64, || unsafe { decode::<T>(bytes, &[]) });
        let value = value.expect("it holds no references");
        let _ = archive(&value);
    }
}

/// See the file.
pub fn archives(bytes: &[u8]) {
    let mut home = Box::new(Aligned([0; 4096]));
    let len = bytes.len().min(home.0.len());
    home.0[..len].copy_from_slice(&bytes[..len]);
    let bytes = &home.0[..len];
    read::<Nested>(bytes);
    read::<Maps>(bytes);
    read::<Choices>(bytes);
    read::<Numbers>(bytes);
    read::<String>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_archives_are_refused_or_read() {
        assert_eq!(samples().len(), 4);
        let cases = if cfg!(miri) { 50 } else { 5_000 };
        spoiled(12, cases, &samples(), archives);
    }
}
