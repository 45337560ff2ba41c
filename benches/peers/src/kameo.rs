//! Kameo without its tracing, with unbounded mailboxes.

use kameo::Actor;
use kameo::actor::{ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox::unbounded;
use kameo::message::{Context, Message};

use crate::actors::{Alive, Peer};

struct Counter {
    total: u64,
    _alive: Alive,
}

impl Actor for Counter {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Counter {
            total: 0,
            _alive: Alive::new(),
        })
    }
}

struct Add(u64);

impl Message<Add> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self, u64>) -> u64 {
        self.total += n;
        self.total
    }
}

/// A reference to the actor.
pub struct Kameo(ActorRef<Counter>);

impl Peer for Kameo {
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::inside(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::outside(client)
    }

    async fn start() -> Self {
        Kameo(Counter::spawn_with_mailbox((), unbounded()))
    }

    async fn ask(&self, n: u64) -> u64 {
        self.0.ask(Add(n)).await.expect("an answer")
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        let answered = self
            .0
            .ask(Add(n))
            .enqueue()
            .await
            .expect("the actor is alive");
        async { answered.await.expect("an answer") }
    }

    async fn tell(&self, n: u64) {
        self.0.tell(Add(n)).await.expect("the actor is alive");
    }
}
