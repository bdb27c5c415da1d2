//! How long each step took, for the keeper's timings.

use std::time::Instant;

use spacecore::wire::message::Step;

/// Steps so far, and when the one under way began.
#[derive(Debug)]
pub(crate) struct Steps {
    begun: Instant,
    done: Vec<Step>,
}

impl Steps {
    /// Starts the first step.
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), done: Vec::new() }
    }

    /// Ends the step under way, names it, and starts the next.
    pub(crate) fn end(&mut self, name: &str) {
        let now = Instant::now();
        let us = u64::try_from(now.duration_since(self.begun).as_micros()).unwrap_or(u64::MAX);
        self.done.push(Step { name: name.to_owned(), us });
        self.begun = now;
    }

    /// The steps that have ended, in order.
    pub(crate) fn done(&self) -> &[Step] {
        &self.done
    }
}
