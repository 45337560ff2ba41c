//! Actix: an actor lives on one thread, and so do its users unless they mean not to.

use actix::prelude::*;

use crate::actors::{Alive, Peer};
use crate::{BATCH, TELLS};

struct Counter {
    total: u64,
    alive: Option<Alive>,
}

impl Counter {
    /// An actor whose mailbox holds all that is sent; by default the 17th message waits outside.
    fn new(context: &mut Context<Self>) -> Self {
        context.set_mailbox_capacity(BATCH.max(TELLS) as usize);
        Counter {
            total: 0,
            alive: None,
        }
    }
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.alive = Some(Alive::new());
    }
}

struct Add(u64);

impl Message for Add {
    type Result = u64;
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.total += n;
        self.total
    }
}

/// The address of an actor on the thread of its client.
pub struct Actix(Addr<Counter>);

impl Peer for Actix {
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        System::new().block_on(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        System::new().block_on(client)
    }

    async fn start() -> Self {
        Actix(Counter::create(Counter::new))
    }

    async fn ask(&self, n: u64) -> u64 {
        self.0.send(Add(n)).await.expect("an answer")
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        let answered = self.0.send(Add(n));
        async { answered.await.expect("an answer") }
    }

    async fn tell(&self, n: u64) {
        self.0.do_send(Add(n));
    }
}

/// The address of an actor on a thread of its own.
pub struct Apart(Actix, Arbiter);

impl Peer for Apart {
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        Actix::inside(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        Actix::outside(client)
    }

    async fn start() -> Self {
        let arbiter = Arbiter::new();
        let counter = Counter::start_in_arbiter(&arbiter.handle(), Counter::new);
        let apart = Apart(Actix(counter), arbiter);
        apart.ask(0).await; // from now on its mailbox has room
        apart
    }

    async fn ask(&self, n: u64) -> u64 {
        self.0.ask(n).await
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        self.0.call(n).await
    }

    async fn tell(&self, n: u64) {
        self.0.tell(n).await;
    }

    fn stop(self) {
        self.1.stop();
        self.1.join().expect("no panic");
    }
}
