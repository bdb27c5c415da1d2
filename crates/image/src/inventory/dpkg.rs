//! dpkg's status file, and the files of `status.d` that Bazel's images have (`dpkg(1)`, `deb-control(5)`).

use super::{MOST_PACKAGES, Record};

pub(super) fn parse(bytes: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut stanza = Stanza::default();
    for line in text.lines() {
        if packages.len() > MOST_PACKAGES {
            break;
        }
        if line.trim().is_empty() {
            packages.extend(std::mem::take(&mut stanza).package());
        } else if !line.starts_with([' ', '\t'])
            && let Some((name, value)) = line.split_once(':')
        {
            stanza.set(name, value.trim());
        }
    }
    packages.extend(stanza.package());
    packages
}

#[derive(Default)]
struct Stanza<'t> {
    name: Option<&'t str>,
    version: Option<&'t str>,
    arch: Option<&'t str>,
    source: Option<&'t str>,
    status: Option<&'t str>,
}

impl<'t> Stanza<'t> {
    fn set(&mut self, name: &str, value: &'t str) {
        let fields = [
            ("Package", &mut self.name),
            ("Version", &mut self.version),
            ("Architecture", &mut self.arch),
            ("Source", &mut self.source),
            ("Status", &mut self.status),
        ];
        for (field, to) in fields {
            if name.eq_ignore_ascii_case(field) {
                *to = Some(value);
            }
        }
    }

    /// What is only configured, or half there, isn't listed; without a status it is there.
    fn package(self) -> Option<Record> {
        let installed = |status: &str| {
            !matches!(status.split_whitespace().nth(2), Some("not-installed" | "config-files"))
        };
        if !self.status.is_none_or(installed) {
            return None;
        }
        let mut record = Record::new(self.name?, self.version?);
        record.arch = self.arch.map(str::to_owned);
        // "glibc (2.36-9)", where the version is there only if it differs.
        record.source = self.source.map(|source| match source.split_once('(') {
            Some((name, version)) => {
                (name.trim().to_owned(), version.trim_end_matches(')').trim().to_owned())
            }
            None => (source.to_owned(), record.version.clone()),
        });
        Some(record)
    }
}
