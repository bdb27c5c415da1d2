//! What a person sees while a spacecore is prepared, and what `--timings` keeps of it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use image::{Image, Progress, PullError, PullOptions, Reference, Store};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use node::clock::Mark;

/// The steps of a preparation. Speaks on standard error; draws only on a terminal.
pub struct Steps {
    marks: Vec<Mark>,
    silent: bool,
    draws: bool,
}

impl Steps {
    /// For `vimana run`.
    pub fn new(silent: bool) -> Self {
        Self { marks: Vec::new(), silent, draws: !silent && std::io::stderr().is_terminal() }
    }

    /// For commands that print only their result.
    pub fn quiet() -> Self {
        Self::new(!std::io::stderr().is_terminal())
    }

    /// Notes the end of a step.
    pub fn done(&mut self, name: &str) {
        self.marks.push(Mark::now(name));
    }

    /// What was noted.
    pub fn marks(&self) -> Vec<Mark> {
        self.marks.clone()
    }

    /// Tells of something that takes long.
    pub fn say(&self, text: &str) {
        if !self.silent {
            // Progress that nobody can see is no reason to stop.
            let _ = writeln!(std::io::stderr(), "vimana: {text}");
        }
    }

    /// Tells what a person should know before trusting the spacecore.
    pub fn notice(&self, text: &str) {
        let (dim, plain) = if self.draws && std::env::var_os("NO_COLOR").is_none() {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        let _ = writeln!(std::io::stderr(), "{dim}vimana: note: {text}{plain}");
    }

    /// Pulls an image, with a bar for each layer on a terminal and a line at the end elsewhere.
    pub fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Image, PullError> {
        let bars = Bars { all: MultiProgress::new(), layers: Mutex::default() };
        let report = |progress: Progress<'_>| {
            if self.draws {
                bars.show(&progress);
            } else if let Progress::Resolved { missing, bytes, .. } = progress
                && missing > 0
            {
                self.say(&format!("pulling {reference}: {missing} layers, {:.1} MB", bytes as f64 / 1e6));
            }
        };
        let result = store.pull(reference, options, &report);
        // A terminal that can't be cleared keeps the bars.
        let _ = bars.all.clear();
        result
    }
}

struct Bars {
    all: MultiProgress,
    layers: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    fn show(&self, progress: &Progress<'_>) {
        let Ok(mut layers) = self.layers.lock() else {
            return;
        };
        match progress {
            Progress::Fetching { layer, done, total } => {
                let bar = layers.entry(layer.short().to_owned()).or_insert_with(|| {
                    let bar = self.all.add(ProgressBar::new(*total));
                    let shape = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
                    if let Ok(style) = ProgressStyle::with_template(shape) {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(layer.short().to_owned());
                    bar.enable_steady_tick(Duration::from_millis(200));
                    bar
                });
                bar.set_position(*done);
            }
            Progress::Ready { layer, .. } => {
                if let Some(bar) = layers.remove(layer.short()) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
    }
}
