//! Errors as problem documents (RFC 9457).

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{Method, StatusCode, Uri, header, request};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::daemon::call::{Refusal, is_name};

/// Why a request wasn't served.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// What kind it is, in one word that doesn't change.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The status of the answer.
    pub(super) status: u16,
    /// What the status means.
    pub(super) title: &'static str,
    /// What was wrong, where, and what would be right.
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Problem");
        Self { kind, status: status.as_u16(), title, detail: detail.into() }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, kind) = match &refusal {
            Refusal::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown"),
            Refusal::PartOf { .. } => (StatusCode::NOT_FOUND, "part-of"),
            Refusal::NameTaken { .. } => (StatusCode::CONFLICT, "name-taken"),
            Refusal::NameTooLong { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "name-too-long"),
            Refusal::Damaged { .. } => (StatusCode::CONFLICT, "damaged"),
            Refusal::Removing { .. } => (StatusCode::CONFLICT, "removing"),
            Refusal::Stopped { .. } => (StatusCode::CONFLICT, "stopped"),
            Refusal::Foreign { .. } => (StatusCode::CONFLICT, "foreign-keeper"),
            Refusal::NotRunning { .. } => (StatusCode::CONFLICT, "not-running"),
            Refusal::Metric { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "metric"),
            Refusal::Port { .. } => (StatusCode::CONFLICT, "port"),
            Refusal::TooMany { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "too-many"),
            Refusal::NoRoom(_) => (StatusCode::CONFLICT, "no-room"),
            Refusal::NotKept(_) => (StatusCode::INSUFFICIENT_STORAGE, "not-kept"),
            Refusal::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
        };
        Self::new(status, kind, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

/// Who has too many requests that last.
pub(in crate::daemon) fn too_many(most: usize) -> impl IntoResponse {
    let detail = format!(
        "you follow, wait for or are connected to something {most} times already, which is the most at a time; end one of these first"
    );
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-requests", detail)
}

/// What somebody is told for whom there is no place, whatever is asked.
pub(in crate::daemon) fn no_place() -> Vec<u8> {
    let detail = "the node serves as many requests as it can; try again a moment later";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-place", detail);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 503 {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        problem.title,
        body.len()
    );
    [head.into_bytes(), body].concat()
}

pub(super) async fn nothing_here(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; GET /v1/openapi.json describes what there is", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", detail)
}

pub(super) async fn not_that_way(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} isn't understood at {}; GET /v1/openapi.json says what is", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", detail)
}

/// JSON, whose faults become problems.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = axum::Json::<T>::from_request(request, state).await;
        match read {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(wrong) => Err(Problem::new(wrong.status(), "body", wrong.body_text())),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// What stands behind the question mark, whose faults become problems.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        match read {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(wrong) => Err(Problem::new(wrong.status(), "query", wrong.body_text())),
        }
    }
}

/// The name in a path. It is part of files' names, so nothing else than a name gets through.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(name) =
            read.map_err(|wrong| Problem::new(wrong.status(), "path", wrong.body_text()))?;
        match is_name(&name) {
            true => Ok(Self(name)),
            false => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "name",
                format!(
                    "{:?} is no name: names have small letters, digits and hyphens, at most 80",
                    hac::text::printable(&name, 80)
                ),
            )),
        }
    }
}
