//! What can be wrong with a name.

use thiserror::Error;

use super::MAX_LENGTH;
use crate::digest::DigestError;

/// A text that doesn't name an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// There is nothing.
    #[error("the image's name is empty; write one such as alpine:3.20 or oci:./layout")]
    Empty,
    /// The text is longer than any name.
    #[error("the image's name has {length} bytes; at most {MAX_LENGTH} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text has a control character.
    #[error("the image's name holds the control character {character:?}")]
    Control {
        /// The character.
        character: char,
    },
    /// The text is a path without the transport that says how to read it.
    #[error(
        "\"{path}\" is a path: write oci:{path} for a layout folder, oci-archive:{path} for a layout in a tar \
         file, docker-archive:{path} for what docker save wrote"
    )]
    BarePath {
        /// The path.
        path: String,
    },
    /// The text is the path of a Wasm program without its transport.
    #[error(
        "\"{path}\" looks like a Wasm program in a file: write wasm:{path}; an image of that name in a registry is \
         docker://{path}"
    )]
    BareWasm {
        /// The path.
        path: String,
    },
    /// What stands behind `containerd:` isn't a name.
    #[error("\"{name}\" isn't an image's name in containerd; write one as ctr images ls shows it")]
    Containerd {
        /// The text.
        name: String,
    },
    /// `docker:` lacks its slashes.
    #[error("\"{text}\" lacks the slashes of docker://; write docker://{name}")]
    MissingSlashes {
        /// The text.
        text: String,
        /// What stands behind the transport.
        name: String,
    },
    /// The text is a URL.
    #[error("an image's name has no {scheme}://; write {name}")]
    Url {
        /// The scheme.
        scheme: String,
        /// The text without it.
        name: String,
    },
    /// The transport isn't read here.
    #[error(
        "images can't be read through \"{transport}:\"; docker://, oci:, oci-archive:, docker-archive:, containerd: \
         and wasm: can"
    )]
    Transport {
        /// Its name.
        transport: String,
    },
    /// A transport for files has no path.
    #[error("{transport}: needs a path, as in {transport}:PATH")]
    NoPath {
        /// Its name.
        transport: &'static str,
    },
    /// The name behind a path is empty.
    #[error(
        "{transport}:{path}: has nothing behind its last colon; write a tag there or leave the colon out"
    )]
    EmptyName {
        /// The transport's name.
        transport: &'static str,
        /// The path.
        path: String,
    },
    /// The registry isn't a host and port.
    #[error("the registry \"{registry}\" {reason}")]
    Registry {
        /// The part before the first slash.
        registry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The repository's name breaks the rules of the distribution specification.
    #[error("the repository \"{repository}\" {reason}")]
    Repository {
        /// The part after the registry.
        repository: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tag breaks the rules of the distribution specification.
    #[error(
        "the tag \"{tag}\" isn't one: 1 to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
    )]
    Tag {
        /// The part after the colon.
        tag: String,
    },
    /// The digest isn't one.
    #[error(transparent)]
    Digest(#[from] DigestError),
}
