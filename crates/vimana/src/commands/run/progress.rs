//! What a person sees while a spacecore is prepared, and what `--timings` keeps of it.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use image::{Image, PullError, PullOptions, Reference, Store};
use indicatif::{ProgressBar, ProgressStyle};
use node::clock::Mark;
use node::prepare::Watcher;
use serde_json::json;

use crate::commands::image::progress::PullDisplay;

/// The steps of a preparation. Speaks on standard error, or as events on standard output; draws only on a terminal.
pub struct Steps {
    marks: Vec<Mark>,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Text,
    Events,
    Quiet,
}

impl Steps {
    /// For `vimana run`.
    pub fn new(json: bool) -> Self {
        Self { marks: Vec::new(), mode: if json { Mode::Events } else { Mode::Text } }
    }

    /// For commands that print only their result.
    pub fn quiet() -> Self {
        Self {
            marks: Vec::new(),
            mode: if std::io::stderr().is_terminal() { Mode::Text } else { Mode::Quiet },
        }
    }

    /// What was noted.
    pub fn marks(&self) -> Vec<Mark> {
        self.marks.clone()
    }

    /// Tells what a person should know of the spacecore.
    pub fn notice(&self, text: &str) {
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (dim, plain) = if colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let _ = match self.mode {
            Mode::Text => writeln!(std::io::stderr(), "{dim}vimana: note: {text}{plain}"),
            Mode::Events => writeln!(std::io::stdout(), "{}", json!({ "event": "note", "text": text })),
            Mode::Quiet => Ok(()),
        };
    }

    /// What shows that the guest boots.
    pub fn boot(&self) -> Boot {
        let draws = self.mode == Mode::Text && std::io::stderr().is_terminal();
        Boot(draws.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar
        }))
    }
}

impl Watcher for Steps {
    fn done(&mut self, step: &str) {
        self.marks.push(Mark::now(step));
    }

    fn say(&mut self, text: &str) {
        // Progress that nobody can see is no reason to stop.
        let _ = match self.mode {
            Mode::Text => writeln!(std::io::stderr(), "vimana: {text}"),
            Mode::Events => writeln!(std::io::stdout(), "{}", json!({ "event": "step", "text": text })),
            Mode::Quiet => Ok(()),
        };
    }

    /// With a bar for each layer on a terminal and lines elsewhere.
    fn pull(
        &mut self,
        store: &Store,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Image, PullError> {
        let display = PullDisplay::new(self.mode != Mode::Text);
        let result = store.pull(reference, options, &|step| display.report(&step));
        display.finish();
        result
    }
}

/// Shows on a terminal that the guest boots.
pub struct Boot(Option<ProgressBar>);

impl Boot {
    /// Shows nothing.
    pub fn hidden() -> Self {
        Self(None)
    }

    /// Shows what is being done.
    pub fn show(&self, what: &'static str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// Clears it away before the workload speaks.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
