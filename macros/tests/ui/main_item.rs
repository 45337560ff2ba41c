//! Only a function can be `main`.

#[mobula::main]
struct Application;

fn main() {}
