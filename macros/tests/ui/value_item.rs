//! Only structs and enums can be values.

use mobula::value;

#[value]
fn function() {}

#[value]
trait Trait {}

#[value(copy)]
struct Point {
    x: f32,
}

fn main() {}
