//! Refusals as the error type of everything that the guest does for its keeper.

use std::fmt::Display;

use crate::wire::message::{Refusal, RefusalKind};

/// Makes a refusal of this kind that says `message`.
pub fn refuse(kind: RefusalKind, message: impl Into<String>) -> Refusal {
    Refusal { kind, message: message.into() }
}

/// Turns an error into a refusal, saying what could not be done.
pub trait OrRefuse<T> {
    /// Gives the value, or a refusal `<what>: <error>`.
    ///
    /// # Errors
    /// There is no value.
    fn or_refuse(self, kind: RefusalKind, what: impl FnOnce() -> String) -> Result<T, Refusal>;
}

impl<T, E: Display> OrRefuse<T> for Result<T, E> {
    fn or_refuse(self, kind: RefusalKind, what: impl FnOnce() -> String) -> Result<T, Refusal> {
        self.map_err(|error| refuse(kind, format!("{}: {error}", what())))
    }
}
