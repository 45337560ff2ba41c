//! The attribute stands on functions, structs, enums and their `impl` blocks.

use mobula::remote;

#[remote]
mod module {}

#[remote]
trait Trait {}

#[remote]
const LIMIT: u64 = 1;

#[remote]
static COUNT: u64 = 1;

#[remote]
union Bits {
    a: u32,
    b: f32,
}

#[remote]
type Alias = u64;

fn main() {}
