//! What is asked of every peer's actor, written once; the peers differ in [`Peer`] alone.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::row::{Clock, resident};
use crate::{ACTORS, BATCH, TELLS};

/// Actors that ever started and that ever ended; counted by each peer's start hook and `Drop`.
static STARTED: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// Held by the state of a peer's actor from its start to its end.
pub struct Alive(());

impl Alive {
    /// Counts one more.
    #[allow(clippy::new_without_default, reason = "counting is an effect")]
    pub fn new() -> Self {
        STARTED.fetch_add(1, Relaxed);
        Alive(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Relaxed);
    }
}

/// How many actors ever started.
pub fn started() -> usize {
    STARTED.load(Relaxed)
}

fn alive() -> usize {
    STARTED.load(Relaxed) - ENDED.load(Relaxed)
}

/// The address of an actor that holds a count: `add(n)` adds to it and answers with the new one.
pub trait Peer: Send + Sync + Sized + 'static {
    /// Whether calls of one client are executed in the order in which they were made.
    const ORDERED: bool = true;

    /// Runs a client inside the peer's own runtime, where its users live.
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T;
    /// Runs a client on this thread, which is none of the runtime's.
    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T;
    /// Starts an actor at a count of 0; it may finish starting later.
    fn start() -> impl Future<Output = Self> + Send;
    /// Calls and awaits the answer.
    fn ask(&self, n: u64) -> impl Future<Output = u64> + Send;
    /// Calls; what comes back is the answer to come.
    fn call(&self, n: u64) -> impl Future<Output = impl Future<Output = u64> + Send> + Send;
    /// Calls and wants no answer.
    fn tell(&self, n: u64) -> impl Future<Output = ()> + Send;
    /// Ends the actor, for those that live longer than their last address.
    fn stop(self) {}
}

async fn ask_in_a_row<P: Peer>() -> f64 {
    let actor = P::start().await;
    let (mut clock, mut total) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            total += 1;
            assert_eq!(actor.ask(1).await, total);
        }
    }
    actor.stop();
    clock.micros()
}

/// `actor_round_trip`: microseconds from call to answer, from a client inside the runtime.
pub fn round_trip<P: Peer>() -> f64 {
    P::inside(ask_in_a_row::<P>())
}

/// `actor_round_trip_outside`: the same from a thread that is none of the runtime's.
pub fn round_trip_outside<P: Peer>() -> f64 {
    P::outside(ask_in_a_row::<P>())
}

/// `actor_async`: calls per second when a batch is sent before its answers are taken.
pub fn pipelined<P: Peer>() -> f64 {
    P::inside(async {
        let actor = P::start().await;
        let (mut clock, mut total) = (Clock::new(), 0);
        while clock.more(BATCH) {
            let mut answers = Vec::with_capacity(BATCH as usize);
            for _ in 0..BATCH {
                answers.push(actor.call(1).await);
            }
            let (first, mut sum) = (total + 1, 0);
            for answer in answers {
                total += 1;
                let answer = answer.await;
                assert!(
                    answer == total || !P::ORDERED,
                    "{answer} came as the {total}th"
                );
                sum += answer;
            }
            assert_eq!(sum, (first + total) * BATCH / 2);
        }
        actor.stop();
        clock.rate()
    })
}

/// `actor_tell`: calls per second without answers, until the last has been executed.
pub fn tell<P: Peer>() -> f64 {
    P::inside(async {
        let actor = P::start().await;
        let (mut clock, mut total) = (Clock::new(), 0);
        while clock.more(TELLS) {
            for _ in 1..TELLS {
                actor.tell(1).await;
            }
            total += TELLS;
            let mut answer = actor.ask(1).await;
            while !P::ORDERED && answer < total {
                answer = actor.ask(0).await;
            }
            assert_eq!(answer, total);
        }
        actor.stop();
        clock.rate()
    })
}

/// Starts [`ACTORS`] actors, waits until all are up, and gives the seconds that took. One call to
/// each, after the clock, shows that they answer.
async fn start_many<P: Peer>() -> (f64, Vec<P>) {
    let before = started();
    let mut actors = Vec::with_capacity(ACTORS);
    let start = Instant::now();
    for _ in 0..ACTORS {
        actors.push(P::start().await);
    }
    while started() - before < ACTORS {
        tokio::task::yield_now().await;
    }
    let elapsed = start.elapsed().as_secs_f64();
    for actor in &actors {
        assert_eq!(actor.ask(7).await, 7);
    }
    (elapsed, actors)
}

/// `actors_create`: actors per second.
pub fn create<P: Peer>() -> f64 {
    P::inside(async {
        let before = alive();
        let (elapsed, actors) = start_many::<P>().await;
        actors.into_iter().for_each(P::stop);
        while alive() > before {
            tokio::task::yield_now().await;
        }
        ACTORS as f64 / elapsed
    })
}

/// `actor_idle_bytes`: resident memory per actor once all have answered a call and rest. To be
/// called in a process of its own.
pub fn idle_bytes<P: Peer>() -> f64 {
    P::inside(async {
        P::start().await.stop();
        let before = resident();
        let (_, actors) = start_many::<P>().await;
        std::thread::sleep(Duration::from_millis(200));
        let after = resident();
        actors.into_iter().for_each(P::stop);
        (after - before) / ACTORS as f64
    })
}
