//! A served store that is smaller than what is put into it: objects go to disk and come back, and
//! creations wait for room.
//!
//! Left out: the disk itself, and its failures (`spill*`).
#![cfg(feature = "object-store")]

#[path = "store_common/mod.rs"]
mod common;

use std::time::Duration;

use common::{LONG, Scene, until};
use mobula::store::{ObjectId, Server, StoreError};

const MIB: usize = 1 << 20;
const CAPACITY: u64 = 16 << 20;

fn id(n: usize) -> ObjectId {
    ObjectId::from_name(&format!("object {n}"))
}

/// What object `n` holds.
fn bytes(n: usize) -> Vec<u8> {
    let mut bytes = vec![n as u8; MIB];
    for (i, piece) in bytes.chunks_exact_mut(64).enumerate() {
        piece[..8].copy_from_slice(&((i * 31 + n * 97) as u64).to_le_bytes());
    }
    bytes
}

fn scene(
    change: impl FnOnce(mobula::store::ServerOptions) -> mobula::store::ServerOptions,
) -> Scene {
    let folder = common::Folder::new();
    let options = Server::options().capacity(CAPACITY).patience(LONG);
    let options = change(options.spill(folder.join("disk")));
    let server = options.start(folder.join("socket")).unwrap();
    Scene {
        server: Some(server),
        folder,
    }
}

#[test]
fn three_times_the_capacity_is_kept_and_comes_back() {
    let scene = scene(|options| options);
    let client = scene.client();
    let held = {
        client.put_bytes(id(0), &bytes(0)).unwrap();
        client.get(id(0), None).unwrap()
    };
    for n in 1..48 {
        client.put_bytes(id(n), &bytes(n)).unwrap();
        // Small ones go between, sent whole.
        client.put_bytes(id(1000 + n), &[n as u8; 300]).unwrap();
    }
    let stats = client.stats().unwrap();
    assert!(stats.used <= CAPACITY, "{stats:?}");
    assert!(stats.on_disk >= 2 * CAPACITY - 2 * MIB as u64, "{stats:?}");
    assert_eq!(stats.objects, 95);
    std::thread::scope(|scope| {
        // Several at once, in different orders, each with a connection of its own.
        for t in 0..4 {
            let scene = &scene;
            scope.spawn(move || {
                let client = scene.client();
                for n in (0..48).map(|n| (n * 7 + t * 11) % 48) {
                    let object = client.get(id(n), Some(LONG)).unwrap();
                    assert!(object[..] == bytes(n), "object {n}");
                }
            });
        }
    });
    assert!(held[..] == bytes(0), "what is held stays in place");
    // What is on disk counts as there: a get that does not wait for a seal waits for the disk.
    for n in 1..48 {
        let object = client.get(id(n), Some(Duration::ZERO)).unwrap();
        assert!(object[..] == bytes(n));
        drop(object);
        client.delete(id(n)).unwrap();
        client.delete(id(1000 + n)).unwrap();
    }
    drop(held);
    client.delete(id(0)).unwrap();
    let stats = until("the disk to be empty", || {
        let stats = client.stats().unwrap();
        (stats.on_disk == 0 && stats.used == 0).then_some(stats)
    });
    assert_eq!((stats.objects, stats.objects_on_disk), (0, 0));
}

#[test]
fn a_creation_waits_for_room_and_keeps_nobody() {
    let scene = scene(|options| options);
    let (client, other) = (scene.client(), scene.client());
    let whole = CAPACITY as usize - 4 * MIB;
    let kept = client.create(id(0), whole).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.create(id(1), whole).unwrap().len());
        until("the creation to begin", || {
            (other.stats().unwrap().drafts == 2).then_some(())
        });
        // Others are served meanwhile, and its name is taken.
        let taken = other.put_bytes(id(1), b"x").unwrap_err();
        assert!(matches!(taken, StoreError::Exists { .. }));
        assert!(!waiting.is_finished());
        drop(kept);
        assert_eq!(waiting.join().unwrap(), whole);
    });
}

#[test]
fn a_client_that_dies_waiting_for_room_leaves_nothing() {
    let scene = scene(|options| options);
    let other = scene.client();
    let whole = CAPACITY as usize - 4 * MIB;
    let kept = other.create(id(0), whole).unwrap();
    let waiting = scene.client();
    let thread = std::thread::spawn(move || waiting.create(id(1), whole).is_ok());
    until("the creation to begin", || {
        (other.stats().unwrap().drafts == 2).then_some(())
    });
    drop(kept);
    assert!(thread.join().unwrap());
    let stats = until("its end", || {
        let stats = other.stats().unwrap();
        (stats.clients == 1 && stats.used == 0).then_some(stats)
    });
    assert_eq!((stats.drafts, stats.objects), (0, 0));
}

#[test]
fn patience_ends_with_numbers() {
    let scene = scene(|options| options.patience(Duration::from_millis(50)));
    let client = scene.client();
    let _kept = client.create(id(0), CAPACITY as usize - 4 * MIB).unwrap();
    let full = client.create(id(1), 8 * MIB).unwrap_err();
    assert!(
        matches!(
            full,
            StoreError::Full {
                capacity: CAPACITY,
                ..
            }
        ),
        "{full}"
    );
    assert_eq!(client.stats().unwrap().drafts, 1);
}

#[test]
fn a_damaged_file_is_an_error_for_its_objects_alone() {
    let scene = scene(|options| options);
    let client = scene.client();
    for n in 0..40 {
        client.put_bytes(id(n), &bytes(n)).unwrap();
    }
    damage(&scene.folder.join("disk"));
    let (mut lost, mut good) = (0, 0);
    for n in 0..40 {
        match client.get(id(n), Some(LONG)) {
            Ok(object) => {
                assert!(object[..] == bytes(n));
                good += 1;
            }
            Err(StoreError::Lost { id: lost_id, .. }) => {
                assert_eq!(lost_id, id(n));
                lost += 1;
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(lost > 0 && good > 0, "{lost} lost, {good} good");
    client
        .put_bytes(id(100), b"others are not concerned")
        .unwrap();
}

/// Changes a byte in the middle of each file below.
fn damage(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else if let Ok(mut bytes) = std::fs::read(&path)
            && bytes.len() > MIB
        {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}
