//! `vimana inspect`: everything that a node says of a deployment or spacecore.

use std::io::Write;
use std::process::ExitCode;

use node::log::parse_line;
use serde_json::Value;

use crate::client::{At, Client, Refused, check_name};

/// Shows all that the node knows of a deployment, or of a spacecore, as JSON
///
/// Of a workload that has ended for good that is also how, how long it ran, and the last lines that it has written.
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

/// What a spacecore's phase is once its workload has ended for good.
const ENDED: [&str; 2] = ["completed", "failed"];
/// The lines of output that are part of a result.
const LINES: u32 = 20;

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
    let mut found: Value = found;
    match found.get_mut("spacecores").and_then(Value::as_array_mut) {
        Some(spacecores) => spacecores.iter_mut().try_for_each(|one| add_output(&client, one))?,
        None => add_output(&client, &mut found)?,
    }
    writeln!(std::io::stdout(), "{found:#}")?;
    Ok(ExitCode::SUCCESS)
}

/// Adds the end of what a spacecore has written, which is part of its result, if its workload has ended for good.
fn add_output(client: &Client, spacecore: &mut Value) -> anyhow::Result<()> {
    let has_ended =
        spacecore.get("phase").and_then(Value::as_str).is_some_and(|phase| ENDED.contains(&phase));
    let name = spacecore.get("name").and_then(Value::as_str).filter(|_| has_ended);
    let Some(path) = name.map(|name| format!("/v1/spacecores/{name}/logs?tail={LINES}")) else {
        return Ok(());
    };
    let mut stored = Vec::new();
    client.stream(&path, |chunk| {
        stored.extend_from_slice(chunk);
        Ok(true)
    })?;
    let lines = stored.split_inclusive(|byte| *byte == b'\n').filter_map(parse_line);
    let text = lines.map(|line| String::from_utf8_lossy(line.text).into_owned()).collect::<Vec<_>>();
    if let Some(fields) = spacecore.as_object_mut() {
        fields.insert("output".to_owned(), Value::from(text));
    }
    Ok(())
}
