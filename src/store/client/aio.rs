//! The same client for async programs.
//!
//! Where the blocking client's threads read the socket in turn, here one task does, on the tokio
//! runtime that connected; it ends with the last handle. Everything else is shared with the blocking
//! client. Invariant: a future that is dropped leaves nothing pinned. Left out: copying off the
//! executor: filling memory takes the time it takes.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::archive::{self, First};
use super::events::{Event, Subscription};
use super::link::Link;
use super::object::{Object, StoreView};
use super::writing::Writing;
use super::{ObjectInfo, SMALL, denied, done, found, nanos, page, unexpected};
use crate::base::{ObjectId, ObjectState, StoreError};
use crate::store::proto::{Answer, Request, ServedStats};
use crate::value::Value;

/// A connection to a served store, as [`Client`](super::Client), whose calls are awaited.
///
/// Belongs to the tokio runtime in which it connected. Clones share the connection. What fills or
/// reads memory does so where it is called: copying a gigabyte occupies the executor for as long.
///
/// ```
/// use mobula::store::{AsyncClient, ObjectId, Server};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let socket = std::env::temp_dir().join(format!("mobula-doc-async-{}", std::process::id()));
/// let server = Server::options().capacity(1 << 20).start(&socket)?;
///
/// let client = AsyncClient::connect(&socket).await?;
/// let id = ObjectId::from_name("numbers");
/// let (put, view) = tokio::join!(
///     client.put(id, &vec![1u32, 2, 3]),
///     client.view::<Vec<u32>>(id, None), // waits for the put
/// );
/// put?;
/// assert_eq!(view?.as_slice(), [1, 2, 3]);
/// # server.shutdown();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AsyncClient {
    link: Arc<Link>,
    /// Says when to read and to send; the link does.
    socket: Arc<UnixStream>,
}

impl AsyncClient {
    /// Connects, as [`Client::connect`](super::Client::connect) does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its IO enabled.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<AsyncClient, StoreError> {
        let path = socket.as_ref().to_owned();
        let connecting = tokio::task::spawn_blocking(move || {
            let greeted = super::greet::connect(&path, None)?;
            Ok(Arc::new(Link::new(&path, greeted)))
        });
        let link = match connecting.await {
            Ok(connected) => connected?,
            Err(e) => return Err(os("connecting", io::Error::other(e))),
        };
        let socket = link.socket().and_then(|s| UnixStream::from_std(s.into()));
        let socket = Arc::new(socket.map_err(|e| os("watching the socket", e))?);
        tokio::spawn(read_all(Arc::downgrade(&link), socket.clone()));
        Ok(AsyncClient { link, socket })
    }

    /// Begins an object, as [`Client::create`](super::Client::create) does.
    ///
    /// # Errors
    /// As there.
    pub async fn create(&self, id: ObjectId, len: usize) -> Result<AsyncWriting, StoreError> {
        let create = Request::Create {
            id,
            len: len as u64,
        };
        let answer = denied(id, len, Duration::ZERO, self.call(create).await?)?;
        let writing = Writing::new(&self.link, id, len, answer)?;
        let client = self.clone();
        Ok(AsyncWriting { writing, client })
    }

    /// Makes an object of these bytes, as [`Client::put_bytes`](super::Client::put_bytes) does.
    ///
    /// # Errors
    /// As there.
    pub async fn put_bytes(&self, id: ObjectId, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() <= SMALL {
            let answer = self.call(Request::Put { id, bytes }).await?;
            return done(denied(id, bytes.len(), Duration::ZERO, answer)?);
        }
        let mut writing = self.create(id, bytes.len()).await?;
        writing.write_at(0, bytes);
        writing.seal().await
    }

    /// Makes an object of a value, as [`Client::put`](super::Client::put) does.
    ///
    /// # Errors
    /// As there.
    pub async fn put<T: Value + Sync>(&self, id: ObjectId, value: &T) -> Result<(), StoreError> {
        let len = match archive::measure(value)? {
            First::Bytes(bytes) => return self.put_bytes(id, &bytes).await,
            First::Measured(len) => len,
        };
        let mut writing = self.create(id, len).await?;
        archive::write(value, &mut writing.writing)?;
        writing.seal().await
    }

    /// Waits until the object is sealed, as [`Client::get`](super::Client::get) does.
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, id: ObjectId, timeout: Option<Duration>) -> Result<Object, StoreError> {
        let nanos = nanos(timeout);
        let answer = self.call(Request::Get { id, nanos }).await?;
        found(&self.link, id, timeout, answer)
    }

    /// As [`get`](Self::get), for a value: validated once, then read in place.
    ///
    /// # Errors
    /// As for [`Client::view`](super::Client::view).
    pub async fn view<T: Value>(
        &self,
        id: ObjectId,
        timeout: Option<Duration>,
    ) -> Result<StoreView<T>, StoreError> {
        self.get(id, timeout).await?.view()
    }

    /// How far an object is.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub async fn state(&self, id: ObjectId) -> Result<ObjectState, StoreError> {
        match self.call(Request::State { id }).await? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether there is a sealed object of this name.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub async fn contains(&self, id: ObjectId) -> Result<bool, StoreError> {
        Ok(self.state(id).await? == ObjectState::Sealed)
    }

    /// Deletes an object, as [`Client::delete`](super::Client::delete) does.
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, id: ObjectId) -> Result<(), StoreError> {
        let answer = self.call(Request::Delete { id }).await?;
        done(denied(id, 0, Duration::ZERO, answer)?)
    }

    /// All objects, as [`Client::list`](super::Client::list) gives them.
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        while page(
            self.call(Request::List { after }).await?,
            &mut all,
            &mut after,
        )? {}
        Ok(all)
    }

    /// Deletes objects that nobody holds, as [`Client::evict`](super::Client::evict) does.
    ///
    /// # Errors
    /// As there.
    pub async fn evict(&self, bytes: u64) -> Result<u64, StoreError> {
        match self.call(Request::Evict { bytes }).await? {
            Answer::Freed { bytes } => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells of every seal and deletion from now on.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub async fn subscribe(&self) -> Result<AsyncSubscription, StoreError> {
        let (events, seq) = super::subscribe(&self.link)?;
        done(self.answer(seq).await?)?;
        Ok(AsyncSubscription { events })
    }

    /// Counts of the store.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub async fn stats(&self) -> Result<ServedStats, StoreError> {
        match self.call(Request::Stats).await? {
            Answer::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// The hash of an object's bytes, as [`Client::hash`](super::Client::hash) gives it. Computed
    /// here and now.
    ///
    /// # Errors
    /// As there.
    pub async fn hash(&self, id: ObjectId) -> Result<u128, StoreError> {
        let object = self.get(id, Some(Duration::ZERO)).await?;
        Ok(super::content_hash(&object))
    }

    async fn call(&self, request: Request<'_>) -> Result<Answer, StoreError> {
        let seq = self.link.ask(request)?;
        self.answer(seq).await
    }

    async fn answer(&self, seq: u64) -> Result<Answer, StoreError> {
        // Dropped before the answer has come, it sees to it that nothing stays pinned.
        let mut wanted = Wanted {
            link: &self.link,
            seq: Some(seq),
        };
        while !self.link.send_some()? {
            let ready = self.socket.writable().await;
            ready.map_err(|e| self.link.gone(e))?;
            // Tells the runtime whether the socket takes more; what is left is sent above.
            let _ = self
                .socket
                .try_io(Interest::WRITABLE, || match self.link.send_some() {
                    Ok(true) | Err(_) => Ok(()),
                    Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                });
        }
        let answer = poll_fn(|cx| {
            let mut state = self.link.state();
            if let Some(answer) = state.take(seq) {
                return Poll::Ready(Ok(answer));
            }
            if let Some(broken) = state.broken() {
                return Poll::Ready(Err(broken.clone()));
            }
            state.await_with(seq, cx.waker());
            Poll::Pending
        });
        let answer = answer.await;
        wanted.seq = None;
        answer
    }
}

impl fmt::Debug for AsyncClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsyncClient({})", self.link.path.display())
    }
}

/// An answer that somebody waits for.
struct Wanted<'a> {
    link: &'a Link,
    seq: Option<u64>,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if let Some(seq) = self.seq {
            self.link.abandon(seq);
        }
    }
}

/// An object being written, as [`Writing`], whose end is awaited.
#[derive(Debug)]
pub struct AsyncWriting {
    writing: Writing,
    client: AsyncClient,
}

impl AsyncWriting {
    /// Copies `bytes` to position `pos`, as [`Writing::write_at`] does.
    ///
    /// # Panics
    /// As there.
    pub fn write_at(&mut self, pos: usize, bytes: &[u8]) {
        self.writing.write_at(pos, bytes);
    }

    /// Ends writing, as [`Writing::seal`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn seal(mut self) -> Result<(), StoreError> {
        let seal = self.writing.send()?;
        done(self.client.call(seal).await?)
    }

    /// Gives the object up, as [`Writing::abort`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        let abort = self.writing.give_up();
        done(self.client.call(abort).await?)
    }
}

impl Deref for AsyncWriting {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.writing
    }
}

impl DerefMut for AsyncWriting {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.writing
    }
}

/// Events of a store, as [`Subscription`], that are awaited.
#[derive(Debug)]
pub struct AsyncSubscription {
    events: Subscription,
}

impl AsyncSubscription {
    /// The next event.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the server is gone and what came before was taken.
    pub async fn recv(&mut self) -> Result<Event, StoreError> {
        let Subscription { link, channel } = &self.events;
        poll_fn(|cx| {
            // Before the look, so that no event comes between and wakes nobody.
            channel.await_with(cx.waker());
            if let Some(event) = channel.pop() {
                return Poll::Ready(Ok(event));
            }
            match link.state().broken() {
                Some(broken) => Poll::Ready(Err(broken.clone())),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Reads for all until the connection or the last handle of it is gone.
async fn read_all(link: Weak<Link>, socket: Arc<UnixStream>) {
    while socket.readable().await.is_ok() {
        let Some(link) = link.upgrade() else {
            return;
        };
        let read = socket.try_io(Interest::READABLE, || link.read_some());
        if link.state().broken().is_some() {
            return;
        }
        drop(link);
        if matches!(read, Ok(false)) {
            // Another thread is at it, for an instant.
            tokio::task::yield_now().await;
        }
    }
}

fn os(what: &str, e: io::Error) -> StoreError {
    StoreError::Os {
        what: format!("{what} of a store"),
        source: Arc::new(e),
    }
}
