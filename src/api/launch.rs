//! What the `mobula` command needs of launchers; not for programs, whose `init` does it when `MOBULA_ADDRESS` is set.
//!
//! Invariant: nothing here runs in a program unless it is asked for. Left out: the command line.

pub use crate::base::{Capacity, Demand, Units};
pub use crate::node::launch::{
    Guest, JobLine, Machine, PORT, Past, Process, Recorded, Running, Settings, amounts, is_first,
    kept, place, resolve, route_to, start, token,
};
