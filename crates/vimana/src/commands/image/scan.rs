//! `vimana image scan`: what is known against the packages of an image.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use evidence::advisory::Finding;
use hac::policy::Severity;
use image::Store;
use image::advisories::{Advisories, Scan};
use node::home::Home;
use node::policy::{Gate, decide};
use serde_json::json;

/// The exit code if a finding is at the threshold or above it.
const FOUND: u8 = 3;

/// Looks the packages of an image up in a folder of advisories
///
/// The folder holds OSV's JSON files, or archives of them (https://osv-vulnerabilities.storage.googleapis.com/ECOSYSTEM/all.zip).
/// Nothing is asked of any network. Without --advisories it is the folder that policy.toml names; what that file ignores
/// doesn't fail the scan.
///
/// Exit codes: 0 if nothing is at the threshold or above it; 3 if something is; 1 if the scan failed; 2 for arguments that
/// can't be read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana image scan debian:12 --advisories /srv/osv
  vimana image scan alpine:3.20 --advisories /srv/osv --threshold critical
  vimana image scan app --json | jq -r '.findings[].advisory'")]
pub(super) struct Args {
    /// The folder of advisories [default: scan.advisories of policy.toml]
    #[arg(long, value_name = "DIR")]
    advisories: Option<PathBuf>,
    /// From which severity on a finding fails the scan [default: scan.threshold of policy.toml, or high]
    #[arg(long, value_name = "low|medium|high|critical")]
    threshold: Option<Severity>,
    /// The severity that an advisory counts as which names none [default: scan.unrated of policy.toml, or high]
    #[arg(long, value_name = "LEVEL")]
    unrated: Option<Severity>,
    #[command(flatten)]
    looked_at: super::LookedAt,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(store: &Store, home: &Path, args: Args) -> Result<ExitCode> {
    let gate = Gate::open(&Home::at(home))?;
    let Some(folder) = args.advisories.clone().or_else(|| gate.advisories()) else {
        bail!(
            "which advisories? --advisories names their folder, or scan.advisories in {}",
            gate.path().display()
        );
    };
    let mut policy = gate.policy.scan.clone();
    policy.threshold = args.threshold.unwrap_or(policy.threshold);
    policy.unrated = args.unrated.unwrap_or(policy.unrated);
    let image = args.looked_at.stored_or_pulled(store)?;
    let advisories = Advisories::open(&folder, &gate.index_cache(), &progress)?;
    let scan = advisories.scan(&image.inventory()?)?;
    let today = node::policy::today();
    let failing = scan.findings.iter().filter(|finding| decide::fails(&policy, finding, today)).count();
    if args.json {
        let document = json!({
            "reference": image.reference.to_string(),
            "digest": image.digest,
            "platform": image.platform,
            "advisories": { "folder": advisories.folder(), "digest": advisories.digest(), "count": advisories.count() },
            "threshold": policy.threshold,
            "unrated": policy.unrated,
            "failing": failing,
            "packages": scan.packages,
            "findings": scan.findings,
            "unread": scan.unread,
        });
        super::print_json(&document)?;
    } else {
        show(&scan, advisories.count(), policy.threshold, failing)?;
    }
    Ok(if failing > 0 { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// Shows on a terminal that a large folder is being read.
fn progress(files: u64) {
    if files.is_multiple_of(1000) && io::stderr().is_terminal() {
        // Progress that can't be shown is no reason to stop.
        let _ = write!(io::stderr(), "\rreading the advisories, once: {files}\x1b[K");
    }
}

fn show(scan: &Scan, advisories: u64, threshold: Severity, failing: usize) -> Result<()> {
    let mut out = io::stdout().lock();
    if !scan.findings.is_empty() {
        let header = ["PACKAGE", "VERSION", "FIXED IN", "ADVISORY", "SEVERITY", "SUMMARY"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(header).chain(scan.findings.iter().map(row)).collect();
        super::print_table(&mut out, &rows)?;
        writeln!(out)?;
    }
    let found = scan.findings.len();
    writeln!(
        out,
        "packages: {}, advisories: {advisories}, findings: {found}, {threshold} or worse: {failing}",
        scan.packages
    )?;
    for line in &scan.unread {
        writeln!(io::stderr(), "not read: {}", hac::text::printable(line, 1000))?;
    }
    Ok(())
}

fn row(finding: &Finding) -> [String; 6] {
    let severity = match &finding.rating {
        Some(rating) => match &rating.score {
            Some(score) => format!("{} ({score})", rating.level),
            None => rating.level.to_string(),
        },
        None => "not rated".to_owned(),
    };
    let cells = [
        finding.package.clone(),
        finding.version.clone(),
        finding.fixed.clone().unwrap_or_else(|| "-".to_owned()),
        finding.advisory.clone(),
        severity,
        finding.summary.clone(),
    ];
    cells.map(|cell| hac::text::printable(&cell, 60))
}
