//! A store behind `object_store` for tests: in memory, and failing as told.
//!
//! Invariant: what it does not refuse it does. Left out: what is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};

/// A store in memory that fails as told.
#[derive(Debug)]
pub struct Failing {
    pub inner: InMemory,
    /// So many writes began.
    pub puts: AtomicUsize,
    /// So many are still to fail.
    pub fail_puts: AtomicUsize,
    /// So many reads are still to fail.
    pub fail_gets: AtomicUsize,
    /// So many began.
    pub gets: AtomicUsize,
    /// From which part on long writes fail; 0: none does.
    pub fail_part: AtomicUsize,
    /// Nothing is answered.
    pub hang: AtomicBool,
    kind: std::io::ErrorKind,
}

impl Failing {
    /// What it fails with.
    pub fn new(kind: std::io::ErrorKind) -> Arc<Failing> {
        Arc::new(Failing {
            inner: InMemory::new(),
            puts: AtomicUsize::new(0),
            fail_puts: AtomicUsize::new(0),
            fail_gets: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            fail_part: AtomicUsize::new(0),
            hang: AtomicBool::new(false),
            kind,
        })
    }

    async fn fail(&self, left: &AtomicUsize) -> object_store::Result<()> {
        if self.hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let take = |n: usize| n.checked_sub(1);
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Err(refusal(self.kind)),
            Err(_) => Ok(()),
        }
    }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        self.fail(&self.fail_puts).await?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        self.fail(&self.fail_puts).await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        let (left, kind) = (self.fail_part.load(Ordering::SeqCst), self.kind);
        Ok(Box::new(Parts { inner, left, kind }))
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.fail(&self.fail_gets).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: Streamed<object_store::Result<Path>>,
    ) -> Streamed<object_store::Result<Path>> {
        match self.hang.load(Ordering::SeqCst) {
            true => Box::pin(Never),
            false => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> Streamed<object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn refusal(kind: std::io::ErrorKind) -> object_store::Error {
    object_store::Error::Generic {
        store: "failing",
        source: Box::new(std::io::Error::from(kind)),
    }
}

/// A long write.
#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    /// The part that fails, counted down; 0: none does.
    left: usize,
    kind: std::io::ErrorKind,
}

#[async_trait::async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fails = self.left == 1;
        self.left = self.left.saturating_sub(1);
        let kind = self.kind;
        match fails {
            true => Box::pin(async move { Err(refusal(kind)) }),
            false => self.inner.put_part(data),
        }
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}

/// What has no end and nothing in it.
struct Never;

impl futures_core::Stream for Never {
    type Item = object_store::Result<Path>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}

type Streamed<T> = std::pin::Pin<Box<dyn futures_core::Stream<Item = T> + Send>>;
