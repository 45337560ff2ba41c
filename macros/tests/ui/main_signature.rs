//! `main` takes nothing.
#![allow(unused_variables)]

#[mobula::main]
async fn main<T>(args: Vec<String>) {}
