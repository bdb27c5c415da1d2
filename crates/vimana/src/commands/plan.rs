//! `vimana plan`: what `vimana run` would do, exactly, without doing it.

use std::io::Write;
use std::process::ExitCode;

use hypercore::driver::Execution;
use node::home::Home;
use node::keeper::assignment::Lifetime;
use node::prepare;
use serde_json::json;

use super::run::progress::Steps;
use super::run::request::{Streams, Workload};

/// Prints exactly what `vimana run` would do, without running it
///
/// The image is pulled and the guest kernel fetched if they aren't there yet, because their digests are part of the plan.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana plan
  vimana plan examples/web/hac.toml --json
  vimana plan docker.io/library/alpine:3.20 -m 128Mi -- echo hello")]
pub struct Args {
    #[command(flatten)]
    workload: Workload,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let prepared =
        prepare::prepare(&Home::find()?, &args.workload.wanted(Streams::default())?, &mut Steps::quiet())?;
    let id = format!("{}-000000000000", prepared.plan.name);
    let assignment = prepared.assignment(&id, Lifetime::Bound)?;
    let command = node::keeper::driver(&assignment.driver)?.prepare(&assignment.machine)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let document = json!({
            "plan": prepared.plan,
            "initramfs": prepared.initramfs,
            "execution": command.execution,
        });
        writeln!(out, "{document:#}")?;
    } else {
        write!(out, "{}", prepared.plan)?;
        if let Some(initramfs) = &prepared.initramfs {
            writeln!(out, "{:<12} {}", "initramfs", initramfs.display())?;
        }
        match &command.execution {
            Execution::Program { .. } | Execution::Wasm { .. } => {
                writeln!(out, "{:<12} {command}", "execute")?
            }
            // Some hundred lines, for programs rather than people.
            Execution::Container { .. } => {
                writeln!(
                    out,
                    "{:<12} libcontainer, with the OCI configuration that --json prints",
                    "execute"
                )?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
