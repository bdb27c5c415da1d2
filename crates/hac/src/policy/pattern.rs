//! The start of an image's name.

use std::fmt;
use std::str::FromStr;

/// The start of the names of images: a registry (`ghcr.io`, `*.example.org`), a registry and the start of a path
/// (`docker.io/library`), a place on this machine (`oci:`, `oci:/srv/images`), or `*` for all.
///
/// What it names ends where a part of the name ends: `ghcr.io/acme` isn't the start of `ghcr.io/acmeister/app`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

/// What an image that is in no registry starts with.
const TRANSPORTS: [&str; 5] = ["oci:", "oci-archive:", "docker-archive:", "containerd:", "wasm:"];

/// A text that can't be the start of an image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty, or has blanks in it.
    #[error("{0:?} can't be the start of an image's name")]
    Shape(String),
    /// It is the address of a page.
    #[error("{0:?} is an address, and images have names without http://")]
    Address(String),
    /// It has no registry.
    #[error("{0:?} names no registry")]
    NoRegistry(String),
    /// It has a star where none may be.
    #[error("{0:?} has a * in it, which may only stand alone or before a registry's domain")]
    Star(String),
}

impl PatternError {
    /// What would be right.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Shape(_) => {
                "for example \"ghcr.io/acme\", \"*.example.org\", \"oci:/srv/images\" or \"*\"".to_owned()
            }
            Self::Address(text) => {
                format!("write {:?}", text.split_once("://").map_or(text.as_str(), |(_, name)| name))
            }
            Self::NoRegistry(text) => match text.contains('/') {
                true => format!("for one of Docker Hub's write {:?}", format!("docker.io/{text}")),
                false => format!("for one of Docker Hub's write {:?}", format!("docker.io/library/{text}")),
            },
            Self::Star(_) => "every path below a start is meant anyway: \"ghcr.io/acme\"".to_owned(),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |kind: fn(String) -> PatternError| Err(kind(text.to_owned()));
        if text.is_empty() || text.len() > 1024 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return wrong(PatternError::Shape);
        }
        if text == "*" || TRANSPORTS.iter().any(|transport| text.starts_with(transport)) {
            return Ok(Self(text.to_owned()));
        }
        if text.contains("://") {
            return wrong(PatternError::Address);
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let domain = host.strip_prefix("*.").unwrap_or(host);
        if domain.contains('*') || path.contains('*') {
            return wrong(PatternError::Star);
        }
        // As in an image's name: what has neither a dot nor a colon is no registry.
        if domain.is_empty() || !(host.contains(['.', ':']) || host == "localhost") {
            return wrong(PatternError::NoRegistry);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Tells whether it is the start of an image's full name, such as `docker.io/library/alpine:3.20` or `oci:/srv/app`.
    #[must_use]
    pub fn matches(&self, image: &str) -> bool {
        let pattern = self.0.as_str();
        if pattern == "*" {
            return true;
        }
        let is_local = |text: &str| TRANSPORTS.iter().any(|transport| text.starts_with(transport));
        // A registry whose name looks like a place on this machine is written with this before it.
        let (image, is_local_image) = match image.strip_prefix("docker://") {
            Some(image) => (image, false),
            None => (image, is_local(image)),
        };
        if is_local(pattern) || is_local_image {
            // What leads out of a folder isn't in it.
            return is_local(pattern) && is_local_image && !climbs(image) && starts(image, pattern);
        }
        let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
        let Some((registry, name)) = image.split_once('/') else { return false };
        // Other names of the same registries.
        let registry = match registry.strip_suffix(":443").unwrap_or(registry) {
            "registry-1.docker.io" => "docker.io",
            registry => registry,
        };
        let same_host = match host.strip_prefix('*') {
            Some(domain) => registry.len() > domain.len() && registry.ends_with(domain),
            None => registry == host,
        };
        same_host && starts(name, path)
    }
}

/// Whether a name leads out of the folder that it begins with, so that nobody can say where it ends.
pub(super) fn climbs(image: &str) -> bool {
    image.split(['/', ':']).any(|part| part == "..")
}

/// Tells whether `start` ends where a part of `name` ends.
fn starts(name: &str, start: &str) -> bool {
    let Some(rest) = name.strip_prefix(start) else { return false };
    start.is_empty() || start.ends_with(['/', ':']) || rest.is_empty() || rest.starts_with(['/', ':', '@'])
}
