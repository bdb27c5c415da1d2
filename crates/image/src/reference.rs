//! Where an image comes from, written as skopeo writes it.
//!
//! | text | means |
//! |---|---|
//! | `alpine`, `alpine:3.20`, `ghcr.io/a/b@sha256:…`, `docker://…` | an image in a registry |
//! | `oci:FOLDER[:TAG]` | an OCI image layout |
//! | `oci-archive:FILE[:TAG]` | a tar file of an OCI image layout |
//! | `docker-archive:FILE[:REFERENCE]` | what `docker save` writes |
//! | `containerd:NAME` | an image in containerd's content store |
//! | `wasm:FILE` | a Wasm program |
//!
//! A path ends at its first colon, as in skopeo; that of a Wasm program doesn't.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::digest::Digest;

mod error;

pub use error::ReferenceError;

const DOCKER_HUB: &str = "docker.io";
const MAX_LENGTH: usize = 4096;

/// The name of an image and of the place it comes from.
///
/// `Display` writes the normalised form, which parses to the same value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// An image in a registry.
    Registry(RegistryReference),
    /// An image in an OCI layout folder; without a tag, the only one there.
    Layout {
        /// The folder that holds `oci-layout` and `index.json`.
        path: PathBuf,
        /// The value of the annotation `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// An image in a tar file of an OCI layout; without a tag, the only one there.
    OciArchive {
        /// The tar file.
        path: PathBuf,
        /// The value of the annotation `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// An image in a file that `docker save` wrote; without a name, the only one there.
    DockerArchive {
        /// The tar file.
        path: PathBuf,
        /// One of the image's `RepoTags`.
        name: Option<String>,
    },
    /// An image in containerd's content store.
    Containerd {
        /// containerd's own name for it, or a short one as in a registry's reference.
        name: String,
    },
    /// A Wasm program, core module or component, in a file.
    Wasm {
        /// The file.
        path: PathBuf,
    },
}

/// The name of an image in a registry, normalised: host, repository and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl RegistryReference {
    /// Returns the registry as `host` or `host:port`; `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path below the registry, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; a reference without a digest always has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, which is what counts where a tag is there too.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl Reference {
    /// Returns the reference with its path made absolute, so that it names the same file from any folder.
    ///
    /// # Errors
    /// The current folder can't be found out, or the path is empty.
    pub fn absolute(&self) -> std::io::Result<Reference> {
        let absolute = |path: &Path| std::path::absolute(path);
        Ok(match self {
            Reference::Registry(name) => Reference::Registry(name.clone()),
            Reference::Layout { path, tag } => Reference::Layout { path: absolute(path)?, tag: tag.clone() },
            Reference::OciArchive { path, tag } => {
                Reference::OciArchive { path: absolute(path)?, tag: tag.clone() }
            }
            Reference::DockerArchive { path, name } => {
                Reference::DockerArchive { path: absolute(path)?, name: name.clone() }
            }
            Reference::Containerd { name } => Reference::Containerd { name: name.clone() },
            Reference::Wasm { path } => Reference::Wasm { path: absolute(path)? },
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = |f: &mut fmt::Formatter<'_>, transport: &str, path: &Path, name: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            match name {
                Some(name) => write!(f, ":{name}"),
                None => Ok(()),
            }
        };
        match self {
            Reference::Registry(name) => {
                if TRANSPORTS.iter().any(|transport| name.registry.split(':').next() == Some(transport)) {
                    f.write_str("docker://")?;
                }
                write!(f, "{name}")
            }
            Reference::Layout { path, tag } => local(f, "oci", path, tag),
            Reference::OciArchive { path, tag } => local(f, "oci-archive", path, tag),
            Reference::DockerArchive { path, name } => local(f, "docker-archive", path, name),
            Reference::Containerd { name } => write!(f, "containerd:{name}"),
            Reference::Wasm { path } => local(f, "wasm", path, &None),
        }
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Words before a colon that name a transport (containers-transports(5)), read here or not.
const TRANSPORTS: [&str; 15] = [
    "docker",
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "containers-storage",
    "containerd",
    "wasm",
    "dir",
    "ostree",
    "sif",
    "tarball",
    "atomic",
    "http",
    "https",
];

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(ReferenceError::TooLong { length: text.len() });
        }
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            return Err(ReferenceError::Control { character: bad });
        }
        if is_bare_wasm(text) {
            return Err(ReferenceError::BareWasm { path: text.to_owned() });
        }
        if text.starts_with(['/', '.', '~']) {
            return Err(ReferenceError::BarePath { path: text.to_owned() });
        }
        match text.split_once(':') {
            Some(("docker", rest)) => {
                let name = rest.strip_prefix("//").ok_or_else(|| ReferenceError::MissingSlashes {
                    text: text.to_owned(),
                    name: rest.trim_start_matches('/').to_owned(),
                })?;
                name.parse().map(Reference::Registry)
            }
            Some(("oci", rest)) => {
                let (path, tag) = local("oci", rest)?;
                Ok(Reference::Layout { path, tag })
            }
            Some(("oci-archive", rest)) => {
                let (path, tag) = local("oci-archive", rest)?;
                Ok(Reference::OciArchive { path, tag })
            }
            Some(("docker-archive", rest)) => {
                let (path, name) = local("docker-archive", rest)?;
                Ok(Reference::DockerArchive { path, name })
            }
            Some(("containerd", name)) => {
                if name.is_empty() || name.contains(char::is_whitespace) {
                    return Err(ReferenceError::Containerd { name: name.to_owned() });
                }
                Ok(Reference::Containerd { name: name.to_owned() })
            }
            Some(("wasm", "")) => Err(ReferenceError::NoPath { transport: "wasm" }),
            Some(("wasm", path)) => Ok(Reference::Wasm { path: PathBuf::from(path) }),
            Some((scheme @ ("http" | "https"), rest)) if rest.starts_with("//") => Err(ReferenceError::Url {
                scheme: scheme.to_owned(),
                name: rest.trim_start_matches('/').to_owned(),
            }),
            Some((transport, _)) if TRANSPORTS.contains(&transport) => {
                Err(ReferenceError::Transport { transport: transport.to_owned() })
            }
            _ => text.parse().map(Reference::Registry),
        }
    }
}

/// Tells the path of a Wasm program that lacks its transport: no tag or digest follows, and no transport goes before.
fn is_bare_wasm(text: &str) -> bool {
    let last = text.rsplit('/').next().unwrap_or(text);
    let transport = text.split_once(':').is_some_and(|(word, _)| TRANSPORTS.contains(&word));
    last.ends_with(".wasm") && !last.contains([':', '@']) && !transport
}

fn local(transport: &'static str, rest: &str) -> Result<(PathBuf, Option<String>), ReferenceError> {
    let (path, name) = match rest.split_once(':') {
        Some((path, name)) => (path, Some(name)),
        None => (rest, None),
    };
    if path.is_empty() {
        return Err(ReferenceError::NoPath { transport });
    }
    match name {
        Some("") => Err(ReferenceError::EmptyName { transport, path: path.to_owned() }),
        Some(name) => Ok((PathBuf::from(path), Some(name.to_owned()))),
        None => Ok((PathBuf::from(path), None)),
    }
}

impl FromStr for RegistryReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<RegistryReference, ReferenceError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let after_host = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name.get(after_host..).and_then(|last| last.rfind(':')) {
            Some(colon) => {
                let (name, tag) = name.split_at(after_host + colon);
                (name, Some(tag.trim_start_matches(':')))
            }
            None => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, path)) if looks_like_a_host(host) => (host, path.to_owned()),
            _ => (DOCKER_HUB, name.to_owned()),
        };
        let registry = normal_host(registry);
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { &registry };
        let repository = if registry == DOCKER_HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        check_registry(registry)?;
        check_repository(&repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(RegistryReference { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Tells a host from the first part of a Docker Hub name, by the rule of Docker's reference package.
fn looks_like_a_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Writes a host in lower case, unless its capitals are all that tells it from the first part of a Docker Hub name.
fn normal_host(host: &str) -> String {
    let lower = host.to_ascii_lowercase();
    if looks_like_a_host(&lower) { lower } else { host.to_owned() }
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let refuse = |reason| ReferenceError::Registry { registry: registry.to_owned(), reason };
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(|| refuse("lacks its closing bracket"))?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(refuse("holds something other than an IPv6 address in its brackets"));
            }
            (None, port.strip_prefix(':').or((!port.is_empty()).then_some(port)))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    if let Some(host) = host {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if host.len() > 253 || !host.split('.').all(label) {
            return Err(refuse("isn't a host name: letters, digits, dots, and hyphens inside a part"));
        }
    }
    match port {
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() => {
            Err(refuse("has a port outside 0 to 65535"))
        }
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    let refuse = |reason| ReferenceError::Repository { repository: repository.to_owned(), reason };
    if repository.len() > 255 {
        return Err(refuse("is longer than 255 characters"));
    }
    for part in repository.split('/') {
        if part.is_empty() {
            return Err(refuse("has an empty part"));
        }
        if part.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refuse("has capital letters, and registries want lower case"));
        }
        if !part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
            return Err(refuse("has characters other than a-z, 0-9, '.', '_' and '-'"));
        }
        let outside = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b'.' | b'_' | b'-'));
        if outside(part.as_bytes().first()) || outside(part.as_bytes().last()) {
            return Err(refuse("has a part that begins or ends with '.', '_' or '-'"));
        }
        let separators = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        for run in separators {
            let fine = matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
            if !fine {
                return Err(refuse("has separators in a row (one '.', one or two '_', or hyphens are fine)"));
            }
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.bytes().all(fine) {
        return Err(ReferenceError::Tag { tag: tag.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
