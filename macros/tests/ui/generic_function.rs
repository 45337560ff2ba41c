//! A task is registered once under its name: no type, const or lifetime parameters.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
fn largest<T: Ord>(values: Vec<T>) -> T {
    values.into_iter().max().unwrap()
}

#[remote]
fn fixed<const N: usize>() -> [u8; N] {
    [0; N]
}

#[remote]
fn first<'a>(text: &'a str) -> u64 {
    text.len() as u64
}

#[remote]
fn bounded() -> u64
where
    u64: Copy,
{
    1
}

fn main() {}
