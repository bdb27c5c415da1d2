//! The form itself.
//!
//! Source: the OpenMetrics specification 1.0.0, section 3.2 (text format).

use std::fmt::{Display, Write};

/// A text of metric families, one after another.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
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
}

/// A family whose samples are being written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    suffix: &'static str,
}

impl Exposition {
    /// Begins a family. Its name ends with its unit, if it has one.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        unit: Option<&str>,
        help: &str,
    ) -> Family<'_> {
        let (kind, suffix) = match kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
            Kind::Info => ("info", "_info"),
        };
        let text = &mut self.text;
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "# TYPE {name} {kind}");
        if let Some(unit) = unit {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "# HELP {name} {}", escaped(help));
        Family { text, name, suffix }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(self.suffix);
        if !labels.is_empty() {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_specification_says() {
        let mut out = Exposition::default();
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
}
