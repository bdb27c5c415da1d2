//! How much has been copied, on a terminal, once it takes more than a second.

use std::io::{self, Read, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// After how long a person would like to see something.
const SOON: Duration = Duration::from_secs(1);

/// A count of bytes, and the line that shows it.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Nothing is copied, and nothing is shown yet.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {binary_bytes} copied, {binary_bytes_per_sec}")
        {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Counts what is read.
    pub(super) fn read<'a, R: Read + 'a>(&'a self, from: R) -> impl Read + 'a {
        Counted { inner: from, bar: &self.0 }
    }

    /// Counts what is written.
    pub(super) fn write<'a, W: Write + 'a>(&'a self, to: W) -> impl Write + 'a {
        Counted { inner: to, bar: &self.0 }
    }

    /// Clears it away.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

struct Counted<'a, T> {
    inner: T,
    bar: &'a ProgressBar,
}

impl<T> Counted<'_, T> {
    fn count(&self, bytes: usize) {
        if self.bar.is_hidden() && self.bar.elapsed() > SOON {
            // Stays hidden where standard error is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(bytes as u64);
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count(read);
        Ok(read)
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
