//! `vimana ps`: what runs on a node.

use std::io::Write;
use std::process::ExitCode;

use node::daemon::view::DeploymentView;

use crate::client::{At, Client, ago};

/// Lists the node's spacecores
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana ps
  vimana ps --json")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let deployments: Vec<DeploymentView> = Client::new(&args.at)?.get("/v1/deployments")?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&deployments)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        ["NAME", "PHASE", "SINCE", "REVISION", "RESTARTS", "ISOLATION", "PORTS", "IMAGE"].map(str::to_owned),
    ];
    for deployment in &deployments {
        let (isolation, image) = (&deployment.isolation, &deployment.image);
        if deployment.spacecores.is_empty() {
            let nothing = || "-".to_owned();
            let revision = deployment.revision.to_string();
            rows.push([
                deployment.name.clone(),
                deployment.state.clone(),
                nothing(),
                revision,
                nothing(),
                isolation.clone(),
                nothing(),
                image.clone(),
            ]);
        }
        for one in &deployment.spacecores {
            let ports = if one.ports.is_empty() { "-".to_owned() } else { one.ports.join(", ") };
            rows.push([
                one.name.clone(),
                one.phase.clone(),
                ago(one.since_unix_ms),
                one.revision.to_string(),
                one.restarts.to_string(),
                isolation.clone(),
                ports,
                image.clone(),
            ]);
        }
    }
    table(&mut out, &rows)?;
    for one in deployments.iter().flat_map(|deployment| &deployment.spacecores) {
        if let Some(notice) = &one.notice {
            writeln!(out, "{}: {}", one.name, hac::text::printable(notice, 1024))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints rows with their columns under each other.
pub fn table<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> std::io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
