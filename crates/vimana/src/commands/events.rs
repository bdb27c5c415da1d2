//! `vimana events`: what has happened on a node.

use std::io::Write;
use std::process::ExitCode;

use node::daemon::view::Event;

use crate::client::{At, Client, ago};

/// Lists what has happened on the node
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana events
  vimana events -f --json")]
pub struct Args {
    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,
    /// Only events after the one of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Print JSON, one event on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/events?follow={}&after={}", args.follow, args.after);
    let mut torn = Vec::new();
    Client::new(&args.at)?.stream(&path, |chunk| {
        torn.extend_from_slice(chunk);
        let mut out = std::io::stdout().lock();
        while let Some(end) = torn.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = torn.drain(..=end).collect();
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) if !args.json => writeln!(out, "{}", describe(&event))?,
                _ => out.write_all(&line)?,
            }
        }
        out.flush().map(|()| true)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn describe(event: &Event) -> String {
    let whom = event.spacecore.as_ref().or(event.deployment.as_ref()).map_or("-", String::as_str);
    let text = hac::text::printable(&event.text, 1024);
    format!("{:>6}  {:>4}  {whom:<20}  {:<10}  {text}", event.number, ago(event.unix_ms), event.kind)
}
