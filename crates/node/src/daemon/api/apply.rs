//! `PUT /v1/deployments/{name}`: a manifest.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use hac::Format;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::Api;
use super::problem::{Json, Name, Problem, Query};
use crate::daemon::call::{Applied, Call};
use crate::prepare::{self, Wanted};

/// The largest manifest in bytes.
const MANIFEST_MAX: usize = 1024 * 1024;
/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a manifest is applied.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// Say what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// Whether somebody chose the isolation; otherwise an image that is a Wasm program runs as one.
    names_isolation: Option<bool>,
}

pub(super) async fn apply(
    State(api): State<Api>,
    Name(name): Name,
    Query(how): Query<How>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Applied>, Problem> {
    let text = read(body).await?;
    let format = format(&headers, &text)?;
    let manifest = hac::parse(&text, format).map_err(|wrong| {
        let detail = wrong.render("manifest", &text, false);
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "manifest", detail.trim_end())
    })?;
    if manifest.metadata.name != name {
        let detail = format!(
            "the manifest's name is {:?}, the path's {name:?}; they must be the same",
            manifest.metadata.name
        );
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "name", detail));
    }
    let names_isolation =
        how.names_isolation.unwrap_or_else(|| hac::says(&text, format, "spec.virtualization.type"));
    let (home, asked) = (api.home.clone(), manifest.clone());
    let checked = spawn_blocking(move || check(&home, asked, names_isolation)).await;
    checked
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|reason| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "plan", reason))?;
    let manifest = Box::new(manifest);
    let applied =
        api.ask(|reply| Call::Apply { manifest, names_isolation, dry_run: how.dry_run, reply }).await?;
    Ok(Json(applied))
}

/// Refuses what this machine can't do before it is promised.
fn check(home: &crate::home::Home, manifest: hac::Manifest, names_isolation: bool) -> Result<(), String> {
    let wanted = Wanted::of(manifest, names_isolation).map_err(|error| image::whole(&error))?;
    prepare::check(home, &wanted).map_err(|error| image::whole(&error))
}

async fn read(body: Body) -> Result<String, Problem> {
    let read = tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, MANIFEST_MAX)).await;
    let late = || format!("the manifest didn't arrive within {} s", PATIENCE.as_secs());
    let bytes = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "late", late()))?;
    let bytes = bytes.map_err(|_| {
        let detail = format!("a manifest has at most {MANIFEST_MAX} bytes, and must arrive whole");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "manifest", detail)
    })?;
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "manifest", "the manifest isn't text in UTF-8")
    })
}

fn format(headers: &HeaderMap, text: &str) -> Result<Format, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/toml" | "text/toml" => Ok(Format::Toml),
        // JSON is YAML.
        "application/yaml" | "text/yaml" | "application/x-yaml" | "application/json" => Ok(Format::Yaml),
        "" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => {
            Ok(Format::from_content(text))
        }
        other => {
            let detail = format!("{other:?} is no manifest; application/toml and application/yaml are");
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", detail))
        }
    }
}
