//! Records on etcd: what survives the loss of any machine.
//!
//! A thread of its own runs an async runtime, on which all calls are made; whoever calls waits for the answer. Keys
//! lie under the prefix of the address, so that clusters share one etcd. A watch goes on over lost connections from
//! where it was.
//!
//! Invariant: revisions are etcd's. A call that ran out of time was given up here, and may have taken effect there.
//! Left out: TLS to etcd and passwords (keep it on a network of its own), and the compaction of etcd's history, which
//! is its operator's (`--auto-compaction-retention`).

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, KeyValue,
    PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::watch::{Buffer, Change, Guard, Watch};
use super::{
    Control, ControlError, Expect, KEY_MAX, Lease, LeaseId, Listing, Record, Result, Revision,
    check_key, check_prefix, check_ttl, check_value,
};

/// How long the first answer may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Records of one answer to a listing, and the bytes that they may have.
const PAGE: i64 = 128;
const PAGE_BYTES: usize = 64 << 20;
/// Before a watch tries again.
const AGAIN: Duration = Duration::from_millis(200);

/// Records on etcd.
pub struct Etcd {
    address: String,
    prefix: String,
    client: Client,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Etcd {
    /// Connects to `h1:2379,h2:2379/prefix`.
    pub fn connect(address: &str, rest: &str) -> Result<Etcd> {
        let bad = |why: &str| ControlError::BadAddress {
            address: address.to_owned(),
            why: why.to_owned(),
        };
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, "mobula"));
        let hosts: Vec<String> = hosts
            .split(',')
            .map(|host| format!("http://{host}"))
            .collect();
        if hosts
            .iter()
            .any(|host| host.len() == 7 || !host[7..].contains(':'))
        {
            return Err(bad("it is to be etcd://host:port,host:port/prefix"));
        }
        if prefix.len() > KEY_MAX {
            return Err(bad("its prefix is too long"));
        }
        let failed = |why: String| ControlError::Etcd {
            address: address.to_owned(),
            why,
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (connected, connection) = mpsc::sync_channel(1);
        let name = "mobula-etcd".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async {
                let options = ConnectOptions::new()
                    .with_connect_timeout(CONNECT)
                    .with_keep_alive(Duration::from_secs(2), Duration::from_secs(3))
                    .with_keep_alive_while_idle(true);
                let asked = async {
                    let mut client = Client::connect(&hosts, Some(options)).await?;
                    // The connection is made by the first question.
                    client.get("mobula", None).await?;
                    Ok(client)
                };
                let result: std::result::Result<Client, String> =
                    match tokio::time::timeout(CONNECT, asked).await {
                        Ok(Ok(client)) => Ok(client),
                        Ok(Err(e)) => Err(said(&e)),
                        Err(_) => Err(format!(
                            "nothing, for {CONNECT:?}; is it running there, and reachable?"
                        )),
                    };
                drop(connected.try_send(result));
                // Ends when the sender says so, or goes.
                drop(stopped.await);
            });
        });
        let thread = thread.map_err(|e| failed(e.to_string()))?;
        let client = connection
            .recv()
            .unwrap_or_else(|_| Err("its thread died".to_owned()))
            .map_err(failed)?;
        Ok(Etcd {
            address: address.to_owned(),
            prefix: format!("{prefix}/"),
            client,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Makes a call on the runtime and waits for it.
    fn call<T, F>(&self, what: &str, within: Duration, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, etcd_client::Error>> + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let made = call(self.client.clone());
        let task = self
            .runtime
            .spawn(async move { drop(answer.try_send(made.await)) });
        match answered.recv_timeout(within) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(e)) => Err(ControlError::Etcd {
                address: self.address.clone(),
                why: said(&e),
            }),
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                Err(ControlError::Timeout {
                    what: what.to_owned(),
                    within,
                })
            }
            Err(RecvTimeoutError::Disconnected) => Err(ControlError::Closed),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn conflict(&self, key: &str, expect: Expect, found: Option<&KeyValue>) -> ControlError {
        ControlError::Conflict {
            key: key.to_owned(),
            expected: match expect {
                Expect::Revision(revision) => Some(revision),
                _ => None,
            },
            actual: found.map(|kv| kv.mod_revision() as u64),
        }
    }

    /// Does `op` if the record is as expected; otherwise answers what is there.
    fn guarded(
        &self,
        what: &str,
        key: &str,
        expect: Expect,
        op: TxnOp,
        within: Duration,
    ) -> Result<Txned> {
        let full = self.full(key);
        let expected = match expect {
            Expect::Any => None,
            Expect::Absent => Some(0),
            Expect::Revision(revision) => Some(revision as i64),
        };
        let compare = expected.map(|n| Compare::mod_revision(full.clone(), CompareOp::Equal, n));
        let txn = Txn::new()
            .when(compare.into_iter().collect::<Vec<_>>())
            .and_then(vec![op])
            .or_else(vec![TxnOp::get(full, None)]);
        let done = self.call(
            what,
            within,
            |mut client| async move { client.txn(txn).await },
        )?;
        let revision = done.header().map_or(0, |header| header.revision()) as u64;
        let mut deleted = 0;
        for response in done.op_responses() {
            match response {
                TxnOpResponse::Get(found) if !done.succeeded() => {
                    return Err(self.conflict(key, expect, found.kvs().first()));
                }
                TxnOpResponse::Delete(gone) => deleted = gone.deleted(),
                _ => {}
            }
        }
        Ok(Txned { revision, deleted })
    }
}

struct Txned {
    revision: Revision,
    deleted: i64,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it died of, it said.
            drop(thread.join());
        }
    }
}

/// What an error says, without its wrapping.
fn said(e: &etcd_client::Error) -> String {
    match e {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        e => e.to_string(),
    }
}

fn no_lease(lease: LeaseId, e: ControlError) -> ControlError {
    match e {
        ControlError::Etcd { why, .. } if why.contains("lease not found") => {
            ControlError::NoLease { lease }
        }
        e => e,
    }
}

fn lease_of(kv: &KeyValue) -> Option<LeaseId> {
    (kv.lease() != 0).then_some(LeaseId(kv.lease() as u64))
}

/// The key as users of this cluster know it. What is no text is none of theirs.
fn short(prefix: &str, kv: &KeyValue) -> Option<String> {
    kv.key_str().ok()?.strip_prefix(prefix).map(str::to_owned)
}

fn record(prefix: &str, kv: &KeyValue) -> Option<Record> {
    Some(Record {
        key: short(prefix, kv)?,
        value: kv.value().to_vec(),
        revision: kv.mod_revision() as u64,
        lease: lease_of(kv),
    })
}

/// Fills a buffer with what changes, until nobody follows.
async fn follow(
    mut client: Client,
    buffer: Arc<Buffer>,
    prefix: String,
    full: String,
    mut from: Revision,
) {
    loop {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(from as i64 + 1);
        let Ok(mut stream) = client.watch(full.clone(), Some(options)).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        while let Ok(Some(response)) = stream.message().await {
            if response.canceled() {
                if response.compact_revision() > 0 {
                    return buffer.end(buffer.behind(from));
                }
                break;
            }
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                let Some(key) = short(&prefix, kv) else {
                    continue;
                };
                let is = event.event_type() == EventType::Put;
                let change = Change {
                    key,
                    revision: kv.mod_revision() as u64,
                    now: is.then(|| (kv.value().to_vec(), lease_of(kv))),
                };
                if !buffer.push(&change) {
                    return;
                }
            }
            // An answer holds all changes of its last revision.
            let last = response.events().last().and_then(|event| event.kv());
            from = last.map_or(from, |kv| from.max(kv.mod_revision() as u64));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl Control for Etcd {
    fn get(&self, key: &str, within: Duration) -> Result<Option<Record>> {
        check_key(key)?;
        let full = self.full(key);
        let call = |mut client: Client| async move { client.get(full, None).await };
        let found = self.call(&format!("reading {key:?}"), within, call)?;
        Ok(found.kvs().first().and_then(|kv| record(&self.prefix, kv)))
    }

    fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> Result<Revision> {
        check_key(key)?;
        check_value(key, value)?;
        let options = lease.map(|lease| PutOptions::new().with_lease(lease.0 as i64));
        let op = TxnOp::put(self.full(key), value, options);
        let done = self.guarded(&format!("writing {key:?}"), key, expect, op, within);
        match (done, lease) {
            (Ok(done), _) => Ok(done.revision),
            (Err(e), Some(lease)) => Err(no_lease(lease, e)),
            (Err(e), None) => Err(e),
        }
    }

    fn delete(&self, key: &str, expect: Expect, within: Duration) -> Result<bool> {
        check_key(key)?;
        let op = TxnOp::delete(self.full(key), Some(DeleteOptions::new()));
        let done = self.guarded(&format!("deleting {key:?}"), key, expect, op, within)?;
        Ok(done.deleted > 0)
    }

    fn list(&self, prefix: &str, within: Duration) -> Result<Listing> {
        check_prefix(prefix)?;
        let (mut from, ours) = (self.full(prefix), self.prefix.clone());
        let end = end_of(from.as_bytes());
        let call = |client: Client| async move {
            let mut kv = client.kv_client().max_decoding_message_size(PAGE_BYTES);
            let mut listing = Listing {
                records: Vec::new(),
                revision: 0,
            };
            loop {
                let options = GetOptions::new()
                    .with_range(end.clone())
                    .with_limit(PAGE)
                    .with_revision(listing.revision as i64);
                let page = kv.get(from, Some(options)).await?;
                if listing.revision == 0 {
                    listing.revision = page.header().map_or(0, |header| header.revision()) as u64;
                }
                listing
                    .records
                    .extend(page.kvs().iter().filter_map(|kv| record(&ours, kv)));
                match page.kvs().last().map(KeyValue::key_str) {
                    // The next key that there can be.
                    Some(Ok(last)) if page.more() => from = format!("{last}\0"),
                    _ => return Ok(listing),
                }
            }
        };
        self.call(&format!("listing {prefix:?}"), within, call)
    }

    fn watch(&self, prefix: &str, from: Revision, within: Duration) -> Result<Watch> {
        check_prefix(prefix)?;
        let buffer = Buffer::new(prefix, from);
        // An etcd that does not answer is to be noticed here, not by silence.
        let call = |mut client: Client| async move { client.get("mobula", None).await };
        let now = self.call(&format!("watching {prefix:?}"), within, call)?;
        if now
            .header()
            .is_some_and(|header| from > header.revision() as u64)
        {
            return Err(buffer.behind(from));
        }
        let full = self.full(prefix);
        let task = follow(
            self.client.clone(),
            Arc::clone(&buffer),
            self.prefix.clone(),
            full,
            from,
        );
        let theirs = Arc::clone(&buffer);
        // The runtime drops the task when it ends, and this with it.
        let ended = Guard(Box::new(move || theirs.end(ControlError::Closed)));
        let task = self.runtime.spawn(async move {
            let _ended = ended;
            task.await;
        });
        let stop = task.abort_handle();
        Ok(Watch::new(
            buffer,
            Some(Guard(Box::new(move || stop.abort()))),
        ))
    }

    fn grant(&self, ttl: Duration, within: Duration) -> Result<Lease> {
        check_ttl(ttl)?;
        let seconds = ttl.as_millis().div_ceil(1000) as i64;
        let call = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        let granted = self.call("granting a lease", within, call)?;
        Ok(Lease {
            id: LeaseId(granted.id() as u64),
            ttl: Duration::from_secs(granted.ttl() as u64),
        })
    }

    fn keep_alive(&self, lease: LeaseId, within: Duration) -> Result<()> {
        let id = lease.0 as i64;
        let call = |mut client: Client| async move {
            // The stream's first answer was read when it began; it is an error if the lease has ended.
            let (mut keeper, mut stream) = client.lease_keep_alive(id).await?;
            keeper.keep_alive().await?;
            Ok(stream
                .message()
                .await?
                .is_some_and(|answer| answer.ttl() > 0))
        };
        match self.call("prolonging a lease", within, call) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ControlError::NoLease { lease }),
            // So the client says it.
            Err(ControlError::Etcd { why, .. })
                if why.contains("lease not found") || why.contains("keep alive") =>
            {
                Err(ControlError::NoLease { lease })
            }
            Err(e) => Err(e),
        }
    }

    fn revoke(&self, lease: LeaseId, within: Duration) -> Result<bool> {
        let id = lease.0 as i64;
        let call = |mut client: Client| async move { client.lease_revoke(id).await };
        match self
            .call("ending a lease", within, call)
            .map_err(|e| no_lease(lease, e))
        {
            Ok(_) => Ok(true),
            Err(ControlError::NoLease { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// The first key behind all that begin so.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}
