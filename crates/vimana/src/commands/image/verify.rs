//! `vimana image verify`: whether an image is signed with a key.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use image::{PullOptions, Store};
use node::home::Home;
use node::policy::{Gate, read_key};
use serde_json::json;

/// The exit code if no signature is of any of the keys.
const UNSIGNED: u8 = 3;

/// Checks that an image is signed with a key
///
/// Signatures are looked for where cosign puts them, in the image's own repository or OCI layout: under the tag
/// sha256-DIGEST.sig, and as OCI 1.1 referrers. Keys are public ones in PEM form, ECDSA P-256 or Ed25519; any of them will
/// do. Without --key they are those that policy.toml names. Signatures of identities (keyless) aren't judged.
///
/// Exit codes: 0 if a signature vouches for the image; 3 if none does; 1 if they can't be looked for; 2 for arguments that
/// can't be read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana image verify ghcr.io/acme/app:1 --key cosign.pub
  vimana image verify oci:./layout:latest --key old.pub --key new.pub --json")]
pub(super) struct Args {
    /// A file with a public key [default: signatures.keys of policy.toml]
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    looked_at: super::LookedAt,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(store: &Store, home: &Path, args: Args) -> Result<ExitCode> {
    let keys = match args.key.is_empty() {
        true => Gate::open(&Home::at(home))?.keys()?,
        false => args.key.iter().map(|path| read_key(path)).collect::<Result<_, _>>()?,
    };
    if keys.is_empty() {
        bail!("which key? --key names a file with a public key");
    }
    let image = args.looked_at.stored_or_pulled(store)?;
    let options = PullOptions { plain_http: args.looked_at.plain_http, ..PullOptions::default() };
    let signatures = store.signatures(&image, &options)?;
    let (files, keys): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let verified = signatures.verify(&keys);
    let file = |key: usize| files.get(key).map(|file| file.display().to_string()).unwrap_or_default();
    if args.json {
        let (reason, by) = match &verified {
            Ok(by) => (None, Some(by)),
            Err(reason) => (Some(reason.to_string()), None),
        };
        super::print_json(&json!({
            "reference": image.reference.to_string(),
            "digest": image.digest,
            "verified": by.is_some(),
            "key": by.map(|by| file(by.key)),
            "subject": by.map(|by| &by.subject),
            "form": by.map(|by| by.form),
            "signatures": signatures.count(),
            "reason": reason,
        }))?;
        return Ok(if verified.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(UNSIGNED) });
    }
    match verified {
        Ok(by) => {
            let key = keys.get(by.key).map(evidence::signature::PublicKey::fingerprint).unwrap_or_default();
            writeln!(
                io::stdout(),
                "{}@{} is signed with {} ({key})",
                image.reference,
                image.digest,
                file(by.key)
            )?;
            if by.subject != image.digest {
                writeln!(io::stdout(), "the signature is over {}, an index that lists it", by.subject)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            let line = format!(
                "vimana: {}@{} isn't signed with a given key: {reason}",
                image.reference, image.digest
            );
            writeln!(io::stderr(), "{}", hac::text::printable(&line, 4000))?;
            Ok(ExitCode::from(UNSIGNED))
        }
    }
}
