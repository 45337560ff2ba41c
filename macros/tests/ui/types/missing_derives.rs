//! Types that cross a call derive their archive: the message says which derives.
#![allow(unused_variables)]

use mobula::remote;

struct Point {
    x: f32,
}

#[remote]
fn norm(p: Point) -> f32 {
    p.x
}

#[remote]
fn origin() -> Point {
    Point { x: 0.0 }
}

#[remote]
struct Canvas;

#[remote]
impl Canvas {
    pub fn new() -> Self {
        Canvas
    }

    pub fn draw(&mut self, p: Point) {}
}

fn main() {}
