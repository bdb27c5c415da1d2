//! `vimana bench`: what isolation costs on this machine.
//!
//! ```text
//!  here         what this machine has: targets from doctor's report, and the facts that stand beside the numbers
//!  workload     the measuring program as an image, a bundle, a Wasm module and an initramfs, in one temporary folder
//!  child        one start of it: lines with the moments at which they came, and an end that leaves nothing
//!  rounds       every measurement, under every target, in alternating order
//!  report       what came out: medians and ratios                                                          pure
//!  table, page  the same for a terminal, and as one page of HTML                                           pure
//! ```

mod child;
mod here;
mod memory;
mod page;
mod quantity;
mod report;
mod rounds;
mod table;
mod target;
mod workload;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use node::home::Home;

use quantity::Group;

#[derive(clap::Args)]
#[command(subcommand_required = true, after_help = "Example:\n  vimana bench isolation --quick")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Isolation(Isolation),
}

/// Measures the same program under every isolation that this machine has, beside a plain process
///
/// Beside it stand the bare mechanisms: `crun` (or `runc`) for containers, QEMU with the same guest kernel for microVMs.
/// Needs no network and no compiler, leaves nothing behind, and takes some minutes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana bench isolation
  vimana bench isolation --quick --only start,memory
  vimana bench isolation --html isolation.html    one page that explains itself

Exit codes: 0 if it was measured; 1 if not; 130 if it was interrupted.")]
struct Isolation {
    /// How often everything is measured; what is shown is the median [default: 5, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Only some of it: start, memory, syscalls, cpu, disk, network
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', value_parser = Group::parse)]
    only: Vec<Group>,
    /// Measure less long: a first impression, in about a minute
    #[arg(long)]
    quick: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as one page of HTML, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The exit code of a command that was interrupted: as if by SIGINT.
const INTERRUPTED: u8 = 128 + 2;

/// Runs the command.
pub fn run(args: Args, home: &Home) -> Result<ExitCode> {
    let What::Isolation(options) = args.what;
    if let Some(path) = &options.html {
        // Better now than after some minutes.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    let groups = if options.only.is_empty() { Group::ALL.to_vec() } else { options.only };
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 5 });
    let Some(report) = rounds::measure(home, &groups, rounds, options.quick)? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if let Some(path) = &options.html {
        fs::write(path, page::page(&report)).with_context(|| format!("can't write {}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report.json())?;
        writeln!(out)?;
    } else {
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        out.write_all(table::table(&report, colours).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}
