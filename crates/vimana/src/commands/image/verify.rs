//! `vimana image verify`: whether an image is signed, with a key or by an identity.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use evidence::signature::{Identity, PublicKey};
use image::signatures::{By, Trusted};
use image::{PullOptions, Store};
use node::home::Home;
use node::policy::{Gate, read_key, read_root};
use serde_json::json;

/// The exit code if no signature is of any of the keys.
const UNSIGNED: u8 = 3;

/// Checks that an image is signed, with a key or by an identity
///
/// Signatures are looked for where cosign puts them, in the image's own repository or OCI layout: under the tag
/// sha256-DIGEST.sig, and as OCI 1.1 referrers. Keys are public ones in PEM form, ECDSA P-256 or Ed25519; any of them will
/// do. An identity's signature (keyless) needs --identity, --issuer and --trusted-root. Without any of these the keys and
/// identities are those that policy.toml names.
///
/// Exit codes: 0 if a signature vouches for the image; 3 if none does; 1 if they can't be looked for; 2 for arguments that
/// can't be read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana image verify ghcr.io/acme/app:1 --key cosign.pub
  vimana image verify oci:./layout:latest --key old.pub --key new.pub --json
  vimana image verify ghcr.io/acme/app:1 --trusted-root trusted_root.json --issuer https://token.actions.githubusercontent.com \\
    --identity 'https://github.com/acme/app/.github/workflows/release.yml@refs/tags/*'")]
pub(super) struct Args {
    /// A file with a public key [default: signatures.keys of policy.toml]
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Who may have signed without a key: an address of mail or a URI; with a * at its end, the start of one
    #[arg(long, value_name = "IDENTITY", requires_all = ["issuer", "trusted_root"])]
    identity: Option<String>,
    /// Who must have looked at the identity: the URL of an OpenID provider
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
    /// The authorities and logs that are trusted with identities: a trusted_root.json of Sigstore's
    #[arg(long, value_name = "FILE", requires = "identity")]
    trusted_root: Option<PathBuf>,
    #[command(flatten)]
    looked_at: super::LookedAt,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whose signatures count, and the files of the keys in their order.
    fn trusted(&self, home: &Path) -> Result<(Trusted, Vec<PathBuf>)> {
        let (trusted, files) = match (self.key.is_empty(), &self.identity) {
            (true, None) => Gate::open(&Home::at(home))?.trusted()?,
            _ => {
                let identity = self.identity.clone().zip(self.issuer.clone());
                if let Some(Err((wrong, right))) = self.identity.as_deref().map(hac::policy::check_identity) {
                    bail!("--identity {:?} {wrong}: {right}", self.identity.as_deref().unwrap_or_default());
                }
                let trusted = Trusted {
                    keys: self.key.iter().map(|path| read_key(path)).collect::<Result<_, _>>()?,
                    root: self.trusted_root.as_deref().map(read_root).transpose()?,
                    identities: identity
                        .map(|(identity, issuer)| Identity { identity, issuer })
                        .into_iter()
                        .collect(),
                };
                (trusted, self.key.clone())
            }
        };
        if trusted.keys.is_empty() && trusted.identities.is_empty() {
            bail!(
                "whose signature? --key names a file with a public key, --identity somebody who signs without one"
            );
        }
        Ok((trusted, files))
    }
}

pub(super) fn run(store: &Store, home: &Path, args: Args) -> Result<ExitCode> {
    let (trusted, files) = args.trusted(home)?;
    let image = args.looked_at.stored_or_pulled(store)?;
    let options = PullOptions { plain_http: args.looked_at.plain_http, ..PullOptions::default() };
    let signatures = store.signatures(&image, &options)?;
    let verified = signatures.verify(&trusted);
    let file = |key: usize| files.get(key).map(|file| file.display().to_string()).unwrap_or_default();
    if args.json {
        let (reason, verified) = match verified {
            Ok(verified) => (None, Some(verified)),
            Err(reason) => (Some(reason.to_string()), None),
        };
        let (key, signer) = match verified.as_ref().map(|verified| &verified.by) {
            Some(By::Key(place)) => (Some(file(*place)), None),
            Some(By::Identity(signer)) => (None, Some(signer)),
            None => (None, None),
        };
        super::print_json(&json!({
            "reference": image.reference.to_string(),
            "digest": image.digest,
            "verified": verified.is_some(),
            "key": key,
            "identity": signer.map(|signer| &signer.identity),
            "issuer": signer.map(|signer| &signer.issuer),
            "time": signer.map(|signer| signer.time),
            "subject": verified.as_ref().map(|verified| &verified.subject),
            "form": verified.as_ref().map(|verified| verified.form),
            "signatures": signatures.count(),
            "reason": reason,
        }))?;
        return Ok(if verified.is_some() { ExitCode::SUCCESS } else { ExitCode::from(UNSIGNED) });
    }
    match verified {
        Ok(verified) => {
            let by = match &verified.by {
                By::Key(place) => {
                    let key = trusted.keys.get(*place).map(PublicKey::fingerprint).unwrap_or_default();
                    format!("with {} ({key})", file(*place))
                }
                By::Identity(signer) => format!("by {signer}"),
            };
            let line = format!("{}@{} is signed {by}", image.reference, image.digest);
            writeln!(io::stdout(), "{}", hac::text::printable(&line, 4000))?;
            if verified.subject != image.digest {
                writeln!(io::stdout(), "the signature is over {}, an index that lists it", verified.subject)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            let line = format!(
                "vimana: {}@{} isn't signed with a given key or by a given identity: {reason}",
                image.reference, image.digest
            );
            writeln!(io::stderr(), "{}", hac::text::printable(&line, 4000))?;
            Ok(ExitCode::from(UNSIGNED))
        }
    }
}
