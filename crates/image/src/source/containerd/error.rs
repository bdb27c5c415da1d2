//! What can go wrong with containerd.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::digest::Digest;
use crate::source::error::listing;

/// A containerd that doesn't give an image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContainerdError {
    /// There is no socket.
    #[error(
        "there is no socket at {}: is containerd running? CONTAINERD_ADDRESS names another socket", address.display()
    )]
    Absent {
        /// Where it should be.
        address: PathBuf,
    },
    /// Nobody listens at the socket.
    #[error(
        "nobody listens at {}: containerd isn't running any more, or CONTAINERD_ADDRESS must name another socket",
        address.display()
    )]
    Deaf {
        /// The socket.
        address: PathBuf,
    },
    /// This user may not talk to containerd.
    #[error("this user may not connect to {}: containerd mostly serves root only", address.display())]
    Denied {
        /// The socket.
        address: PathBuf,
    },
    /// The connection failed in another way.
    #[error("can't connect to containerd at {}", address.display())]
    Connect {
        /// The socket.
        address: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The namespace can't be one.
    #[error(
        "{namespace:?} isn't a namespace of containerd's; CONTAINERD_NAMESPACE should be one such as default or k8s.io"
    )]
    Namespace {
        /// The text.
        namespace: String,
    },
    /// containerd doesn't answer.
    #[error("containerd didn't give {what} within {seconds} seconds")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// containerd refuses.
    #[error("containerd refused {what} ({code}): {message}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// gRPC's description of its code.
        code: &'static str,
        /// What containerd says.
        message: String,
    },
    /// containerd's answer makes no sense.
    #[error("containerd {what}")]
    Answer {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The name isn't there.
    #[error(
        "containerd's namespace \"{namespace}\" holds no image named \"{wanted}\"; it holds: {} \
         (CONTAINERD_NAMESPACE names another)",
        listing(found)
    )]
    NoSuchImage {
        /// The namespace.
        namespace: String,
        /// The name that was asked for.
        wanted: String,
        /// The names that there are, some at least.
        found: Vec<String>,
    },
    /// A part of the image isn't there.
    #[error(
        "containerd doesn't hold {digest}, a part of the image: it was pulled for another platform, or containerd is set \
         to discard layers that it has unpacked (discard_unpacked_layers)"
    )]
    NoContent {
        /// Its digest.
        digest: Digest,
    },
}

impl ContainerdError {
    pub(super) fn connecting(address: &Path, source: io::Error) -> ContainerdError {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ContainerdError::Absent { address },
            io::ErrorKind::ConnectionRefused => ContainerdError::Deaf { address },
            io::ErrorKind::PermissionDenied => ContainerdError::Denied { address },
            _ => ContainerdError::Connect { address, source },
        }
    }
}
