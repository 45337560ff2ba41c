//! Actors: a named one that outlives its handles, handles inside values, a pool, a queue, a restart.
//!
//! `cargo run --release --example actors`

use std::collections::BTreeMap;
use std::time::Duration;

use mobula::Queue;
use mobula::prelude::*;

/// Keeps the points of each player.
#[remote]
struct Board {
    points: BTreeMap<String, u64>,
}

#[remote]
impl Board {
    pub fn new() -> Self {
        Board {
            points: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, player: String, points: u64) -> u64 {
        let sum = self.points.entry(player).or_default();
        *sum += points;
        *sum
    }

    pub fn standings(&self) -> Vec<(String, u64)> {
        self.points
            .iter()
            .map(|(player, sum)| (player.clone(), *sum))
            .collect()
    }
}

/// A value that holds a handle: whoever receives it can call the actor.
#[mobula::value]
struct Round {
    board: Handle<Board>,
    player: String,
    throws: Vec<u64>,
}

#[remote]
fn play(round: Round) -> mobula::Result<u64> {
    let mut sum = 0;
    for points in &round.throws {
        sum = mobula::get(round.board.add(round.player.as_str(), *points))?;
    }
    Ok(sum)
}

/// Works for a while on one item at a time.
#[remote]
struct Squarer;

#[remote]
impl Squarer {
    pub fn new() -> Self {
        Squarer
    }

    pub fn square(&mut self, x: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(5));
        x * x
    }
}

#[remote]
fn produce(queue: Queue<String>, items: u64) -> mobula::Result<()> {
    for i in 0..items {
        queue.put(&format!("item {i}"))?;
    }
    Ok(())
}

/// Panics on 0. With a restart left it is made again by `new`; its state begins anew.
#[remote(max_restarts = 1, restart_on_panic)]
struct Divider {
    answered: u64,
}

#[remote]
impl Divider {
    pub fn new() -> Self {
        Divider { answered: 0 }
    }

    pub fn divide(&mut self, a: u64, b: u64) -> (u64, u64) {
        self.answered += 1;
        (a / b, self.answered)
    }
}

fn main() -> mobula::Result<()> {
    if let Some(argument) = std::env::args().nth(1) {
        eprintln!("actors takes no arguments, but was given {argument:?}");
        std::process::exit(2);
    }
    let _mobula = mobula::init()?;

    // Named and detached: it lives on when this handle goes, until it is stopped or the node ends.
    drop(Board::options().name("board").detached(true).remote());
    let board = Board::named("board")?;

    let rounds = [("ada", vec![3, 4]), ("bob", vec![5]), ("ada", vec![10])];
    let rounds: Vec<_> = rounds
        .into_iter()
        .map(|(player, throws)| Round {
            board: board.clone(),
            player: player.into(),
            throws,
        })
        .map(play::remote)
        .collect();
    mobula::get(&rounds)?;
    let standings = mobula::get(board.standings())?;
    println!("standings: {standings:?}");
    assert_eq!(standings, [("ada".into(), 17), ("bob".into(), 5)]);

    // Each item goes to the actor that is free first; the results keep the order of the items.
    let mut pool = ActorPool::new((0..4).map(|_| Squarer::remote()));
    let squares = pool.map(0..10, |squarer, x| squarer.square(x))?;
    println!("pool of {}: {squares:?}", pool.len());
    assert_eq!(squares[9], 81);

    // A full queue makes its producer wait, an empty one its consumer.
    let queue = Queue::bounded(2);
    let producer = produce::remote(queue.clone(), 5);
    let mut items = Vec::new();
    for _ in 0..5 {
        items.push(queue.take_timeout(secs(10))?);
    }
    mobula::get(&producer)?;
    println!("queue: {items:?}");
    assert_eq!(items[4], "item 4");

    let divider = Divider::remote();
    println!("divider: {:?}", mobula::get(divider.divide(42, 6))?);
    let failure = mobula::get(divider.divide(1, 0)).expect_err("1 / 0 panics");
    println!("divider: {failure}");
    let (quotient, answered) = mobula::get(divider.divide(81, 9))?;
    println!("divider, restarted: {quotient}, the first answer of its new life");
    assert_eq!((quotient, answered), (9, 1));
    Ok(())
}
