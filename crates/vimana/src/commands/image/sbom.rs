//! `vimana image sbom`: what is installed in an image, for other tools.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use image::Store;

/// Writes what is installed in an image as CycloneDX 1.6 JSON
///
/// Packages of dpkg, apk and RPM, and of lock files and installed packages of Node.js, Python, Rust, Go, Ruby and PHP, each
/// with the layer and the file that list it. The same image gives the same bytes. What can't be read is listed too, as a
/// property called vimana:unread.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana image sbom debian:12 --output debian.cdx.json
  vimana image sbom alpine:3.20 | jq -r '.components[].purl'")]
pub(super) struct Args {
    /// The file to write, in place of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    looked_at: super::LookedAt,
}

pub(super) fn run(store: &Store, args: Args) -> Result<ExitCode> {
    let image = args.looked_at.stored_or_pulled(store)?;
    let inventory = image.inventory()?;
    let document = format!("{:#}\n", image::sbom(&image, &inventory));
    match &args.output {
        Some(path) => {
            std::fs::write(path, document).with_context(|| format!("can't write {}", path.display()))?
        }
        None => io::stdout().write_all(document.as_bytes())?,
    }
    for unread in &inventory.unread {
        let line = format!("not read: {} {}", unread.path, unread.reason);
        writeln!(io::stderr(), "{}", hac::text::printable(&line, 1000))?;
    }
    Ok(ExitCode::SUCCESS)
}
