//! `--timings`: where each millisecond went.

use std::io::{self, Write};

use node::clock::Mark;
use serde_json::json;
use spacecore::wire::message::Step;

/// Prints the moments of a run in order, each with what passed since the one before.
pub fn print(mut marks: Vec<Mark>, guest: &[Step], json: bool) -> io::Result<()> {
    marks.sort_by_key(|mark| mark.at_ns);
    let start = marks.first().map_or(0, |mark| mark.at_ns);
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut err = io::stderr().lock();
    if json {
        let moments: Vec<_> = marks
            .iter()
            .map(|mark| json!({ "moment": mark.name, "at_ms": ms(mark.at_ns - start) }))
            .collect();
        let steps: Vec<_> =
            guest.iter().map(|step| json!({ "step": step.name, "ms": step.us as f64 / 1e3 })).collect();
        return writeln!(
            io::stdout(),
            "{}",
            json!({ "event": "timings", "moments": moments, "guest_steps": steps })
        );
    }
    writeln!(err, "{:>10}  {:>10}", "at ms", "took ms")?;
    let mut before = start;
    for mark in &marks {
        writeln!(err, "{:>10.1}  {:>10.1}  {}", ms(mark.at_ns - start), ms(mark.at_ns - before), mark.name)?;
        before = mark.at_ns;
        if mark.name == "guest configured" {
            for step in guest {
                writeln!(err, "{:>10}  {:>10.1}    in the guest: {}", "", step.us as f64 / 1e3, step.name)?;
            }
        }
    }
    Ok(())
}
