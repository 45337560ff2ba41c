//! Ractor on tokio, without its message spans.

use ractor::concurrency::oneshot;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::actors::{Alive, Peer};

struct Counter;

struct State {
    total: u64,
    _alive: Alive,
}

enum Message {
    Add(u64, RpcReplyPort<u64>),
    Tell(u64),
}

impl Actor for Counter {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        Ok(State {
            total: 0,
            _alive: Alive::new(),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tell(n) => state.total += n,
            Message::Add(n, answer) => {
                state.total += n;
                answer.send(state.total)?;
            }
        }
        Ok(())
    }
}

/// A reference to the actor.
pub struct Ractor(ActorRef<Message>);

impl Peer for Ractor {
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::inside(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::outside(client)
    }

    async fn start() -> Self {
        Ractor(
            Counter::spawn(None, Counter, ())
                .await
                .expect("a started actor")
                .0,
        )
    }

    async fn ask(&self, n: u64) -> u64 {
        let answer = self.0.call(|port| Message::Add(n, port), None).await;
        answer.expect("the actor is alive").expect("an answer")
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        let (answer, answered) = oneshot();
        self.0
            .cast(Message::Add(n, answer.into()))
            .expect("the actor is alive");
        async { answered.await.expect("an answer") }
    }

    async fn tell(&self, n: u64) {
        self.0.cast(Message::Tell(n)).expect("the actor is alive");
    }

    fn stop(self) {
        self.0.stop(None);
    }
}
