//! Eight client processes create, seal, get and delete, and are killed at random moments, while all of
//! them verify every byte they read. Afterwards: no torn read, no sealed object lost, nothing left.
//!
//! Runs for three seconds; `MOBULA_STRESS_SECS=3600` makes it an hour. Each client writes what it
//! sealed, and what it is about to delete, to a file of its own, one system call each, so that a kill
//! leaves a true record. Left out: single deaths at chosen points (`store_deaths`).

#[path = "store_common/mod.rs"]
mod common;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use common::{LONG, Role, Running, Scene, role, until};
use mobula::store::{Client, Object, ObjectId, StoreError};

const CLIENTS: usize = 8;
const CAPACITY: u64 = 64 << 20;
const TEST: &str = "clients_killed_at_random_moments_lose_and_tear_nothing";

/// Names that all clients fight for; the record leaves them out.
const CONTENDED: u64 = 16;

#[test]
fn clients_killed_at_random_moments_lose_and_tear_nothing() {
    if let Some(told) = role("client") {
        return Worker::new(&told).run();
    }
    let secs = std::env::var("MOBULA_STRESS_SECS").ok();
    let secs = secs.map_or(3.0, |s| s.parse::<f64>().expect("a number of seconds"));
    let seed = std::env::var("MOBULA_STRESS_SEED").ok();
    let seed = seed.map_or(u64::from(std::process::id()), |s| {
        s.parse().expect("a number")
    });
    println!("stress: {secs} s with MOBULA_STRESS_SEED={seed}");

    let scene = Scene::new(CAPACITY);
    let mut rng = Rng(seed);
    let mut started = 0;
    let mut start = |rng: &mut Rng| -> Running {
        started += 1;
        let record = scene.folder.join(&format!("record-{started}"));
        let told = format!("{} {}", rng.next(), record.display());
        scene.run(Role::Told("client", told), TEST)
    };
    let mut clients: Vec<Running> = (0..CLIENTS).map(|_| start(&mut rng)).collect();
    let end = Instant::now() + Duration::from_secs_f64(secs);
    let mut killed = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(rng.below(60)));
        let victim = rng.below(CLIENTS as u64) as usize;
        clients[victim].kill_unless_failed();
        killed += 1;
        clients[victim] = start(&mut rng);
    }
    // One that verified in vain has ended by itself, with a panic.
    for client in &mut clients {
        client.kill_unless_failed();
    }
    verify(&scene, killed);
}

/// What must hold when all clients are dead.
fn verify(scene: &Scene, killed: u32) {
    let client = scene.client();
    let stats = until("the clients' ends to be noticed", || {
        let stats = client.stats().unwrap();
        (stats.clients == 1).then_some(stats)
    });
    assert_eq!((stats.drafts, stats.pinned, stats.deleted), (0, 0, 0));
    let (mut sealed, mut deleted) = (HashSet::new(), HashSet::new());
    for record in std::fs::read_dir(scene.folder.path()).unwrap() {
        let path = record.unwrap().path();
        if !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("record")
        {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let (what, id) = line.split_once(' ').unwrap();
            let id: ObjectId = id.parse().unwrap();
            match what {
                "sealed" => sealed.insert(id),
                "deletes" => deleted.insert(id),
                _ => panic!("a record says {line}"),
            };
        }
    }
    let listed = client.list().unwrap();
    let there: HashSet<ObjectId> = listed.iter().map(|object| object.id).collect();
    let lost: Vec<_> = sealed
        .difference(&deleted)
        .filter(|id| !there.contains(id))
        .collect();
    assert!(lost.is_empty(), "sealed, never deleted, and gone: {lost:?}");
    for object in &listed {
        assert!(object.sealed && object.pins == 0, "{object:?}");
        verify_bytes(object.id, &client.get(object.id, Some(LONG)).unwrap());
        client.delete(object.id).unwrap();
    }
    let stats = client.stats().unwrap();
    assert_eq!((stats.used, stats.objects), (0, 0), "{stats:?}");
    println!(
        "stress: {killed} kills, {} objects sealed, {} recorded, {} deletions, {} left at the end",
        stats.sealed,
        sealed.len(),
        deleted.len(),
        listed.len()
    );
    assert!(stats.sealed > 0 && killed > 0);
}

/// One client process.
struct Worker {
    client: Client,
    rng: Rng,
    record: File,
    held: VecDeque<Object>,
}

impl Worker {
    fn new(told: &str) -> Worker {
        let (seed, record) = told.split_once(' ').unwrap();
        Worker {
            client: common::client(),
            rng: Rng(seed.parse().unwrap()),
            record: File::create(record).unwrap(),
            held: VecDeque::new(),
        }
    }

    /// Works until it is killed.
    fn run(mut self) {
        loop {
            match self.rng.below(10) {
                0..=3 => self.make(),
                4 => self.make_contended(),
                5..=7 => self.read(),
                8 => self.delete_some(1),
                _ => self.let_go(),
            }
        }
    }

    fn len(&mut self) -> usize {
        let most = [100, 4 << 10, 40 << 10, 300 << 10, 2 << 20];
        let most = most[self.rng.below(5) as usize];
        self.rng.below(most) as usize
    }

    fn make(&mut self) {
        let id = ObjectId::random();
        if self.write(id) {
            self.note("sealed", id);
        }
    }

    fn make_contended(&mut self) {
        let id = contended(self.rng.below(CONTENDED));
        self.write(id);
    }

    /// Writes an object, unless it changes its mind; whether it is sealed.
    fn write(&mut self, id: ObjectId) -> bool {
        let len = self.len();
        if len < 1000 && self.rng.below(2) == 0 {
            let mut bytes = vec![0; len];
            fill(id, &mut bytes);
            return self.made(self.client.put_bytes(id, &bytes)).is_some();
        }
        let Some(mut writing) = self.made(self.client.create(id, len)) else {
            return false;
        };
        fill(id, &mut writing);
        if self.rng.below(8) == 0 {
            drop(writing);
            return false;
        }
        writing.seal().unwrap();
        true
    }

    fn made<T>(&mut self, made: Result<T, StoreError>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(StoreError::Exists { .. }) => None,
            Err(StoreError::Full { .. }) => {
                self.held.clear();
                self.delete_some(8);
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// One of the objects that are there.
    fn choose(&mut self) -> Option<ObjectId> {
        let listed = self.client.list().unwrap();
        if listed.is_empty() {
            return None;
        }
        let n = self.rng.below(listed.len() as u64) as usize;
        Some(listed[n].id)
    }

    fn read(&mut self) {
        let Some(id) = self.choose() else {
            return;
        };
        let patience = Duration::from_millis(self.rng.below(3));
        match self.client.get(id, Some(patience)) {
            Ok(object) => {
                verify_bytes(id, &object);
                self.held.push_back(object);
            }
            Err(
                StoreError::NotFound { .. }
                | StoreError::NotSealed { .. }
                | StoreError::Deadline { .. },
            ) => {}
            Err(e) => panic!("{e}"),
        }
        if self.held.len() > 8 {
            self.let_go();
        }
    }

    /// What was held all the while has not changed.
    fn let_go(&mut self) {
        if let Some(object) = self.held.pop_front() {
            verify_bytes(object.id(), &object);
        }
    }

    fn delete_some(&mut self, n: usize) {
        for _ in 0..n {
            let Some(id) = self.choose() else {
                return;
            };
            self.note("deletes", id);
            match self.client.delete(id) {
                Ok(()) | Err(StoreError::NotFound { .. } | StoreError::NotSealed { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn note(&mut self, what: &str, id: ObjectId) {
        if (0..CONTENDED).all(|n| id != contended(n)) {
            let line = format!("{what} {id}\n");
            assert_eq!(self.record.write(line.as_bytes()).unwrap(), line.len());
        }
    }
}

fn contended(n: u64) -> ObjectId {
    ObjectId::from_name(&format!("contended {n}"))
}

/// The bytes that an object of this name and length has.
fn word(id: ObjectId, len: usize, i: usize) -> u64 {
    let key = u128::from_le_bytes(id.0) as u64 ^ (len as u64).rotate_left(32);
    (key ^ i as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

fn fill(id: ObjectId, bytes: &mut [u8]) {
    let len = bytes.len();
    for (i, piece) in bytes.chunks_mut(8).enumerate() {
        piece.copy_from_slice(&word(id, len, i).to_le_bytes()[..piece.len()]);
    }
}

fn verify_bytes(id: ObjectId, bytes: &[u8]) {
    for (i, piece) in bytes.chunks(8).enumerate() {
        let right = &word(id, bytes.len(), i).to_le_bytes()[..piece.len()];
        assert_eq!(
            piece,
            right,
            "object {id} of {} bytes, word {i}",
            bytes.len()
        );
    }
}

/// Enough of randomness for a test, the same for the same seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}
