//! Why something couldn't be copied.

use std::error::Error;
use std::fmt;
use std::io;

/// Why something couldn't be copied. Paths are fit to be shown.
#[derive(Debug)]
pub enum ArchiveError {
    /// The stream could not be read or written.
    Stream(io::Error),
    /// The stream ends before the archive does: whoever sent it was interrupted.
    Truncated,
    /// A head that isn't one.
    Header(&'static str),
    /// A path that leads elsewhere, or that Linux doesn't have.
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry of a kind that isn't copied.
    Unsupported {
        /// Its path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// More than was allowed.
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much was allowed.
        limit: u64,
    },
    /// Something with this name is there, and is of another kind.
    InTheWay {
        /// The path.
        path: String,
        /// What it is, and what was to be put there.
        what: &'static str,
    },
    /// A file shrank while it was read.
    Changed {
        /// Its path.
        path: String,
    },
    /// The system refused something.
    File {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ArchiveError {
    /// The system's refusal for this path.
    pub(super) fn at(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::File { path: shown(path), source: source.into() }
    }

    pub(super) fn path(path: &[u8], what: &'static str) -> Self {
        Self::Path { path: shown(path), what }
    }
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => write!(f, "the stream of files broke off"),
            Self::Truncated => write!(f, "the stream of files ended early; what was half copied is removed"),
            Self::Header(what) => write!(f, "what was sent is no tar archive that can be used: {what}"),
            Self::Path { path, what } => write!(f, "{path:?} can't be copied: {what}"),
            Self::Unsupported { path, what } => {
                write!(f, "{path:?} is {what}; only files, folders and links are copied")
            }
            Self::TooMuch { what, limit } => {
                write!(f, "there are more than {limit} {what}, which is the limit")
            }
            Self::InTheWay { path, what } => write!(f, "{path:?} is in the way: {what}"),
            Self::Changed { path } => write!(f, "{path:?} became shorter while it was read; try it again"),
            Self::File { path, .. } => write!(f, "{path:?}"),
        }
    }
}

impl Error for ArchiveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Stream(source) | Self::File { source, .. } => Some(source),
            Self::Truncated
            | Self::Header(_)
            | Self::Path { .. }
            | Self::Unsupported { .. }
            | Self::TooMuch { .. }
            | Self::InTheWay { .. }
            | Self::Changed { .. } => None,
        }
    }
}

/// A path as it may appear in an error: not too long; what isn't UTF-8 is replaced.
pub(super) fn shown(path: &[u8]) -> String {
    const LONGEST: usize = 200;
    match path.get(..LONGEST) {
        Some(head) if path.len() > LONGEST => format!("{}...", String::from_utf8_lossy(head)),
        _ => String::from_utf8_lossy(path).into_owned(),
    }
}
