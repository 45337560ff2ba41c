//! An alias that hides its type would hide what the task gives.

use mobula::remote;

type Result = std::result::Result<u64, String>;

#[remote]
fn alias() -> Result {
    Ok(1)
}

#[remote]
fn write() -> std::fmt::Result {
    Ok(())
}

fn main() {}
