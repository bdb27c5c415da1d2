//! How fast a keeper can keep what a workload prints: `log_speed [MIB]`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use node::clock::unix_time_ns;
use node::keeper::assignment::LogPlan;
use node::log::{Stream, Writer};

fn main() -> Result<(), Box<dyn Error>> {
    let mib: usize = std::env::args().nth(1).map_or(Ok(512), |word| word.parse())?;
    for length in [20, 100, 1000] {
        let home = tempfile::tempdir()?;
        let plan = LogPlan { folder: home.path().join("log"), file_bytes: 64 << 20, files: 2 };
        let mut writer = Writer::new(&plan);
        let line = [vec![b'x'; length - 1], b"\n".to_vec()].concat();
        let batch = line.repeat(65_536 / length);
        let begun = Instant::now();
        let mut written = 0;
        while written < mib << 20 {
            let now = unix_time_ns();
            writer.take(Stream::Stdout, &batch, now);
            writer.flush(now);
            written += batch.len();
        }
        println!("lines of {length} bytes: {:.0} MB/s", written as f64 / begun.elapsed().as_secs_f64() / 1e6);
    }
    Ok(())
}
