//! Worker processes.

mod cgroup;
mod limits;
mod lines;
mod meter;
mod monitor;
mod output;
mod reap;
mod sink;
