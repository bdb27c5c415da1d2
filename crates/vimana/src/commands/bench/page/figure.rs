//! One quantity as a plot: a line for each subject, on one logarithmic axis.
//!
//! Names and values are HTML, so that they keep their size on a phone; only dots and lines are SVG, placed by per cent of
//! the width that there is.

use super::super::quantity::{Unit, digits};
use super::super::report::{Cell, Report, Role, Row};
use super::escape;

/// The least ratio between the two ends of an axis: a narrower one would make noise look like a difference.
const LEAST_SPAN: f64 = 4.0;
/// What is left free at either end, as a part of the axis.
const MARGIN: f64 = 0.06;
/// How many ticks fit on a phone.
const TICKS_MAX: usize = 5;

/// Adds the plot of a row.
pub(super) fn figure(out: &mut String, report: &Report, row: &Row) {
    let values = row.cells.iter().flat_map(|cell| match cell {
        Cell::Measured(values) => values.as_slice(),
        Cell::Absent(_) => &[],
    });
    let axis = Axis::of(values.copied());
    let reference = report.subjects.iter().position(|subject| subject.role == Role::Reference);
    let reference = reference.and_then(|index| row.cells.get(index)?.median());
    let ticks = axis.as_ref().map(|axis| axis.ticks(row.quantity.unit)).unwrap_or_default();
    out.push_str("<div class=\"figure\">\n");
    for (index, (subject, cell)) in report.subjects.iter().zip(&row.cells).enumerate() {
        let name = escape(&subject.name);
        out.push_str(&format!("<div class=\"line\"><span class=\"name\">{name}</span>"));
        match (cell, &axis) {
            (Cell::Measured(rounds), Some(axis)) => {
                let median = cell.median().unwrap_or_default();
                let value = row.quantity.unit.show(median);
                let class = class(subject.role);
                out.push_str(&format!("<svg class=\"plot\" role=\"img\" aria-label=\"{name}: {value}\">"));
                for tick in &ticks {
                    out.push_str(&vertical("grid", axis.place(*tick)));
                }
                if let Some(reference) = reference {
                    let (from, to) = (axis.place(reference), axis.place(median));
                    out.push_str(&vertical("reference", from));
                    out.push_str(&format!(
                        "<line class=\"stem {class}\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"50%\" y2=\"50%\"/>"
                    ));
                }
                for round in rounds {
                    let place = axis.place(*round);
                    out.push_str(&format!(
                        "<circle class=\"round {class}\" cx=\"{place:.2}%\" cy=\"50%\" r=\"3\"/>"
                    ));
                }
                let place = axis.place(median);
                out.push_str(&format!(
                    "<circle class=\"dot {class}\" cx=\"{place:.2}%\" cy=\"50%\" r=\"6\"/></svg>"
                ));
                let ratio = report.ratio(row, index).map(|ratio| format!("×{}", digits(ratio)));
                let bare = report.bare_name(subject).zip(report.ratio_to_bare(row, index));
                let bare = bare.map(|(bare, ratio)| {
                    format!("<small class=\"beside\">×{} of {}</small>", digits(ratio), escape(bare))
                });
                out.push_str(&format!(
                    "<span class=\"value\">{value}</span><span class=\"ratio\">{}</span>{}",
                    ratio.unwrap_or_default(),
                    bare.unwrap_or_default()
                ));
            }
            (Cell::Absent(reason), _) => {
                out.push_str(&format!("<span class=\"absent\">{}</span>", escape(reason)));
            }
            (Cell::Measured(_), None) => {}
        }
        out.push_str("</div>\n");
    }
    if let Some(axis) = &axis {
        out.push_str("<div class=\"line axis\" aria-hidden=\"true\"><svg class=\"plot\">");
        for tick in ticks {
            let (place, text) = (axis.place(tick), row.quantity.unit.show(tick));
            out.push_str(&format!("<text x=\"{place:.2}%\" y=\"12\">{text}</text>"));
        }
        out.push_str("</svg></div>\n");
    }
    out.push_str("</div>\n");
}

fn class(role: Role) -> &'static str {
    match role {
        Role::Reference => "reference",
        Role::Bare => "bare",
        Role::Isolation => "isolation",
    }
}

fn vertical(class: &str, place: f64) -> String {
    format!("<line class=\"{class}\" x1=\"{place:.2}%\" x2=\"{place:.2}%\" y1=\"0\" y2=\"100%\"/>")
}

/// A logarithmic axis.
#[derive(Debug)]
struct Axis {
    /// The logarithms of its ends, to the base of 10.
    low: f64,
    high: f64,
}

impl Axis {
    /// The axis on which all these values have a place; none if there is no value above zero.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let logs: Vec<f64> =
            values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10).collect();
        let low = logs.iter().copied().reduce(f64::min)?;
        let high = logs.iter().copied().reduce(f64::max)?;
        let widened = (LEAST_SPAN.log10() - (high - low)).max(0.0) / 2.0;
        let (low, high) = (low - widened, high + widened);
        let margin = (high - low) * MARGIN;
        Some(Self { low: low - margin, high: high + margin })
    }

    /// Where a value lies, in per cent of the width.
    fn place(&self, value: f64) -> f64 {
        let log = if value > 0.0 { value.log10() } else { self.low };
        ((log - self.low) / (self.high - self.low) * 100.0).clamp(0.0, 100.0)
    }

    /// Round numbers on the axis, as many as fit.
    fn ticks(&self, unit: Unit) -> Vec<f64> {
        let scale = unit.scale();
        let shift = scale.log10();
        let decades = (self.low - shift).floor() as i32..=(self.high - shift).ceil() as i32;
        let inside = |value: &f64| (3.0..=97.0).contains(&self.place(*value));
        for steps in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let every = decades
                .clone()
                .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade) * scale));
            let ticks: Vec<f64> = every.filter(inside).collect();
            if ticks.len() <= TICKS_MAX {
                return ticks;
            }
        }
        // Every second or third power of ten.
        let powers: Vec<f64> = decades.map(|decade| 10f64.powi(decade) * scale).filter(inside).collect();
        let stride = powers.len().div_ceil(TICKS_MAX).max(1);
        powers.into_iter().step_by(stride).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_place_on_the_axis() {
        let axis = Axis::of([0.001, 1.0].into_iter()).unwrap();
        assert!(axis.place(0.001) > 3.0 && axis.place(1.0) < 97.0);
        assert!((axis.place(0.031_622_776) - 50.0).abs() < 0.01);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(Axis::of([0.0].into_iter()).is_none());
    }

    #[test]
    fn small_differences_stay_small() {
        let axis = Axis::of([100.0, 104.0].into_iter()).unwrap();
        assert!(axis.place(104.0) - axis.place(100.0) < 3.0);
    }

    #[test]
    fn ticks_are_round_numbers_and_never_too_many() {
        let axis = |low: f64, high: f64| Axis::of([low, high].into_iter()).unwrap();
        assert_eq!(axis(0.0012, 0.9).ticks(Unit::Seconds).len(), 3);
        assert_eq!(axis(1e6, 4e6).ticks(Unit::BytesPerSecond), [1e6, 2e6]);
        let mib = 1024.0 * 1024.0;
        assert_eq!(axis(mib, 40.0 * mib).ticks(Unit::Bytes), [1.0, 2.0, 5.0, 10.0, 20.0].map(|n| n * mib));
        assert!(axis(1.0, 1e12).ticks(Unit::Seconds).len() <= TICKS_MAX);
    }
}
