//! The latest arrangement of the recording, made anew when it is asked for, old, and not what is recorded any more.
//!
//! **Invariant:** at most one is made at a time, and making them takes at most about a tenth of one CPU, however much is
//! recorded; while one takes long to make, who asks gets the one before instead of waiting; what nobody asked for in
//! [`FORGOTTEN`] is dropped. **Left out:** what is in it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Source;
use super::index::Index;

/// An arrangement is not older than this, if making it is quick.
const FRESH: Duration = Duration::from_millis(250);

/// What takes longer to make is made while the one before is still given out.
const LONG: Duration = Duration::from_millis(40);

/// How long an arrangement is kept that nobody asks for.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Kept {
    index: Arc<Index>,
    generation: Option<u64>,
    made: Instant,
    took: Duration,
    asked: Instant,
}

/// How good an arrangement still is.
enum Age {
    Fresh,
    /// Good enough while the next is made.
    Old,
}

impl Kept {
    fn age(&self) -> Option<Age> {
        let (age, good) = (self.made.elapsed(), FRESH.max(self.took * 10));
        match age < good {
            true => Some(Age::Fresh),
            false => (self.took > LONG && age < good * 2).then_some(Age::Old),
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Keep {
    kept: Mutex<Option<Kept>>,
    /// Who waits for it to be made waits here, without a thread.
    making: tokio::sync::Mutex<()>,
    /// Held by the thread that makes it, which may outlive its asker.
    one: Mutex<()>,
}

impl Keep {
    fn kept(&self) -> Option<(Age, Arc<Index>)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_mut()?;
        kept.asked = Instant::now();
        Some((kept.age()?, kept.index.clone()))
    }

    fn fresh(&self) -> Option<Arc<Index>> {
        match self.kept()? {
            (Age::Fresh, index) => Some(index),
            (Age::Old, _) => None,
        }
    }

    /// What is recorded, as of a moment ago.
    pub async fn index(self: &Arc<Keep>, source: &Arc<dyn Source>) -> io::Result<Arc<Index>> {
        let old = match self.kept() {
            Some((Age::Fresh, index)) => return Ok(index),
            Some((Age::Old, index)) => Some(index),
            None => None,
        };
        let making = match (old, self.making.try_lock()) {
            // Somebody makes the next.
            (Some(index), Err(_)) => return Ok(index),
            (Some(index), Ok(_)) => {
                let (this, source) = (self.clone(), source.clone());
                tokio::task::spawn(async move {
                    let _making = this.making.lock().await;
                    let (that, source) = (this.clone(), source.clone());
                    let make = tokio::task::spawn_blocking(move || that.make(&*source));
                    let _ = make.await;
                });
                return Ok(index);
            }
            (None, Ok(making)) => making,
            (None, Err(_)) => self.making.lock().await,
        };
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        let (this, source) = (self.clone(), source.clone());
        // Whoever asked may go away; what was begun is finished for the next.
        let make = tokio::task::spawn_blocking(move || this.make(&*source));
        let made = make.await.map_err(io::Error::other)?;
        drop(making);
        made
    }

    fn make(&self, source: &dyn Source) -> io::Result<Arc<Index>> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        // Before the recording is read: what comes meanwhile is in it, or shows as new the next time.
        let generation = source.generation();
        if let Some(index) = self.same(generation) {
            return Ok(index);
        }
        let start = Instant::now();
        let index = Arc::new(Index::new(source.recording()?));
        let kept = Kept {
            index: index.clone(),
            generation,
            made: Instant::now(),
            took: start.elapsed(),
            asked: Instant::now(),
        };
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(index)
    }

    /// The one that is kept, if nothing was recorded since and nothing that ends could change it: as if made anew.
    fn same(&self, generation: Option<u64>) -> Option<Arc<Index>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_mut()?;
        if generation.is_none() || kept.generation != generation || kept.index.open {
            return None;
        }
        kept.index.pass(kept.made.elapsed());
        kept.made = Instant::now();
        Some(kept.index.clone())
    }

    /// Drops what nobody has asked for in a while.
    pub fn forget(&self, source: &dyn Source) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .as_ref()
            .is_some_and(|kept| kept.asked.elapsed() > FORGOTTEN)
        {
            *kept = None;
            drop(kept);
            source.forget();
        }
    }
}
