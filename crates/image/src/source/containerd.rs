//! containerd's content store, through its own interface on its socket (containerd, `api/services/images` and `content`).
//!
//! Nothing of it is believed: what it hands out is checked by size and digest like everything else. Every question has
//! a time in which it must be answered, and so has every piece of a blob.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::SourceError;
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::options::PullOptions;
use crate::reference::RegistryReference;

mod error;
mod messages;

pub use error::ContainerdError;

use messages::{
    Content, GetImage, GotImage, ImageList, InfoAnswer, InfoQuestion, ListImages, Piece, ReadContent, Target,
};

const ADDRESS: &str = "/run/containerd/containerd.sock";
const NAMESPACE: &str = "default";
/// How long a connection, an answer or the next piece of a blob may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest message that is read: a list of some ten thousand images.
const LONGEST_MESSAGE: usize = 16 << 20;
/// How many names an error lists.
const NAMES: usize = 20;

/// One image of containerd's.
pub(crate) struct Containerd {
    address: PathBuf,
    namespace: MetadataValue<Ascii>,
    target: Descriptor,
}

impl Containerd {
    pub(crate) fn open(name: &str, options: &PullOptions) -> Result<Containerd, SourceError> {
        let from_env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = match (&options.containerd_address, from_env("CONTAINERD_ADDRESS")) {
            (Some(address), _) => address.clone(),
            (None, Some(text)) => PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text)),
            (None, None) => PathBuf::from(ADDRESS),
        };
        let named = options.containerd_namespace.clone().or_else(|| from_env("CONTAINERD_NAMESPACE"));
        let namespace_text = named.unwrap_or_else(|| NAMESPACE.to_owned());
        let namespace = MetadataValue::try_from(namespace_text.as_str())
            .map_err(|_| ContainerdError::Namespace { namespace: namespace_text.clone() })?;
        let mut connection = Connection::open(&address, namespace.clone())?;
        // containerd's own name, or a short one as people write it.
        let full = name.parse::<RegistryReference>().map(|name| name.to_string()).unwrap_or_default();
        for candidate in [name, full.as_str()] {
            if !candidate.is_empty()
                && let Some(target) = connection.image(candidate)?
            {
                return Ok(Containerd { address, namespace, target: descriptor(target)? });
            }
        }
        let wanted = name.to_owned();
        Err(ContainerdError::NoSuchImage { namespace: namespace_text, wanted, found: connection.names()? }
            .into())
    }

    /// Returns what the image's name stands for: an index or a manifest.
    pub(crate) fn root(&self) -> &Descriptor {
        &self.target
    }

    /// Opens a blob, on a connection of its own, so that several can be read at once.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, SourceError> {
        let mut connection = Connection::open(&self.address, self.namespace.clone())?;
        let digest = &descriptor.digest;
        let found = connection.size(digest)?;
        if found != descriptor.size {
            return Err(SourceError::Size { digest: digest.clone(), declared: descriptor.size, found });
        }
        let stream = connection.read(digest)?;
        Ok(Box::new(Blob { connection, stream, piece: Vec::new(), taken: 0, offset: 0 }))
    }
}

fn descriptor(target: Target) -> Result<Descriptor, ContainerdError> {
    let wrong = || ContainerdError::Answer {
        what: "describes the image by something that isn't a digest and a size",
    };
    Ok(Descriptor {
        media_type: target.media_type,
        digest: target.digest.parse().map_err(|_| wrong())?,
        size: u64::try_from(target.size).map_err(|_| wrong())?,
        platform: None,
        annotations: None,
    })
}

/// A connection, with the runtime that drives it while somebody waits for an answer.
struct Connection {
    grpc: Grpc<Channel>,
    namespace: MetadataValue<Ascii>,
    runtime: Runtime,
}

impl Connection {
    fn open(address: &Path, namespace: MetadataValue<Ascii>) -> Result<Connection, ContainerdError> {
        let failed = |source: io::Error| ContainerdError::connecting(address, source);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let late = |_| ContainerdError::Late { what: "the connection", seconds: PATIENCE.as_secs() };
        let connected = runtime.block_on(async { timeout(PATIENCE, UnixStream::connect(address)).await });
        let mut stream = Some(TokioIo::new(connected.map_err(late)?.map_err(failed)?));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
            async move { stream }
        });
        let channel = runtime.block_on(async {
            let endpoint = Endpoint::from_static("http://containerd");
            timeout(PATIENCE, endpoint.connect_with_connector(connector)).await
        });
        let channel = channel.map_err(late)?.map_err(|error| failed(io::Error::other(error)))?;
        let grpc = Grpc::new(channel).max_decoding_message_size(LONGEST_MESSAGE);
        Ok(Connection { grpc, namespace, runtime })
    }

    /// Asks one question.
    fn ask<Q, A>(&mut self, what: &'static str, path: &'static str, question: Q) -> Result<A, Asked>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(question);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        let grpc = &mut self.grpc;
        let answer = self.runtime.block_on(async {
            timeout(PATIENCE, async {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::default()).await
            })
            .await
        });
        answered(what, answer.map(|answer| answer.map(tonic::Response::into_inner)))
    }

    fn image(&mut self, name: &str) -> Result<Option<Target>, ContainerdError> {
        let question = GetImage { name: name.to_owned() };
        let answer: Result<GotImage, Asked> =
            self.ask("the image", "/containerd.services.images.v1.Images/Get", question);
        match answer {
            Ok(answer) => match answer.image.and_then(|image| image.target) {
                Some(target) => Ok(Some(target)),
                None => Err(ContainerdError::Answer { what: "knows the image but not what it is" }),
            },
            Err(Asked::Absent) => Ok(None),
            Err(Asked::Failed(error)) => Err(error),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, ContainerdError> {
        let path = "/containerd.services.images.v1.Images/List";
        let answer: ImageList =
            self.ask("the list of images", path, ListImages {}).map_err(Asked::into_error)?;
        let mut names: Vec<String> = answer.images.into_iter().map(|image| image.name).collect();
        names.sort();
        let more = names.len().saturating_sub(NAMES);
        names.truncate(NAMES);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        Ok(names)
    }

    fn size(&mut self, digest: &Digest) -> Result<u64, ContainerdError> {
        let question = InfoQuestion { digest: digest.to_string() };
        let answer: Result<InfoAnswer, Asked> =
            self.ask("a blob's size", "/containerd.services.content.v1.Content/Info", question);
        match answer {
            Ok(InfoAnswer { info: Some(Content { size, .. }) }) => u64::try_from(size)
                .map_err(|_| ContainerdError::Answer { what: "gives a blob a size below zero" }),
            Ok(InfoAnswer { info: None }) => Err(ContainerdError::Answer { what: "gives a blob no size" }),
            Err(Asked::Absent) => Err(ContainerdError::NoContent { digest: digest.clone() }),
            Err(Asked::Failed(error)) => Err(error),
        }
    }

    fn read(&mut self, digest: &Digest) -> Result<Streaming<Piece>, ContainerdError> {
        let mut request = Request::new(ReadContent { digest: digest.to_string(), offset: 0, size: 0 });
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
        let grpc = &mut self.grpc;
        let answer = self.runtime.block_on(async {
            timeout(PATIENCE, async {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                grpc.server_streaming(request, path, ProstCodec::default()).await
            })
            .await
        });
        let answer = answer.map(|answer| answer.map(tonic::Response::into_inner));
        answered("a blob", answer).map_err(|asked| match asked {
            // Its size may be known even so: that is kept apart from the bytes.
            Asked::Absent => ContainerdError::NoContent { digest: digest.clone() },
            Asked::Failed(error) => error,
        })
    }
}

/// Why a question has no answer.
enum Asked {
    Absent,
    Failed(ContainerdError),
}

impl Asked {
    fn into_error(self) -> ContainerdError {
        match self {
            Asked::Absent => ContainerdError::Answer { what: "doesn't know what it listed a moment ago" },
            Asked::Failed(error) => error,
        }
    }
}

fn answered<A>(
    what: &'static str,
    answer: Result<Result<A, Status>, tokio::time::error::Elapsed>,
) -> Result<A, Asked> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) if status.code() == Code::NotFound => Err(Asked::Absent),
        Ok(Err(status)) => Err(Asked::Failed(ContainerdError::Refused {
            what,
            code: status.code().description(),
            message: status.message().chars().take(400).collect(),
        })),
        Err(_) => Err(Asked::Failed(ContainerdError::Late { what, seconds: PATIENCE.as_secs() })),
    }
}

/// A blob's pieces, read like a file.
struct Blob {
    connection: Connection,
    stream: Streaming<Piece>,
    piece: Vec<u8>,
    taken: usize,
    offset: u64,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.piece.len() {
            let stream = &mut self.stream;
            let next = self.connection.runtime.block_on(async { timeout(PATIENCE, stream.message()).await });
            let next =
                next.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?;
            let Some(piece) = next else { return Ok(0) };
            if u64::try_from(piece.offset) != Ok(self.offset) {
                return Err(io::Error::other("containerd skipped a part of it"));
            }
            self.offset = self.offset.saturating_add(piece.data.len() as u64);
            self.piece = piece.data;
            self.taken = 0;
        }
        let count = self.piece.get(self.taken..).unwrap_or_default().read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}
