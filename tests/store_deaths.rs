//! Clients and servers that die at each point: what they held is given back, what was sealed stays.
//!
//! A child process brings itself into a state, says so by a file, and is killed. Left out: kills at
//! random moments (`store_stress`).

#[path = "store_common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{LONG, Role, Running, Scene, role, until};
use mobula::store::{Client, ObjectId, ServedStats, Server, StoreError};

const MIB: usize = 1 << 20;

fn id(name: &str) -> ObjectId {
    ObjectId::from_name(name)
}

/// In a child: the state is reached; now only a kill ends it.
fn await_death() -> ! {
    std::fs::write(ready_file(common::socket()), "").unwrap();
    loop {
        std::thread::park();
    }
}

fn ready_file(socket: PathBuf) -> PathBuf {
    socket.with_extension("ready")
}

/// Starts a child in this role, waits until it is there, and kills it.
fn kill_at(scene: &Scene, state: &'static str, test: &str) {
    let ready = ready_file(scene.socket());
    let _ = std::fs::remove_file(&ready);
    let mut child = scene.run(Role::Told("die", state.to_owned()), test);
    until("the child's state", || {
        child.still_runs();
        ready.exists().then_some(())
    });
    child.kill_unless_failed();
}

/// The counts once only the asking client is left.
fn alone(client: &Client) -> ServedStats {
    until("the death to be noticed", || {
        let stats = client.stats().unwrap();
        (stats.clients == 1).then_some(stats)
    })
}

#[test]
fn what_a_dead_client_held_is_given_back() {
    const TEST: &str = "what_a_dead_client_held_is_given_back";
    if let Some(state) = role("die") {
        die(&state);
    }
    let scene = Scene::new(64 << 20);
    let client = scene.client();
    client.put_bytes(id("there"), &vec![7; 3 * MIB]).unwrap();
    let before = client.stats().unwrap();
    for state in [
        "connected",
        "small draft",
        "large draft",
        "half written",
        "written",
        "waiting",
        "waiting for a time",
        "pinned",
        "subscribed",
        "much",
    ] {
        kill_at(&scene, state, TEST);
        let after = alone(&client);
        assert_eq!(
            (after.drafts, after.pinned, after.deleted),
            (0, 0, 0),
            "{state}"
        );
        assert_eq!((after.waiting, after.subscribers), (0, 0), "{state}");
        assert_eq!(
            (after.used, after.objects),
            (before.used, before.objects),
            "{state}"
        );
        // Names are free again, and so is the memory.
        for name in ["small", "large"] {
            client.put_bytes(id(name), &vec![1; 2 * MIB]).unwrap();
            client.delete(id(name)).unwrap();
        }
    }
    kill_at(&scene, "deleted while pinned", TEST);
    let after = alone(&client);
    assert_eq!((after.used, after.objects, after.deleted), (0, 0, 0));
    kill_at(&scene, "sealed", TEST);
    assert_eq!(alone(&client).objects, 2);
    assert_eq!(
        client.get(id("large"), Some(LONG)).unwrap()[..],
        vec![9; 2 * MIB]
    );
    assert_eq!(client.get(id("small"), Some(LONG)).unwrap()[..], *b"sealed");
}

/// The states of the test above.
fn die(state: &str) -> ! {
    let client = common::client();
    let large = || client.create(id("large"), 2 * MIB).unwrap();
    let now = Some(Duration::ZERO);
    let _held: Box<dyn std::any::Any> = match state {
        "connected" => Box::new(()),
        "small draft" => Box::new(client.create(id("small"), 10).unwrap()),
        "large draft" => Box::new(large()),
        "half written" => {
            let mut writing = large();
            writing[..MIB].fill(1);
            Box::new(writing)
        }
        "written" => {
            let mut writing = large();
            writing.fill(1);
            Box::new(writing)
        }
        "waiting" | "waiting for a time" => {
            let timeout = (state != "waiting").then_some(Duration::from_secs(3600));
            let other = client.clone();
            std::thread::spawn(move || other.get(id("never"), timeout));
            until("the wait", || {
                (client.stats().unwrap().waiting == 1).then_some(())
            });
            Box::new(())
        }
        "pinned" => Box::new([0; 3].map(|_| client.get(id("there"), now).unwrap())),
        "subscribed" => Box::new(client.subscribe().unwrap()),
        "deleted while pinned" => {
            let held = client.get(id("there"), now).unwrap();
            client.delete(id("there")).unwrap();
            assert!(held.iter().all(|byte| *byte == 7));
            Box::new(held)
        }
        "sealed" => {
            let mut writing = large();
            writing.fill(9);
            writing.seal().unwrap();
            client.put_bytes(id("small"), b"sealed").unwrap();
            Box::new(())
        }
        "much" => {
            let drafts: Vec<_> = (0..200)
                .map(|n| client.create(ObjectId::random(), n * 1000).unwrap())
                .collect();
            let pins: Vec<_> = (0..200)
                .map(|_| client.get(id("there"), now).unwrap())
                .collect();
            Box::new((drafts, pins, client.subscribe().unwrap()))
        }
        other => panic!("no state {other}"),
    };
    await_death()
}

#[test]
fn a_dead_writers_waiting_readers_wait_for_the_next_writer() {
    const TEST: &str = "a_dead_writers_waiting_readers_wait_for_the_next_writer";
    if role("die").is_some() {
        let client = common::client();
        let _writing = client.create(id("x"), MIB).unwrap();
        await_death();
    }
    let scene = Scene::new(16 << 20);
    let client = scene.client();
    let other = client.clone();
    let reader = std::thread::spawn(move || other.get(id("x"), Some(LONG)).unwrap().len());
    kill_at(&scene, "", TEST);
    alone(&client);
    client.put_bytes(id("x"), b"second").unwrap();
    assert_eq!(reader.join().unwrap(), 6);
}

#[test]
fn a_served_store_ends_with_its_server() {
    const TEST: &str = "a_served_store_ends_with_its_server";
    if role("serve").is_some() {
        let socket = common::socket();
        let _server = Server::options().capacity(16 << 20).start(&socket).unwrap();
        await_death();
    }
    let mut scene = Scene::new(1 << 20);
    scene.server.take().unwrap().shutdown();
    assert!(!scene.socket().exists(), "the socket is removed");

    let ready = ready_file(scene.socket());
    let start = || -> Running {
        let _ = std::fs::remove_file(&ready);
        let child = scene.run(Role::Child("serve"), TEST);
        until("the server", || ready.exists().then_some(()));
        child
    };
    let mut server = start();
    let client = scene.client();
    client.put_bytes(id("kept"), &vec![5; MIB]).unwrap();
    let held = client.get(id("kept"), None).unwrap();
    let writing = client.create(id("unfinished"), MIB).unwrap();
    let events = client.subscribe().unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || client.get(id("never"), None).unwrap_err())
        })
        .collect();
    until("the waits", || {
        (client.stats().unwrap().waiting == 4).then_some(())
    });
    server.kill_unless_failed();

    let since = Instant::now();
    for thread in waiting {
        let gone = thread.join().unwrap();
        assert!(matches!(gone, StoreError::Gone { .. }), "{gone}");
        let named = gone
            .to_string()
            .contains(&scene.socket().display().to_string());
        assert!(named, "{gone}");
    }
    assert_eq!(events.count(), 0);
    assert!(matches!(writing.seal(), Err(StoreError::Gone { .. })));
    for _ in 0..2 {
        let gone = client.get(id("kept"), None).unwrap_err();
        assert!(matches!(gone, StoreError::Gone { .. }), "{gone}");
    }
    assert!(since.elapsed() < LONG);
    assert!(
        held.iter().all(|byte| *byte == 5),
        "what is held stays readable"
    );

    assert!(scene.socket().exists(), "killed, it left its socket behind");
    assert!(matches!(
        Client::connect(scene.socket()),
        Err(StoreError::Gone { .. })
    ));
    let _next = start();
    assert_eq!(scene.client().stats().unwrap().objects, 0);
}

#[test]
fn a_socket_has_one_server() {
    let scene = Scene::new(1 << 20);
    let second = Server::options().capacity(1 << 20).start(scene.socket());
    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "{second:?}"
    );
    scene.client().stats().unwrap();

    let file = scene.folder.join("file");
    std::fs::write(&file, "mine").unwrap();
    let refused = Server::options()
        .capacity(1 << 20)
        .start(&file)
        .unwrap_err();
    assert!(refused.to_string().contains("no socket"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");

    // Of many that start at once over a dead one's socket, one serves.
    let stale = scene.folder.join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let stale = stale.clone();
            std::thread::spawn(move || Server::options().capacity(1 << 20).start(stale))
        })
        .collect();
    let started: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
    assert_eq!(
        started.iter().filter(|s| s.is_ok()).count(),
        1,
        "{started:?}"
    );
    Client::connect(&stale).unwrap().stats().unwrap();
}
