//! `mobula memory`: what fills a running program's object store, and where it was made.
//!
//! Invariant: the groups add up to all objects of the store. Left out: single objects, which `list objects` shows.

use std::fmt::Write;

use mobula::inspect::{Part, Query, Snapshot};
use serde_json::json;

use crate::Failure;
use crate::attached::Attached;
use crate::show::{bytes, clean, left_out, number, rows, table};

/// Shows what fills a running program's object store: how much of it, and where in the program it was made.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula memory\n  \
    mobula memory --limit 5 --watch 2\n  \
    mobula memory --json | jq '.origins.items[0]'")]
pub struct Args {
    #[command(flatten)]
    attached: Attached,

    /// At most so many places of the program; up to 10,000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let query = Query::of(&[Part::Nodes, Part::Objects]).limit(args.limit as usize);
    let json = |s: Snapshot| {
        let stores: Vec<_> = s
            .nodes
            .items
            .into_iter()
            .filter(|n| !n.away)
            .map(|n| n.store)
            .collect();
        json!({ "stores": stores, "origins": s.origins })
    };
    args.attached.look(&query, json, text)
}

fn text(s: &Snapshot) -> String {
    let mut out = String::new();
    for node in s.nodes.items.iter().filter(|n| !n.away) {
        let store = &node.store;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}: {} of {} used by {} objects; {} taken for them; {} pinned; {} in {} objects on disk",
            clean(&node.name),
            bytes(store.used),
            bytes(store.capacity),
            number(store.objects),
            bytes(store.reserved),
            bytes(store.pinned_bytes),
            bytes(store.spilled_bytes),
            number(store.spilled_objects)
        );
    }
    let mut t = table(&["bytes", "objects", "made by"]);
    for o in &s.origins.items {
        t.add_row([bytes(o.bytes), number(o.objects), clean(&o.origin)]);
    }
    out.push('\n');
    out + &rows(&t, "no objects") + &left_out(s.origins.left_out, s.origins.incomplete)
}
