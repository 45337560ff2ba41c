//! Only `&str`, `&[T]` and `&Archived<T>` can be lent to a task.
#![allow(unused_variables)]

use mobula::remote;

struct Point;

#[remote]
fn point(p: &Point) {}

#[remote]
fn vec(v: &Vec<Vec<f32>>, s: &String) {}

#[remote]
fn inside(s: Option<&str>, t: (u8, &[u8])) {}

#[remote]
fn forever(s: &'static str) {}

#[remote]
fn array(a: &[u8; 4]) {}

fn main() {}
