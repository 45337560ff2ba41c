//! A misspelt option names the one that was meant, an unknown one the list.

use mobula::remote;

#[remote(num_cpu = 2)]
fn close() {}

#[remote(colour = 1024)]
fn far() {}

#[remote(max_restarts = 3)]
fn of_actors() {}

#[remote(max_retries = 3)]
struct OfFunctions;

#[remote(max_concurency = 2)]
struct State;

fn main() {}
