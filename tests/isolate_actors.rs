//! Actors in processes of their own: they answer as in threads, fall when their process dies, and go with it.
//!
//! Invariant: no test leaves a process behind. Left out: functions (`isolate`).

mod common;

use std::path::Path;
use std::time::Duration;

use common::{alone, until};
use mobula::{Config, Error, remote};

fn config() -> Config {
    Config::new().num_cpus(2.0).object_store_memory(1 << 28)
}

fn is_there(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("isolate-actors-{name}"));
    let _ = std::fs::remove_file(&path);
    path.to_str().unwrap().to_owned()
}

fn exists(file: &str) -> bool {
    Path::new(file).exists()
}

#[remote(isolate)]
struct Counter {
    total: u64,
    /// Made when the state is dropped.
    epitaph: Option<String>,
}

#[remote]
impl Counter {
    pub fn new(start: u64) -> Self {
        Counter {
            total: start,
            epitaph: None,
        }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn sum(&mut self, values: &[f32]) -> f32 {
        values.iter().sum()
    }

    pub fn list(&self, n: u64) -> Vec<u64> {
        (0..n).collect()
    }

    pub fn mourn(&mut self, epitaph: String) {
        self.epitaph = Some(epitaph);
    }

    pub fn crash(&mut self) -> u64 {
        std::process::abort()
    }

    pub fn trip(&mut self) -> u64 {
        panic!("tripped at {}", self.total)
    }

    pub fn hang(&mut self, tell: String) -> u64 {
        std::fs::write(tell, "x").unwrap();
        loop {
            std::thread::park();
        }
    }

    pub fn patient(&mut self, tell: String) -> mobula::Result<u64> {
        std::fs::write(tell, "x").unwrap();
        loop {
            mobula::check_cancelled()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub async fn later(&mut self, n: u64) -> u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.total += n;
        self.total
    }

    pub fn into_total(self) -> u64 {
        self.total
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(epitaph) = &self.epitaph {
            std::fs::write(epitaph, "gone").unwrap();
        }
    }
}

#[test]
fn an_isolated_actor_keeps_its_state_in_a_process_of_its_own() {
    alone(config(), |_| {
        let (a, b) = (Counter::remote(10), Counter::remote(20));
        let calls: Vec<_> = (1..=100).map(|n| a.add(n)).collect();
        let totals = mobula::get(&calls).unwrap();
        assert!(totals.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(mobula::get(&a.total()).unwrap(), 10 + 5050);
        assert_eq!(mobula::get(&b.add(1)).unwrap(), 21);
        let pids = mobula::get(&[a.pid(), b.pid()]).unwrap();
        assert!(pids[0] != pids[1] && !pids.contains(&std::process::id()));
        let values = mobula::put(&vec![1.0f32; 1 << 16]).unwrap();
        assert_eq!(mobula::get(&a.sum(&values)).unwrap(), 65536.0);
        assert_eq!(mobula::get(&a.list(100_000)).unwrap().len(), 100_000);
        assert_eq!(mobula::get(&a.later(5)).unwrap(), 5065);
    });
}

#[test]
fn a_panic_is_its_calls_failure_alone() {
    alone(config(), |_| {
        let a = Counter::remote(1);
        let error = mobula::get(&a.trip()).unwrap_err();
        assert_eq!(error.failure().unwrap().message, "tripped at 1");
        assert_eq!(mobula::get(&a.add(1)).unwrap(), 2);
        let b = Counter::options()
            .restart_on_panic(true)
            .max_restarts(1)
            .remote(5);
        mobula::get(&b.add(1)).unwrap();
        let before = mobula::get(&b.pid()).unwrap();
        mobula::get(&b.trip()).unwrap_err();
        assert_eq!(mobula::get(&b.total()).unwrap(), 5);
        assert_ne!(mobula::get(&b.pid()).unwrap(), before);
        mobula::get(&b.trip()).unwrap_err();
        let error = mobula::get(&b.total()).unwrap_err();
        assert!(
            matches!(error, Error::ActorDied { restarts: 1, .. }),
            "{error}"
        );
    });
}

#[test]
fn the_death_of_its_process_is_an_actors_fall() {
    alone(config(), |_| {
        let a = Counter::remote(1);
        let error = mobula::get(&a.crash()).unwrap_err();
        assert!(matches!(error, Error::WorkerDied(_)), "{error}");
        let error = mobula::get(&a.total()).unwrap_err();
        assert!(matches!(error, Error::ActorDied { .. }), "{error}");
        assert!(error.to_string().contains("SIGABRT"), "{error}");

        let b = Counter::options().max_restarts(2).remote(7);
        for _ in 0..2 {
            let before = mobula::get(&b.total()).unwrap();
            assert_eq!(mobula::get(&b.add(1)).unwrap(), before + 1);
            mobula::get(&b.crash()).unwrap_err();
            assert_eq!(
                mobula::get(&b.total()).unwrap(),
                before + 1,
                "as before the call that crashed"
            );
        }
        mobula::get(&b.crash()).unwrap_err();
        let error = mobula::get(&b.total()).unwrap_err();
        assert!(
            matches!(error, Error::ActorDied { restarts: 2, .. }),
            "{error}"
        );
    });
}

unsafe extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
}

#[test]
fn an_idle_actor_whose_process_is_killed_falls_too() {
    alone(config(), |_| {
        let a = Counter::options().max_restarts(1).remote(3);
        mobula::get(&a.add(1)).unwrap();
        let pid = mobula::get(&a.pid()).unwrap();
        // SAFETY: a signal to a process that this test started.
        unsafe { kill(pid.cast_signed(), 9) };
        until(|| !is_there(pid));
        assert_eq!(
            mobula::get(&a.total()).unwrap(),
            4,
            "a call that meets the death waits for the restart"
        );
        assert_ne!(mobula::get(&a.pid()).unwrap(), pid);
        let pid = mobula::get(&a.pid()).unwrap();
        // SAFETY: as above.
        unsafe { kill(pid.cast_signed(), 9) };
        until(|| !a.is_alive());
        assert!(matches!(
            mobula::get(&a.total()),
            Err(Error::ActorDied { .. })
        ));
    });
}

#[test]
fn a_state_is_dropped_in_its_process_when_the_last_handle_goes() {
    alone(config(), |_| {
        let a = Counter::remote(1);
        let epitaph = file("epitaph");
        mobula::get(&a.mourn(epitaph.clone())).unwrap();
        let pid = mobula::get(&a.pid()).unwrap();
        drop(a);
        until(|| exists(&epitaph) && !is_there(pid));

        let b = Counter::remote(1);
        let epitaph = file("stopped");
        b.mourn(epitaph.clone());
        let last = b.add(1);
        b.stop();
        assert_eq!(mobula::get(&last).unwrap(), 2);
        until(|| exists(&epitaph));
        assert!(matches!(
            mobula::get(&b.total()),
            Err(Error::ActorDied { .. })
        ));
    });
}

#[test]
fn a_killed_actor_ends_at_once_whatever_it_runs() {
    alone(config(), |_| {
        let a = Counter::options().name("hanger").max_restarts(5).remote(1);
        let pid = mobula::get(&a.pid()).unwrap();
        let tell = file("hangs");
        let hangs = a.hang(tell.clone());
        until(|| exists(&tell));
        let queued = a.add(1);
        a.kill();
        for r in [hangs, queued] {
            let error = mobula::get(&r).unwrap_err();
            assert!(matches!(error, Error::ActorDied { .. }), "{error}");
            assert!(error.to_string().contains("killed"), "{error}");
        }
        until(|| !is_there(pid));
        assert!(Counter::named("hanger").is_err());
    });
}

#[test]
fn a_running_method_is_told_that_it_was_cancelled() {
    alone(config(), |_| {
        let a = Counter::remote(1);
        let tell = file("patient");
        let r = a.patient(tell.clone());
        until(|| exists(&tell));
        assert_eq!(mobula::cancel(&r).unwrap(), mobula::Cancel::Requested);
        assert!(mobula::get(&r).unwrap_err().is_cancelled());
        assert_eq!(mobula::get(&a.total()).unwrap(), 1);
    });
}

#[test]
fn a_method_may_consume_the_actor() {
    alone(config(), |_| {
        let a = Counter::remote(41);
        let pid = mobula::get(&a.pid()).unwrap();
        a.add(1);
        assert_eq!(mobula::get(&a.into_total()).unwrap(), 42);
        assert!(matches!(
            mobula::get(&a.total()),
            Err(Error::ActorDied { .. })
        ));
        until(|| !is_there(pid));
    });
}

#[test]
fn named_and_detached_ones_are_found() {
    alone(config(), |_| {
        let a = Counter::options().name("hits").detached(true).remote(5);
        mobula::get(&a.add(1)).unwrap();
        drop(a);
        let again = Counter::named("hits").unwrap();
        assert_eq!(mobula::get(&again.total()).unwrap(), 6);
        again.kill();
    });
}

#[remote(isolate)]
struct Gathering;

/// Of the process, which is one actor's.
static THERE: (std::sync::Mutex<u32>, std::sync::Condvar) =
    (std::sync::Mutex::new(0), std::sync::Condvar::new());

#[remote]
impl Gathering {
    pub fn new() -> Self {
        Gathering
    }

    /// Returns once `all` calls are here side by side.
    pub fn meet(&self, all: u32) -> u32 {
        let (there, changed) = &THERE;
        let mut n = there.lock().unwrap();
        *n += 1;
        changed.notify_all();
        let met = changed.wait_timeout_while(n, Duration::from_secs(20), |n| *n < all);
        *met.unwrap().0
    }

    pub async fn meet_later(&self, all: u32) -> u32 {
        self.meet(all)
    }
}

#[test]
fn shared_methods_run_side_by_side_in_the_process() {
    alone(config().num_cpus(4.0), |_| {
        let a = Gathering::options().max_concurrency(4).remote();
        let met: Vec<_> = (0..3).map(|_| a.meet(3)).collect();
        assert_eq!(mobula::get(&met).unwrap(), [3, 3, 3]);
        let b = Gathering::options().max_concurrency(2).remote();
        let met: Vec<_> = (0..2).map(|_| b.meet_later(2)).collect();
        assert_eq!(mobula::get(&met).unwrap(), [2, 2]);
    });
}

#[remote(isolate)]
struct Frail;

#[remote]
impl Frail {
    /// Ends the process as often as the file is short.
    pub fn new(log: String, crashes: u64) -> Result<Self, std::io::Error> {
        let before = std::fs::read(&log).map_or(0, |t| t.len() as u64);
        std::fs::write(&log, vec![b'x'; before as usize + 1])?;
        if before < crashes {
            std::process::exit(3);
        }
        Ok(Frail)
    }

    pub fn here(&self) -> bool {
        true
    }
}

#[test]
fn a_constructor_may_crash() {
    alone(config(), |_| {
        let a = Frail::options().max_restarts(2).remote(file("frail"), 2);
        assert!(mobula::get(&a.here()).unwrap());
        let b = Frail::options().max_restarts(1).remote(file("frailer"), 2);
        let error = mobula::get(&b.here()).unwrap_err();
        assert!(error.to_string().contains("exit code 3"), "{error}");
        let c = Frail::remote("/no/such/folder".to_owned(), 0);
        let error = mobula::get(&c.here()).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    });
}

#[test]
fn many_actors_come_and_go() {
    alone(config(), |_| {
        for _ in 0..5 {
            let actors: Vec<_> = (0..8).map(Counter::remote).collect();
            let totals: Vec<_> = actors.iter().map(|a| a.add(1)).collect();
            assert_eq!(mobula::get(&totals).unwrap(), (1..=8).collect::<Vec<u64>>());
        }
    });
}

#[test]
fn the_end_of_the_runtime_ends_their_processes() {
    let mut pids = Vec::new();
    alone(
        config().shutdown_timeout(Duration::from_millis(200)),
        |_| {
            let a = Counter::options().detached(true).name("stays").remote(1);
            let b = Counter::remote(2);
            let tell = file("at-the-end");
            pids.extend(mobula::get(&[a.pid(), b.pid()]).unwrap());
            let _hangs = b.hang(tell.clone());
            until(|| exists(&tell));
        },
    );
    assert!(pids.iter().all(|p| !is_there(*p)), "{pids:?}");
}

#[test]
fn a_process_that_stands_still_does_not_hold_up_the_end() {
    let mut pid = 0;
    let began = alone(
        config().shutdown_timeout(Duration::from_millis(200)),
        |_| {
            let a = Counter::options().detached(true).remote(1);
            pid = mobula::get(&a.pid()).unwrap();
            // The last handle of the other goes with its state still there.
            let b = Counter::remote(2);
            let other = mobula::get(&b.pid()).unwrap();
            for pid in [pid, other] {
                let mut stop = std::process::Command::new("kill");
                stop.args(["-STOP", &pid.to_string()]);
                assert!(stop.status().unwrap().success());
            }
            std::time::Instant::now()
        },
    );
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(!is_there(pid));
}
