//! A real etcd on a port of its own, for the suite.

#[cfg(not(feature = "etcd"))]
pub fn run() {
    println!("skipped: built without the feature `etcd`");
}
