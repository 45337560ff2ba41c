//! A future that stays on its thread cannot run on the node; an error type must be one that travels.

use mobula::remote;

use std::rc::Rc;

#[remote]
async fn local() -> u64 {
    let n = Rc::new(1);
    std::future::ready(()).await;
    *n
}

fn main() {}
