//! Async: remote functions that await timers and each other, references that are awaited, cancel.
//!
//! `cargo run --release --example async_tasks`

use std::time::{Duration, Instant};

use mobula::prelude::*;

/// While it sleeps it takes no thread.
#[remote]
async fn fetch(page: u64) -> String {
    tokio::time::sleep(Duration::from_millis(100)).await;
    format!("page {page}")
}

/// Calls other remote functions and awaits them.
#[remote]
async fn fetch_all(pages: u64) -> mobula::Result<Vec<String>> {
    let pages: Vec<_> = (0..pages).map(fetch::remote).collect();
    let mut texts = Vec::new();
    for page in pages {
        texts.push(page.await?);
    }
    Ok(texts)
}

/// A plain function: it runs on an executor and takes a reference like any other.
#[remote]
fn count(pages: Vec<String>) -> u64 {
    pages.len() as u64
}

#[remote]
async fn forever() -> u64 {
    std::future::pending().await
}

#[mobula::main]
async fn main() -> mobula::Result<()> {
    if let Some(argument) = std::env::args().nth(1) {
        eprintln!("async_tasks takes no arguments, but was given {argument:?}");
        std::process::exit(2);
    }

    let began = Instant::now();
    let all = fetch_all::remote(1000);
    let counted = count::remote(&all);
    println!(
        "fetched {} pages of 100 ms each in {:?}",
        counted.await?,
        began.elapsed()
    );
    assert!(began.elapsed() < secs(20), "they wait side by side");
    // Awaiting `&all` leaves the reference usable.
    println!("the last is {:?}", (&all).await?.last());

    // tokio's own tools work on references: they are futures.
    let (first, second) = tokio::join!(fetch::remote(1), fetch::remote(2));
    println!("joined: {} and {}", first?, second?);
    let slow = forever::remote();
    let raced = tokio::time::timeout(Duration::from_millis(20), &mut slow.clone()).await;
    println!("in time: {}", raced.is_ok());
    assert!(raced.is_err());

    // An async call is dropped at its next await; whoever waits for it is told.
    println!("cancel: {:?}", mobula::cancel(&slow)?);
    let error = slow.await.expect_err("it was cancelled");
    println!("cancelled: {error}");
    assert!(error.is_cancelled());
    Ok(())
}
