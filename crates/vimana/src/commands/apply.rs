//! `vimana apply`: makes a node's deployment be as a manifest says.

use std::io::Write;
use std::process::ExitCode;

use hyper::Method;
use node::daemon::call::Applied;
use node::daemon::difference::Difference;
use node::daemon::view::{DeploymentView, Outcome, WaitView};

use super::run::request::{Streams, Workload, beside};
use crate::client::{At, Client, code_of};

/// Makes a deployment of the node's be as a manifest says: makes it, updates it, or does nothing
///
/// Says what changes, does the least that reaches it, and waits until the deployment is ready. Ctrl-C ends the waiting alone.
///
/// What has failed for good begins anew, also where the manifest is the same.
///
/// Exit codes: 0 once it is ready (or has completed), 1 if it failed, isn't ready in time, or was refused, 3 if somebody applied another
/// revision or removed it meanwhile.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana apply                             what ./hac.toml says
  vimana apply -f examples/web/hac.toml
  vimana apply --dry-run                   what would change
  vimana apply -d                          without waiting")]
pub struct Args {
    /// A manifest, a folder with a hac.toml, a Wasm program, or an image's name [default: ./hac.toml]
    #[arg(value_name = "MANIFEST | IMAGE", conflicts_with = "file")]
    source: Option<String>,
    /// The manifest's file
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// The deployment's name [default: the manifest's, or the image's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't wait until it is ready
    #[arg(short, long)]
    detach: bool,
    /// The longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let source = args.file.or(args.source);
    let workload = Workload { source, name: args.name, for_a_node: true, ..Workload::default() };
    let mut wanted = workload.wanted(Streams::default())?;
    let manifest = &mut wanted.request.manifest;
    // A node looks for it from another folder.
    manifest.spec.deployment.image = beside(&std::env::current_dir()?, &manifest.spec.deployment.image);
    let name = &manifest.metadata.name;
    let path =
        format!("/v1/deployments/{name}?dry_run={}&names_isolation={}", args.dry_run, wanted.names_isolation);
    let client = Client::new(&args.at)?;
    let body = ("application/toml", hac::to_toml(manifest).into_bytes());
    let applied: Applied = client.send(Method::PUT, &path, Some(body))?;
    let mut out = std::io::stdout().lock();
    if !args.json {
        print(&mut out, &applied, args.dry_run)?;
    }
    if args.dry_run || args.detach {
        if args.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&applied)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let waited = client.wait(name, "ready", Some(applied.revision), args.timeout)?;
    if args.json {
        let document = serde_json::json!({
            "applied": applied,
            "reached": waited.reached,
            "outcome": waited.outcome,
            "deployment": waited.deployment,
        });
        writeln!(out, "{document:#}")?;
    } else {
        conclude(&mut out, name, applied.revision, &waited)?;
    }
    Ok(code_of(waited.outcome))
}

fn print(out: &mut impl Write, applied: &Applied, dry_run: bool) -> std::io::Result<()> {
    let Applied { name, revision, created, changes, another_try, begun_anew } = applied;
    let would = if dry_run { "would be " } else { "" };
    match (created, changes.is_empty()) {
        (true, _) => writeln!(out, "{name}: {would}made, revision {revision}"),
        (false, true) if *another_try => {
            writeln!(out, "{name}: {would}tried once more, as revision {revision}")
        }
        (false, true) => writeln!(out, "{name}: nothing changes, revision {revision}"),
        (false, false) => {
            let replaces = changes.iter().any(|change| change.replaces);
            let how = if replaces { "each spacecore is replaced" } else { "nothing is replaced" };
            writeln!(out, "{name}: {would}changed, revision {revision}; {how}")
        }
    }?;
    changes.iter().try_for_each(|change| writeln!(out, "  {}", describe(change)))?;
    let begin = if dry_run { "would begin anew" } else { "begins anew" };
    begun_anew.iter().try_for_each(|spacecore| writeln!(out, "  {spacecore} had failed for good and {begin}"))
}

fn describe(change: &Difference) -> String {
    let shown = |text: &str| hac::text::printable(text, 200);
    match (&change.from, &change.to) {
        (Some(from), Some(to)) => format!("{}: {} -> {}", change.key, shown(from), shown(to)),
        (None, Some(to)) => format!("{}: {}", change.key, shown(to)),
        (Some(from), None) => format!("{}: {} -> nothing", change.key, shown(from)),
        (None, None) => format!("{} (its value isn't shown)", change.key),
    }
}

fn conclude(out: &mut impl Write, name: &str, revision: u64, waited: &WaitView) -> std::io::Result<()> {
    let Some(deployment) = &waited.deployment else {
        return writeln!(out, "{name}: was removed meanwhile");
    };
    let DeploymentView { state, ready, replicas, .. } = deployment;
    let reached = waited.reached;
    let yet = match waited.outcome {
        Outcome::Superseded => {
            let newest = deployment.revision;
            return writeln!(
                out,
                "{name}: revision {revision} is superseded, somebody has applied {newest} meanwhile: {state}, {ready} of {replicas} ready"
            );
        }
        Outcome::Reached => "",
        Outcome::Failed | Outcome::Late | Outcome::Gone => "not there yet: ",
    };
    writeln!(out, "{name}: {yet}{state}, {ready} of {replicas} ready")?;
    if state == "stopped" {
        writeln!(out, "  have it run again with: vimana start {name}")?;
    }
    if let Some(trouble) = &deployment.trouble {
        let (new, old) = (deployment.revision, deployment.wanted_revision);
        let instead = if new == old { String::new() } else { format!(", so that {old} is there again") };
        writeln!(out, "  revision {new} failed{instead}: {trouble}")?;
    }
    for port in &deployment.ports {
        writeln!(out, "  {port}")?;
    }
    for spacecore in &deployment.spacecores {
        let complaint = spacecore.unhealthy.as_ref().or(spacecore.last_end.as_ref());
        if let Some(complaint) = complaint.filter(|_| !reached) {
            writeln!(out, "  {} is {}: {complaint}", spacecore.name, spacecore.phase)?;
        }
    }
    Ok(())
}
