//! An option is given once.

use mobula::remote;

#[remote(num_cpus = 1, num_cpus = 2, resources(disk = 1, "disk" = 2))]
fn twice() {}

fn main() {}
