//! What can go wrong with a registry.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::address::Forbidden;
use crate::digest::Digest;

/// A registry that doesn't serve, or asks for what is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The file of root certificates can't be read.
    #[error("can't read the root certificates in {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of root certificates holds none.
    #[error("{} holds no certificate in PEM form (\"-----BEGIN CERTIFICATE-----\")", path.display())]
    CaEmpty {
        /// The file.
        path: PathBuf,
    },
    /// Docker's configuration can't be read.
    #[error("can't read the credentials in {}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry of Docker's configuration is damaged.
    #[error("the entry for {registry} in {} isn't \"user:password\" in base64; log in again", path.display())]
    BadAuth {
        /// The file.
        path: PathBuf,
        /// The registry.
        registry: String,
    },
    /// The program that keeps the credentials failed.
    #[error("can't get credentials from {program}")]
    Helper {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An address is none.
    #[error("\"{url}\" isn't an address that can be asked")]
    Url {
        /// The text.
        url: String,
    },
    /// The host can't be spoken to.
    #[error("can't reach {host}")]
    Unreachable {
        /// The host, with its port if there is one.
        host: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The host's certificate isn't trusted.
    #[error(
        "{host} isn't trusted; if its certificate is your own, name the file of your root certificate in \
         VIMANA_REGISTRY_CA"
    )]
    Certificate {
        /// The host, with its port if there is one.
        host: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The registry sent the client to an address that it may not send it to.
    #[error("the registry {registry} leads where it may not")]
    Forbidden {
        /// The registry.
        registry: String,
        /// Where.
        #[source]
        source: Forbidden,
    },
    /// The registry sent the client from HTTPS to plain HTTP.
    #[error("the registry {registry} leads to {url} without encryption, which is refused")]
    Downgrade {
        /// The registry.
        registry: String,
        /// Where.
        url: String,
    },
    /// One redirect leads to the next without an end.
    #[error("{url} is redirected more than {most} times")]
    Redirects {
        /// What was asked for.
        url: String,
        /// How many redirects are followed.
        most: usize,
    },
    /// There is no such thing.
    #[error("{registry} has no {what}{message}")]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What the registry says about it.
        message: String,
    },
    /// The registry wants to know who asks, or doesn't let them.
    #[error(
        "{registry} doesn't let {} have {what}{message}",
        if *known { "the user of the credentials found" } else { "anonymous users (no credentials were found; docker login or skopeo login writes them)" }
    )]
    Denied {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// Whether there were credentials.
        known: bool,
        /// What the registry says about it.
        message: String,
    },
    /// The registry answers with an error.
    #[error("{host} answers {status} when asked for {what}{message}")]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says about it.
        message: String,
    },
    /// The registry asks for a kind of login that isn't known.
    #[error("{registry} asks for a login that isn't known here: {schemes}")]
    Scheme {
        /// The registry.
        registry: String,
        /// What it offers.
        schemes: String,
    },
    /// The server that gives out tokens doesn't give one.
    #[error("{host} gives out no token for {registry}: {reason}")]
    Token {
        /// The registry.
        registry: String,
        /// The token server's host.
        host: String,
        /// Why.
        reason: String,
    },
    /// A document or blob has another length than declared.
    #[error("{host} wants to send {found} bytes for {digest}, which is declared to have {declared}")]
    Length {
        /// The host.
        host: String,
        /// The content's digest.
        digest: Digest,
        /// The size that the manifest declares, in bytes.
        declared: u64,
        /// The size that the server declares, in bytes.
        found: u64,
    },
    /// A manifest is larger than any should be.
    #[error("{registry} sends a manifest of more than {most} bytes")]
    Large {
        /// The registry.
        registry: String,
        /// The most bytes that are read.
        most: u64,
    },
    /// The connection broke while a document was read.
    #[error("the connection to {host} broke")]
    Broken {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest isn't the one that was asked for by digest.
    #[error("{registry} serves the manifest {found} when asked for {declared}")]
    Digest {
        /// The registry.
        registry: String,
        /// The digest that was asked for.
        declared: Digest,
        /// The digest of what came.
        found: Digest,
    },
}

impl RegistryError {
    /// Tells whether the same request may well succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            RegistryError::Unreachable { source, .. } => !matches!(
                source.as_ref(),
                ureq::Error::HostNotFound | ureq::Error::BadUri(_) | ureq::Error::Http(_)
            ),
            RegistryError::Broken { .. } => true,
            RegistryError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
