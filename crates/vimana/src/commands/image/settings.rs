//! `vimana image settings`: what an image demands of how it is run.

use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use image::Store;
use serde_json::json;

/// Shows what an image demands of how it is run, and makes such demands
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Show(ShowArgs),
    Pack(PackArgs),
}

/// Shows the settings that travel with an image
///
/// They stand in the annotation dev.vimana.settings of its manifest, or in the label of that name. Exit codes: 0, also if
/// there are none; 1 if they are wrong, and so the image can't run.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana image settings show ghcr.io/acme/app:1")]
struct ShowArgs {
    #[command(flatten)]
    looked_at: super::LookedAt,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks settings and prints them in one line, for an annotation or a label
///
/// FILE has tables of the manifest, in TOML or YAML: spec.deployment with user and readonly_root, spec.virtualization with
/// type and criteria.security, spec.networking with network_type, allow_to, allow_from, bandwidth_limit, ingress and egress,
/// spec.security with isolation.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana image settings pack settings.toml
  umoci config --image layout:1 --manifest.annotation \"dev.vimana.settings=$(vimana image settings pack settings.toml)\"
  docker build --label \"dev.vimana.settings=$(vimana image settings pack settings.toml)\" .")]
struct PackArgs {
    /// The file; - is standard input
    file: PathBuf,
}

pub(super) fn run(store: &Store, args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Show(args) => show(store, &args),
        Command::Pack(args) => pack(&args),
    }
}

fn show(store: &Store, args: &ShowArgs) -> Result<ExitCode> {
    let image = args.looked_at.stored_or_pulled(store)?;
    let settings = node::gather::settings(store, &image)?;
    if args.json {
        let line = settings.map(|settings| settings.to_line());
        let value: Option<serde_json::Value> = line.map(|line| serde_json::from_str(&line)).transpose()?;
        super::print_json(&json!({
            "reference": image.reference.to_string(), "digest": image.digest, "settings": value,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(settings) = settings else {
        writeln!(io::stderr(), "{} demands nothing", image.reference)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut out = io::stdout().lock();
    for demand in settings.demands() {
        writeln!(out, "{}", hac::text::printable(&demand, 4096))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn pack(args: &PackArgs) -> Result<ExitCode> {
    let name = args.file.display().to_string();
    let mut source = String::new();
    let most = u64::try_from(hac::settings::LONGEST)?.saturating_add(1);
    match name.as_str() {
        "-" => io::stdin().lock().take(most).read_to_string(&mut source),
        _ => std::fs::File::open(&args.file).and_then(|file| file.take(most).read_to_string(&mut source)),
    }
    .with_context(|| format!("can't read {name}"))?;
    match hac::settings::parse(&source) {
        Ok(settings) => writeln!(io::stdout(), "{}", settings.to_line())?,
        Err(wrong) => bail!("{}", wrong.render(&name, &source, false).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
