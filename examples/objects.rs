//! Objects: put, filled in place, read in place by driver and task at one address, counted.
//!
//! `cargo run --release --example objects`

use mobula::prelude::*;

/// Any type can be an object once it says so.
#[mobula::value]
#[derive(Debug, PartialEq)]
struct Layer {
    name: String,
    shape: (u32, u32),
    weights: Vec<f32>,
}

/// Where a slice lies. The parameter is borrowed from the store: nothing is copied for the call.
#[remote]
fn address(v: &[f32]) -> u64 {
    v.as_ptr().addr() as u64
}

#[remote]
fn sum(v: &[f32]) -> f64 {
    v.iter().map(|x| f64::from(*x)).sum()
}

/// A whole value borrowed from the store. Its archive has the same fields.
#[remote]
fn describe(layer: &Archived<Layer>) -> String {
    let (rows, columns) = (layer.shape.0.to_native(), layer.shape.1.to_native());
    format!(
        "{} is {rows} x {columns}, {} weights",
        layer.name,
        layer.weights.len()
    )
}

fn main() -> mobula::Result<()> {
    if let Some(argument) = std::env::args().nth(1) {
        eprintln!("objects takes no arguments, but was given {argument:?}");
        std::process::exit(2);
    }
    let mobula = mobula::init()?;

    // One copy, into shared memory. The view and the task read that copy.
    let weights = mobula::put(&vec![0.5f32; 4 << 20])?;
    let view = mobula::view(&weights)?;
    let (here, there) = (
        view.as_slice().as_ptr().addr() as u64,
        mobula::get(address::remote(&weights))?,
    );
    println!("put: the driver reads {here:#x}, the task {there:#x}");
    assert_eq!(here, there);

    // The same from a slice, without a Vec of one's own.
    let ramp: [f32; 1000] = std::array::from_fn(|i| i as f32);
    let ramp = mobula::put_slice(&ramp)?;
    println!("put_slice: the sum is {}", mobula::get(sum::remote(&ramp))?);

    // No copy at all: shared memory, filled in place, then sealed. Nobody can change it afterwards.
    let mut draft = mobula::create::<f32>(4 << 20)?;
    let written = draft.as_ptr().addr() as u64;
    draft
        .iter_mut()
        .enumerate()
        .for_each(|(i, x)| *x = (i % 2) as f32);
    let created = draft.seal();
    let read = mobula::get(address::remote(&created))?;
    println!(
        "create: written at {written:#x}, read at {read:#x}, the sum is {}",
        mobula::get(sum::remote(&created))?
    );
    assert_eq!(written, read);

    // Structs are read in place too; `get` makes an owned copy.
    let layer = Layer {
        name: "dense".into(),
        shape: (128, 64),
        weights: vec![0.1; 128 * 64],
    };
    let object = mobula::put(&layer)?;
    println!("view: {}", mobula::view(&object)?.name);
    println!("task: {}", mobula::get(describe::remote(&object))?);
    assert_eq!(mobula::get(&object)?, layer);

    // Dropping the last reference or view frees the memory.
    let full = mobula.store();
    for holder in mobula.holders(2) {
        println!(
            "holder: {} objects, {} bytes, {}",
            holder.objects, holder.bytes, holder.origin
        );
    }
    drop((weights, view, ramp, created, object));
    let empty = mobula.store();
    println!(
        "store: {} objects of {} bytes, then {} of {}",
        full.objects, full.used, empty.objects, empty.used
    );
    assert_eq!((full.objects, empty.objects), (4, 0));
    Ok(())
}
