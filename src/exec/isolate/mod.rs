//! Worker processes.

mod lines;
mod output;
mod sink;
