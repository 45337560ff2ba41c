//! Durable records of the cluster: who is in it, what runs, what has a name.
//!
//! One trait, [`Control`], and what is behind it by the address that [`open`] is given:
//!
//! | address | where the records are | for |
//! |---|---|---|
//! | `memory:` | in this process | tests, one machine |
//! | `/a/folder` or `file:/a/folder` | a file in it, synced before an answer | the head; it may restart |
//! | `etcd://h1:2379,h2:2379/prefix` | on etcd, with the feature `etcd` | clusters that must survive the loss of any machine |
//!
//! All calls block, for at most the time they are given, so that a plain thread can use them; none may be made on a
//! thread of an async runtime.
//!
//! Invariant: a write that was answered is found again by whoever reads after the answer, whatever ends meanwhile,
//! save for the medium itself. Revisions rise with every write; a watch sees every change behind its revision, in
//! order, or says that it fell behind. Left out: what the records mean to whom (`records` spells their keys and
//! bytes, nothing more).

mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod local;
pub mod records;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::ControlError;
pub use watch::{Change, Watch};

/// The most bytes of a key.
pub const KEY_MAX: usize = 512;
/// The most bytes of a value.
pub const VALUE_MAX: usize = 256 << 10;
/// The most records, where they are kept by this process.
pub const RECORDS_MAX: usize = 1 << 20;
/// The most bytes of all keys and values, where they are kept by this process.
pub const BYTES_MAX: usize = 256 << 20;
/// The most changes that a watch holds until they are taken.
pub const WATCH_MAX: usize = 4096;
/// The shortest and the longest life of a lease. etcd rounds it up, to 2 seconds at least.
pub const TTL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(24 * 3600));
/// The most leases, where they are kept by this process.
pub const LEASES_MAX: usize = 1 << 16;

/// Counts writes: the one that made or changed a record. 0 is before the first.
pub type Revision = u64;

/// What `control` gives.
pub type Result<T> = std::result::Result<T, ControlError>;

/// Names a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A life that must be prolonged; what is attached to it vanishes when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lives without [`Control::keep_alive`]; no less than was asked for.
    pub ttl: Duration,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The write that it is from.
    pub revision: Revision,
    /// The lease that it is attached to.
    pub lease: Option<LeaseId>,
}

/// All records under a prefix, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their keys.
    pub records: Vec<Record>,
    /// The moment: a [`Control::watch`] from here misses nothing.
    pub revision: Revision,
}

/// What a write finds that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything, or nothing.
    Any,
    /// No record of this key.
    Absent,
    /// The record, as of this write.
    Revision(Revision),
}

/// Records that are kept for the cluster.
///
/// `within` bounds each call. A call that ran out of time may still take effect later; [`ControlError::Timeout`] says so.
pub trait Control: Send + Sync {
    /// Reads one record.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: a key out of bounds, no answer in time, a backend that failed.
    fn get(&self, key: &str, within: Duration) -> Result<Option<Record>>;

    /// Writes one record if what is there is as expected: with [`Expect::Absent`] or [`Expect::Revision`] a
    /// compare-and-swap. The record is attached to the lease, if any, and to none otherwise, whatever it was attached
    /// to before.
    ///
    /// # Errors
    ///
    /// As [`get`](Control::get); [`ControlError::Conflict`] if it is not as expected; [`ControlError::NoLease`] if
    /// the lease has ended; [`ControlError::Full`] where records are bounded.
    fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> Result<Revision>;

    /// Deletes one record. False: there was none.
    ///
    /// # Errors
    ///
    /// As [`put`](Control::put).
    fn delete(&self, key: &str, expect: Expect, within: Duration) -> Result<bool>;

    /// Reads all records whose keys begin so.
    ///
    /// # Errors
    ///
    /// As [`get`](Control::get).
    fn list(&self, prefix: &str, within: Duration) -> Result<Listing>;

    /// Follows the changes behind a revision to records whose keys begin so.
    ///
    /// # Errors
    ///
    /// As [`get`](Control::get); [`ControlError::FellBehind`] if changes so old are forgotten: list again, watch from
    /// there.
    fn watch(&self, prefix: &str, from: Revision, within: Duration) -> Result<Watch>;

    /// Begins a lease.
    ///
    /// # Errors
    ///
    /// As [`get`](Control::get); [`ControlError::BadTtl`].
    fn grant(&self, ttl: Duration, within: Duration) -> Result<Lease>;

    /// Prolongs a lease by its whole length, from now.
    ///
    /// # Errors
    ///
    /// As [`get`](Control::get); [`ControlError::NoLease`] if it has ended: its records are gone.
    fn keep_alive(&self, lease: LeaseId, within: Duration) -> Result<()>;

    /// Ends a lease now. False: it had ended.
    ///
    /// # Errors
    ///
    /// As [`get`](Control::get).
    fn revoke(&self, lease: LeaseId, within: Duration) -> Result<bool>;

    /// Where the records are, for people.
    fn address(&self) -> String;
}

/// Opens the records at an address.
///
/// # Errors
///
/// An address that names nothing, a folder that another process uses or whose file is damaged, an etcd that does not
/// answer.
pub fn open(address: &str) -> Result<Arc<dyn Control>> {
    let bad = |why: &str| ControlError::BadAddress {
        address: address.to_owned(),
        why: why.to_owned(),
    };
    if address == "memory:" {
        return Ok(Arc::new(local::Local::in_memory()));
    }
    if let Some(rest) = address.strip_prefix("etcd://") {
        return open_etcd(address, rest);
    }
    let folder = match address.strip_prefix("file:") {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None if address.contains("://") => {
            return Err(bad("it begins like none of memory:, file: and etcd://"));
        }
        None => address,
    };
    if folder.is_empty() {
        return Err(bad("it names no folder"));
    }
    Ok(Arc::new(local::Local::in_folder(Path::new(folder))?))
}

/// Where an etcd at such an address is, if it is one.
pub fn host(address: &str) -> Option<std::net::SocketAddr> {
    use std::net::ToSocketAddrs;
    let hosts = address.strip_prefix("etcd://")?.split('/').next()?;
    hosts
        .split(',')
        .find_map(|host| host.to_socket_addrs().ok()?.next())
}

#[cfg(feature = "etcd")]
fn open_etcd(address: &str, rest: &str) -> Result<Arc<dyn Control>> {
    Ok(Arc::new(etcd::Etcd::connect(address, rest)?))
}

#[cfg(not(feature = "etcd"))]
fn open_etcd(address: &str, _: &str) -> Result<Arc<dyn Control>> {
    Err(ControlError::BadAddress {
        address: address.to_owned(),
        why: "this program was built without the feature `etcd`".to_owned(),
    })
}

/// When a time is over that begins now. A year is as good as forever, and can be counted.
fn until(within: Duration) -> Instant {
    Instant::now() + within.min(Duration::from_secs(365 * 24 * 3600))
}

/// A key that may be written.
fn check_key(key: &str) -> Result<()> {
    let bad = key.is_empty() || key.len() > KEY_MAX || key.bytes().any(|b| b < b' ');
    bad.then(|| ControlError::bad_key(key)).map_or(Ok(()), Err)
}

/// A prefix that may be looked for; the empty one is that of all.
fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        Ok(())
    } else {
        check_key(prefix)
    }
}

fn check_value(key: &str, value: &[u8]) -> Result<()> {
    if value.len() <= VALUE_MAX {
        return Ok(());
    }
    Err(ControlError::BigValue {
        key: key.to_owned(),
        len: value.len(),
    })
}

fn check_ttl(ttl: Duration) -> Result<()> {
    if (TTL.0..=TTL.1).contains(&ttl) {
        Ok(())
    } else {
        Err(ControlError::BadTtl { ttl })
    }
}
