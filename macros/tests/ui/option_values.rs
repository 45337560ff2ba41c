//! Every value of the wrong kind is reported at its place, all of one item together.

use mobula::remote;

#[remote(
    num_cpus = "2",
    num_gpus = -1,
    max_retries = 1.5,
    retry_panics = 1,
    priority = 99999999999,
    name = ""
)]
fn values() {}

#[remote(max_concurrency = 0, max_pending = 0, max_restarts = -1, restart_on_panic = "yes")]
struct Actor;

#[remote(num_cpus(2), name, resources = 3, = 4, num_gpus = 1 + 1)]
fn forms() {}

#[remote(num_cpus = 1e999, max_retries = 4294967296)]
fn bounds() {}

fn main() {}
