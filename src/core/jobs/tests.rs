//! Shares add up, whoever comes and goes.

use proptest::prelude::*;

use super::*;

fn machine(cpus: u64, gpus: u32) -> Jobs {
    Jobs::new(Capacity::new(Units::whole(cpus), gpus).with_custom("tpu", Units::whole(2)))
}

fn cpus(n: u64) -> Ask {
    Ask::Exactly(Demand::cpu_only(Units::whole(n)))
}

fn ask(jobs: &mut Jobs, job: u64, what: Ask) -> Vec<Effect> {
    let mut out = Vec::new();
    jobs.ask(job, &format!("job {job}"), what, &mut out);
    out
}

#[test]
fn the_second_job_gets_what_the_first_left() {
    let mut jobs = machine(4, 2);
    let first = ask(
        &mut jobs,
        1,
        Ask::Exactly(Demand::cpu_only(Units::whole(3)).with_gpu(Units::ONE)),
    );
    let [Effect::Grant { share, .. }] = first.as_slice() else {
        panic!("{first:?}")
    };
    assert_eq!(share.gpus, [0]);
    let second = ask(&mut jobs, 2, Ask::Rest);
    let [Effect::Grant { share, .. }] = second.as_slice() else {
        panic!("{second:?}")
    };
    assert_eq!(share.gpus, [1]);
    assert_eq!(share.amounts.to_string(), "1 cpu, 1 gpu, 2 tpu");
    assert_eq!(jobs.left(), Demand::NONE);
}

#[test]
fn a_third_waits_in_line_and_gets_it_when_one_ends() {
    let mut jobs = machine(2, 0);
    assert_eq!(ask(&mut jobs, 1, cpus(2)).len(), 1);
    assert!(ask(&mut jobs, 2, cpus(2)).is_empty());
    // It would fit sooner, but does not overtake.
    assert!(ask(&mut jobs, 3, cpus(1)).is_empty());
    let mut out = Vec::new();
    jobs.end(1, &mut out);
    assert!(matches!(out.as_slice(), [Effect::Grant { job: 2, .. }]));
    out.clear();
    jobs.end(2, &mut out);
    assert!(matches!(out.as_slice(), [Effect::Grant { job: 3, .. }]));
}

#[test]
fn who_gives_up_is_told_who_has_it() {
    let mut jobs = machine(2, 0);
    ask(&mut jobs, 1, cpus(2));
    assert!(ask(&mut jobs, 2, Ask::Rest).is_empty());
    let mut out = Vec::new();
    let why = jobs.give_up(2, &mut out).expect("it waits").to_string();
    assert_eq!(
        why,
        "no room: the job asks for what is left, which is 2 tpu; job 1 holds 2 cpu"
    );
    assert!(out.is_empty() && jobs.give_up(2, &mut out).is_none());
}

#[test]
fn the_line_moves_on_when_its_first_gives_up() {
    let mut jobs = machine(2, 0);
    ask(&mut jobs, 1, cpus(1));
    ask(&mut jobs, 2, cpus(2));
    ask(&mut jobs, 3, cpus(1));
    let mut out = Vec::new();
    jobs.give_up(2, &mut out);
    assert!(matches!(out.as_slice(), [Effect::Grant { job: 3, .. }]));
}

#[test]
fn what_can_never_be_is_refused_at_once_and_by_name() {
    let mut jobs = machine(2, 1);
    let out = ask(&mut jobs, 1, cpus(3));
    let [Effect::Refuse { why, .. }] = out.as_slice() else {
        panic!("{out:?}")
    };
    assert!(
        why.to_string()
            .contains("3 of `cpu`, of which the machine has 2"),
        "{why}"
    );
    ask(&mut jobs, 2, cpus(1));
    assert!(matches!(
        ask(&mut jobs, 2, cpus(1)).as_slice(),
        [Effect::Refuse {
            why: Refusal::Again,
            ..
        }]
    ));
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u64, Ask),
    GiveUp(u64),
    End(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let wants = prop_oneof![
        Just(Ask::Rest),
        (0..5u64, 0..25_000u64, 0..3u64).prop_map(|(cpu, gpu, tpu)| {
            let demand = Demand::cpu_only(Units::whole(cpu)).with_gpu(Units::from_steps(gpu));
            Ask::Exactly(demand.with_custom("tpu", Units::whole(tpu)))
        }),
    ];
    prop_oneof![
        (0..12u64, wants).prop_map(|(job, ask)| Step::Ask(job, ask)),
        (0..12u64).prop_map(Step::GiveUp),
        (0..12u64).prop_map(Step::End),
    ]
}

proptest! {
    #[test]
    fn free_and_held_add_up(steps in prop::collection::vec(step(), 0..80)) {
        let mut jobs = machine(4, 3);
        let whole = jobs.left();
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::Ask(job, ask) => jobs.ask(job, "job", ask, &mut out),
                Step::GiveUp(job) => drop(jobs.give_up(job, &mut out)),
                Step::End(job) => jobs.end(job, &mut out),
            }
            let mut sum = jobs.left();
            let mut gpus: Vec<u32> = jobs.gpus.iter().copied().collect();
            for (_, _, share) in jobs.held() {
                amounts::add(&mut sum, &share.amounts);
                gpus.extend(&share.gpus);
                prop_assert_eq!(share.amounts.gpu, Units::whole(share.gpus.len() as u64));
            }
            gpus.sort_unstable();
            prop_assert_eq!(&sum, &whole);
            prop_assert_eq!(gpus, vec![0, 1, 2]);
            // Nobody waits at the head of the line for what is there.
            if let Some((_, _, ask)) = jobs.line.front() {
                prop_assert!(jobs.share(ask).is_none());
            }
        }
        let mut out = Vec::new();
        (0..12).for_each(|job| jobs.end(job, &mut out));
        prop_assert_eq!(jobs.left(), whole);
        prop_assert_eq!(jobs.waiting(), 0);
    }
}
