//! `vimana doctor`: what this machine can isolate with.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use hypercore::doctor::{self, Report};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana doctor
  vimana doctor --json | jq '.isolations[] | select(.missing == [])'

Exit code: 0 if at least one isolation works here, 1 otherwise.")]
pub struct Args {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Examines the machine and prints the report.
pub fn run(args: Args, home: &Path) -> Result<ExitCode> {
    let report = doctor::examine(home);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let colours =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        print(&mut out, &report, colours)?;
    }
    Ok(if report.usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(out: &mut impl Write, report: &Report, colours: bool) -> io::Result<()> {
    let mark = |good: bool| match (good, colours) {
        (true, true) => "\x1b[32myes\x1b[0m",
        (true, false) => "yes",
        (false, true) => "\x1b[33mno\x1b[0m ",
        (false, false) => "no ",
    };
    writeln!(out, "Isolations")?;
    for isolation in &report.isolations {
        let accelerator =
            isolation.accelerator.map(|accelerator| accelerator.to_string()).unwrap_or_default();
        let driver = isolation.driver.unwrap_or_default();
        let good = isolation.missing.is_empty();
        let line =
            format!("{:10} {driver:9} {accelerator:4} {}", isolation.kind, isolation.missing.join("; "));
        writeln!(out, "  {} {}", mark(good), line.trim_end())?;
    }
    writeln!(out, "\nThis machine")?;
    for finding in &report.findings {
        writeln!(out, "  {} {:15} {}", mark(finding.good), finding.what, finding.found)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "      {:15} {remedy}", "")?;
        }
    }
    writeln!(out, "\nNot there yet")?;
    report.not_yet.iter().try_for_each(|missing| writeln!(out, "  - {missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercore::doctor::{Finding, Isolation};

    #[test]
    fn a_report_is_one_line_for_each_thing_and_has_no_colours_in_a_pipe() {
        let report = Report {
            version: 1,
            isolations: vec![Isolation {
                kind: "Wasm",
                driver: None,
                accelerator: None,
                missing: vec!["not yet".into()],
            }],
            findings: vec![Finding { what: "QEMU", good: true, found: "/usr/bin/qemu".into(), remedy: None }],
            not_yet: vec!["a jail"],
        };
        let mut out = Vec::new();
        print(&mut out, &report, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(lines.contains(&"no Wasm not yet".to_owned()), "{text}");
        assert!(
            lines.contains(&"yes QEMU /usr/bin/qemu".to_owned()) && lines.contains(&"- a jail".to_owned()),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
    }
}
