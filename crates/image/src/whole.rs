//! Errors for who isn't handed them, but told.

use std::error::Error;

/// An error with everything below it, in one line.
#[must_use]
pub fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
