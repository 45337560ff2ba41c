//! A configured node is started by hand.

#[mobula::main(num_cpus = 4)]
fn main() {}
