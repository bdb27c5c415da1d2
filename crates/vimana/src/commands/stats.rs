//! `vimana stats`: what spacecores use.

use std::io::Write;
use std::process::ExitCode;

use node::daemon::view::{DeploymentView, StatsView};

use super::ps::table;
use crate::client::{At, Client, check_name};

/// Shows what spacecores use: by the guest's own word, and as this machine sees it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana stats
  vimana stats web --json")]
pub struct Args {
    /// Only this spacecore
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.at)?;
    let names = match &args.name {
        Some(name) => vec![check_name(name)?.to_owned()],
        None => running(&client.get::<Vec<DeploymentView>>("/v1/deployments")?),
    };
    let all: Vec<StatsView> = names
        .iter()
        .map(|name| client.get(&format!("/v1/spacecores/{name}/stats")))
        .collect::<Result<_, _>>()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let heads = [
        "NAME",
        "GUEST MEMORY",
        "GUEST CPU",
        "PROCESSES",
        "GUEST RECEIVED",
        "GUEST SENT",
        "MACHINE MEMORY",
        "MACHINE CPU",
        "MACHINE RECEIVED",
        "MACHINE SENT",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    for one in &all {
        let used = one.guest_memory_total.saturating_sub(one.guest_memory_available);
        rows.push([
            one.name.clone(),
            format!("{} of {}", mib(used), mib(one.guest_memory_total)),
            seconds(one.guest_cpu_us),
            one.guest_processes.to_string(),
            mib(one.network_received),
            mib(one.network_sent),
            size(one.resident),
            seconds(one.cpu_us),
            one.seen_received.map_or_else(|| "-".to_owned(), mib),
            one.seen_sent.map_or_else(|| "-".to_owned(), mib),
        ]);
    }
    table(&mut out, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn running(deployments: &[DeploymentView]) -> Vec<String> {
    let all = deployments.iter().flat_map(|deployment| &deployment.spacecores);
    all.filter(|one| one.phase == "ready" || one.phase == "running").map(|one| one.name.clone()).collect()
}

fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// What this machine spends: nothing is what it doesn't know, and little is less than a tenth of a MiB.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        1..0x10_0000 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => mib(bytes),
    }
}

fn seconds(us: u64) -> String {
    format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000)
}
