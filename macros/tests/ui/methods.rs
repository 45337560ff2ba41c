//! The node owns the actor; its methods are concrete.
#![allow(unused_variables)]

use mobula::remote;

use std::sync::Arc;

#[remote]
struct Store;

#[remote]
impl Store {
    pub fn new() -> Self {
        Store
    }

    pub fn shared(self: Arc<Self>) {}

    pub fn boxed(self: Box<Self>) {}

    pub fn find<T>(&self, key: T) {}

    pub fn name(&self) -> &str {
        ""
    }

    pub async fn close(self) {}

    pub fn update(&mut self, with: &mut u64) {}
}

fn main() {}
