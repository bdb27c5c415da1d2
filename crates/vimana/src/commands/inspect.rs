//! `vimana inspect`: everything that a node says of a deployment or spacecore.

use std::io::Write;
use std::process::ExitCode;

use crate::client::{At, Client, Refused, check_name};

/// Shows all that the node knows of a deployment, or of a spacecore, as JSON
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana inspect web
  vimana inspect web-1")]
pub struct Args {
    /// A deployment, or a spacecore
    name: String,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (client, name) = (Client::new(&args.at)?, check_name(&args.name)?);
    let found = client.get::<serde_json::Value>(&format!("/v1/deployments/{name}"));
    let found = match found {
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404) => {
            client.get(&format!("/v1/spacecores/{name}"))?
        }
        other => other?,
    };
    writeln!(std::io::stdout(), "{found:#}")?;
    Ok(ExitCode::SUCCESS)
}
