//! What workloads print, kept on disk longer than they run.
//!
//! One folder holds the log of one spacecore: `log`, and the older files `log.1`, `log.2` and so on, the oldest with the highest
//! number. A line of a file is one line of output in the form that container runtimes have agreed on (Kubernetes' CRI, which
//! `crictl` and collectors of logs read):
//!
//! ```text
//! 2026-11-28T14:00:00.123456789Z stdout F what the workload printed
//! ```
//!
//! The time is UTC and that of the line's arrival. `F` marks a full line, `P` a part: the next text of the same stream continues
//! it. A line of more than 16 KiB is cut into parts, and output that ends without a line's end is a part as well, so that what was
//! printed can be given back byte for byte. Bytes are kept as they are, whatever their encoding.
//!
//! - [`line`]: one line, written and read.
//! - [`write`](mod@write): the keeper's side: batches, rotation, and what happens on a full disk.
//! - [`read`]: whoever shows or forwards a log, while it is written or later.

pub mod line;
pub mod read;
pub mod write;

pub use line::{Line, Stream, parse_line};
pub use read::{Reader, Wanted};
pub use write::Writer;

/// The name of the file that is written.
const CURRENT: &str = "log";

/// The name of the file of this number; 0 is the one that is written.
fn name_of(number: u32) -> String {
    match number {
        0 => CURRENT.to_owned(),
        older => format!("{CURRENT}.{older}"),
    }
}

/// The number of the file of this name.
fn number_of(name: &str) -> Option<u32> {
    let number = match name.strip_prefix(CURRENT)? {
        "" => 0,
        ending => ending.strip_prefix('.')?.parse().ok().filter(|number| *number > 0)?,
    };
    (name_of(number) == name).then_some(number)
}
