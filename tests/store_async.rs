//! The async client: the same store, awaited.
//!
//! Left out: what is shared with the blocking client (`store_exchange`).
#![cfg(feature = "async")]

#[path = "store_common/mod.rs"]
mod common;

use std::time::Duration;

use common::{LONG, Scene, until};
use mobula::store::{AsyncClient, Event, ObjectId, ObjectState, Server, StoreError};

fn id(n: usize) -> ObjectId {
    ObjectId::from_name(&format!("object {n}"))
}

/// As [`until`], while the runtime goes on.
async fn until_async(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    if waited.await.is_err() {
        panic!("waited {LONG:?} for {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_gets_wait_at_once_on_one_connection() {
    let scene = Scene::new(64 << 20);
    let client = AsyncClient::connect(scene.socket()).await.unwrap();
    let gets: Vec<_> = (0..200)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.view::<Vec<u64>>(id(n), Some(LONG)).await })
        })
        .collect();
    for n in (0..200).rev() {
        client.put(id(n), &vec![n as u64; n * 40]).await.unwrap();
    }
    for (n, get) in gets.into_iter().enumerate() {
        assert_eq!(
            get.await.unwrap().unwrap().as_slice(),
            vec![n as u64; n * 40]
        );
    }
    assert_eq!(client.list().await.unwrap().len(), 200);
    assert!(client.contains(id(7)).await.unwrap());
    let one = client.get(id(7), None).await.unwrap();
    assert_eq!(
        client.hash(id(7)).await.unwrap(),
        mobula::store::content_hash(&one)
    );
}

#[tokio::test]
async fn a_get_that_is_dropped_leaves_nothing_pinned() {
    let scene = Scene::new(1 << 20);
    let client = AsyncClient::connect(scene.socket()).await.unwrap();
    let waiting = client.get(id(1), None);
    let dropped = tokio::time::timeout(Duration::from_millis(20), waiting).await;
    assert!(dropped.is_err());
    let blocking = scene.client();
    until("the wait to be given up", || {
        (blocking.stats().unwrap().waiting == 0).then_some(())
    });
    client.put_bytes(id(1), b"late").await.unwrap();
    let stats = client.stats().await.unwrap();
    assert_eq!((stats.pinned, stats.objects), (0, 1));
    // As a race: whichever comes first, the answer or the drop, nothing stays.
    for n in 2..100 {
        let (get, put) = (client.get(id(n), None), client.put_bytes(id(n), b"x"));
        tokio::select! {
            got = get => drop(got.unwrap()),
            done = put => done.unwrap(),
        }
    }
    // The runtime must go on: an answer that nobody wants is read, and given back, by a task of it.
    until_async("all pins to be given back", async || {
        blocking.stats().unwrap().pinned == 0
    })
    .await;
}

#[tokio::test]
async fn a_creation_that_is_dropped_leaves_no_object() {
    let folder = common::Folder::new();
    let options = Server::options().capacity(1 << 20).patience(LONG);
    let scene = Scene {
        server: Some(options.start(folder.join("socket")).unwrap()),
        folder,
    };
    let client = AsyncClient::connect(scene.socket()).await.unwrap();
    let blocking = scene.client();
    for len in [100_000, 1_000] {
        let all = blocking.create(id(0), 1 << 20).unwrap();
        let waiting = client.create(id(1), len);
        let dropped = tokio::time::timeout(Duration::from_millis(20), waiting).await;
        assert!(dropped.is_err(), "there is no room");
        all.abort().unwrap();
        until_async("the name to be free again", async || {
            client.state(id(1)).await.unwrap() == ObjectState::Absent
        })
        .await;
        assert_eq!(client.stats().await.unwrap().used, 0);
    }
}

#[tokio::test]
async fn writing_events_and_errors() {
    let scene = Scene::new(4 << 20);
    let client = AsyncClient::connect(scene.socket()).await.unwrap();
    let mut events = client.subscribe().await.unwrap();
    for len in [10, 1 << 20] {
        let mut writing = client.create(id(len), len).await.unwrap();
        writing.write_at(len - 3, b"end");
        let taken = client.create(id(len), 1).await.unwrap_err();
        assert!(matches!(taken, StoreError::Exists { .. }));
        writing.seal().await.unwrap();
        let event = events.recv().await.unwrap();
        let sealed = Event::Sealed {
            id: id(len),
            len: len as u64,
        };
        assert_eq!(event, sealed);
        assert!(client.get(id(len), None).await.unwrap().ends_with(b"end"));
        client.delete(id(len)).await.unwrap();
        let deleted = Event::Deleted { id: id(len) };
        assert_eq!(events.recv().await.unwrap(), deleted);
    }
    client
        .create(id(0), 9)
        .await
        .unwrap()
        .abort()
        .await
        .unwrap();
    let late = client.get(id(0), Some(Duration::from_millis(5))).await;
    assert!(matches!(late.unwrap_err(), StoreError::Deadline { .. }));
    assert_eq!(client.evict(1).await.unwrap(), 0);
}

#[tokio::test]
async fn the_servers_end_wakes_all_that_wait() {
    let mut scene = Scene::new(1 << 20);
    let client = AsyncClient::connect(scene.socket()).await.unwrap();
    client.put_bytes(id(0), b"stays readable").await.unwrap();
    let held = client.get(id(0), None).await.unwrap();
    let mut events = client.subscribe().await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get(id(1), None).await }
    });
    let server = scene.server.take().unwrap();
    let stopped = tokio::task::spawn_blocking(move || server.shutdown());
    let gone = waiting.await.unwrap().unwrap_err();
    assert!(matches!(gone, StoreError::Gone { .. }), "{gone}");
    assert!(matches!(events.recv().await, Err(StoreError::Gone { .. })));
    stopped.await.unwrap();
    assert!(matches!(client.stats().await, Err(StoreError::Gone { .. })));
    assert_eq!(&*held, b"stays readable");
}
