//! A module that nothing outside of it names.

use mobula::remote;

/// Nobody can call this one but by its name.
#[remote]
fn forgotten(x: u64) -> u64 {
    x
}

/// Nobody can make this one either.
#[remote]
struct Tally {
    total: u64,
}

#[remote]
impl Tally {
    pub fn new() -> Self {
        Tally { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}
