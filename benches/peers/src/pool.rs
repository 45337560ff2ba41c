//! A pool as one writes it in an afternoon: threads on one crossbeam channel of boxed closures.

use std::sync::LazyLock;

use crossbeam_channel::Sender;

use crate::row::Clock;
use crate::{BATCH, WORKERS};

type Job = Box<dyn FnOnce() + Send>;

static POOL: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (sender, receiver) = crossbeam_channel::unbounded::<Job>();
    for _ in 0..WORKERS {
        let jobs = receiver.clone();
        std::thread::spawn(move || jobs.iter().for_each(|job| job()));
    }
    sender
});

fn spawn(x: u64) -> oneshot::Receiver<u64> {
    let (answer, answered) = oneshot::channel();
    let job = Box::new(move || answer.send(x + 1).expect("a receiver"));
    POOL.send(job).expect("the threads are alive");
    answered
}

/// `task_round_trip`.
pub fn task_round_trip() -> f64 {
    let (mut clock, mut x) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            let y = spawn(x).recv().expect("an answer");
            assert_eq!(y, x + 1);
            x = y;
        }
    }
    clock.micros()
}

/// `tasks_async`.
pub fn tasks_async() -> f64 {
    let mut clock = Clock::new();
    while clock.more(BATCH) {
        let answers: Vec<_> = (0..BATCH).map(spawn).collect();
        for (x, answer) in (0..).zip(answers) {
            assert_eq!(answer.recv(), Ok(x + 1));
        }
    }
    clock.rate()
}
