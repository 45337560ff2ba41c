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
    making: tokio::sync::Mutex<()>,
}

impl Keep {
    fn fresh(&self) -> Option<Arc<Index>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_mut()?;
        kept.asked = Instant::now();
        (kept.made.elapsed() < FRESH.max(kept.took * 10)).then(|| kept.index.clone())
    }

    /// What is recorded, as of a moment ago.
    pub async fn index(&self, source: &Arc<dyn Source>) -> io::Result<Arc<Index>> {
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        let _making = self.making.lock().await;
        if let Some(index) = self.fresh() {
            return Ok(index);
        }
        let source = source.clone();
        let start = Instant::now();
        let make = move || source.recording().map(Index::new);
        let index = Arc::new(
            tokio::task::spawn_blocking(make)
                .await
                .map_err(io::Error::other)??,
        );
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
