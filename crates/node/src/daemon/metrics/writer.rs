//! The form itself.
//!
//! Source: the OpenMetrics specification 1.0.0, section 3.2 (text format); for the older one Prometheus' documentation, "Exposition
//! formats".

use std::fmt::{Display, Write};

/// A text of metric families, one after another.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    form: Form,
}

/// Which form a text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Prometheus,
}

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They rise and fall.
    Gauge,
    /// They rise, or begin anew.
    Counter,
    /// They are 1; the labels say something.
    Info,
    /// Buckets, sum and count.
    Histogram,
    /// Quantiles, sum and count.
    Summary,
    /// Nobody says.
    Unknown,
}

/// A family whose samples are being written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    suffix: &'static str,
}

impl Exposition {
    pub(super) fn new(form: Form) -> Self {
        Self { text: String::new(), form }
    }

    /// Begins a family. Its name ends with its unit, if it has one.
    pub(super) fn family<'a>(
        &'a mut self,
        name: &'a str,
        kind: Kind,
        unit: Option<&str>,
        help: &str,
    ) -> Family<'a> {
        let (word, suffix) = match kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
            Kind::Info => ("info", "_info"),
            Kind::Histogram => ("histogram", ""),
            Kind::Summary => ("summary", ""),
            Kind::Unknown => ("unknown", ""),
        };
        let text = &mut self.text;
        // Writing to a string doesn't fail.
        let _ = match self.form {
            Form::OpenMetrics => {
                let unit = unit.map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
                writeln!(text, "# TYPE {name} {word}\n{unit}# HELP {name} {}", escaped(help))
            }
            // There a family has its samples' name, and its help keeps its quotes.
            Form::Prometheus => {
                let word = match kind {
                    Kind::Info => "gauge",
                    Kind::Unknown => "untyped",
                    _ => word,
                };
                let help = help.replace('\\', "\\\\").replace('\n', "\\n");
                writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {word}")
            }
        };
        Family { text, name, suffix }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        write(self.text, &[self.name, self.suffix], labels, value);
    }

    /// Writes one sample of this whole name.
    pub(super) fn named(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        write(self.text, &[name], labels, value);
    }
}

fn write(text: &mut String, name: &[&str], labels: &[(&str, &str)], value: impl Display) {
    name.iter().for_each(|part| text.push_str(part));
    if !labels.is_empty() {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let _ = write!(text, "{{{}}}", labels.join(","));
    }
    let _ = writeln!(text, " {value}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_specification_says() {
        let mut out = Exposition::new(Form::OpenMetrics);
        out.family("a_info_like", Kind::Info, None, "What it is.").sample(&[("version", "1.0")], 1);
        out.family("b_bytes", Kind::Gauge, Some("bytes"), "Quote \" and \\ and\nline.").sample(&[], 7);
        let mut family = out.family("c", Kind::Counter, None, "Many.");
        family.sample(&[("one", "a\\b\"c\nd"), ("two", "")], "1.500");
        family.sample(&[("one", "e"), ("two", "f")], u64::MAX);
        assert_eq!(
            out.finish(),
            r#"# TYPE a_info_like info
# HELP a_info_like What it is.
a_info_like_info{version="1.0"} 1
# TYPE b_bytes gauge
# UNIT b_bytes bytes
# HELP b_bytes Quote \" and \\ and\nline.
b_bytes 7
# TYPE c counter
# HELP c Many.
c_total{one="a\\b\"c\nd",two=""} 1.500
c_total{one="e",two="f"} 18446744073709551615
# EOF
"#
        );
    }

    #[test]
    fn the_older_form_has_other_names_and_no_end() {
        let mut out = Exposition::new(Form::Prometheus);
        out.family("a", Kind::Info, None, "Says \"x\".").sample(&[("v", "1")], 1);
        out.family("b_seconds", Kind::Counter, Some("seconds"), "Time.").sample(&[], 2);
        out.family("c", Kind::Unknown, None, "").named("c", &[], "NaN");
        assert_eq!(
            out.finish(),
            "# HELP a_info Says \"x\".\n# TYPE a_info gauge\na_info{v=\"1\"} 1\n# HELP b_seconds_total Time.\n\
             # TYPE b_seconds_total counter\nb_seconds_total 2\n# HELP c \n# TYPE c untyped\nc NaN\n"
        );
    }
}
