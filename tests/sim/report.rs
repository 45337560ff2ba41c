//! What happened in a run, in numbers.
//!
//! Invariant: what is counted happens in some seed of an ordinary test run; see `main`.

macro_rules! report {
    ($($field:ident: $what:literal,)*) => {
        /// What happened in a run.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Report {
            $(pub $field: u64,)*
        }

        impl Report {
            /// Each number and what it counts.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$field),)*]
            }

            pub fn add(&mut self, other: &Report) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

report! {
    steps: "steps",
    tasks: "tasks",
    tasks_ended: "ended tasks",
    retries: "retries",
    here: "tasks run where they were made",
    away: "tasks run elsewhere",
    refused: "calls sent back",
    infeasible: "tasks that no node could run",
    groups: "groups",
    ready: "groups made ready",
    degraded: "groups that lost a part",
    gets: "gets",
    gets_ended: "ended gets",
    pulls: "pulls",
    failed_pulls: "failed pulls",
    cancelled: "cancelled gets",
    broken: "broken transfers",
    evicted: "evicted copies",
    handed_on: "references handed on",
    freed: "freed objects",
    lost: "lost objects",
    orphans: "orphaned objects",
    let_go_early: "burials by which something was let go",
    crashes: "crashes",
    splits: "splits",
    breaks: "broken connections",
    resent: "frames sent again",
    datagrams_lost: "datagrams lost",
    doubled: "datagrams that came twice",
    overtaken: "datagrams that were overtaken",
}
