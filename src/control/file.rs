//! The file of the records, by redb: each batch of writes is one transaction, synced before it is answered.
//!
//! Invariant: after [`File::keep`] returned, the batch is found by whoever opens the file, and all of it. One process
//! has the file at a time. Left out: what a batch is.

use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use super::table::{Staged, Table};
use super::{ControlError, Lease, LeaseId, Record, Result};

const RECORDS: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("records");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The format of the tables.
const FORMAT: u64 = 1;
/// What redb may keep of the file in memory: reads are answered by the table, so it needs little.
const CACHE: usize = 4 << 20;

/// The file.
pub struct File {
    path: PathBuf,
    database: Database,
}

impl File {
    /// Opens the file in a folder, or makes both, and reads it.
    pub fn open(folder: &Path) -> Result<(File, Table)> {
        let path = folder.join("control.redb");
        let failed = |why: std::io::Error| ControlError::Storage {
            path: path.clone(),
            why: why.to_string(),
        };
        // What is in it is nobody else's to read.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        // redb vouches for files that it closed itself. One that was damaged since may trip it in ways of its own.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut builder = Database::builder();
            builder
                .set_cache_size(CACHE)
                .set_check_integrity_on_open(true);
            builder.create(&path)
        }));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
                return Err(ControlError::InUse { path });
            }
            Ok(Err(DatabaseError::Storage(StorageError::Io(e))))
                if e.kind() != std::io::ErrorKind::InvalidData =>
            {
                return Err(failed(e));
            }
            Ok(Err(e)) => return Err(damaged(&path, e)),
            Err(_) => return Err(damaged(&path, "it cannot be parsed")),
        };
        // The file's name is to be as durable as what it holds.
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        let file = File { path, database };
        let read = catch_unwind(AssertUnwindSafe(|| file.read()));
        match read {
            Ok(table) => table.map(|table| (file, table)),
            Err(_) => Err(damaged(&file.path, "it cannot be read")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<Table> {
        let bad = |e: redb::Error| damaged(&self.path, e);
        // The first transaction makes the tables.
        let write = self.database.begin_write().map_err(|e| bad(e.into()))?;
        {
            let mut meta = write.open_table(META).map_err(|e| bad(e.into()))?;
            let found = meta
                .get("format")
                .map_err(|e| bad(e.into()))?
                .map(|found| found.value());
            match found {
                Some(FORMAT) => {}
                Some(found) => {
                    return Err(ControlError::Format {
                        path: self.path.clone(),
                        found,
                        known: FORMAT,
                    });
                }
                None => drop(meta.insert("format", FORMAT).map_err(|e| bad(e.into()))?),
            }
            write.open_table(RECORDS).map_err(|e| bad(e.into()))?;
            write.open_table(LEASES).map_err(|e| bad(e.into()))?;
        }
        write.commit().map_err(|e| bad(e.into()))?;
        let read = self.database.begin_read().map_err(|e| bad(e.into()))?;
        let meta = read.open_table(META).map_err(|e| bad(e.into()))?;
        let number = |name: &str| -> Result<u64> {
            let found = meta.get(name).map_err(|e| bad(e.into()))?;
            Ok(found.map_or(0, |found| found.value()))
        };
        let (revision, last_lease) = (number("revision")?, number("lease")?);
        let mut leases = Vec::new();
        for row in read
            .open_table(LEASES)
            .map_err(|e| bad(e.into()))?
            .iter()
            .map_err(|e| bad(e.into()))?
        {
            let (id, ttl) = row.map_err(|e| bad(e.into()))?;
            let ttl = Duration::from_millis(ttl.value());
            leases.push(Lease {
                id: LeaseId(id.value()),
                ttl,
            });
        }
        let mut records = Vec::new();
        for row in read
            .open_table(RECORDS)
            .map_err(|e| bad(e.into()))?
            .iter()
            .map_err(|e| bad(e.into()))?
        {
            let (key, value) = row.map_err(|e| bad(e.into()))?;
            let (revision, lease, value) = value.value();
            records.push(Record {
                key: key.value().to_owned(),
                value: value.to_vec(),
                revision,
                lease: (lease != 0).then_some(LeaseId(lease)),
            });
        }
        Ok(Table::load(
            records.into_iter(),
            leases.into_iter(),
            revision,
            last_lease,
            Instant::now(),
        ))
    }

    /// Makes a batch safe.
    pub fn keep(&self, staged: &Staged) -> Result<()> {
        let failed = |why: String| ControlError::Storage {
            path: self.path.clone(),
            why,
        };
        match catch_unwind(AssertUnwindSafe(|| self.try_keep(staged))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed(
                "redb panicked; its message is in this process's output".to_owned(),
            )),
        }
    }

    fn try_keep(&self, staged: &Staged) -> std::result::Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut records = write.open_table(RECORDS)?;
            for (key, record) in &staged.records {
                match record {
                    Some((value, revision, lease)) => {
                        let lease = lease.map_or(0, |lease| lease.0);
                        records.insert(key.as_str(), (*revision, lease, &value[..]))?;
                    }
                    None => drop(records.remove(key.as_str())?),
                }
            }
            let mut leases = write.open_table(LEASES)?;
            for (id, ttl) in &staged.leases {
                match ttl {
                    Some(ttl) => drop(leases.insert(id.0, ttl.as_millis() as u64)?),
                    None => drop(leases.remove(id.0)?),
                }
            }
            let mut meta = write.open_table(META)?;
            meta.insert("revision", staged.revision)?;
            meta.insert("lease", staged.last_lease)?;
        }
        Ok(write.commit()?)
    }
}

fn damaged(path: &Path, why: impl ToString) -> ControlError {
    ControlError::Damaged {
        path: path.to_owned(),
        why: why.to_string(),
    }
}
