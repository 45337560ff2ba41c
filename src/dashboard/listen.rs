//! Connections: taken, counted, and hung up.
//!
//! **Invariant:** at most [`MAX_LINES`] connections are open. When one more comes, the one that has been idle longest makes
//! room; if all are in the middle of a request, the new one is refused. So strangers who open connections and say nothing
//! do not keep others out. **Left out:** what is said on them ([`super::routes`]).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use futures_util::FutureExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};

use super::settings::Settings;
use super::stall::Impatient;
use super::state::State;
use super::{Source, live};
use super::{refusal, routes};

/// Connections at one time.
pub const MAX_LINES: usize = 256;

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// Headers of a request.
const MAX_HEADERS: usize = 64;

/// One connection, as the others see it.
#[derive(Debug, Default)]
struct Line {
    /// Requests under way on it.
    busy: AtomicU32,
    /// When it last had one, in milliseconds since the server's start.
    idle_since: AtomicU64,
    hang_up: Notify,
}

/// Held while an answer is under way.
struct Busy(Arc<Line>, Instant);

impl Busy {
    fn new(line: &Arc<Line>, start: Instant) -> Busy {
        line.busy.fetch_add(1, Ordering::Relaxed);
        Busy(line.clone(), start)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.1.elapsed().as_millis() as u64;
        self.0.idle_since.store(now, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that keeps its line busy until it is sent.
struct Sending {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Sending {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves until told to stop.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    source: Arc<dyn Source>,
    mut stop: oneshot::Receiver<()>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let start = Instant::now();
    let state = Arc::new(State::new(&settings, source));
    let sampler = tokio::spawn(live::sample(state.clone()));
    let lines = tokio::task::LocalSet::new();
    let mut open: BTreeMap<u64, Arc<Line>> = BTreeMap::new();
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel::<u64>();
    let mut number = 0;
    let accept = async {
        loop {
            let stream = tokio::select! {
                _ = &mut stop => return,
                Some(line) = ends.recv() => {
                    open.remove(&line);
                    continue;
                }
                stream = listener.accept() => stream,
            };
            let Ok((stream, _)) = stream else {
                // The process is out of files, most likely: its own work goes first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            while let Ok(line) = ends.try_recv() {
                open.remove(&line);
            }
            if open.len() >= MAX_LINES && !make_room(&mut open) {
                continue;
            }
            let _ = stream.set_nodelay(true);
            number += 1;
            let line = Arc::new(Line::default());
            line.idle_since
                .store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
            open.insert(number, line.clone());
            let (state, ended, patience) = (state.clone(), ended.clone(), settings.patience);
            tokio::task::spawn_local(async move {
                talk(
                    Impatient::new(stream, patience),
                    line,
                    state,
                    start,
                    patience,
                )
                .await;
                let _ = ended.send(number);
            });
        }
    };
    lines.run_until(accept).await;
    sampler.abort();
}

/// Hangs up on the line that has been idle longest.
fn make_room(open: &mut BTreeMap<u64, Arc<Line>>) -> bool {
    let idle = open
        .iter()
        .filter(|(_, line)| line.busy.load(Ordering::Relaxed) == 0);
    let oldest = idle.min_by_key(|(_, line)| line.idle_since.load(Ordering::Relaxed));
    let Some(oldest) = oldest.map(|(&number, _)| number) else {
        return false;
    };
    if let Some(line) = open.remove(&oldest) {
        line.hang_up.notify_one();
    }
    true
}

/// Answers what one connection asks that has nothing else beside it.
#[cfg(any(test, fuzzing))]
pub async fn talk_alone<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, state: Arc<State>) {
    let patience = Duration::from_secs(2);
    let stream = Impatient::new(stream, patience);
    talk(stream, Arc::default(), state, Instant::now(), patience).await;
}

/// Answers what one connection asks.
async fn talk<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: Impatient<S>,
    line: Arc<Line>,
    state: Arc<State>,
    start: Instant,
    patience: Duration,
) {
    let answer = |request: Request<Incoming>| {
        let (state, busy) = (state.clone(), Busy::new(&line, start));
        async move {
            // A mistake in an answer ends that answer, not the server.
            let answer = AssertUnwindSafe(routes::answer(state, request.map(Body::new)));
            let response = answer
                .catch_unwind()
                .await
                .unwrap_or_else(|_| refusal::broken());
            Ok::<_, std::convert::Infallible>(response.map(|body| Sending { body, _busy: busy }))
        }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
    tokio::select! {
        // What went wrong on the line concerns the other side only.
        _ = connection => {}
        () = line.hang_up.notified() => {}
    }
}
