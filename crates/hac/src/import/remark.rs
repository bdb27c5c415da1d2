//! What a person is told about a key of the imported file.

use std::fmt;

use serde::Serialize;

use crate::diagnostic::Span;
use crate::words::words;

words! {
    /// What became of a key.
    pub enum Outcome {
        /// No manifest says it.
        NotCarried = "not-carried",
        /// A manifest says it otherwise, or it means something else here.
        Changed = "changed",
    }
}

/// What became of one key of the imported file, if it isn't simply in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// What became of it.
    pub outcome: Outcome,
    /// The service that it belongs to; `None` for what stands outside of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The key's path in the imported file, such as `services.web.ports[0]`.
    pub key: String,
    /// Where it stands.
    #[serde(flatten)]
    pub span: Span,
    /// Why it isn't carried over, or what became of it.
    pub why: String,
    /// What to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.span.line, self.span.column, self.key, self.why)?;
        match &self.instead {
            Some(instead) => write!(f, " ({instead})"),
            None => Ok(()),
        }
    }
}
