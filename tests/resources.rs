//! CPUs, GPUs and resources of one's own: who gets them, who waits, who is refused.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Gate, alone, arrive, pass, until};
use mobula::prelude::*;
use mobula::{Config, Error};

#[remote]
fn stand(gate: u64) -> u64 {
    pass(gate)
}

#[remote]
fn double(x: u64) -> u64 {
    2 * x
}

#[remote(num_cpus = 0.25, resources(slot = 2.0))]
fn modest(gate: u64) -> u64 {
    pass(gate)
}

fn is_waiting<T>(r: &ObjectRef<T>) -> bool {
    format!("{r:?}").contains("Waiting")
}

#[test]
fn what_the_node_does_not_have_is_refused_at_once() {
    let config = Config::new()
        .num_cpus(2.0)
        .num_gpus(1)
        .resource("slot", 1.5);
    alone(config, |_| {
        let cases = [
            (double::options().num_cpus(3.0), "cpu", "num_cpus(3)"),
            (double::options().num_gpus(2.0), "gpu", "num_gpus(2)"),
            (
                double::options().resource("slot", 2.0),
                "slot",
                "resource(\"slot\", 2)",
            ),
            (
                double::options().resource("tpu", 0.5),
                "tpu",
                "resource(\"tpu\", 0.5)",
            ),
        ];
        for (options, resource, remedy) in cases {
            let r = options.remote(1);
            assert!(r.is_ready(), "{resource}: refused at submission");
            match mobula::get(&r).unwrap_err() {
                Error::Infeasible(why) => assert_eq!(why.resource, resource),
                e => panic!("{e}"),
            }
            let e = mobula::get(r).unwrap_err().to_string();
            assert!(e.contains(resource) && e.contains(remedy), "{e}");
        }
        // Also when arguments are not there yet, and the dependants hear of it.
        let gate = Gate::new();
        let r = double::options()
            .num_cpus(9.0)
            .remote(stand::remote(gate.id()));
        assert!(matches!(
            mobula::get(double::remote(r)).unwrap_err(),
            Error::DependencyFailed { .. }
        ));
        for (amount, said) in [
            (f64::NAN, "NaN"),
            (-1.0, "negative"),
            (f64::INFINITY, "at most"),
            (1e-9, "smallest"),
        ] {
            let e = mobula::get(double::options().num_cpus(amount).remote(1)).unwrap_err();
            assert!(
                matches!(e, Error::BadAmount { .. }) && e.to_string().contains(said),
                "{e}"
            );
        }
        let refused = mobula::get(modest::remote(0)).unwrap_err();
        assert!(
            matches!(refused, Error::Infeasible(_)),
            "the attribute's demand counts: {refused}"
        );
        gate.open();
    });
}

#[test]
fn settings_that_cannot_be_honoured_are_refused_by_name() {
    common::serial(|| {
        let configs = [
            (Config::new().num_cpus(0.0), "num_cpus"),
            (Config::new().num_cpus(f64::NAN), "num_cpus"),
            (Config::new().num_cpus(-2.0), "num_cpus"),
            (Config::new().num_cpus(1e6), "num_cpus"),
            (Config::new().resource("cpu", 1.0), "resource"),
            (Config::new().resource("", 1.0), "resource"),
            (Config::new().resource("x", -1.0), "resource"),
            (Config::new().object_store_memory(10), "object_store_memory"),
        ];
        for (config, name) in configs {
            match config.clone().init() {
                Err(Error::Config { setting, .. }) => assert_eq!(setting, name),
                other => panic!("{config:?}: {other:?}"),
            }
        }
    });
}

#[test]
fn fractions_of_a_cpu_add_up() {
    alone(Config::new().num_cpus(2.0), |mobula| {
        let gate = Gate::new();
        let half = |gate: &Gate| stand::options().num_cpus(0.5).remote(gate.id());
        let four: Vec<_> = (0..4).map(|_| half(&gate)).collect();
        gate.await_arrivals(4); // all at once on two CPUs
        let (fifth, common) = (half(&gate), double::remote(3));
        assert!(is_waiting(&fifth));
        gate.open();
        assert_eq!(mobula::get(&four).unwrap().len(), 4);
        assert_eq!(mobula::get((fifth, common)).unwrap(), (4, 6));
        until(|| mobula.executors() == 2);
    });
}

#[test]
fn calls_without_cpus_leave_the_cpus_to_others() {
    alone(Config::new().num_cpus(1.0), |mobula| {
        let gate = Gate::new();
        for round in 0..20 {
            // The executor has a CPU of its own by now.
            assert_eq!(
                mobula::get(&(0..10).map(double::remote).collect::<Vec<_>>()).unwrap()[9],
                18
            );
            drop(stand::options().num_cpus(0.0).remote(gate.id()));
            gate.await_arrivals(round + 1);
            let r = double::remote(round);
            mobula::wait(std::slice::from_ref(&r)).run().unwrap(); // an executor runs it, not this thread
            assert_eq!(mobula::get(r).unwrap(), 2 * round);
        }
        gate.open();
        until(|| mobula.executors() == 1);
    });
}

#[test]
fn less_than_one_cpu_runs_what_asks_for_less() {
    alone(Config::new().num_cpus(0.5), |_| {
        assert_eq!(
            mobula::get(double::options().num_cpus(0.5).remote(2)).unwrap(),
            4
        );
        let many: Vec<_> = (0..100)
            .map(|x| double::options().num_cpus(0.1).remote(x))
            .collect();
        assert_eq!(mobula::get(&many).unwrap()[99], 198);
        assert_eq!(
            mobula::get(double::options().num_cpus(0.0).remote(2)).unwrap(),
            4
        );
        let e = mobula::get(double::remote(2)).unwrap_err();
        assert!(matches!(e, Error::Infeasible(_)), "{e}");
    });
}

#[test]
fn a_call_of_two_cpus_has_both() {
    alone(Config::new().num_cpus(2.0), |_| {
        let gate = Gate::new();
        let one = stand::remote(gate.id());
        gate.await_arrivals(1);
        let both = double::options().num_cpus(2.0).remote(1);
        assert!(is_waiting(&both));
        let e = mobula::get_timeout(&both, std::time::Duration::from_millis(2))
            .unwrap_err()
            .to_string();
        assert!(e.contains("cpu") && e.contains("double"), "{e}");
        gate.open();
        assert_eq!(mobula::get((one, both)).unwrap(), (0, 2));
    });
}

static NOW: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);

#[remote(num_cpus = 0)]
fn crowd(x: u64) -> u64 {
    let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(now, Ordering::SeqCst);
    std::thread::yield_now();
    NOW.fetch_sub(1, Ordering::SeqCst);
    x
}

#[test]
fn a_resource_bounds_how_many_run() {
    alone(Config::new().num_cpus(2.0).resource("slot", 3.0), |_| {
        for (amount, bound) in [(1.0, 3), (1.5, 2), (2.0, 1), (3.0, 1)] {
            MOST.store(0, Ordering::SeqCst);
            let refs: Vec<_> = (0..300)
                .map(|x| crowd::options().resource("slot", amount).remote(x))
                .collect();
            assert_eq!(mobula::get(&refs).unwrap(), (0..300).collect::<Vec<_>>());
            let most = MOST.load(Ordering::SeqCst);
            assert!(most <= bound, "{most} at once, each with {amount} of 3");
        }
        // And that many do.
        let gate = Gate::new();
        let refs: Vec<_> = (0..4)
            .map(|_| {
                stand::options()
                    .num_cpus(0.0)
                    .resource("slot", 1.0)
                    .remote(gate.id())
            })
            .collect();
        gate.await_arrivals(3);
        assert_eq!(refs.iter().filter(|r| is_waiting(r)).count(), 1);
        gate.open();
        mobula::get(refs).unwrap();
    });
}

#[remote]
fn bursts(retries: u64) -> u64 {
    panic!("{retries}");
}

#[test]
fn resources_come_back_however_a_call_ends() {
    alone(
        Config::new()
            .num_cpus(1.0)
            .num_gpus(1)
            .resource("slot", 1.0),
        |_| {
            for round in 0..50 {
                let r = bursts::options()
                    .resource("slot", 1.0)
                    .num_gpus(1.0)
                    .retry_panics(round % 2 == 0)
                    .remote(round);
                assert!(mobula::get(r).is_err());
                drop(double::options().resource("slot", 1.0).remote(1));
            }
            let all = double::options()
                .resource("slot", 1.0)
                .num_gpus(1.0)
                .num_cpus(1.0)
                .remote(4);
            assert_eq!(mobula::get(all).unwrap(), 8);
        },
    );
}

#[remote(num_cpus = 0)]
fn gpus(gate: u64) -> Vec<u32> {
    pass(gate);
    mobula::gpu_ids()
}

#[test]
fn gpus_have_ids() {
    alone(Config::new().num_cpus(1.0).num_gpus(4), |_| {
        let gate = Gate::new();
        let pairs: Vec<_> = (0..2)
            .map(|_| gpus::options().num_gpus(2.0).remote(gate.id()))
            .collect();
        gate.await_arrivals(2);
        let more = gpus::options().num_gpus(1.0).remote(gate.id());
        assert!(is_waiting(&more));
        gate.open();
        let mut ids = mobula::get(&pairs).unwrap().concat();
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert_eq!(mobula::get(more).unwrap().len(), 1);
        // Halves of one GPU are of the same one; and there is room for 8 of them.
        let gate = Gate::new();
        let halves: Vec<_> = (0..8)
            .map(|_| gpus::options().num_gpus(0.5).remote(gate.id()))
            .collect();
        gate.await_arrivals(8);
        gate.open();
        let mut ids = mobula::get(&halves).unwrap().concat();
        ids.sort_unstable();
        assert_eq!(ids, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert!(mobula::gpu_ids().is_empty());
        assert!(mobula::get(gpus::remote(gate.id())).unwrap().is_empty());
        let e = mobula::get(gpus::options().num_gpus(1.5).remote(gate.id())).unwrap_err();
        assert!(e.to_string().contains("ask for 1 or 2"), "{e}");
    });
}

static ORDER: Mutex<Vec<i32>> = Mutex::new(Vec::new());

#[remote]
fn note(tag: i32) {
    ORDER.lock().unwrap().push(tag);
}

#[test]
fn the_higher_priority_runs_first() {
    alone(Config::new().num_cpus(1.0), |_| {
        ORDER.lock().unwrap().clear();
        let gate = Gate::new();
        let busy = stand::remote(gate.id());
        gate.await_arrivals(1);
        let mut refs = Vec::new();
        for p in [-1, 5, 1, 10, 1, -7, 3] {
            refs.push(note::options().priority(p).remote(p));
        }
        gate.open();
        // Nobody helps: each is run by the executor, in its order.
        mobula::wait(&refs).num_returns(refs.len()).run().unwrap();
        mobula::get(busy).unwrap();
        assert_eq!(*ORDER.lock().unwrap(), [10, 5, 3, 1, 1, -1, -7]);
    });
}

#[test]
fn common_calls_are_not_starved_by_special_ones_nor_the_other_way_round() {
    alone(Config::new().num_cpus(1.0), |_| {
        let gate = Gate::new();
        let busy = stand::remote(gate.id());
        gate.await_arrivals(1);
        let special: Vec<_> = (0..500)
            .map(|x| double::options().num_cpus(0.5).remote(x))
            .collect();
        let common: Vec<_> = (0..500).map(double::remote).collect();
        let low = double::options().priority(-1).remote(7);
        gate.open();
        mobula::wait(&special).num_returns(500).run().unwrap();
        mobula::wait(&common).num_returns(500).run().unwrap();
        assert_eq!(mobula::get((low, busy)).unwrap(), (14, 0));
    });
}

#[remote(resources(slot = 1.0))]
fn parent(gate: u64, inner: ObjectRef<u64>) -> u64 {
    arrive(gate);
    mobula::get(inner).unwrap() + 1
}

#[remote(num_cpus = 2)]
fn greedy(depth: u64) -> u64 {
    if depth == 0 {
        0
    } else {
        1 + mobula::get(greedy::remote(depth - 1)).unwrap()
    }
}

#[test]
fn a_blocked_parent_lends_its_cpus_and_keeps_its_other_resources() {
    alone(
        Config::new().num_cpus(2.0).resource("slot", 2.0),
        |mobula| {
            let (came, hold) = (Gate::new(), Gate::new());
            let inner = stand::options().num_cpus(0.0).remote(hold.id());
            hold.await_arrivals(1); // or a parent would run it on its own CPU
            let parents: Vec<_> = (0..2)
                .map(|_| parent::remote(came.id(), mobula::put(&inner).unwrap()))
                .collect();
            came.await_arrivals(2);
            let third = parent::remote(came.id(), mobula::put(&inner).unwrap());
            // Both CPUs are lent: a call that needs them runs.
            assert_eq!(
                mobula::get(double::options().num_cpus(2.0).remote(1)).unwrap(),
                2
            );
            assert!(is_waiting(&third), "but the slots are taken");
            hold.open();
            assert_eq!(mobula::get((parents, third)).unwrap(), (vec![1, 1], 1));
            // A whole chain of which each needs all CPUs.
            assert_eq!(mobula::get(greedy::remote(200)).unwrap(), 200);
            until(|| mobula.executors() == 2);
        },
    );
}

#[remote]
fn special_inside(x: u64) -> u64 {
    let inner = double::options().num_cpus(1.0).priority(1).remote(x);
    let half = double::options().num_cpus(0.5).remote(x);
    mobula::get(inner).unwrap() + mobula::get(half).unwrap()
}

#[test]
fn special_calls_inside_common_ones_on_one_cpu() {
    alone(Config::new().num_cpus(1.0), |mobula| {
        let refs: Vec<_> = (0..300).map(special_inside::remote).collect();
        assert_eq!(mobula::get(&refs).unwrap()[299], 4 * 299);
        let refs: Vec<_> = (0..300)
            .map(|x| special_inside::options().num_cpus(0.3).remote(x))
            .collect();
        assert_eq!(mobula::get(&refs).unwrap()[299], 4 * 299);
        until(|| mobula.executors() == 1);
    });
}

#[remote]
async fn waits_async(gate: u64) -> Vec<u32> {
    arrive(gate);
    while !common::is_open(gate) {
        tokio::task::yield_now().await;
    }
    mobula::gpu_ids()
}

#[test]
fn async_calls_take_resources_too() {
    alone(Config::new().num_cpus(1.0).num_gpus(1), |_| {
        let gate = Gate::new();
        let gpu = |gate: &Gate| {
            waits_async::options()
                .num_gpus(1.0)
                .num_cpus(0.0)
                .remote(gate.id())
        };
        let (first, second) = (gpu(&gate), gpu(&gate));
        gate.await_arrivals(1);
        assert!(is_waiting(&second));
        gate.open();
        assert_eq!(mobula::get((first, second)).unwrap(), (vec![0], vec![0]));
    });
}

#[remote]
fn child_of_a_child(x: u64) -> u64 {
    mobula::get(double::remote(x)).unwrap()
}

#[remote(num_cpus = 2)]
fn all_cpus(x: u64) -> u64 {
    mobula::get(child_of_a_child::remote(x)).unwrap()
}

#[test]
fn a_call_of_all_cpus_has_grandchildren() {
    alone(Config::new().num_cpus(2.0), |_| {
        assert_eq!(mobula::get(all_cpus::remote(4)).unwrap(), 8);
    });
}

/// Runs the middle one in place, which then waits for one that needs the CPU of the first.
#[remote(num_cpus = 2)]
fn first_of_three(gate: u64) -> u64 {
    mobula::get(middle_of_three::remote(gate)).unwrap()
}

#[remote(num_cpus = 0.5)]
fn middle_of_three(gate: u64) -> u64 {
    mobula::get(stand::options().num_cpus(2.5).remote(gate)).unwrap()
}

#[test]
fn every_waiting_call_of_a_stack_lends_its_cpus() {
    alone(Config::new().num_cpus(2.5), |_| {
        let gate = Gate::new();
        let r = first_of_three::remote(gate.id());
        gate.await_arrivals(1);
        gate.open();
        mobula::get(r).unwrap();
    });
}
