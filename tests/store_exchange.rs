//! Two processes that share only a socket: what one writes the other reads in place.
//!
//! The other process is this test's own executable, run again with the role in its environment.
//! Left out: deaths (`store_deaths`), bytes that are no protocol (`store_hostile`).

#[path = "store_common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Role, Scene, role};
use mobula::store::{Client, ObjectId, StoreError};

fn id(name: &str) -> ObjectId {
    ObjectId::from_name(name)
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 1000) as f32 * 0.5).collect()
}

#[test]
fn a_reader_waits_for_the_writers_seal() {
    if role("read").is_some() {
        let client = common::client();
        let object = client.get(id("small"), Some(common::LONG)).unwrap();
        assert_eq!(&*object, b"a few bytes");
        let view = client
            .view::<Vec<f32>>(id("large"), Some(common::LONG))
            .unwrap();
        assert_eq!(view.as_slice(), numbers(3 << 20));
        client.put_bytes(id("answer"), b"seen").unwrap();
        return;
    }
    let scene = Scene::new(64 << 20);
    let client = scene.client();
    let reader = scene.run(Role::Child("read"), "a_reader_waits_for_the_writers_seal");
    client.put_bytes(id("small"), b"a few bytes").unwrap();
    client.put(id("large"), &numbers(3 << 20)).unwrap();
    let answer = client.get(id("answer"), Some(common::LONG)).unwrap();
    assert_eq!(&*answer, b"seen");
    reader.succeeds();
}

#[test]
fn no_server_is_an_error_that_names_the_socket() {
    let refused = Client::connect("/nowhere/mobula.sock").unwrap_err();
    assert!(matches!(refused, StoreError::Gone { .. }));
    assert!(refused.to_string().contains("/nowhere/mobula.sock"));
}

#[test]
fn a_get_that_is_too_early_says_how_far_the_object_is() {
    let scene = Scene::new(1 << 20);
    let client = scene.client();
    let now = Some(Duration::ZERO);
    let absent = client.get(id("x"), now).unwrap_err();
    assert!(matches!(absent, StoreError::NotFound { .. }), "{absent}");
    let writing = client.create(id("x"), 10).unwrap();
    let early = client.get(id("x"), now).unwrap_err();
    assert!(matches!(early, StoreError::NotSealed { .. }), "{early}");
    let late = client.get(id("x"), Some(Duration::from_millis(20)));
    assert!(matches!(late.unwrap_err(), StoreError::Deadline { .. }));
    writing.seal().unwrap();
    assert_eq!(client.get(id("x"), now).unwrap().len(), 10);
}
