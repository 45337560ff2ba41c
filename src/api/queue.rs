//! A queue between tasks and actors: an actor that holds references.
//!
//! Invariant: an item that was put is taken once, in order. Left out: selecting over several queues.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Handle, ObjectRef, get, get_timeout};
use crate::base::Result;
use crate::value::Value;

/// A first-in first-out queue of `T`s, shared by cloning it and by passing it to tasks and actors.
///
/// Items go through the object store: large ones are written once and read in place by whoever takes the reference.
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let queue = mobula::Queue::<String>::bounded(8);
/// queue.put(&"first".to_string())?;
/// assert_eq!(queue.take()?, "first");
/// assert_eq!(queue.try_take()?, None);
/// # Ok::<(), mobula::Error>(())
/// ```
#[mobula_macros::value]
pub struct Queue<T: 'static> {
    actor: Handle<QueueActor>,
    kind: PhantomData<T>,
}

impl<T: 'static> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue {
            actor: self.actor.clone(),
            kind: PhantomData,
        }
    }
}

impl<T: 'static> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({:?})", self.actor)
    }
}

impl<T: Value> Queue<T> {
    /// A queue without bound.
    pub fn unbounded() -> Queue<T> {
        Queue::bounded(usize::MAX)
    }

    /// A queue of at most `capacity` items, at least one.
    pub fn bounded(capacity: usize) -> Queue<T> {
        let actor = QueueActor::options()
            .max_concurrency(u32::MAX)
            .remote(u64::try_from(capacity.max(1)).unwrap_or(u64::MAX));
        Queue {
            actor,
            kind: PhantomData,
        }
    }

    /// Puts an item at the end. Blocks while the queue is full.
    ///
    /// # Errors
    /// Those of [`put`](crate::put()); [`Error::ActorDied`](crate::Error::ActorDied) after [`close`](Self::close).
    #[track_caller]
    pub fn put(&self, item: &T) -> Result<()> {
        self.put_ref(&super::put(item)?)
    }

    /// Puts an object that exists already, or will: nothing is copied. Blocks while the queue is full.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_ref(&self, item: &ObjectRef<T>) -> Result<()> {
        get(self
            .actor
            .put(ObjectRef::<Opaque>::new(item.raw.clone()).wrapped()))
    }

    /// Takes the first item. Blocks while the queue is empty.
    ///
    /// # Errors
    /// The item's failure, if it is a call that failed; [`Error::ActorDied`](crate::Error::ActorDied) after
    /// [`close`](Self::close).
    pub fn take(&self) -> Result<T> {
        get(self.take_ref()?)
    }

    /// Takes a reference to the first item, to be read in place. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn take_ref(&self) -> Result<ObjectRef<T>> {
        Ok(ObjectRef::new(get(self.actor.take())?.0.raw.clone()))
    }

    /// As [`take`](Self::take), but gives up after `timeout`; an item that arrives later stays in the queue.
    ///
    /// # Errors
    /// Also [`Error::Timeout`](crate::Error::Timeout).
    pub fn take_timeout(&self, timeout: Duration) -> Result<T> {
        let call = self.actor.take();
        match get_timeout(&call, timeout) {
            Ok(item) => get(ObjectRef::<T>::new(item.0.raw.clone())),
            Err(e) => {
                // The waiting call must not swallow a later item. If it got one just now, that is the answer.
                super::cancel(&call)?;
                match get(&call) {
                    Ok(item) => get(ObjectRef::<T>::new(item.0.raw.clone())),
                    Err(_) => Err(e),
                }
            }
        }
    }

    /// Takes the first item if there is one.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn try_take(&self) -> Result<Option<T>> {
        match get(self.actor.try_take())? {
            Some(item) => get(ObjectRef::<T>::new(item.0.raw.clone())).map(Some),
            None => Ok(None),
        }
    }

    /// How many items wait.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn len(&self) -> Result<usize> {
        Ok(usize::try_from(get(self.actor.len())?).unwrap_or(usize::MAX))
    }

    /// Whether none wait.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Ends the queue: items in it are dropped, and whoever waits fails.
    pub fn close(&self) {
        self.actor.kill();
    }
}

/// An object of whatever type.
#[derive(Debug)]
pub struct Opaque;

impl ObjectRef<Opaque> {
    fn wrapped(self) -> Item {
        Item(self)
    }
}

/// An item on its way: a reference that is not awaited.
#[mobula_macros::value]
#[derive(Clone, Debug)]
pub struct Item(ObjectRef<Opaque>);

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    takers: Line,
    putters: Line,
}

/// Calls that wait, the one that came first at the head.
#[derive(Default)]
struct Line {
    last: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Line {
    fn wake_first(&mut self) {
        if let Some((_, waker)) = self.wakers.pop_first() {
            waker.wake();
        }
    }
}

/// A call's place in a line, which it leaves when it is dropped: a wake-up that it has not used goes to the next.
struct Place<'a> {
    inner: &'a Mutex<Inner>,
    line: fn(&mut Inner) -> &mut Line,
    number: Option<u64>,
}

impl Place<'_> {
    /// Stands in line, where it stood before if it did.
    fn stand(&mut self, inner: &mut Inner, waker: &Waker) {
        let line = (self.line)(inner);
        let number = *self.number.get_or_insert_with(|| {
            line.last += 1;
            line.last
        });
        line.wakers.insert(number, waker.clone());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut inner = self.inner.lock();
            let line = (self.line)(&mut inner);
            if line.wakers.remove(&number).is_none() {
                line.wake_first();
            }
        }
    }
}

/// The actor behind a queue.
pub struct QueueActor {
    capacity: u64,
    inner: Mutex<Inner>,
}

#[mobula_macros::remote]
impl QueueActor {
    /// An empty one.
    pub fn new(capacity: u64) -> QueueActor {
        QueueActor {
            capacity,
            inner: Mutex::default(),
        }
    }

    /// Waits for room and adds an item.
    pub async fn put(&self, item: Item) {
        let mut item = Some(item);
        let mut place = Place {
            inner: &self.inner,
            line: |i| &mut i.putters,
            number: None,
        };
        poll_fn(|cx| {
            let mut inner = self.inner.lock();
            if inner.items.len() as u64 >= self.capacity {
                place.stand(&mut inner, cx.waker());
                return Poll::Pending;
            }
            place.number = None;
            inner.items.extend(item.take());
            inner.takers.wake_first();
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for an item and takes it.
    pub async fn take(&self) -> Item {
        let mut place = Place {
            inner: &self.inner,
            line: |i| &mut i.takers,
            number: None,
        };
        poll_fn(|cx| {
            let mut inner = self.inner.lock();
            let Some(item) = inner.items.pop_front() else {
                place.stand(&mut inner, cx.waker());
                return Poll::Pending;
            };
            place.number = None;
            inner.putters.wake_first();
            Poll::Ready(item)
        })
        .await
    }

    /// Takes an item if there is one.
    pub fn try_take(&self) -> Option<Item> {
        let mut inner = self.inner.lock();
        let item = inner.items.pop_front();
        if item.is_some() {
            inner.putters.wake_first();
        }
        item
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.inner.lock().items.len() as u64
    }
}
