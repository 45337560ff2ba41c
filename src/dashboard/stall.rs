//! A connection whose other side reads too slowly is cut.
//!
//! **Invariant:** while the other side takes less than [`LEAST`] bytes per patience although there is more to send, the next
//! write fails. **Left out:** slow requests, which hyper cuts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Bytes that a reader takes at least in a patience.
const LEAST: usize = 8 * 1024;

/// A stream that does not wait forever to be written to.
pub struct Impatient<S = TcpStream> {
    inner: S,
    patience: Duration,
    /// Runs since a write had to wait.
    limit: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since then.
    taken: usize,
    waited: bool,
}

impl<S> Impatient<S> {
    /// Cuts the stream when it stands still for that long.
    pub fn new(inner: S, patience: Duration) -> Impatient<S> {
        Impatient {
            inner,
            patience,
            limit: None,
            taken: 0,
            waited: false,
        }
    }

    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(n)) => {
                self.taken += n;
                if !self.waited || self.taken >= LEAST {
                    self.limit = None;
                }
                self.waited = false;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                self.waited = true;
                let patience = self.patience;
                let taken = &mut self.taken;
                let limit = self.limit.get_or_insert_with(|| {
                    *taken = 0;
                    Box::pin(tokio::time::sleep_until(Instant::now() + patience))
                });
                limit
                    .as_mut()
                    .poll(cx)
                    .map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
