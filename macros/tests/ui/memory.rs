//! A bound of memory belongs to a worker process and is bytes or a text.

use mobula::remote;

#[remote(memory = "2G")]
fn in_this_process() {}

#[remote(isolate = false, memory = 1024)]
fn here_as_well() {}

#[remote(isolate, memory = 0)]
fn nothing() {}

#[remote(isolate, memory = 1.5)]
fn no_unit() {}

#[remote(isolate = "yes", memory("2G"))]
struct Forms;

fn main() {}
