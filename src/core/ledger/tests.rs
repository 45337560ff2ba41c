//! The ledger's exact effects for sequences of events, one rule per test. Laws that hold for any
//! sequence are in `laws`.

use super::*;

mod laws;

fn units(x: f64) -> Units {
    Units::from_f64(x).unwrap()
}

fn cpus(x: f64) -> Demand {
    Demand::cpu_only(units(x))
}

fn gpus(x: f64) -> Demand {
    Demand::NONE.with_gpu(units(x))
}

/// A node with so many CPUs and GPUs.
fn node(cpu: f64, gpus: u32) -> Ledger {
    Ledger::new(Capacity::new(units(cpu), gpus))
}

fn start(task: u64) -> Effect {
    Effect::Start { task, gpus: vec![] }
}

fn start_on(task: u64, gpus: &[u32]) -> Effect {
    Effect::Start {
        task,
        gpus: gpus.to_vec(),
    }
}

/// The effects of one event.
fn effects(ledger: &mut Ledger, event: impl FnOnce(&mut Ledger, &mut Vec<Effect>)) -> Vec<Effect> {
    let mut out = Vec::new();
    event(ledger, &mut out);
    out
}

fn submit(ledger: &mut Ledger, task: u64, demand: Demand, priority: i32) -> Vec<Effect> {
    effects(ledger, |ledger, out| {
        ledger.submit(task, demand, priority, out)
    })
}

fn finish(ledger: &mut Ledger, task: u64) -> Vec<Effect> {
    effects(ledger, |ledger, out| {
        assert!(ledger.finish(task, out), "{task} was running")
    })
}

fn unlease(ledger: &mut Ledger) -> Vec<Effect> {
    effects(ledger, Ledger::unlease)
}

fn idle(ledger: &mut Ledger) -> Vec<Effect> {
    effects(ledger, Ledger::idle)
}

#[test]
fn what_fits_starts_and_the_rest_waits_in_order() {
    let mut node = node(2.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(2.0), 0), [start(1)]);
    assert_eq!(submit(&mut node, 2, cpus(1.0), 0), []);
    assert_eq!(submit(&mut node, 3, cpus(0.5), 0), []);
    assert_eq!(submit(&mut node, 4, cpus(1.0), 0), []);
    assert!(node.pressed());
    assert_eq!(finish(&mut node, 1), [start(2), start(3)]);
    assert_eq!(finish(&mut node, 3), [start(4)]);
    assert!(!node.pressed());
    assert_eq!(
        (finish(&mut node, 2), finish(&mut node, 4)),
        (vec![], vec![])
    );
    assert_eq!(node.free_cpu_steps(), 20_000);
    assert!(!effects(&mut node, |n, out| assert!(!n.finish(4, out))).contains(&start(4)));
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let mut node = node(2.0, 1);
    let refused = submit(&mut node, 1, gpus(2.0), 9);
    let why = Infeasible {
        resource: "gpu".into(),
        requested: units(2.0),
        capacity: units(1.0),
    };
    assert_eq!(refused, [Effect::Refuse { task: 1, why }]);
    assert_eq!((node.queued(), node.running()), (0, 0));
}

#[test]
fn a_demand_of_nothing_always_starts() {
    let mut node = node(1.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(1.0), 0), [start(1)]);
    assert_eq!(submit(&mut node, 2, cpus(1.0), 0), []);
    assert_eq!(submit(&mut node, 3, Demand::NONE, 0), [start(3)]);
}

#[test]
fn a_higher_priority_goes_first() {
    let mut node = node(1.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(1.0), 0), [start(1)]);
    for (task, priority) in [(2, 0), (3, 5), (4, 5), (5, i32::MAX)] {
        assert_eq!(submit(&mut node, task, cpus(1.0), priority), []);
    }
    assert_eq!(finish(&mut node, 1), [start(5)]);
    assert_eq!(finish(&mut node, 5), [start(3)]);
    assert_eq!(finish(&mut node, 3), [start(4)]);
    assert_eq!(finish(&mut node, 4), [start(2)]);
}

#[test]
fn gpus_have_ids_and_fractions_share() {
    let mut node = node(8.0, 3);
    assert_eq!(submit(&mut node, 1, gpus(0.5), 0), [start_on(1, &[0])]);
    assert_eq!(submit(&mut node, 2, gpus(2.0), 0), [start_on(2, &[1, 2])]);
    assert_eq!(submit(&mut node, 3, gpus(0.5), 0), [start_on(3, &[0])]);
    assert_eq!(submit(&mut node, 4, gpus(1.0), 0), []);
    assert_eq!(finish(&mut node, 1), [], "half a device is not a whole one");
    assert_eq!(finish(&mut node, 3), [start_on(4, &[0])]);
    assert_eq!(submit(&mut node, 5, gpus(3.0), 0), []);
    assert_eq!(finish(&mut node, 2), []);
    assert_eq!(finish(&mut node, 4), [start_on(5, &[0, 1, 2])]);
}

#[test]
fn custom_resources_are_amounts() {
    let mut node = Ledger::new(Capacity::new(units(1.0), 0).with_custom("tpu", units(2.0)));
    let tpu = |x: f64| Demand::NONE.with_custom("tpu", units(x));
    assert_eq!(submit(&mut node, 1, tpu(1.5), 0), [start(1)]);
    assert_eq!(submit(&mut node, 2, tpu(1.0), 0), []);
    assert_eq!(
        submit(&mut node, 3, tpu(0.5), 0),
        [],
        "the line for tpu is strict"
    );
    assert_eq!(finish(&mut node, 1), [start(2), start(3)]);
}

#[test]
fn overtaking_is_allowed_with_what_the_first_does_not_need_yet() {
    let mut node = node(2.0, 1);
    let both = cpus(1.0).with_gpu(units(1.0));
    assert_eq!(submit(&mut node, 1, gpus(1.0), 0), [start_on(1, &[0])]);
    assert_eq!(submit(&mut node, 2, both, 0), []);
    // It waits for the GPU, so its CPU is not idle meanwhile and executors need not step back.
    assert!(!node.pressed());
    assert_eq!(submit(&mut node, 3, cpus(1.0), 0), [start(3)]);
    assert_eq!(
        submit(&mut node, 4, gpus(0.5), 0),
        [],
        "but nobody passes it to the GPU"
    );
    assert!(node.lease());
    // Now it has the GPU and waits for a CPU alone: nobody passes it to either.
    assert_eq!(finish(&mut node, 1), []);
    assert!(node.pressed());
    assert_eq!(submit(&mut node, 5, gpus(0.25), 0), []);
    assert_eq!(submit(&mut node, 6, cpus(0.5), 0), []);
    assert_eq!(unlease(&mut node), [start_on(2, &[0])]);
    assert_eq!(finish(&mut node, 3), [start(6)]);
    assert_eq!(finish(&mut node, 2), [start_on(4, &[0]), start_on(5, &[0])]);
}

#[test]
fn leases_and_tasks_share_the_cpus() {
    let mut node = node(2.0, 0);
    assert!(node.lease());
    assert_eq!(submit(&mut node, 1, cpus(1.0), 3), [start(1)]);
    assert!(!node.lease(), "no CPU is left");
    assert_eq!(finish(&mut node, 1), [Effect::Offer]);
    assert!(node.lease());
    assert_eq!(node.leases(), 2);
    assert_eq!((unlease(&mut node), unlease(&mut node)), (vec![], vec![]));
    assert_eq!(node.free_cpu_steps(), 20_000);
}

#[test]
fn a_stream_of_common_tasks_cannot_starve_a_big_one() {
    let mut node = node(2.0, 0);
    assert!(node.lease() && node.lease());
    assert_eq!(submit(&mut node, 1, cpus(2.0), 0), []);
    assert!(node.pressed());
    assert_eq!(unlease(&mut node), []);
    assert!(
        !node.lease(),
        "there is a CPU, but the big one waits for it"
    );
    assert_eq!(unlease(&mut node), [start(1)]);
    assert!(!node.pressed());
    assert_eq!(finish(&mut node, 1), [Effect::Offer]);
    assert!(node.lease() && node.lease());
}

#[test]
fn a_stream_of_big_tasks_cannot_starve_the_common_ones() {
    let mut node = node(2.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(2.0), 0), [start(1)]);
    assert!(!node.lease());
    assert_eq!(submit(&mut node, 2, cpus(2.0), 0), []);
    assert_eq!(submit(&mut node, 3, cpus(1.0), 0), []);
    assert_eq!(
        finish(&mut node, 1),
        [Effect::Offer],
        "it was denied before 2 came"
    );
    assert!(node.lease());
    assert!(!node.lease(), "one turn is one lease; the next is behind 3");
    assert!(node.pressed());
    assert_eq!(unlease(&mut node), [start(2)]);
    assert_eq!(finish(&mut node, 2), [start(3), Effect::Offer]);
}

#[test]
fn an_offer_is_taken_back_for_a_higher_priority_and_given_up_when_idle() {
    let mut node = node(1.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(1.0), 0), [start(1)]);
    assert!(!node.lease());
    assert_eq!(submit(&mut node, 2, cpus(1.0), 0), []);
    assert_eq!(finish(&mut node, 1), [Effect::Offer]);
    assert_eq!(submit(&mut node, 3, cpus(1.0), 1), [start(3)]);
    assert!(!node.lease(), "it keeps its turn");
    assert_eq!(finish(&mut node, 3), [Effect::Offer]);
    assert!(node.wants_idle());
    assert_eq!(
        idle(&mut node),
        [start(2)],
        "the common task was run elsewhere"
    );
    assert!(!node.wants_idle());
}

#[test]
fn below_priority_0_tasks_run_when_nothing_else_does() {
    let mut node = node(2.0, 0);
    assert_eq!(
        submit(&mut node, 1, cpus(1.0), -1),
        [],
        "even if there is room"
    );
    assert_eq!(submit(&mut node, 2, cpus(1.0), -9), []);
    assert!(node.background_waiting() && node.wants_idle() && !node.pressed());
    assert!(node.lease());
    assert_eq!(submit(&mut node, 3, cpus(1.0), 0), [start(3)]);
    assert_eq!(idle(&mut node), [], "no CPU is left");
    assert_eq!(unlease(&mut node), [], "only an idle executor starts them");
    assert!(node.lease());
    assert_eq!(unlease(&mut node), []);
    assert_eq!(idle(&mut node), [start(1)]);
    assert_eq!(finish(&mut node, 3), []);
    assert_eq!(idle(&mut node), [start(2)]);
    assert!(!node.background_waiting());
}

#[test]
fn a_blocked_task_lends_its_cpus_and_keeps_its_gpus() {
    let mut node = node(1.0, 1);
    let both = || cpus(1.0).with_gpu(units(1.0));
    assert_eq!(submit(&mut node, 1, both(), 0), [start_on(1, &[0])]);
    assert_eq!(submit(&mut node, 2, both(), 0), []);
    assert_eq!(submit(&mut node, 3, cpus(1.0), 0), []);
    assert_eq!(effects(&mut node, |n, out| n.lend(1, out)), [start(3)]);
    assert_eq!(effects(&mut node, |n, out| n.lend(1, out)), [], "lent once");
    node.reclaim(1);
    node.reclaim(1);
    assert_eq!(node.free_cpu_steps(), -10_000, "both run now");
    assert_eq!(submit(&mut node, 4, cpus(0.1), 0), []);
    assert_eq!(finish(&mut node, 3), [], "the debt is paid first");
    assert_eq!(finish(&mut node, 1), [start_on(2, &[0])]);
    assert_eq!(finish(&mut node, 2), [start(4)]);
}

#[test]
fn a_task_that_ends_while_lent_gives_its_cpus_back_once() {
    let mut node = node(2.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(2.0), 0), [start(1)]);
    assert_eq!(effects(&mut node, |n, out| n.lend(1, out)), []);
    assert_eq!(finish(&mut node, 1), []);
    assert_eq!(node.free_cpu_steps(), 20_000);
}

#[test]
fn a_blocked_common_task_lends_its_lease() {
    let mut node = node(1.0, 0);
    assert!(node.lease());
    assert_eq!(submit(&mut node, 1, cpus(1.0), 0), []);
    assert_eq!(effects(&mut node, Ledger::lend_lease), [start(1)]);
    node.reclaim_lease();
    assert_eq!((node.free_cpu_steps(), node.leases()), (-10_000, 1));
    assert!(!node.lease());
    assert_eq!(unlease(&mut node), []);
    assert_eq!(finish(&mut node, 1), [Effect::Offer]);
}

#[test]
fn an_offer_is_made_once() {
    let mut node = node(2.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(2.0), 0), [start(1)]);
    assert!(!node.lease());
    assert_eq!(finish(&mut node, 1), [Effect::Offer]);
    assert_eq!(submit(&mut node, 2, cpus(1.0), 0), [start(2)]);
    assert_eq!(finish(&mut node, 2), []);
    assert!(node.lease());
}

#[test]
fn small_tasks_do_not_pass_the_turn_of_the_common_ones() {
    let mut node = node(1.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(0.5), 0), [start(1)]);
    assert_eq!(submit(&mut node, 2, cpus(0.5), 0), [start(2)]);
    assert!(!node.lease());
    assert_eq!(finish(&mut node, 1), []);
    assert_eq!(
        submit(&mut node, 3, cpus(0.5), 0),
        [],
        "it fits, but would delay the lease"
    );
    assert_eq!(finish(&mut node, 2), [Effect::Offer]);
    assert!(node.lease());
    assert_eq!(unlease(&mut node), [start(3)]);
}

#[test]
fn an_offer_that_a_lent_cpu_undid_is_made_again() {
    let mut node = node(1.0, 0);
    assert!(node.lease());
    assert!(!node.lease());
    assert_eq!(effects(&mut node, Ledger::lend_lease), [Effect::Offer]);
    node.reclaim_lease();
    assert!(!node.lease(), "the executor that was woken comes too late");
    assert_eq!(unlease(&mut node), [Effect::Offer]);
    assert!(node.lease());
}

#[test]
fn a_waiting_task_can_be_cancelled_and_frees_the_line() {
    let mut node = node(2.0, 0);
    assert_eq!(submit(&mut node, 1, cpus(1.0), 0), [start(1)]);
    assert_eq!(submit(&mut node, 2, cpus(2.0), 0), []);
    assert_eq!(submit(&mut node, 3, cpus(2.0), 0), []);
    assert_eq!(submit(&mut node, 4, cpus(1.0), 0), []);
    let cancel = |node: &mut Ledger, task: u64| {
        let mut out = Vec::new();
        (node.cancel(task, &mut out), out)
    };
    assert_eq!(cancel(&mut node, 3), (true, vec![]));
    assert_eq!(cancel(&mut node, 2), (true, vec![start(4)]));
    assert_eq!(cancel(&mut node, 2), (false, vec![]));
    assert_eq!(cancel(&mut node, 1), (false, vec![]), "it runs already");
    assert!(!node.pressed());
}

#[test]
fn a_node_of_less_than_one_cpu_runs_what_fits_and_refuses_the_common_task() {
    let mut node = node(0.5, 0);
    let why = node.common_task_infeasible().unwrap();
    assert_eq!(
        why.to_string(),
        "needs 1 of `cpu` but this node has 0.5: \
         lower the request or start the node with Config::num_cpus(1)"
    );
    assert!(!node.lease());
    assert!(
        !node.wants_idle(),
        "a lease that can never be granted has no turn"
    );
    assert_eq!(submit(&mut node, 1, cpus(0.5), 0), [start(1)]);
    assert_eq!(finish(&mut node, 1), []);
}

#[test]
fn a_waiting_task_says_what_it_waits_for() {
    let mut node = Ledger::new(Capacity::new(units(4.0), 1).with_custom("tpu", units(2.0)));
    let missing = |node: &Ledger, task: u64| node.waiting(task).unwrap().missing;
    let tpu = cpus(1.0).with_custom("tpu", units(1.5));
    assert_eq!(submit(&mut node, 1, tpu.clone(), 0), [start(1)]);
    assert_eq!(submit(&mut node, 2, tpu.clone(), 0), []);
    assert_eq!(missing(&node, 2), "1.5 tpu: 0.5 of 2 free");
    assert_eq!(submit(&mut node, 3, gpus(0.5), 0), [start_on(3, &[0])]);
    assert_eq!(submit(&mut node, 4, gpus(1.0), 0), []);
    assert_eq!(missing(&node, 4), "1 gpu: 0.5 of 1 free");
    assert_eq!(submit(&mut node, 5, cpus(4.0), 0), []);
    assert_eq!(missing(&node, 5), "4 cpu: 3 of 4 free");
    assert_eq!(submit(&mut node, 6, cpus(1.0), 0), []);
    assert_eq!(
        missing(&node, 6),
        "its turn: those before it wait for the same resources"
    );
    assert_eq!(submit(&mut node, 7, cpus(1.0), -1), []);
    assert!(missing(&node, 7).starts_with("an idle executor"));
    assert_eq!(
        node.waiting(4).unwrap().to_string(),
        "waiting for 1 gpu: 0.5 of 1 free (demands 1 gpu; 1 before it)"
    );
    assert_eq!((node.waiting(1), node.waiting(99)), (None, None));
    assert_eq!(node.holders(), [(1, tpu), (3, gpus(0.5))]);
}

#[test]
fn a_hundred_thousand_waiting_tasks_cost_a_look_each() {
    let mut node = node(4.0, 1);
    let mut out = Vec::new();
    node.submit(0, cpus(4.0).with_gpu(units(1.0)), 0, &mut out);
    for task in 1..=100_000u64 {
        let demand = [
            cpus(0.5),
            cpus(2.0),
            gpus(0.5),
            cpus(1.0).with_gpu(units(1.0)),
        ];
        node.submit(task, demand[task as usize % 4].clone(), 0, &mut out);
    }
    assert_eq!(out.len(), 1);
    let mut ended = 0;
    while let Some(Effect::Start { task, .. }) = out.get(ended) {
        let task = *task;
        node.finish(task, &mut out);
        ended += 1;
    }
    assert_eq!((ended, out.len(), node.queued()), (100_001, 100_001, 0));
}

#[test]
fn looks_are_bounded_even_if_all_demands_differ() {
    let mut node = node(1.0, 0);
    assert_eq!(submit(&mut node, 0, cpus(1.0), 0), [start(0)]);
    for task in 1..=9_000 {
        assert_eq!(
            submit(
                &mut node,
                task,
                Demand::cpu_only(Units::from_steps(task)),
                0
            ),
            []
        );
    }
    // Behind more blocked demands than are looked at, even what needs nothing waits.
    assert_eq!(submit(&mut node, 9_999, Demand::NONE, 0), []);
    let mut running: Vec<Effect> = finish(&mut node, 0);
    let mut started = Vec::new();
    while let Some(Effect::Start { task, .. }) = running.pop() {
        started.push(task);
        running.extend(finish(&mut node, task));
    }
    assert_eq!((started.len(), node.queued()), (9_001, 0));
}
