//! The same work on mobula and on its Rust peers, side by side: every round runs them all in turn.
//!
//! `cargo run --release -p mobula-peers -- [--json] [--filter PART] [--rounds N] [--beside FILE]`
//!
//! `--filter` keeps the `row.peer` whose name has the part in it; `--beside` shows the JSON lines of
//! another run, such as the one of `ray/compare.py`, in the rows they belong to.
//!
//! Two worker threads and one allocator for everyone; each peer in the way its documentation
//! advises for speed; every result is checked. A figure is the median over the rounds, and the
//! ratio to mobula the median of the rounds' ratios. What is not quite the same work says so.

mod actix;
mod actors;
mod kameo;
mod mobula;
mod plain;
mod pool;
mod ractor;
mod rayon;
mod row;
mod store;
mod tokio;
mod xtra;

use row::{Row, in_fresh_process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Worker threads of every runtime.
const WORKERS: usize = 2;
/// Calls or tasks in flight in the rows that pipeline.
const BATCH: u64 = 10_000;
/// Calls in a row whose results nobody wants, before the count is taken.
const TELLS: u64 = 100_000;
/// Actors created in the rows that do.
const ACTORS: usize = 100_000;
/// The recursion: `fib(25)`, its value, and how many calls it makes.
const FIB_OF: u64 = 25;
const FIB: u64 = 75_025;
const FIB_CALLS: u64 = 242_785;
/// Elements of the big vector.
const BIG: usize = 1_000_000;

/// The big vector that one task makes.
fn make(x: f32) -> Vec<f32> {
    let mut v = vec![x; BIG];
    v[BIG - 1] = x + 1.0;
    v
}

/// What another task makes of it.
fn sum(v: &[f32]) -> f64 {
    let parts: [f32; 16] = v.chunks_exact(16).fold([0.0; 16], |mut parts, chunk| {
        parts.iter_mut().zip(chunk).for_each(|(part, x)| *part += x);
        parts
    });
    parts.iter().map(|part| f64::from(*part)).sum()
}

/// The sum of [`make`]`(x)`.
fn sum_of_made(x: f32) -> f64 {
    f64::from(x) * BIG as f64 + 1.0
}

/// What a task makes of a big vector when it should not have to read it all.
fn ends(v: &[f32]) -> (usize, f32) {
    (v.len(), v[v.len() - 1])
}

fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "task_round_trip",
            "us",
            "a task x + 1 submitted and its result taken",
        )
        .peer("mobula", mobula::task_round_trip)
        .peer("tokio", tokio::task_round_trip)
        .peer("tokio_inside", tokio::task_round_trip_inside)
        .peer("rayon", rayon::task_round_trip)
        .peer("rayon_install", rayon::task_round_trip_install)
        .peer("pool", pool::task_round_trip),
        Row::new(
            "tasks_async",
            "1/s",
            "10,000 tasks x + 1 by one submitter, each result taken",
        )
        .peer("mobula", mobula::tasks_async)
        .peer("tokio", tokio::tasks_async)
        .peer("tokio_inside", tokio::tasks_async_inside)
        .peer("rayon", rayon::tasks_async)
        .peer("rayon_scope", rayon::tasks_async_scope)
        .peer("pool", pool::tasks_async),
        Row::new(
            "fib_25_nested",
            "ns",
            "per call of fib(25), each call a task; rayon: a side of a join",
        )
        .peer("mobula", mobula::fib_nested)
        .peer("tokio", tokio::fib_nested)
        .peer("rayon", rayon::fib_join),
        Row::new(
            "fib_25_half",
            "ns",
            "per call of fib(25), one of each pair a task, as in a join",
        )
        .peer("mobula", mobula::fib_half)
        .peer("tokio", tokio::fib_halved)
        .peer("rayon", rayon::fib_join),
        Row::new(
            "actor_round_trip",
            "us",
            "add(1) and its answer; peers' clients inside their runtime",
        )
        .peer("mobula", mobula::actor_round_trip)
        .peer("mobula_await", actors::round_trip::<mobula::Mobula>)
        .peer("tokio_channel", actors::round_trip::<tokio::Channel>)
        .peer("xtra", actors::round_trip::<xtra::Xtra>)
        .peer("actix", actors::round_trip::<actix::Actix>)
        .peer("ractor", actors::round_trip::<ractor::Ractor>)
        .peer("kameo", actors::round_trip::<kameo::Kameo>),
        Row::new(
            "actor_round_trip_outside",
            "us",
            "the same from a thread that is none of the runtime's",
        )
        .peer("mobula", mobula::actor_round_trip)
        .peer(
            "tokio_channel",
            actors::round_trip_outside::<tokio::Channel>,
        )
        .peer("xtra", actors::round_trip_outside::<xtra::Xtra>)
        .peer("actix_apart", actors::round_trip_outside::<actix::Apart>)
        .peer("ractor", actors::round_trip_outside::<ractor::Ractor>)
        .peer("kameo", actors::round_trip_outside::<kameo::Kameo>),
        Row::new(
            "actor_async",
            "1/s",
            "add(1), 10,000 in flight, each answer taken",
        )
        .peer("mobula", mobula::actor_async)
        .peer("tokio_channel", actors::pipelined::<tokio::Channel>)
        .peer("xtra", actors::pipelined::<xtra::Xtra>)
        .peer("actix", actors::pipelined::<actix::Actix>)
        .peer("actix_apart", actors::pipelined::<actix::Apart>)
        .peer("ractor", actors::pipelined::<ractor::Ractor>)
        .peer("kameo", actors::pipelined::<kameo::Kameo>),
        Row::new(
            "actor_tell",
            "1/s",
            "add(1), no answers, until all 100,000 are executed",
        )
        .peer("mobula", mobula::actor_tell)
        .peer("tokio_channel", actors::tell::<tokio::Channel>)
        .peer("xtra", actors::tell::<xtra::Xtra>)
        .peer("actix", actors::tell::<actix::Actix>)
        .peer("actix_apart", actors::tell::<actix::Apart>)
        .peer("ractor", actors::tell::<ractor::Ractor>)
        .peer("kameo", actors::tell::<kameo::Kameo>),
        Row::new(
            "actors_create",
            "1/s",
            "100,000 actors started, until all are up",
        )
        .peer("mobula", mobula::actors_create)
        .peer("tokio_channel", actors::create::<tokio::Channel>)
        .peer("xtra", actors::create::<xtra::Xtra>)
        .peer("actix", actors::create::<actix::Actix>)
        .peer("ractor", actors::create::<ractor::Ractor>)
        .peer("kameo", actors::create::<kameo::Kameo>),
        Row::new(
            "actor_idle_bytes",
            "B",
            "resident, each of 100,000 that answered a call and rest",
        )
        .peer("mobula", || in_fresh_process("idle.mobula"))
        .peer("tokio_channel", || in_fresh_process("idle.tokio_channel"))
        .peer("xtra", || in_fresh_process("idle.xtra"))
        .peer("actix", || in_fresh_process("idle.actix"))
        .peer("ractor", || in_fresh_process("idle.ractor"))
        .peer("kameo", || in_fresh_process("idle.kameo")),
        Row::new(
            "put_1kb",
            "1/s",
            "1 KB stored for others; rkyv only encodes, arc only copies",
        )
        .peer("mobula", mobula::put_1kb)
        .peer("rkyv", plain::encode_1kb)
        .peer("arc", plain::copy_1kb),
        Row::new(
            "view_1kb",
            "ns",
            "a stored 1 KB read in place; rkyv: bytes validated each time",
        )
        .peer("mobula", mobula::view_1kb)
        .peer("rkyv", plain::access_1kb),
        Row::new(
            "task_big_arg",
            "us",
            "a task on a stored Vec<f32> of 1 M; tokio clones an Arc",
        )
        .peer("mobula", mobula::big_arg)
        .peer("tokio", tokio::big_arg),
        Row::new(
            "pass_vec_1m",
            "us",
            "one task makes 1 M f32, the next sums; tokio moves the pointer",
        )
        .peer("mobula", mobula::pass_vec)
        .peer("tokio", tokio::pass_vec),
        Row::new(
            "put_1mb",
            "GB/s",
            "1 MB stored; memcpy: into memory that is there, the limit",
        )
        .peer("mobula", store::put_1mb)
        .peer("memcpy", store::copy_1mb),
        Row::new(
            "put_1gb_warm",
            "GB/s",
            "1 GB stored, memory of an earlier one free; the limits",
        )
        .peer("mobula", store::put_1gb)
        .peer("memcpy", store::copy_1gb)
        .peer("memcpy_2_threads", store::copy_1gb_two_threads),
        Row::new("wait_1k", "1/s", "one wait on 1,000 results that are there")
            .peer("mobula", store::wait_1k),
        Row::new(
            "wait_1k_drain",
            "1/s",
            "1,000 tasks submitted, waited for one at a time",
        )
        .peer("mobula", store::wait_1k_drain),
        Row::new(
            "get_object_with_10k_refs",
            "1/s",
            "an object that holds 10,000 references",
        )
        .peer("mobula", store::get_refs),
        Row::new(
            "fan_out_10k_in",
            "ms",
            "10,000 tasks and one that takes all their results",
        )
        .peer("mobula", store::fan_out),
        Row::new(
            "tree_reduce_1024x1mb",
            "s",
            "1,024 vectors of 1 MB made and added up in pairs",
        )
        .peer("mobula", store::tree_reduce),
        Row::new(
            "init_to_first_result",
            "ms",
            "in a fresh process, from init to a task's result",
        )
        .peer("mobula", || in_fresh_process("init_to_first_result")),
        Row::new(
            "idle_rss",
            "MiB",
            "resident, all of a process that ran a task and rests",
        )
        .peer("mobula", || in_fresh_process("idle_rss")),
    ]
}

/// The figure that a process of its own was started for.
fn child(figure: &str) -> f64 {
    match figure {
        "init_to_first_result" => store::init_to_first_result(),
        "idle_rss" => store::idle_rss(),
        "idle.mobula" => mobula::idle_bytes(),
        "idle.tokio_channel" => actors::idle_bytes::<tokio::Channel>(),
        "idle.xtra" => actors::idle_bytes::<xtra::Xtra>(),
        "idle.actix" => actors::idle_bytes::<actix::Actix>(),
        "idle.ractor" => actors::idle_bytes::<ractor::Ractor>(),
        "idle.kameo" => actors::idle_bytes::<kameo::Kameo>(),
        other => panic!("unknown figure {other}"),
    }
}

const USAGE: &str =
    "usage: mobula-peers [--json] [--filter PART] [--rounds N] [--beside FILE_OF_JSON_LINES]";

fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}

fn main() {
    let (mut json, mut filter, mut rounds, mut beside) = (false, String::new(), 7, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| usage());
        match argument.as_str() {
            "--json" => json = true,
            "--filter" => filter = value(),
            "--rounds" => rounds = value().parse().unwrap_or_else(|_| usage()),
            "--beside" => beside = row::read(&value()),
            "--child" => return println!("{}", child(&value())),
            _ => usage(),
        }
    }
    if rounds == 0 {
        usage();
    }
    let _node = mobula::start();
    for row in rows().into_iter().filter_map(|row| row.filtered(&filter)) {
        row.run(rounds, json, &beside);
    }
}
