//! A pull on a person's screen: one bar for each layer on a terminal, one line for each elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use image::{Digest, Progress};
use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressStyle};

/// Shows a pull's steps on stderr.
pub(crate) struct PullDisplay {
    mode: Mode,
}

enum Mode {
    Quiet,
    Lines,
    Bars { all: MultiProgress, layers: Mutex<HashMap<Digest, ProgressBar>> },
}

impl PullDisplay {
    /// Chooses bars on a terminal and lines elsewhere, or nothing.
    pub(crate) fn new(quiet: bool) -> PullDisplay {
        let mode = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Bars { all: MultiProgress::new(), layers: Mutex::default() },
            (false, false) => Mode::Lines,
        };
        PullDisplay { mode }
    }

    /// Shows one step; may be called from several threads.
    pub(crate) fn report(&self, step: &Progress<'_>) {
        match &self.mode {
            Mode::Quiet => {}
            Mode::Lines => line(step),
            Mode::Bars { all, layers } => {
                bar(all, &mut layers.lock().unwrap_or_else(PoisonError::into_inner), step);
            }
        }
    }

    /// Removes the bars, so that what is printed next stands by itself.
    pub(crate) fn finish(&self) {
        if let Mode::Bars { all, .. } = &self.mode {
            // A terminal that is gone has no bars either.
            let _ = all.clear();
        }
    }
}

fn line(step: &Progress<'_>) {
    let text = match step {
        // An image that is here already is no news.
        Progress::Resolved { missing: 0, .. } => return,
        Progress::Resolved { layers, missing, bytes, .. } => {
            format!("{missing} of {layers} layers to fetch, {}", BinaryBytes(*bytes))
        }
        Progress::Waiting { layer } => format!("{}: another process fetches it", layer.short()),
        Progress::Ready { layer, bytes, cached: false } => {
            format!("{}: ready, {}", layer.short(), BinaryBytes(*bytes))
        }
        Progress::Merging { layers } => format!("merging the lowest {layers} layers"),
        _ => return,
    };
    // Progress that can't be shown is no reason to stop.
    let _ = writeln!(io::stderr(), "{text}");
}

fn bar(all: &MultiProgress, layers: &mut HashMap<Digest, ProgressBar>, step: &Progress<'_>) {
    let mut of = |layer: &Digest| {
        let made = layers.entry(layer.clone()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(0));
            bar.set_style(style());
            bar.set_prefix(layer.short().to_owned());
            bar
        });
        made.clone()
    };
    match step {
        Progress::Waiting { layer } => of(layer).set_message("another process fetches it"),
        Progress::Fetching { layer, done, total } => {
            let bar = of(layer);
            bar.set_length(*total);
            bar.set_position(*done);
            if done >= total {
                bar.set_message("converting");
            }
        }
        Progress::Ready { layer, cached: false, .. } => of(layer).finish_with_message("ready"),
        Progress::Merging { layers: count } => {
            // Bars that come and go need their own line; this one is on its own at the end.
            let _ = all.println(format!("merging the lowest {count} layers"));
        }
        _ => {}
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} [{bar:30}] {binary_bytes:>11} / {binary_total_bytes:11} {msg}";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
