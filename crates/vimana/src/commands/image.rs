//! `vimana image`: what the store of images holds, and how it gets there.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use image::{Freed, Image, Platform, PullOptions, Reference, Store, StoreOptions, Summary, Usage};
use indicatif::{BinaryBytes, HumanDuration};
use node::home::Home;
use serde_json::{Value, json};

pub(crate) mod progress;
mod sbom;
mod scan;
mod settings;
mod verify;

use progress::PullDisplay;

const NAMES: &str = "Images are named as skopeo names them:
  alpine:3.20                     in a registry (docker:// may stand before it)
  oci:FOLDER[:TAG]                an OCI image layout
  oci-archive:FILE[:TAG]          a tar file of one
  docker-archive:FILE[:NAME]      what docker save wrote
  containerd:NAME                 in containerd (CONTAINERD_ADDRESS, CONTAINERD_NAMESPACE)
  wasm:FILE                       a Wasm program";

#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana image pull alpine:3.20 && vimana image ls

The store lies under VIMANA_HOME. VIMANA_IMAGE_QUOTA (such as 20Gi) is the most that it keeps.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pull(PullArgs),
    Ls(ListArgs),
    Inspect(InspectArgs),
    Sbom(sbom::Args),
    Scan(scan::Args),
    Settings(settings::Args),
    Verify(verify::Args),
    Rm(RemoveArgs),
    Prune(PruneArgs),
}

/// Brings an image into the store: checked, converted and ready to boot
#[derive(clap::Args)]
#[command(after_help = format!("Examples:
  vimana image pull alpine:3.20
  vimana image pull localhost:5000/app@sha256:…
  vimana image pull oci:./layout:latest
  vimana image pull --platform wasi/wasm localhost:5000/app

{NAMES}

Credentials are read from ~/.docker/config.json (or the folder that DOCKER_CONFIG names), where docker login
and skopeo login --compat-auth-file write them. VIMANA_REGISTRY_CA names a PEM file of further root certificates."))]
struct PullArgs {
    /// The image's name
    reference: Reference,
    /// Speak plain HTTP with the registry (without it, only with one on this machine)
    #[arg(long)]
    plain_http: bool,
    /// The platform to choose, such as linux/arm64 (default: this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Print the image as JSON
    #[arg(long)]
    json: bool,
}

/// Lists the images in the store, the last used first
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana image ls --json | jq -r '.[].reference'")]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows an image's configuration and its layers
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana image inspect alpine:3.20 --json | jq .config.env")]
struct InspectArgs {
    /// The image's name
    reference: Reference,
    /// The platform that it was pulled for (default: this machine's, then wasi/wasm)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Removes images, and the layers that no other image has
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana image rm alpine:3.20

An image that a running spacecore uses isn't removed.")]
struct RemoveArgs {
    /// The images' names
    #[arg(required = true)]
    references: Vec<Reference>,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// Removes layers that no image has, and what interrupted pulls left
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana image prune --all        every image that isn't in use too")]
struct PruneArgs {
    /// Remove every image that isn't in use too
    #[arg(long, short)]
    all: bool,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command on the store in the folder `images` of `home`.
pub(crate) fn run(args: Args, home: &Path) -> Result<ExitCode> {
    let store = open(home)?;
    match args.command {
        Command::Pull(args) => pull(&store, args),
        Command::Ls(args) => list(&store, &args),
        Command::Inspect(args) => inspect(&store, &args),
        Command::Sbom(args) => sbom::run(&store, args),
        Command::Scan(args) => scan::run(&store, home, args),
        Command::Settings(args) => settings::run(&store, args),
        Command::Verify(args) => verify::run(&store, home, args),
        Command::Rm(args) => remove(&store, &args),
        Command::Prune(args) => prune(&store, &args),
    }
}

fn open(home: &Path) -> Result<Store> {
    Ok(node::gather::images(&Home::at(home), StoreOptions::from_env()?)?)
}

fn pull(store: &Store, args: PullArgs) -> Result<ExitCode> {
    let options =
        PullOptions { plain_http: args.plain_http, platform: args.platform, ..PullOptions::default() };
    let display = PullDisplay::new(args.quiet);
    let pulled = store.pull(&args.reference, &options, &|step| display.report(&step));
    display.finish();
    let image = pulled.with_context(|| format!("can't pull {}", args.reference))?;
    match args.json {
        true => print_json(&describe(store, &image)?)?,
        false => writeln!(io::stdout(), "{}@{}", image.reference, image.digest)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, args: &ListArgs) -> Result<ExitCode> {
    let images = store.list()?;
    if args.json {
        print_json(&serde_json::to_value(images)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["REFERENCE", "DIGEST", "LAYERS", "SIZE", "CREATED", "LAST USED"].map(str::to_owned);
    let mut rows = vec![header];
    rows.extend(images.iter().map(row));
    let mut out = io::stdout().lock();
    print_table(&mut out, &rows)?;
    let Usage { bytes, quota, unreferenced_bytes, .. } = store.usage()?;
    write!(out, "\n{} of {} used", BinaryBytes(bytes), BinaryBytes(quota))?;
    match unreferenced_bytes {
        0 => writeln!(out)?,
        spare => writeln!(out, ", {} of it by no image (vimana image prune)", BinaryBytes(spare))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn row(image: &Summary) -> [String; 6] {
    let name = match image.platform == Platform::host() {
        true => image.reference.clone(),
        false => format!("{} ({})", image.reference, image.platform),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0);
    let since = std::time::Duration::from_secs(now.saturating_sub(image.last_used));
    let last_used = match image.in_use {
        true => "in use".to_owned(),
        false => format!("{} ago", HumanDuration(since)),
    };
    let created = image.created.as_deref().and_then(|time| time.get(..10)).unwrap_or("-");
    [
        name,
        image.digest.short().to_owned(),
        match (&image.wasm, image.layers) {
            (Some(_), 0) => "wasm".to_owned(),
            (Some(_), layers) => format!("{layers} + wasm"),
            (None, layers) => layers.to_string(),
        },
        BinaryBytes(image.bytes).to_string(),
        created.to_owned(),
        last_used,
    ]
}

fn inspect(store: &Store, args: &InspectArgs) -> Result<ExitCode> {
    let image = stored(store, &args.reference, args.platform.as_ref())?;
    if args.json {
        print_json(&describe(store, &image)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = &image.config;
    let mut out = io::stdout().lock();
    let mut line = |name: &str, value: String| match value.is_empty() {
        true => Ok(()),
        false => writeln!(out, "{name:<12} {}", hac::text::printable(&value, 4096)),
    };
    line("reference", image.reference.to_string())?;
    line("digest", image.digest.to_string())?;
    line("platform", image.platform.to_string())?;
    line("created", config.created.clone().unwrap_or_default())?;
    line("entrypoint", words(&config.entrypoint))?;
    line("cmd", words(&config.cmd))?;
    line("user", config.user.clone())?;
    line("workdir", config.working_dir.clone())?;
    line("stop signal", config.stop_signal.clone().unwrap_or_default())?;
    line("ports", config.exposed_ports.iter().cloned().collect::<Vec<_>>().join(" "))?;
    line("volumes", config.volumes.iter().cloned().collect::<Vec<_>>().join(" "))?;
    for variable in &config.env {
        line("env", variable.escape_debug().to_string())?;
    }
    for (name, value) in &config.labels {
        line("label", format!("{}={}", name.escape_debug(), value.escape_debug()))?;
    }
    for layer in &image.layers {
        let size = BinaryBytes(layer.total_bytes);
        line("layer", format!("{} {size}, {} entries", layer.digest.short(), layer.entries))?;
    }
    if let Some(program) = &image.wasm {
        line("wasm", format!("{} {}", program.digest.short(), BinaryBytes(program.bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds an image in the store; without a platform for this machine's, then for Wasm.
fn stored(store: &Store, reference: &Reference, platform: Option<&Platform>) -> Result<Image> {
    let platforms = match platform {
        Some(platform) => vec![platform.clone()],
        None => vec![Platform::host(), Platform::wasm()],
    };
    for platform in &platforms {
        if let Some(image) = store.get_for(reference, platform)? {
            return Ok(image);
        }
    }
    bail!("{reference} isn't in the store; vimana image pull {reference} brings it there")
}

/// Which image a command looks at.
#[derive(clap::Args)]
struct LookedAt {
    /// The image's name; it is pulled if it isn't in the store
    reference: Reference,
    /// The platform (default: this machine's, then wasi/wasm)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Speak plain HTTP with the registry
    #[arg(long)]
    plain_http: bool,
}

impl LookedAt {
    /// Finds an image in the store, or pulls it.
    fn stored_or_pulled(&self, store: &Store) -> Result<Image> {
        let Self { reference, platform, plain_http } = self;
        if let Ok(image) = stored(store, reference, platform.as_ref()) {
            return Ok(image);
        }
        let options =
            PullOptions { plain_http: *plain_http, platform: platform.clone(), ..PullOptions::default() };
        let display = PullDisplay::new(false);
        let pulled = store.pull(reference, &options, &|step| display.report(&step));
        display.finish();
        pulled.with_context(|| format!("can't get {reference}"))
    }
}

/// Prints rows in columns, as wide as their widest cell.
fn print_table<const COLUMNS: usize>(out: &mut impl Write, rows: &[[String; COLUMNS]]) -> io::Result<()> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Writes arguments as JSON does, so that where one ends is seen.
fn words(arguments: &[String]) -> String {
    match arguments {
        [] => String::new(),
        some => json!(some).to_string(),
    }
}

fn describe(store: &Store, image: &Image) -> Result<Value> {
    let (manifest, _) = store.documents(image)?;
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| {
            json!({
                "digest": layer.digest,
                "path": layer.path,
                "file_system_bytes": layer.file_system_bytes,
                "total_bytes": layer.total_bytes,
                "verity_root": layer.verity_root_hex(),
                "verity_data_blocks": layer.verity_data_blocks,
                "verity_hash_offset": layer.verity_hash_offset,
                "entries": layer.entries,
                "unpacked_bytes": layer.unpacked_bytes,
            })
        })
        .collect();
    Ok(json!({
        "reference": image.reference.to_string(),
        "digest": image.digest,
        "config_digest": image.config_digest,
        "platform": image.platform,
        "compressed_bytes": image.compressed_bytes,
        "config": image.config,
        "layers": layers,
        "wasm": image.wasm.as_ref().map(|program| {
            json!({ "digest": program.digest, "path": program.path, "bytes": program.bytes })
        }),
        "manifest": serde_json::from_slice::<Value>(&manifest).context("the stored manifest is damaged")?,
    }))
}

fn remove(store: &Store, args: &RemoveArgs) -> Result<ExitCode> {
    let mut total = Freed::default();
    let mut failed = false;
    for reference in &args.references {
        match store.remove(reference) {
            Ok(Some(freed)) => {
                total.images.extend(freed.images);
                total.layers += freed.layers;
                total.programs += freed.programs;
                total.bytes += freed.bytes;
            }
            Ok(None) => {
                failed = true;
                writeln!(io::stderr(), "{reference} isn't in the store")?;
            }
            Err(error) => {
                failed = true;
                writeln!(io::stderr(), "{:#}", anyhow::Error::new(error))?;
            }
        }
    }
    report(&total, args.json)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn prune(store: &Store, args: &PruneArgs) -> Result<ExitCode> {
    report(&store.prune(args.all)?, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn report(freed: &Freed, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(&serde_json::to_value(freed)?);
    }
    let mut out = io::stdout().lock();
    for image in &freed.images {
        writeln!(out, "removed {image}")?;
    }
    write!(out, "freed {} in {} layers", BinaryBytes(freed.bytes), freed.layers)?;
    match freed.programs {
        0 => writeln!(out)?,
        programs => writeln!(out, " and {programs} Wasm programs")?,
    }
    Ok(())
}

fn print_json(value: &Value) -> Result<()> {
    writeln!(io::stdout(), "{value:#}")?;
    Ok(())
}
