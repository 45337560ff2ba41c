//! Two remote functions of one name: starting a node fails, and says where both are.

use mobula::remote;

#[remote(name = "area")]
fn square(side: f64) -> f64 {
    side * side
}

#[remote(name = "area")]
fn circle(radius: f64) -> f64 {
    std::f64::consts::PI * radius * radius
}

fn main() {
    match mobula::init() {
        Err(error @ mobula::Error::DuplicateName { .. }) => println!("{error}"),
        other => {
            eprintln!("init gave {other:?}");
            std::process::exit(1);
        }
    }
}
