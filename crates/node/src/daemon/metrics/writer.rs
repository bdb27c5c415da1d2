//! Families of metrics, and the forms that they are written in.
//!
//! Source: the OpenMetrics specification 1.0.0, section 3.2 (text format); for the older one Prometheus' documentation, "Exposition
//! formats".

use std::fmt::{Display, Write};

/// Metric families, one after another.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Exposition {
    families: Vec<Recorded>,
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
pub(in crate::daemon) enum Kind {
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

/// A family with its samples.
#[derive(Debug)]
pub(in crate::daemon) struct Recorded {
    pub(in crate::daemon) name: String,
    pub(in crate::daemon) kind: Kind,
    pub(in crate::daemon) unit: Option<String>,
    pub(in crate::daemon) help: String,
    pub(in crate::daemon) samples: Vec<Sample>,
}

/// One number.
#[derive(Debug)]
pub(in crate::daemon) struct Sample {
    /// The whole name, with its suffix.
    pub(in crate::daemon) name: String,
    pub(in crate::daemon) labels: Vec<(String, String)>,
    pub(in crate::daemon) value: String,
}

/// A family whose samples are being noted.
pub(super) struct Family<'a>(&'a mut Recorded);

impl Kind {
    /// What OpenMetrics calls it, and what samples have behind the family's name.
    fn word(self) -> (&'static str, &'static str) {
        match self {
            Self::Gauge => ("gauge", ""),
            Self::Counter => ("counter", "_total"),
            Self::Info => ("info", "_info"),
            Self::Histogram => ("histogram", ""),
            Self::Summary => ("summary", ""),
            Self::Unknown => ("unknown", ""),
        }
    }
}

impl Exposition {
    /// Begins a family. Its name ends with its unit, if it has one.
    pub(super) fn family(&mut self, name: &str, kind: Kind, unit: Option<&str>, help: &str) -> Family<'_> {
        let (name, help) = (name.to_owned(), help.to_owned());
        let recorded = Recorded { name, kind, unit: unit.map(str::to_owned), help, samples: Vec::new() };
        self.families.push(recorded);
        let last = self.families.len() - 1;
        Family(&mut self.families[last])
    }

    /// All of them.
    pub(in crate::daemon) fn families(&self) -> &[Recorded] {
        &self.families
    }

    /// The whole text.
    pub(in crate::daemon) fn text(&self, form: Form) -> String {
        let mut text = String::new();
        for family in &self.families {
            // Writing to a string doesn't fail.
            let _ = family.write(&mut text, form);
        }
        if form == Form::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

impl Recorded {
    fn write(&self, text: &mut String, form: Form) -> std::fmt::Result {
        let (name, (word, suffix)) = (&self.name, self.kind.word());
        match form {
            Form::OpenMetrics => {
                writeln!(text, "# TYPE {name} {word}")?;
                if let Some(unit) = &self.unit {
                    writeln!(text, "# UNIT {name} {unit}")?;
                }
                writeln!(text, "# HELP {name} {}", escaped(&self.help))?;
            }
            // There a family has its samples' name, and its help keeps its quotes.
            Form::Prometheus => {
                let word = match self.kind {
                    Kind::Info => "gauge",
                    Kind::Unknown => "untyped",
                    Kind::Gauge | Kind::Counter | Kind::Histogram | Kind::Summary => word,
                };
                let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
                writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {word}")?;
            }
        }
        for Sample { name, labels, value } in &self.samples {
            text.push_str(name);
            if !labels.is_empty() {
                let labels: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
                write!(text, "{{{}}}", labels.join(","))?;
            }
            writeln!(text, " {value}")?;
        }
        Ok(())
    }
}

impl Family<'_> {
    /// Notes one sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let name = format!("{}{}", self.0.name, self.0.kind.word().1);
        self.named(&name, labels, value);
    }

    /// Notes one sample of this whole name.
    pub(super) fn named(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.0.samples.push(Sample { name: name.to_owned(), labels, value: value.to_string() });
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
            out.text(Form::OpenMetrics),
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
        let mut out = Exposition::default();
        out.family("a", Kind::Info, None, "Says \"x\".").sample(&[("v", "1")], 1);
        out.family("b_seconds", Kind::Counter, Some("seconds"), "Time.").sample(&[], 2);
        out.family("c", Kind::Unknown, None, "").named("c", &[], "NaN");
        assert_eq!(
            out.text(Form::Prometheus),
            "# HELP a_info Says \"x\".\n# TYPE a_info gauge\na_info{v=\"1\"} 1\n# HELP b_seconds_total Time.\n\
             # TYPE b_seconds_total counter\nb_seconds_total 2\n# HELP c \n# TYPE c untyped\nc NaN\n"
        );
    }
}
