//! A connection to a spacecore's keeper, over the API's own: `exec` and `attach` speak with the keeper itself.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;

use super::Api;
use super::problem::{Name, Problem};
use crate::daemon::call::Call;
use crate::run_folder;

/// What the connection is upgraded to.
pub(crate) const PROTOCOL: &str = "vimana-keeper";

/// In which header of the answer it is said what version the keeper speaks.
pub const PROTOCOL_HEADER: &str = "vimana-keeper-protocol";

pub(super) async fn connect(
    State(api): State<Api>,
    Name(name): Name,
    mut request: Request,
) -> Result<Response, Problem> {
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if asked != Some(PROTOCOL) {
        let detail = format!("this becomes a connection to a keeper; ask for it with Upgrade: {PROTOCOL}");
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade", detail));
    }
    let run_folder = api.ask(|reply| Call::Keeper { name: name.clone(), reply }).await?;
    let keeper = UnixStream::connect(run_folder.join("keeper.sock")).await.map_err(|error| {
        Problem::new(
            StatusCode::CONFLICT,
            "not-running",
            format!("the keeper of {name} doesn't answer: {error}"),
        )
    })?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(client) = upgraded.await else { return };
        let (mut client, mut keeper) = (TokioIo::new(client), keeper);
        // Each side's end is the other's.
        let _ = copy_bidirectional(&mut client, &mut keeper).await;
    });
    let protocol = HeaderValue::from(run_folder::protocol(&run_folder));
    let switching = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(PROTOCOL)),
        (HeaderName::from_static(PROTOCOL_HEADER), protocol),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, switching).into_response())
}
