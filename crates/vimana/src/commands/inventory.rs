//! `vimana inventory`: what a node's machine has, what of it is offered, and who holds how much.

use std::io::Write;
use std::process::ExitCode;

use node::capacity::{Claim, Offer, Resource, amount};
use node::daemon::view::NodeView;
use node::inventory::{Accelerator, Interface, Inventory};

use super::ps::table;
use crate::client::{At, Client};

/// Shows what the node's machine has, what of it is offered, and which deployment holds how much
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana inventory
  vimana inventory --json

What is offered is said in node.toml, under [offer]: cpu, memory, disk, oversell, evict_below.")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let node: NodeView = Client::new(&args.at)?.get("/v1/node")?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&node)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    machine(&mut out, &node.inventory)?;
    writeln!(out)?;
    let mut rows = vec![
        ["", "GUARANTEED CPU", "BURSTABLE CPU", "GUARANTEED MEMORY", "BURSTABLE MEMORY", "DISK"]
            .map(str::to_owned),
    ];
    rows.push(offered(&node.offer));
    rows.push(held("allocated", &node.allocation.total));
    rows.extend(node.allocation.deployments.iter().map(|holder| held(&holder.deployment, &holder.claim)));
    table(&mut out, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn machine(out: &mut impl Write, inventory: &Inventory) -> std::io::Result<()> {
    let bytes = |value| amount(Resource::Memory, value);
    let processors = &inventory.processors;
    let none = || "none".to_owned();
    let listed = |all: Vec<String>| if all.is_empty() { none() } else { all.join(", ") };
    let confidential = inventory.confidential;
    let hides = [
        (confidential.sev, "SEV"),
        (confidential.sev_snp, "SEV-SNP"),
        (confidential.tdx, "TDX"),
        (confidential.sgx, "SGX"),
        (confidential.is_guest, "is a confidential guest itself"),
    ];
    let hides = hides.iter().filter(|(is_there, _)| *is_there).map(|(_, what)| (*what).to_owned()).collect();
    let model = processors.model.as_deref().unwrap_or("unknown model");
    let rows = [
        (
            "processors",
            format!(
                "{} {model}, {} sockets, {} cores, {} threads",
                processors.architecture, processors.sockets, processors.cores, processors.threads
            ),
        ),
        ("features", listed(processors.flags.clone())),
        ("NUMA nodes", processors.numa_nodes.len().to_string()),
        (
            "memory",
            format!("{}, {} available", bytes(inventory.memory.total), bytes(inventory.memory.available)),
        ),
        ("disk", format!("{}, {} free", bytes(inventory.disk.total), bytes(inventory.disk.free))),
        ("network", listed(inventory.interfaces.iter().map(interface).collect())),
        ("accelerators", listed(inventory.accelerators.iter().map(accelerator).collect())),
        ("TPM", inventory.tpm.clone().unwrap_or_else(none)),
        ("hides memory", listed(hides)),
    ];
    table(out, &rows.map(|(what, found)| [what.to_owned(), found]))
}

fn interface(one: &Interface) -> String {
    let state = if one.up { "up" } else { "down" };
    let speed = one.speed_mbps.map(|speed| format!(" {speed} Mbit/s")).unwrap_or_default();
    format!("{} {state}{speed}", one.name)
}

fn accelerator(one: &Accelerator) -> String {
    format!("{} {}", one.address, one.id)
}

fn offered(offer: &Offer) -> [String; 6] {
    [
        "offered".to_owned(),
        amount(Resource::Cpu, offer.cpu_millis),
        "-".to_owned(),
        amount(Resource::Memory, offer.memory),
        format!("{} % of the rest", offer.oversell),
        amount(Resource::Disk, offer.disk),
    ]
}

fn held(name: &str, claim: &Claim) -> [String; 6] {
    [
        name.to_owned(),
        amount(Resource::Cpu, claim.cpu_guaranteed),
        amount(Resource::Cpu, claim.cpu_burstable),
        amount(Resource::Memory, claim.memory_guaranteed),
        amount(Resource::Memory, claim.memory_burstable),
        amount(Resource::Disk, claim.disk),
    ]
}
