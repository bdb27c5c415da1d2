//! `vimana volume`: what spacecores keep when they end.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use node::home::Home;
use node::volume::shelf;

use super::ps::table;
use crate::client::ago;

/// What is done with volumes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana volume ls
  vimana volume snapshot db/data before-update
  vimana volume restore db/data before-update
  vimana volume rm db/data")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists all volumes, with what is kept of them
    #[command(after_help = "Example:\n  vimana volume ls --json")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Removes a volume and what is kept of it, or one snapshot; it can't be had back
    #[command(
        after_help = "Examples:\n  vimana volume rm db/data\n  vimana volume rm db/data --snapshot old"
    )]
    Rm {
        /// The volume: SPACECORE/NAME
        volume: String,
        /// Only this snapshot of it
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
    },
    /// Keeps a volume as it is now, while no spacecore writes to it
    #[command(after_help = "Example:\n  vimana volume snapshot db/data before-update")]
    Snapshot {
        /// The volume: SPACECORE/NAME
        volume: String,
        /// What it is called
        name: String,
    },
    /// Puts a volume back to what a snapshot has kept, while no spacecore uses it
    #[command(after_help = "Example:\n  vimana volume restore db/data before-update")]
    Restore {
        /// The volume: SPACECORE/NAME
        volume: String,
        /// The snapshot
        name: String,
    },
}

/// Runs the command.
pub fn run(args: Args, home: &Home) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Ls { json } => return list(home, json),
        Command::Rm { volume, snapshot: None } => {
            let (spacecore, name) = parts(&volume)?;
            shelf::remove(home, spacecore, name)?;
        }
        Command::Rm { volume, snapshot: Some(snapshot) } => {
            let (spacecore, name) = parts(&volume)?;
            shelf::remove_snapshot(home, spacecore, name, &snapshot)?;
        }
        Command::Snapshot { volume, name: snapshot } => {
            let (spacecore, name) = parts(&volume)?;
            shelf::snapshot(home, spacecore, name, &snapshot)?;
        }
        Command::Restore { volume, name: snapshot } => {
            let (spacecore, name) = parts(&volume)?;
            shelf::restore(home, spacecore, name, &snapshot)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parts(volume: &str) -> anyhow::Result<(&str, &str)> {
    match volume.split_once('/') {
        Some(parts) => Ok(parts),
        None => bail!(
            "{volume:?} is no volume's name; one has its spacecore's before it: SPACECORE/NAME, as vimana volume ls prints it"
        ),
    }
}

fn list(home: &Home, json: bool) -> anyhow::Result<ExitCode> {
    let volumes = shelf::list(home)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&volumes)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["VOLUME", "KIND", "SIZE", "USED", "IN USE", "SNAPSHOTS"].map(str::to_owned)];
    for volume in &volumes {
        let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
        let kept = volume.snapshots.iter().map(|one| format!("{} ({})", one.name, ago(one.unix_ms)));
        let kept: Vec<String> = kept.collect();
        rows.push([
            format!("{}/{}", volume.spacecore, volume.name),
            if volume.encrypted { format!("{}, encrypted", volume.kind) } else { volume.kind.clone() },
            volume.bytes.map_or("-".to_owned(), mib),
            mib(volume.used),
            if volume.in_use { "yes" } else { "no" }.to_owned(),
            if kept.is_empty() { "-".to_owned() } else { kept.join(", ") },
        ]);
    }
    table(&mut out, &rows)?;
    Ok(ExitCode::SUCCESS)
}
