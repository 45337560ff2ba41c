//! Xtra, spawned on tokio with unbounded mailboxes.

use xtra::prelude::*;

use crate::actors::{Alive, Peer};

struct Counter {
    total: u64,
    alive: Option<Alive>,
}

impl Actor for Counter {
    type Stop = ();

    async fn started(&mut self, _: &Mailbox<Self>) -> Result<(), ()> {
        self.alive = Some(Alive::new());
        Ok(())
    }

    async fn stopped(self) {}
}

struct Add(u64);

impl Handler<Add> for Counter {
    type Return = u64;

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.total += n;
        self.total
    }
}

/// An address of the actor.
pub struct Xtra(Address<Counter>);

impl Peer for Xtra {
    /// Its mailbox is a heap by priority, which mixes messages of the same one.
    const ORDERED: bool = false;

    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::inside(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::outside(client)
    }

    async fn start() -> Self {
        let counter = Counter {
            total: 0,
            alive: None,
        };
        Xtra(xtra::spawn_tokio(counter, Mailbox::unbounded()))
    }

    async fn ask(&self, n: u64) -> u64 {
        self.0.send(Add(n)).await.expect("the actor is alive")
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        let answered = self
            .0
            .send(Add(n))
            .detach()
            .await
            .expect("the actor is alive");
        async { answered.await.expect("an answer") }
    }

    async fn tell(&self, n: u64) {
        drop(
            self.0
                .send(Add(n))
                .detach()
                .await
                .expect("the actor is alive"),
        );
    }
}
