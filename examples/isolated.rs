//! Code that may crash, in processes of its own.
//!
//! ```sh
//! cargo run --release --example isolated
//! ```

use mobula::{Error, remote};

/// Parses a number with a bug: the worker process dies, nobody else.
#[remote(isolate, max_retries = 1)]
fn parse(text: String) -> u64 {
    text.parse().unwrap_or_else(|_| std::process::abort())
}

/// Large arguments are read where they are, large results written where they stay: in memory that all processes share.
#[remote(isolate)]
fn scale(values: &[f32], by: f32) -> Vec<f32> {
    values.iter().map(|v| v * by).collect()
}

fn main() -> mobula::Result<()> {
    let _mobula = mobula::init()?;
    let good = parse::remote("42".to_owned());
    let bad = parse::remote("forty-two".to_owned());
    println!("parse(\"42\") = {}", mobula::get(&good)?);
    match mobula::get(&bad) {
        Err(Error::WorkerDied(death)) => {
            println!(
                "parse(\"forty-two\") died of {} after {} attempts",
                death.exit, death.attempts
            );
        }
        other => println!("parse(\"forty-two\") = {other:?}"),
    }
    let values = mobula::put(&vec![1.5f32; 1 << 20])?;
    let scaled = mobula::get(&scale::remote(&values, 2.0))?;
    println!(
        "{} values, the last is {}",
        scaled.len(),
        scaled[scaled.len() - 1]
    );
    Ok(())
}
