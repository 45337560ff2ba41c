//! Every order of events, tried: models of the lock-free protocols, driven through the real code over loom's primitives.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test --release --lib loom_`, with `LOOM_MAX_PREEMPTIONS` to look deeper than the
//! three forced switches of threads that are the default here.
//!
//! Invariant: each model fails when the line it is about is broken; its comment names bugs that were planted and caught.
//! Left out: what loom does not see. It treats `SeqCst` loads and stores as acquire and release, and its read-modify-write
//! operations always see the newest value, so the choice of `SeqCst` in `mail` is argued there, not tried here. The
//! queues between a submitter and an executor are crossbeam's; two atomics stand for them.

mod actors;
mod calls;
mod sleepers;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(f);
}
