//! Answers that say no.
//!
//! **Invariant:** whoever is refused is told why, in JSON. **Left out:** when (`routes`, `live`).

use std::io;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::guard;

/// An answer that says no.
pub struct Refusal(pub StatusCode, pub String);

/// What answering gives.
pub type Answer = Result<Response, Refusal>;

/// The answer to a question that cannot be read.
pub fn bad(why: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why.into())
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Refusal {
        Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the program cannot be looked at: {e}"),
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.1 }).to_string();
        (self.0, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// The answer to too many at once.
pub fn busy(why: &str) -> Response {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, why.into()).into_response()
}

/// The answer when making one went wrong.
pub fn broken() -> Response {
    let mut response = Refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the dashboard made a mistake".into(),
    )
    .into_response();
    guard::harden(response.headers_mut());
    response
}
