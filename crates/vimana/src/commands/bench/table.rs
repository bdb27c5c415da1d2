//! The report on a terminal. Pure.

use std::fmt::Write;

use super::quantity::digits;
use super::report::{Cell, Report, Role, Row};

/// What colours are good for here: `strong` and `faint` text, and back.
struct Ink {
    strong: &'static str,
    faint: &'static str,
    plain: &'static str,
}

/// The report as lines of text, at most about 100 columns wide.
pub fn table(report: &Report, colours: bool) -> String {
    let ink = match colours {
        true => Ink { strong: "\x1b[1m", faint: "\x1b[2m", plain: "\x1b[0m" },
        false => Ink { strong: "", faint: "", plain: "" },
    };
    let mut out = String::new();
    for row in &report.rows {
        table_of(&mut out, report, row, &ink);
    }
    let median = if report.rounds == 1 {
        "one round".to_owned()
    } else {
        format!("medians of {} rounds", report.rounds)
    };
    line(&mut out, &format!("{}; × is a multiple of the plain process's.", capital(&median)));
    let emulated =
        report.subjects.iter().any(|subject| subject.role == Role::Isolation && subject.id.ends_with("tcg"));
    if emulated {
        line(&mut out, "tcg is emulation: what it costs says nothing about a machine whose KVM works.");
    }
    for (isolation, reason) in &report.missing {
        line(&mut out, &format!("{}not here: {isolation}: {reason}{}", ink.faint, ink.plain));
    }
    out
}

fn table_of(out: &mut String, report: &Report, row: &Row, ink: &Ink) {
    let better = if row.quantity.less_is_better { "less" } else { "more" };
    line(
        out,
        &format!(
            "{}{}{}  {}({better} is better){}",
            ink.strong, row.quantity.title, ink.plain, ink.faint, ink.plain
        ),
    );
    let width = report.subjects.iter().map(|subject| subject.name.chars().count()).max().unwrap_or(0);
    for (index, (subject, cell)) in report.subjects.iter().zip(&row.cells).enumerate() {
        let name = &subject.name;
        match cell {
            Cell::Measured(_) => {
                let value = cell.median().map(|value| row.quantity.unit.show(value)).unwrap_or_default();
                let ratio =
                    report.ratio(row, index).map(|ratio| format!("×{}", digits(ratio))).unwrap_or_default();
                let bare = report.bare_name(subject).zip(report.ratio_to_bare(row, index));
                let bare =
                    bare.map(|(bare, ratio)| format!("×{} of {bare}", digits(ratio))).unwrap_or_default();
                let text = format!("  {name:width$}  {value:>10}  {ratio:>8}  {bare}");
                line(out, text.trim_end());
            }
            Cell::Absent(reason) => {
                line(out, &format!("  {name:width$}  {:>10}  {}{reason}{}", "-", ink.faint, ink.plain));
            }
        }
    }
    line(out, "");
}

fn line(out: &mut String, text: &str) {
    // A string takes everything.
    let _ = writeln!(out, "{text}");
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn a_table_has_value_ratio_and_reason() {
        let text = table(&sample(), false);
        assert!(text.contains("Start  (less is better)\n"), "{text}");
        assert!(text.contains("The <microvm>       1.2 s      ×600  ×1.2 of The <qemu>\n"), "{text}");
        assert!(text.contains("The <qemu>              -  it has none\n"), "{text}");
        assert!(text.contains("not here: TEE: no <hardware>"), "{text}");
        assert!(!text.contains('\x1b'));
    }
}
