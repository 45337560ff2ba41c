//! The latest arrangement of the recording, made anew when it is asked for and old.
//!
//! **Invariant:** at most one is made at a time, and making them takes at most about a tenth of one CPU, however much is
//! recorded; what nobody asked for in [`FORGOTTEN`] is dropped. **Left out:** what is in it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Source;
use super::index::Index;

/// An arrangement is not older than this, if making it is quick.
const FRESH: Duration = Duration::from_millis(250);

/// How long an arrangement is kept that nobody asks for.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Kept {
    index: Arc<Index>,
    made: Instant,
    took: Duration,
    asked: Instant,
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
    fn fresh(&self) -> Option<Arc<Index>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_mut()?;
        kept.asked = Instant::now();
        (kept.made.elapsed() < FRESH.max(kept.took * 10)).then(|| kept.index.clone())
    }

    /// What is recorded, as of a moment ago.
    pub async fn index(self: &Arc<Keep>, source: &Arc<dyn Source>) -> io::Result<Arc<Index>> {
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        let _making = self.making.lock().await;
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        let (this, source) = (self.clone(), source.clone());
        // Whoever asked may go away; what was begun is finished for the next.
        let make = tokio::task::spawn_blocking(move || this.make(&*source));
        make.await.map_err(io::Error::other)?
    }

    fn make(&self, source: &dyn Source) -> io::Result<Arc<Index>> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        let start = Instant::now();
        let index = Arc::new(Index::new(source.recording()?));
        let kept = Kept {
            index: index.clone(),
            made: Instant::now(),
            took: start.elapsed(),
            asked: Instant::now(),
        };
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(index)
    }

    /// Drops what nobody has asked for in a while.
    pub fn forget(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .as_ref()
            .is_some_and(|kept| kept.asked.elapsed() > FORGOTTEN)
        {
            *kept = None;
        }
    }
}
