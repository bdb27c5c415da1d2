//! `vimana logs`: what a spacecore has said.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use node::log::line::time;
use node::log::{Stream, parse_line};

use crate::client::{At, Client, check_name};

/// Prints what a spacecore has written, each stream where it belongs
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana logs web
  vimana logs web -f --tail 20
  vimana logs web --since 10m --timestamps")]
pub struct Args {
    /// The spacecore
    name: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only what was written so long ago at most, such as 90s, 10m, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = parse_ago)]
    since: Option<u64>,
    /// Begin each line with when it was written
    #[arg(short, long)]
    timestamps: bool,
    /// What the spacecore wrote that had this name before, until its deployment was removed and made anew
    #[arg(long, conflicts_with = "follow")]
    before: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (client, name) = (Client::new(&args.at)?, check_name(&args.name)?);
    let mut path = format!("/v1/spacecores/{name}/logs?follow={}", args.follow);
    if args.before {
        path.push_str("&before=true");
    }
    if let Some(lines) = args.tail {
        path.push_str(&format!("&tail={lines}"));
    }
    if let Some(ago_ms) = args.since {
        let now_ms = node::clock::unix_time_ns() / 1_000_000;
        path.push_str(&format!("&since_unix_ms={}", now_ms.saturating_sub(ago_ms)));
    }
    let mut printer = Printer { timestamps: args.timestamps, torn: Vec::new() };
    client.stream(&path, |chunk| printer.print(chunk).map(|()| true))?;
    Ok(ExitCode::SUCCESS)
}

/// Takes stored lines apart and prints what was written.
struct Printer {
    timestamps: bool,
    /// The beginning of a line whose end hasn't come yet.
    torn: Vec<u8>,
}

impl Printer {
    fn print(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.torn.extend_from_slice(chunk);
        let Some(end) = self.torn.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.torn.split_off(end.saturating_add(1));
        let lines = std::mem::replace(&mut self.torn, rest);
        let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = parse_line(line) else { continue };
            let to: &mut dyn Write = match line.stream {
                Stream::Stdout => &mut out,
                Stream::Stderr => &mut err,
            };
            if self.timestamps {
                write!(to, "{} ", time(line.unix_ns))?;
            }
            to.write_all(line.text)?;
            if line.full {
                to.write_all(b"\n")?;
            }
        }
        out.flush()
    }
}

/// A length of time in milliseconds.
fn parse_ago(text: &str) -> anyhow::Result<u64> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let ms = match unit {
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => bail!("{other:?} is no unit of time; s, m, h and d are"),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms)) {
        Some(ms) => Ok(ms),
        None => bail!("{text:?} is no length of time; 90s, 10m, 2h and 1d are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_number_and_perhaps_a_unit() {
        assert_eq!(parse_ago("90").unwrap(), 90_000);
        assert_eq!(parse_ago("2h").unwrap(), 7_200_000);
        for wrong in ["", "h", "1w", "-1s", "99999999999999999999d"] {
            assert!(parse_ago(wrong).is_err(), "{wrong}");
        }
    }
}
