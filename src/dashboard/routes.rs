//! What is answered.
//!
//! **Invariant:** `GET` and `HEAD` only, but for the token's form; every answer has the headers of [`super::guard`]; a
//! question that cannot be read is answered by what is wrong with it. Work that takes longer than a moment is done on
//! another thread, at most a few at a time. **Left out:** how answers are found.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Query as Params;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::index::Index;
use super::live;
use super::refusal::{Answer, Refusal, bad, busy};
use super::state::State;
use super::window::{Timeline, Window};
use super::{assets, figures, find, guard, task};
use crate::base::query::{Part, Query};
use crate::base::snapshot::Id;

/// Boxes of an answer where the question does not say.
const BOXES: usize = 6_000;

/// Bytes of a form.
const MAX_FORM: usize = 4 * 1024;

/// Bytes of a path and what follows it.
const MAX_URI: usize = 2 * 1024;

/// Bytes of a trace that are sent at once.
const PIECE: usize = 64 * 1024;

/// Answers one request.
pub async fn answer(state: Arc<State>, request: Request<Body>) -> Response {
    let head = *request.method() == Method::HEAD;
    let mut response = match admit(&state, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    guard::harden(response.headers_mut());
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// Who asks, and whether they may.
async fn admit(state: &Arc<State>, request: Request<Body>) -> Answer {
    if request.uri().to_string().len() > MAX_URI {
        return Err(Refusal(
            StatusCode::URI_TOO_LONG,
            format!("an address has at most {MAX_URI} bytes"),
        ));
    }
    if !guard::knows_host(request.headers(), state.token.is_some()) {
        let why = "ask for this server by its address or as localhost".to_string();
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, why));
    }
    let path = request.uri().path().to_owned();
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::POST if path == "/login" => return log_in(state, request).await,
        _ => {
            let no = Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "everything here is only read: use GET".into(),
            );
            let mut response = no.into_response();
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
    }
    if path == "/healthz" {
        return Ok("ok\n".into_response());
    }
    if let Some(token) = &state.token
        && !guard::knows_token(request.headers(), token)
    {
        // What the form needs, and nothing else.
        if path == "/login" {
            return Ok(login(request.uri().query() == Some("wrong")));
        }
        if matches!(path.as_str(), "/style.css" | "/icon.svg") {
            return asset(&path);
        }
        if path == "/" {
            return Ok(go_to("/login"));
        }
        let mut response =
            Refusal(StatusCode::UNAUTHORIZED, "a token is needed".into()).into_response();
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Ok(response);
    }
    route(state, &path, request.uri()).await
}

fn go_to(path: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response()
}

/// The token's form, after a wrong token with a line that says so.
fn login(wrong: bool) -> Response {
    let (before, rest) = assets::LOGIN
        .split_once("  <p class=\"wrong\"")
        .unwrap_or((assets::LOGIN, ""));
    let text = match rest.split_once("</p>\n") {
        Some((_, after)) if !wrong => format!("{before}{after}"),
        _ => assets::LOGIN.to_owned(),
    };
    ([(header::CONTENT_TYPE, assets::HTML)], text).into_response()
}

#[derive(Deserialize)]
struct Form {
    token: String,
}

/// Takes a token from the form and gives a cookie for it.
async fn log_in(state: &State, request: Request<Body>) -> Answer {
    let Some(token) = &state.token else {
        return Ok(go_to("/"));
    };
    let body = axum::body::to_bytes(request.into_body(), MAX_FORM);
    let body = tokio::time::timeout(state.patience, body).await;
    let Ok(Ok(body)) = body else {
        return Err(Refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a form has at most {MAX_FORM} bytes, at once"),
        ));
    };
    let text = std::str::from_utf8(&body).map_err(|_| bad("the form is not text"))?;
    let uri: Uri = format!("/?{text}")
        .parse()
        .map_err(|_| bad("the form cannot be read"))?;
    let Params(form) = Params::<Form>::try_from_uri(&uri).map_err(|e| bad(e.body_text()))?;
    if !guard::same(form.token.as_bytes(), token.as_bytes()) {
        return Ok(go_to("/login?wrong"));
    }
    let cookie = format!(
        "{}={token}; HttpOnly; SameSite=Strict; Path=/",
        guard::COOKIE
    );
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| bad("the token cannot be a cookie"))?;
    let mut response = go_to("/");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

fn asset(path: &str) -> Answer {
    match assets::at(path) {
        Some(&(_, kind, text)) => Ok(([(header::CONTENT_TYPE, kind)], text).into_response()),
        None => Err(Refusal(
            StatusCode::NOT_FOUND,
            "there is nothing here".into(),
        )),
    }
}

#[derive(Deserialize)]
struct Span {
    from: Option<u64>,
    to: Option<u64>,
    limit: Option<usize>,
    columns: Option<usize>,
}

impl Span {
    fn window(&self, index: &Index) -> Result<Window, Refusal> {
        let window = Window {
            from: self.from.unwrap_or(index.begin),
            to: self.to.unwrap_or(index.now()),
        };
        check(window)
    }
}

fn check(window: Window) -> Result<Window, Refusal> {
    match window.from <= window.to {
        true => Ok(window),
        false => Err(bad("a window ends before it begins")),
    }
}

#[derive(Deserialize)]
struct Search {
    q: String,
}

#[derive(Deserialize)]
struct Look {
    parts: Option<String>,
    limit: Option<usize>,
    lines: Option<usize>,
    state: Option<String>,
    function: Option<String>,
    id: Option<String>,
}

fn params<T: serde::de::DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    Params::try_from_uri(uri)
        .map(|Params(p)| p)
        .map_err(|e| bad(e.body_text()))
}

async fn route(state: &Arc<State>, path: &str, uri: &Uri) -> Answer {
    match path {
        "/api/snapshot" => snapshot(state, params(uri)?).await,
        "/api/history" => json(&state.history().samples()),
        "/api/timeline" => {
            let span: Span = params(uri)?;
            with_index(state, move |index| {
                let window = span.window(index)?;
                json(&Timeline::of(index, window, span.limit.unwrap_or(BOXES)))
            })
            .await
        }
        "/api/functions" => {
            let span: Span = params(uri)?;
            with_index(state, move |index| {
                json(&figures::functions(index, span.window(index)?))
            })
            .await
        }
        "/api/heat" => {
            let span: Span = params(uri)?;
            let columns = span.columns.unwrap_or(200);
            with_index(state, move |index| {
                json(&figures::heat(index, span.window(index)?, columns))
            })
            .await
        }
        "/api/search" => {
            let search: Search = params(uri)?;
            with_index(state, move |index| json(&find::find(index, &search.q))).await
        }
        "/api/trace.json" => trace(state, params(uri)?).await,
        "/events" => Ok(live::watch(state)),
        "/metrics" => {
            let source = state.source.clone();
            let text = apart(move || source.metrics()).await??;
            Ok((
                [(
                    header::CONTENT_TYPE,
                    "text/plain; version=0.0.4; charset=utf-8",
                )],
                text,
            )
                .into_response())
        }
        "/login" => Ok(go_to("/")),
        _ => match path.strip_prefix("/api/task/") {
            Some(id) => about(state, id).await,
            None => asset(path),
        },
    }
}

/// Does something on another thread.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let gone = |_| {
        Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the dashboard made a mistake".into(),
        )
    };
    tokio::task::spawn_blocking(work).await.map_err(gone)
}

async fn with_index(state: &State, ask: impl FnOnce(&Index) -> Answer + Send + 'static) -> Answer {
    let index = state.keep.index(&state.source).await?;
    apart(move || ask(&index)).await?
}

fn json(answer: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(answer).map_err(io::Error::other)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn snapshot(state: &State, look: Look) -> Answer {
    let parts = match look.parts.as_deref() {
        None => Part::ALL.to_vec(),
        Some(names) => {
            let part = |name| serde_json::from_value(serde_json::Value::String(String::from(name)));
            let parts: Result<Vec<Part>, _> = names
                .split(',')
                .filter(|n| !n.is_empty())
                .map(part)
                .collect();
            parts.map_err(|e| bad(format!("parts: {e}")))?
        }
    };
    let mut query = Query::of(&parts);
    let number = |id: String| id.parse::<Id>().map_err(|e| bad(format!("id: {e}")));
    query.id = look.id.map(number).transpose()?.map(|Id(id)| id);
    query.limit = look.limit.unwrap_or(query.limit).min(1_000);
    query.lines = look.lines.unwrap_or(0).min(1_000);
    (query.state, query.function) = (look.state, look.function);
    let source = state.source.clone();
    let snapshot = apart(move || source.snapshot(&query)).await??;
    apart(move || json(&snapshot)).await?
}

/// All about one call or object, from what was recorded and from what the program says now.
async fn about(state: &State, id: &str) -> Answer {
    let Id(id) = id
        .parse()
        .map_err(|e| bad(format!("{id:?} is no id: {e}")))?;
    let index = state.keep.index(&state.source).await?;
    let source = state.source.clone();
    apart(move || {
        #[derive(Serialize)]
        struct About<'a> {
            recorded: Option<task::Task<'a>>,
            now: Option<crate::base::snapshot::Task>,
            object: Option<task::Thing<'a>>,
        }
        let recorded = task::Task::of(&index, id);
        let asked = source.snapshot(&Query::of(&[Part::Tasks]).id(id).limit(1)).ok();
        let now = asked.and_then(|mut s| s.tasks.items.pop()).filter(|task| task.id == Id(id));
        let object = task::Thing::of(&index, id).filter(|_| recorded.is_none());
        match (&recorded, &now, &object) {
            (None, None, None) => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!("nothing is known of {}: it ended, and what was recorded of it has been overwritten", Id(id)),
            )),
            _ => json(&About { recorded, now, object }),
        }
    })
    .await?
}

/// A writer whose pieces go to the one who asked.
struct Pieces {
    out: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(
            &mut self.piece,
            Vec::with_capacity(PIECE),
        ));
        self.out
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() + bytes.len() > PIECE {
            self.send()?;
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

async fn trace(state: &State, span: Span) -> Answer {
    let window = check(Window {
        from: span.from.unwrap_or(0),
        to: span.to.unwrap_or(u64::MAX),
    })?;
    let Ok(place) = state.traces.clone().try_acquire_owned() else {
        return Ok(busy(
            "other traces are being written: try again in a moment",
        ));
    };
    let (out, pieces) = mpsc::channel(4);
    let source = state.source.clone();
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces {
            out: out.clone(),
            piece: Vec::with_capacity(PIECE),
        };
        let written = source
            .trace(window, &mut pieces)
            .and_then(|()| pieces.flush());
        if let Err(e) = written {
            // A cut-off answer is seen as such; a whole one that is wrong would not be.
            let _ = out.blocking_send(Err(e));
        }
        drop(place);
    });
    let next = |mut pieces: mpsc::Receiver<io::Result<Bytes>>| async move {
        Some((pieces.recv().await?, pieces))
    };
    let body = Body::from_stream(futures_util::stream::unfold(pieces, next));
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"trace.json\"",
        ),
    ];
    Ok((headers, body).into_response())
}
